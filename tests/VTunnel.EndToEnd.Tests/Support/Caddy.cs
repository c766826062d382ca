using VTunnel.Testing;
using VTunnel.Testing.Programs;

namespace VTunnel.EndToEnd.Tests.Support;

/// <summary>caddy with a configuration of a test.</summary>
internal sealed class Caddy : IAsyncDisposable
{
    private readonly RunningProgram _program;
    private readonly TempDirectory _folder;

    private Caddy(RunningProgram program, TempDirectory folder)
    {
        _program = program;
        _folder = folder;
    }

    /// <summary>Starts it and waits until it listens.</summary>
    /// <param name="sites">The blocks of its sites, with their addresses.</param>
    public static async Task<Caddy> StartAsync(string sites)
    {
        await Tools.EnsureInstalledAsync();
        var folder = new TempDirectory();
        var file = folder.Write("Caddyfile", $$"""
            {
                admin off
                auto_https off
                storage file_system {{folder.File("storage")}}
            }
            {{sites}}
            """);
        var program = RunningProgram.Start(Tools.Find("caddy"), ["run", "--config", file, "--adapter", "caddyfile"], new Dictionary<string, string?> { ["HOME"] = folder.Path });
        var caddy = new Caddy(program, folder);
        try
        {
            await program.Output.WaitForAsync("serving initial configuration");
            return caddy;
        }
        catch
        {
            await caddy.DisposeAsync();
            throw;
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _program.DisposeAsync();
        _folder.Dispose();
    }
}
