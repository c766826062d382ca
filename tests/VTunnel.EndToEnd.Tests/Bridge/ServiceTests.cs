using System.Globalization;
using CliWrap;
using CliWrap.Buffered;
using VTunnel.EndToEnd.Tests.CommandLine;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;
using VTunnel.Testing.Network;
using VTunnel.Testing.Programs;

namespace VTunnel.EndToEnd.Tests.Bridge;

/// <summary>Other people's services through a bridge, and other people's proxies in front of a relay.</summary>
public sealed class ServiceTests
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
        await using var redis = Start([Tools.Find("redis-server"), "--port", $"{ports[1]}", "--bind", "127.0.0.1", "--save", "", "--dir", folder.Path]);
        await postgres.Output.WaitForAsync("ready to accept connections");
        await redis.Output.WaitForAsync("eady to accept connections");
        await using var lab = await BridgeLab.StartAsync();
        await lab.CreateUserAsync("alice", "-m", $"{ports[2]}:{ports[0]}", "-m", $"{ports[3]}:{ports[1]}");
        await lab.ServeAsync();
        await lab.ConnectAsync("alice");

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
        await using var lab = await BridgeLab.StartAsync();
        await lab.CreateUserAsync("alice", "-m", $"{ports[1]}:{ports[0]}");
        await lab.ServeAsync();
        await lab.ConnectAsync("alice");

        var answer = await RunAsync(
        [
            "bash", "-c", "\"$@\" | sha256sum", "ssh", Tools.Find("ssh"), "-p", $"{ports[1]}", "-i", folder.File("user"), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
            "-o", "BatchMode=yes", $"{Environment.UserName}@127.0.0.1", "head -c 5000000 /dev/zero",
        ]);
        Assert.StartsWith("b39781589c4403fb82174c9647a010464cff38bad976547d339899b00053a545", answer, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("own")]
    [InlineData("nginx")]
    [InlineData("caddy")]
    public async Task A_relay_speaks_TLS_by_itself_and_behind_a_proxy(string how)
    {
        await Tools.EnsureInstalledAsync();
        using var certificates = new TestCertificates();
        using var folder = new TempDirectory();
        await using var service = TargetServer.StartEcho();
        var (relayPort, tlsPort, local) = (FreePorts.Next(), FreePorts.Next(), FreePorts.Next());
        var url = $"wss://localhost:{(how == "own" ? relayPort : tlsPort)}/";
        await VTunnelAsync(folder, "relay", "relay", "init", "--domain", "localhost", "--url", url);
        string[] tls = how == "own" ? ["--tls-cert", certificates.CertificateFile, "--tls-key", certificates.KeyFile] : ["--no-tls"];
        await using var relay = VTunnelProgram.Start(["relay", "--host", "127.0.0.1", "--port", $"{relayPort}", .. tls, "--state-dir", folder.File("relay")]);
        await relay.Output.WaitForAsync("Listening on ws");
        await using var proxy = how switch
        {
            "nginx" => await StartNginxAsync(certificates, tlsPort, relayPort),
            "caddy" => await StartCaddyAsync(folder, certificates, tlsPort, relayPort),
            _ => null,
        };

        var code = (await VTunnelAsync(folder, "relay", "relay", "invite", "--quiet")).Trim();
        await VTunnelAsync(folder, "publisher", "join", url, code, "--ca", certificates.AuthorityFile, "--name", "office");
        await VTunnelAsync(folder, "publisher", "create", "user", "alice", "-m", $"{local}:{service.Port}");
        await VTunnelAsync(folder, "publisher", "export", "user", "alice", "--out", folder.File("alice.zip"));
        await using var publisher = VTunnelProgram.Start(["serve", "--state-dir", folder.File("publisher")]);
        await using var consumer = VTunnelProgram.Start(["connect", folder.File("alice.zip"), "--state-dir", folder.File("alice")]);
        await consumer.Output.WaitForAsync("Connected to office");
        await Payload.EchoOnceAsync(local, 5_000_000).WaitAsync(TestTimeouts.Step);

        // Whoever does not trust that authority does not get through.
        var other = await VTunnelProgram.RunAsync("join", url, code, "--state-dir", folder.File("other"));
        Assert.Equal(4, other.ExitCode);
        Assert.Contains("certificate was refused", other.Errors[0], StringComparison.Ordinal);
    }

    private static async Task<IAsyncDisposable> StartNginxAsync(TestCertificates certificates, int tlsPort, int relayPort) => await Nginx.StartAsync(_ => $$"""
        server {
            listen 127.0.0.1:{{tlsPort}} ssl;
            ssl_certificate {{certificates.CertificateFile}};
            ssl_certificate_key {{certificates.KeyFile}};
            location / {
                proxy_pass http://127.0.0.1:{{relayPort}};
                proxy_http_version 1.1;
                proxy_set_header Upgrade $http_upgrade;
                proxy_set_header Connection "upgrade";
                proxy_set_header Host $host;
                proxy_read_timeout 1h;
                proxy_buffering off;
            }
        }
        """);

    private static async Task<IAsyncDisposable> StartCaddyAsync(TempDirectory folder, TestCertificates certificates, int tlsPort, int relayPort)
    {
        var file = folder.Write("Caddyfile", $$"""
            {
                admin off
                auto_https off
                storage file_system {{folder.File("caddy")}}
            }
            https://localhost:{{tlsPort}} {
                tls {{certificates.CertificateFile}} {{certificates.KeyFile}}
                reverse_proxy 127.0.0.1:{{relayPort}}
            }
            """);
        var caddy = Start([Tools.Find("caddy"), "run", "--config", file, "--adapter", "caddyfile"], new Dictionary<string, string?> { ["HOME"] = folder.Path });
        await caddy.Output.WaitForAsync("serving initial configuration");
        return caddy;
    }

    [Fact]
    public async Task A_renewed_certificate_is_used_without_a_restart_and_a_damaged_one_is_not()
    {
        using var first = new TestCertificates();
        using var second = new TestCertificates("renewed.example.com");
        using var folder = new TempDirectory();
        var port = FreePorts.Next();
        var (certificate, key) = (folder.File("cert.pem"), folder.File("key.pem"));
        System.IO.File.Copy(first.CertificateFile, certificate);
        System.IO.File.Copy(first.KeyFile, key);
        await VTunnelAsync(folder, "relay", "relay", "init", "--domain", "localhost", "--url", $"wss://localhost:{port}/");
        await using var relay = VTunnelProgram.Start(
            ["relay", "--host", "127.0.0.1", "--port", $"{port}", "--tls-cert", certificate, "--tls-key", key, "--state-dir", folder.File("relay")]);
        await relay.Output.WaitForAsync("Listening on ws");
        Assert.Equal(0, await CurlAsync(first, port));

        System.IO.File.Copy(second.CertificateFile, certificate, overwrite: true);
        System.IO.File.Copy(second.KeyFile, key, overwrite: true);
        await UntilAsync(async () => await CurlAsync(second, port) == 0);
        await System.IO.File.WriteAllTextAsync(certificate, "damaged");
        await UntilAsync(async () =>
        {
            Assert.Equal(0, await CurlAsync(second, port));
            return relay.Output.CountOf("the former certificate stays") > 0;
        });
    }

    private static async Task<int> CurlAsync(TestCertificates certificates, int port) =>
        (await Tools.TryRunAsync("curl", ["-sS", "--cacert", certificates.AuthorityFile, "-o", "/dev/null", $"https://localhost:{port}/"])).ExitCode;

    private static async Task UntilAsync(Func<Task<bool>> condition)
    {
        using var clock = new PeriodicTimer(TimeSpan.FromMilliseconds(100));
        using var deadline = new CancellationTokenSource(TestTimeouts.Step);
        while (!await condition())
            await clock.WaitForNextTickAsync(deadline.Token);
    }

    private static async Task<string> VTunnelAsync(TempDirectory folder, string state, params string[] arguments)
    {
        var result = await VTunnelProgram.RunAsync([.. arguments, "--state-dir", folder.File(state)]);
        Assert.True(result.ExitCode == 0, $"vtunnel {string.Join(' ', arguments)}: {string.Join('\n', result.Errors)}");
        return result.Output;
    }

    private static RunningProgram Start(IReadOnlyList<string> command, IReadOnlyDictionary<string, string?>? environment = null) =>
        RunningProgram.Start(command[0], command.Skip(1), environment);

    private static async Task<string> RunAsync(IReadOnlyList<string> command)
    {
        using var deadline = new CancellationTokenSource(TestTimeouts.Long);
        var result = await CliWrap.Cli.Wrap(command[0]).WithArguments(command.Skip(1)).WithValidation(CommandResultValidation.None).ExecuteBufferedAsync(deadline.Token);
        Assert.True(result.ExitCode == 0, string.Create(CultureInfo.InvariantCulture, $"{string.Join(' ', command)}: {result.ExitCode}\n{result.StandardOutput}\n{result.StandardError}"));
        return result.StandardOutput;
    }
}
