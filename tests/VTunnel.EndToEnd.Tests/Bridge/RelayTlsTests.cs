using VTunnel.Bridge.State;
using VTunnel.EndToEnd.Tests.CommandLine;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Protocol.Bridge;
using VTunnel.Testing;
using VTunnel.Testing.Network;
using VTunnel.Testing.Programs;

namespace VTunnel.EndToEnd.Tests.Bridge;

/// <summary>TLS between the relay and everybody else: its own, or that of a proxy in front, with certificates of a private authority.</summary>
public sealed class RelayTlsTests
{
    [Fact]
    public async Task A_relay_is_reached_through_nginx_and_through_caddy()
    {
        await Tools.EnsureInstalledAsync();
        using var certificates = new TestCertificates();
        using var folder = new TempDirectory();
        await using var service = TargetServer.StartEcho();

        // On all interfaces without TLS: the proxies are in front.
        await using var lab = await BridgeLab.StartAsync(relayOptions: ["--host", "0.0.0.0", "--behind-proxy"]);
        var ports = FreePorts.Next(4);
        await using var nginx = await StartNginxAsync(certificates, ports[0], lab.Port);
        await using var caddy = await StartCaddyAsync(certificates, ports[1], lab.Port);
        foreach (var (name, front, local) in new[] { ("by-nginx", ports[0], ports[2]), ("by-caddy", ports[1], ports[3]) })
        {
            lab.Join(name, $"wss://localhost:{front}/", certificates.AuthorityFile);
            lab.CreateUser(name, $"user-{name}", new UserChange { Add = [new BridgeGrant(local, "127.0.0.1", service.Port)] });
            var publisher = lab.Start(name, "serve", []);
            await publisher.Output.WaitForAsync("waiting for consumers");
            await lab.ConnectAsync($"user-{name}");
            await Payload.EchoOnceAsync(local, 5_000_000).WaitAsync(TestTimeouts.Step);
        }
    }

    [Fact]
    public async Task A_relay_speaks_TLS_by_itself_and_takes_a_renewed_certificate_without_a_restart_and_no_damaged_one()
    {
        using var first = new TestCertificates();
        using var second = new TestCertificates();
        using var folder = new TempDirectory();
        await using var service = TargetServer.StartEcho();
        var (port, local) = (FreePorts.Next(), FreePorts.Next());
        var url = $"wss://localhost:{port}/";
        var (certificate, key) = (folder.File("cert.pem"), folder.File("key.pem"));
        File.Copy(first.CertificateFile, certificate);
        File.Copy(first.KeyFile, key);
        string code;
        using (var store = RelayStore.Initialize(folder.File("relay"), "localhost", new Uri(url)))
            code = store.Invite(TimeProvider.System.GetUtcNow(), TimeSpan.FromHours(1));
        await using var relay = VTunnelProgram.Start(
            ["relay", "--host", "127.0.0.1", "--port", $"{port}", "--tls-cert", certificate, "--tls-key", key, "--state-dir", folder.File("relay")]);
        await relay.Output.WaitForAsync("Listening on ws");

        // Whoever does not trust that authority does not get through, and does not use up the code.
        var stranger = await VTunnelProgram.RunAsync("join", url, code, "--state-dir", folder.File("stranger"));
        Assert.Equal(4, stranger.ExitCode);
        Assert.Contains("certificate was refused", stranger.Errors[0], StringComparison.Ordinal);
        await VTunnelAsync(folder, "publisher", "join", url, code, "--ca", first.AuthorityFile, "--name", "office");
        await VTunnelAsync(folder, "publisher", "create", "user", "alice", "-m", $"{local}:{service.Port}");
        await VTunnelAsync(folder, "publisher", "export", "user", "alice", "--out", folder.File("alice.zip"));
        await using var publisher = VTunnelProgram.Start(["serve", "--state-dir", folder.File("publisher")]);
        await using var consumer = VTunnelProgram.Start(["connect", folder.File("alice.zip"), "--state-dir", folder.File("alice")]);
        await consumer.Output.WaitForAsync("Connected to office");
        await Payload.EchoOnceAsync(local, 5_000_000).WaitAsync(TestTimeouts.Step);

        File.Copy(second.CertificateFile, certificate, overwrite: true);
        File.Copy(second.KeyFile, key, overwrite: true);
        await Polling.UntilAsync(async () => await CurlAsync(second, port) == 0);
        await File.WriteAllTextAsync(certificate, "damaged");
        await Polling.UntilAsync(async () =>
        {
            Assert.Equal(0, await CurlAsync(second, port));
            return relay.Output.CountOf("the former certificate stays") > 0;
        });
        await Payload.EchoOnceAsync(local).WaitAsync(TestTimeouts.Step);
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

    private static async Task<IAsyncDisposable> StartCaddyAsync(TestCertificates certificates, int tlsPort, int relayPort) => await Caddy.StartAsync($$"""
        https://localhost:{{tlsPort}} {
            tls {{certificates.CertificateFile}} {{certificates.KeyFile}}
            reverse_proxy 127.0.0.1:{{relayPort}}
        }
        """);

    private static async Task<int> CurlAsync(TestCertificates certificates, int port) =>
        (await Tools.TryRunAsync("curl", ["-sS", "--cacert", certificates.AuthorityFile, "-o", "/dev/null", $"https://localhost:{port}/"])).ExitCode;

    private static async Task VTunnelAsync(TempDirectory folder, string state, params string[] arguments)
    {
        var result = await VTunnelProgram.RunAsync([.. arguments, "--state-dir", folder.File(state)]);
        Assert.True(result.ExitCode == 0, $"vtunnel {string.Join(' ', arguments)}: {string.Join('\n', result.Errors)}");
    }
}
