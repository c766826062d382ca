using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Expose;

public sealed class TlsTests : IDisposable
{
    private readonly TestCertificates _certificates = new();

    public void Dispose() => _certificates.Dispose();

    [Fact]
    public async Task A_server_with_a_private_authority_is_trusted_by_its_file_or_on_ones_own_risk()
    {
        await using var echo = TargetServer.StartEcho();
        await using var server = await ServerProgram.StartAsync(["-tls-cert", _certificates.CertificateFile, "-tls-key", _certificates.KeyFile]);
        var url = $"wss://localhost:{server.Port}/";

        foreach (var trust in (string[][])[["-ca", _certificates.AuthorityFile], ["-insecure"]])
        {
            var port = FreePorts.Next();
            await using var client = await ClientProgram.StartAsync(url, port, echo.Port, trust);
            await Payload.EchoOnceAsync(port, 3_000_000).WaitAsync(TestTimeouts.Step);
        }

        await using var stranger = ClientProgram.Start(url, [(FreePorts.Next(), $"127.0.0.1:{echo.Port}")], "-no-reconnect");
        Assert.Equal(VTunnel.Cli.ExitCodes.CannotConnect, await stranger.Program.WaitForExitAsync());
        await stranger.Program.Output.WaitForAsync("TLS");
    }

    [Fact]
    public async Task A_server_and_its_proxy_take_a_renewed_certificate_without_a_restart_and_no_damaged_one()
    {
        await Tools.EnsureInstalledAsync();
        using var renewed = new TestCertificates();
        using var folder = new TempDirectory();
        var (certificate, key) = (folder.File("cert.pem"), folder.File("key.pem"));
        File.Copy(_certificates.CertificateFile, certificate);
        File.Copy(_certificates.KeyFile, key);
        await using var server = await ServerProgram.StartAsync(["-tls-cert", certificate, "-tls-key", key, "-proxy", "0"]);
        var proxy = "https://localhost:" + (await server.Program.Output.WaitForAsync("Proxy listening on ")).Split(':')[^1];
        Assert.True(await AreTrustedAsync(_certificates));

        File.Copy(renewed.KeyFile, key, overwrite: true);
        File.Copy(renewed.CertificateFile, certificate, overwrite: true);
        await Polling.UntilAsync(() => AreTrustedAsync(renewed));
        await File.WriteAllTextAsync(certificate, "damaged");
        await Polling.UntilAsync(async () =>
        {
            Assert.True(await AreTrustedAsync(renewed));
            return server.Program.Output.CountOf("the former certificate stays") > 0;
        });

        async Task<bool> AreTrustedAsync(TestCertificates trusted) =>
            (await Tools.TryRunAsync("curl", ["-sS", "--cacert", trusted.AuthorityFile, $"https://localhost:{server.Port}/health"])).ExitCode == 0
            && (await Tools.TryRunAsync("curl", ["-sS", "-x", proxy, "--proxy-cacert", trusted.AuthorityFile, "http://nobody.invalid/"])).ExitCode == 0;
    }

    [Fact]
    public async Task A_virtual_hosted_site_that_speaks_TLS_answers_visitors_that_do_not()
    {
        // Who names another host gets another server: by the name in the handshake none at all, by the Host header an error.
        await using var site = await Nginx.StartAsync(port => $$"""
            server {
              listen 127.0.0.1:{{port}} ssl default_server;
              ssl_reject_handshake on;
            }
            server {
              listen 127.0.0.1:{{port}} ssl;
              server_name localhost;
              ssl_certificate {{_certificates.CertificateFile}};
              ssl_certificate_key {{_certificates.KeyFile}};
              if ($http_host != "localhost:{{port}}") { return 421 "no such host here: $http_host"; }
              location = / { return 200 "the virtual host, asked by $request_method"; }
            }
            """);
        await using var server = await ServerProgram.StartAsync();
        var port = FreePorts.Next();
        await using var client = await ClientProgram.StartAsync(
            server.Url, [(port, $"tls://localhost:{site.Port}")], "-target-ca", _certificates.AuthorityFile);

        var url = $"http://127.0.0.1:{port}/";
        var pages = await Tools.RunAsync("curl", ["-sS", "-w", " %{http_code} %{num_connects}\n", url, url]);
        Assert.Equal("the virtual host, asked by GET 200 1\nthe virtual host, asked by GET 200 0\n", pages.StandardOutput);
        var other = await Tools.RunAsync("curl", ["-sS", "-w", " %{http_code}", "-X", "OPTIONS", "-H", "Host: visitors.example", url]);
        Assert.Equal("the virtual host, asked by OPTIONS 200", other.StandardOutput);
    }
}
