using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;
using VTunnel.Protocol.Mux;

namespace VTunnel.EndToEnd.Tests.Mux;

/// <summary>One of the programs in <c>tests/peers/yamux</c>: another implementation of yamux, in a process of its own.</summary>
internal sealed class YamuxPeer : IAsyncDisposable
{
    private static readonly SemaphoreSlim Installing = new(1);
    private readonly Process _process;
    private readonly StringBuilder _errors = new();

    private YamuxPeer(Process process)
    {
        _process = process;
        process.ErrorDataReceived += (_, e) =>
        {
            lock (_errors)
                _errors.AppendLine(e.Data);
        };
        process.BeginErrorReadLine();
    }

    /// <summary>What the peer wrote to its standard error.</summary>
    public string Errors
    {
        get
        {
            lock (_errors)
                return _errors.ToString();
        }
    }

    private static string Folder
    {
        get
        {
            var folder = new DirectoryInfo(AppContext.BaseDirectory);
            while (folder is not null && !File.Exists(Path.Combine(folder.FullName, "VTunnel.sln")))
                folder = folder.Parent;
            Assert.True(folder is not null, "The tests run from within the repository, which has the peers.");
            return Path.Combine(folder.FullName, "tests", "peers", "yamux");
        }
    }

    /// <summary>Starts the peer in the given role and connects to it in the other.</summary>
    public static async Task<(YamuxPeer Peer, YamuxConnection Connection)> ConnectAsync(string script, MuxRole peerRole)
    {
        await InstallAsync();
        var peer = new YamuxPeer(Start("node", script, peerRole == MuxRole.Dialer ? "dialer" : "acceptor"));
        var socket = new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        try
        {
            var port = int.Parse(await peer.ReadLineAsync(), CultureInfo.InvariantCulture);
            await socket.ConnectAsync(IPAddress.Loopback, port);
            return (peer, new YamuxConnection(socket, peerRole == MuxRole.Dialer ? MuxRole.Acceptor : MuxRole.Dialer));
        }
        catch
        {
            socket.Dispose();
            await peer.DisposeAsync();
            throw;
        }
    }

    /// <summary>The next line of the peer's standard output.</summary>
    public async Task<string> ReadLineAsync() =>
        await _process.StandardOutput.ReadLineAsync().WaitAsync(TimeSpan.FromSeconds(60))
        ?? throw new InvalidOperationException($"The peer ended without a word: {Errors}");

    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
            _process.Kill();
        await _process.WaitForExitAsync();
        _process.Dispose();
    }

    private static async Task InstallAsync()
    {
        await Installing.WaitAsync();
        try
        {
            // What is installed is what the lock file says, or is installed anew.
            var locked = await File.ReadAllTextAsync(Path.Combine(Folder, "package-lock.json"));
            var marker = Path.Combine(Folder, "node_modules", ".installed-lock.json");
            if (File.Exists(marker) && await File.ReadAllTextAsync(marker) == locked)
                return;

            using var npm = Start("npm", "ci", "--no-audit", "--no-fund");
            var output = npm.StandardOutput.ReadToEndAsync();
            var errors = npm.StandardError.ReadToEndAsync();
            await npm.WaitForExitAsync().WaitAsync(TimeSpan.FromMinutes(5));
            Assert.True(npm.ExitCode == 0, $"npm ci failed: {await output}{await errors}");
            await File.WriteAllTextAsync(marker, locked);
        }
        finally
        {
            Installing.Release();
        }
    }

    private static Process Start(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(program, arguments)
        {
            WorkingDirectory = Folder,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        return Process.Start(start) ?? throw new InvalidOperationException($"{program} did not start.");
    }
}
