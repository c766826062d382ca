using VTunnel.Testing;
using VTunnel.Testing.Network;
using VTunnel.Testing.Programs;

namespace VTunnel.EndToEnd.Tests.Support;

/// <summary>nginx with a configuration of a test.</summary>
internal sealed class Nginx : IAsyncDisposable
{
    private readonly RunningProgram _program;
    private readonly TempDirectory _folder;

    private Nginx(RunningProgram program, TempDirectory folder, int port)
    {
        _program = program;
        _folder = folder;
        Port = port;
    }

    public int Port { get; }

    /// <summary>Starts it and waits until it listens.</summary>
    /// <param name="servers">The server blocks for the loopback port that they are given.</param>
    public static async Task<Nginx> StartAsync(Func<int, string> servers)
    {
        await Tools.EnsureInstalledAsync();
        var port = FreePorts.Next();
        var folder = new TempDirectory();
        folder.MakeDirectory("temp");
        var configuration = folder.Write("nginx.conf", $$"""
            daemon off;
            master_process off;
            pid {{folder.File("nginx.pid")}};
            error_log stderr notice;
            events { worker_connections 1024; }
            http {
              access_log off;
              client_max_body_size 0;
              client_body_temp_path {{folder.File("temp")}};
              proxy_temp_path {{folder.File("temp")}};
              fastcgi_temp_path {{folder.File("temp")}};
              uwsgi_temp_path {{folder.File("temp")}};
              scgi_temp_path {{folder.File("temp")}};
              {{servers(port)}}
            }
            """);
        var program = RunningProgram.Start(Tools.Find("nginx"), ["-p", folder.Path, "-e", "stderr", "-c", configuration]);
        var nginx = new Nginx(program, folder, port);
        try
        {
            // Its sockets listen before it says that it starts.
            await program.Output.WaitForAsync("using the \"");
            await program.Output.WaitForAsync("OS: ");
            return nginx;
        }
        catch
        {
            await nginx.DisposeAsync();
            throw;
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _program.DisposeAsync();
        _folder.Dispose();
    }
}
