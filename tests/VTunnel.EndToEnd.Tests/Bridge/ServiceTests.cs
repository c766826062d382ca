using System.Globalization;
using System.Net.WebSockets;
using CliWrap;
using CliWrap.Buffered;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using VTunnel.EndToEnd.Tests.CommandLine;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;
using VTunnel.Testing.Network;
using VTunnel.Testing.Programs;

namespace VTunnel.EndToEnd.Tests.Bridge;

/// <summary>Other people's services through a bridge.</summary>
public sealed class ServiceTests(RunningLab shared) : IClassFixture<RunningLab>
{
    /// <summary>PostgreSQL does not run as root.</summary>
    private static string[] AsNobody => Environment.IsPrivilegedProcess ? [Tools.Find("setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups"] : [];

    [Fact]
    public async Task PostgreSQL_and_Redis_work_through_a_bridge()
    {
        await Tools.EnsureInstalledAsync();
        using var folder = new TempDirectory();
        var data = folder.MakeDirectory("data");
        if (!OperatingSystem.IsWindows())
            System.IO.File.SetUnixFileMode(folder.Path, (UnixFileMode)0b111_111_111);
        var ports = FreePorts.Next(4);
        if (Environment.IsPrivilegedProcess)
            await RunAsync(["chown", "-R", "65534:65534", folder.Path]);
        await RunAsync([.. AsNobody, Tools.Find("initdb"), "-D", data, "-U", "tester", "-A", "trust", "--no-sync"]);
        await using var postgres = Start([.. AsNobody, Tools.Find("postgres"), "-D", data, "-p", $"{ports[0]}", "-k", folder.Path, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]);
        await using var ending = new EndInOrder(postgres);
        await using var redis = Start([Tools.Find("redis-server"), "--port", $"{ports[1]}", "--bind", "127.0.0.1", "--save", "", "--dir", folder.Path]);
        await postgres.Output.WaitForAsync("ready to accept connections");
        await redis.Output.WaitForAsync("eady to accept connections");
        var lab = shared.Lab;
        lab.CreateUser("dba", (ports[2], ports[0]), (ports[3], ports[1]));
        await lab.ConnectAsync("dba");

        string[] server = ["-h", "127.0.0.1", "-p", $"{ports[2]}", "-U", "tester", "postgres"];
        await RunAsync([Tools.Find("pgbench"), "-i", "-q", .. server]);
        var bench = await RunAsync([Tools.Find("pgbench"), "-c", "4", "-t", "100", .. server]);
        Assert.Contains("number of transactions actually processed: 400/400", bench, StringComparison.Ordinal);

        string[] client = [Tools.Find("redis-cli"), "-h", "127.0.0.1", "-p", $"{ports[3]}"];
        Assert.Equal("OK", (await RunAsync([.. client, "SET", "key", new string('v', 100_000)])).Trim());
        Assert.Equal("100000", (await RunAsync([.. client, "STRLEN", "key"])).Trim());
    }

    [Fact]
    public async Task SSH_works_through_a_bridge()
    {
        await Tools.EnsureInstalledAsync();
        using var folder = new TempDirectory();
        var ports = FreePorts.Next(2);
        foreach (var key in new[] { "host", "user" })
            await RunAsync([Tools.Find("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", folder.File(key)]);
        folder.Write("sshd_config", $"""
            Port {ports[0]}
            ListenAddress 127.0.0.1
            HostKey {folder.File("host")}
            AuthorizedKeysFile {folder.File("user.pub")}
            PidFile none
            UsePAM no
            StrictModes no
            PermitRootLogin yes
            """);

        // It separates its privileges into this folder, which a boot would have made.
        if (Environment.IsPrivilegedProcess)
            Directory.CreateDirectory("/run/sshd");
        await using var sshd = Start([Tools.Find("sshd"), "-D", "-e", "-f", folder.File("sshd_config")]);
        await sshd.Output.WaitForAsync("Server listening");
        var lab = shared.Lab;
        lab.CreateUser("shell", (ports[1], ports[0]));
        await lab.ConnectAsync("shell");

        var answer = await RunAsync(
        [
            "bash", "-c", "\"$@\" | sha256sum", "ssh", Tools.Find("ssh"), "-p", $"{ports[1]}", "-i", folder.File("user"), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-o", "BatchMode=yes", $"{Environment.UserName}@127.0.0.1", "head -c 5000000 /dev/zero",
        ]);
        Assert.StartsWith("b39781589c4403fb82174c9647a010464cff38bad976547d339899b00053a545", answer, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_browser_shows_a_page_with_parts_and_a_web_socket_through_a_bridge()
    {
        await Tools.EnsureInstalledAsync();
        using var folder = new TempDirectory();
        await using var site = await WebServer.StartAsync(app =>
        {
            app.UseWebSockets();
            app.Run(ServePageAsync);
        });
        var lab = shared.Lab;
        var local = FreePorts.Next();
        lab.CreateUser("surfer", (local, site.Port));
        await lab.ConnectAsync("surfer");

        var page = await RunAsync(
        [
            Tools.Find("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--no-proxy-server",
            $"--user-data-dir={folder.File("chromium")}", "--virtual-time-budget=20000", "--dump-dom", $"http://127.0.0.1:{local}/",
        ]);

        Assert.Contains("<p id=\"scripts\">40</p>", page, StringComparison.Ordinal);
        Assert.Contains("<p id=\"large\">5000000</p>", page, StringComparison.Ordinal);
        Assert.Contains("<p id=\"socket\">hello</p>", page, StringComparison.Ordinal);
    }

    private static async Task ServePageAsync(HttpContext context)
    {
        if (context.WebSockets.IsWebSocketRequest)
        {
            using var socket = await context.WebSockets.AcceptWebSocketAsync();
            await socket.SendAsync("hello"u8.ToArray(), WebSocketMessageType.Text, true, CancellationToken.None);
            await socket.ReceiveAsync(new byte[1], CancellationToken.None);
            return;
        }

        switch (context.Request.Path.Value)
        {
            case "/":
                var scripts = string.Concat(Enumerable.Range(0, 40).Select(number => $"<script src=\"/script/{number}.js\"></script>"));
                context.Response.ContentType = "text/html";
                await context.Response.WriteAsync($$"""
                    <!doctype html><p id="scripts"></p><p id="large"></p><p id="socket"></p><script>let scripts = 0;</script>{{scripts}}
                    <script>
                      const show = (id, text) => document.getElementById(id).textContent = text;
                      show('scripts', scripts);
                      fetch('/large').then(answer => answer.arrayBuffer()).then(large => show('large', large.byteLength));
                      const socket = new WebSocket(`ws://${location.host}/socket`);
                      socket.onmessage = e => { show('socket', e.data); socket.close(); };
                    </script>
                    """);
                break;
            case "/large":
                await context.Response.Body.WriteAsync(new byte[5_000_000]);
                break;
            case { } path when path.StartsWith("/script/", StringComparison.Ordinal):
                context.Response.ContentType = "text/javascript";
                await context.Response.WriteAsync("scripts++;");
                break;
            default:
                context.Response.StatusCode = StatusCodes.Status404NotFound;
                break;
        }
    }

    private static RunningProgram Start(IReadOnlyList<string> command, IReadOnlyDictionary<string, string?>? environment = null) =>
        RunningProgram.Start(command[0], command.Skip(1), environment);

    /// <summary>Ends a program as Ctrl-C would: a PostgreSQL that is killed leaves memory behind that it shared with its processes.</summary>
    private sealed class EndInOrder(RunningProgram program) : IAsyncDisposable
    {
        public async ValueTask DisposeAsync()
        {
            program.TrySignal(ProgramSignal.Interrupt);
            await program.WaitForExitAsync();
        }
    }

    private static async Task<string> RunAsync(IReadOnlyList<string> command)
    {
        using var deadline = new CancellationTokenSource(TestTimeouts.Long);
        var result = await CliWrap.Cli.Wrap(command[0]).WithArguments(command.Skip(1)).WithValidation(CommandResultValidation.None).ExecuteBufferedAsync(deadline.Token);
        Assert.True(result.ExitCode == 0, string.Create(CultureInfo.InvariantCulture, $"{string.Join(' ', command)}: {result.ExitCode}\n{result.StandardOutput}\n{result.StandardError}"));
        return result.StandardOutput;
    }
}
