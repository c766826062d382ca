using System.Net;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Hosting;
using VTunnel.Options;
using VTunnel.Routing;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Proxy;

public sealed class RoutingTests
{
    private static Task<WebServer> StartSiteAsync(string name) => WebServer.StartAsync(app => app.Run(async context =>
    {
        var length = 0L;
        var buffer = new byte[64 * 1024];
        while (await context.Request.Body.ReadAsync(buffer) is > 0 and var count)
            length += count;
        await context.Response.WriteAsync($"{name} {context.Request.Method} {context.Request.Host}{context.Request.Path}{context.Request.QueryString} {length}\n");
    }));

    [Theory]
    [InlineData(ProtocolPreference.V1)]
    [InlineData(ProtocolPreference.V2)]
    public async Task Forwarded_domains_go_to_the_client_and_everything_else_goes_direct(ProtocolPreference protocol)
    {
        await using var behind = await StartSiteAsync("behind");
        await using var beside = await StartSiteAsync("beside");
        await using var pair = await ProxyPair.StartAsync(
            [$"api.test=127.0.0.1:{behind.Port}", $"*.wild.test:8080=127.0.0.1:{behind.Port}", $"bücher.test=127.0.0.1:{behind.Port}"], protocol: protocol);

        Assert.Equal("behind GET api.test/a%2Fb?q=%41 0\n", await pair.CurlAsync("http://api.test/a%2Fb?q=%41"));
        Assert.Equal("behind POST api.test./ 5\n", await pair.CurlAsync("-d", "hello", "http://API.test.:80/"));
        Assert.Equal("behind GET api.test/ 0\n", await pair.CurlAsync("-p", "http://api.test/"));
        Assert.Equal("behind GET a.b.wild.test:8080/ 0\n", await pair.CurlAsync("http://a.b.wild.test:8080/"));
        Assert.Equal("behind GET xn--bcher-kva.test/ 0\n", await pair.CurlAsync("http://xn--bcher-kva.test/"));
        Assert.Equal($"beside GET direct.test:{beside.Port}/ 0\n", await pair.CurlAsync($"http://direct.test:{beside.Port}/"));
        Assert.Equal($"beside GET direct.test:{beside.Port}/ 0\n", await pair.CurlAsync("-p", $"http://direct.test:{beside.Port}/"));

        await pair.Host.Log.Lines.WaitForAsync("GET api.test:80, tunnel session-1: 200");
        await pair.Host.Log.Lines.WaitForAsync($"CONNECT direct.test:{beside.Port}, direct: 200");
        Assert.DoesNotContain(pair.Host.Log.Lines.Lines, line => line.Contains("q=%41", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_forward_of_a_port_to_another_host_is_a_route_and_one_to_the_clients_own_machine_is_not()
    {
        await using var site = await StartSiteAsync("behind");
        await using var pair = await ProxyPair.StartAsync([]);
        await pair.Client.ListenAsync(new ForwardRule(FreePorts.Next(), new ForwardTarget(TargetScheme.Tcp, "127.0.0.1", site.Port))).WaitAsync(TestTimeouts.Step);
        await pair.Client.ListenAsync(ForwardRule.Parse($"{FreePorts.Next()}=10.255.255.1:{site.Port}")).WaitAsync(TestTimeouts.Step);
        Assert.Equal("403", await pair.CurlAsync("-o", "/dev/null", "-w", "%{http_code}", $"http://127.0.0.1:{site.Port}/"));

        // Nothing answers at that address; what matters is that the client, not the server, is asked for it.
        await pair.TryCurlAsync("-m", "1", $"http://10.255.255.1:{site.Port}/");
        await pair.Host.Log.Lines.WaitForAsync($"GET 10.255.255.1:{site.Port}, tunnel session-1");
    }

    [Fact]
    public async Task Two_domains_and_their_answers_use_no_port_of_the_server_over_v2()
    {
        await using var pair = await ProxyPair.StartAsync(["a.test=127.0.0.1:1", "b.test=127.0.0.1:1"]);
        Assert.DoesNotContain((await pair.Host.GetStatusAsync()).Sessions.SelectMany(session => session.Forwards), forward => forward.Port is not null);
    }

    [Fact]
    public async Task An_error_says_which_leg_failed()
    {
        await using var site = await StartSiteAsync("x");
        await using var pair = await ProxyPair.StartAsync(
            ["refused.test=127.0.0.1:1", "unknown.test=no-such-host.invalid:80", "tls.test=tls://127.0.0.1:1"],
            proxy => proxy.Allowed = [.. new[] { "*.invalid" }.Select(Pattern)]);

        async Task ExpectAsync(string status, string reason, string url)
        {
            var answer = await pair.CurlAsync("-w", " %{http_code}", url);
            Assert.Contains(reason, answer, StringComparison.Ordinal);
            Assert.EndsWith(" " + status, answer, StringComparison.Ordinal);
            var tunnel = await pair.TryCurlAsync("-p", "-w", "%{http_connect}", url);
            Assert.Equal(status, tunnel.StandardOutput);
        }

        await ExpectAsync("502", "refused.test:80, behind the tunnel: cannot reach 127.0.0.1:1: connection refused", "http://refused.test/");
        await ExpectAsync("502", "the name 'no-such-host.invalid' was not found", "http://unknown.test/");
        await ExpectAsync("502", "the name 'nobody.invalid' was not found", "http://nobody.invalid/");
        await ExpectAsync("502", "cannot reach direct.test:1: connection refused", "http://direct.test:1/");
        await ExpectAsync("403", "127.0.0.1:1 is this machine itself", "http://127.0.0.1:1/");
        await ExpectAsync("403", "169.254.169.254:80 is a link-local address", "http://169.254.169.254/latest/meta-data/");
        Assert.Equal("vtunnel: tls.test:80, behind the tunnel: cannot reach tls://127.0.0.1:1: connection refused\n", await pair.CurlAsync("http://tls.test/"));
        await pair.Host.Log.Lines.WaitForAsync("Target tls://127.0.0.1:1 gave a request no answer: tls.test:80, behind the tunnel: cannot reach tls://127.0.0.1:1: connection refused");
        await pair.Host.Log.Lines.WaitForAsync(
            line => line.Contains("GET nobody.invalid:80, direct: 502", StringComparison.Ordinal) && line.EndsWith(": the name 'nobody.invalid' was not found", StringComparison.Ordinal), "why");
        Assert.Contains("this is an HTTP proxy", (await Tools.RunAsync("curl", ["-sS", pair.Url])).StandardOutput, StringComparison.Ordinal);
    }

    private static HostPattern Pattern(string text) =>
        HostPattern.TryParse(text, out var pattern, out var problem) ? pattern : throw new FormatException(problem);

    [Fact]
    public async Task A_policy_of_denial_leaves_what_clients_forward_and_what_is_listed()
    {
        await using var site = await StartSiteAsync("site");
        await using var pair = await ProxyPair.StartAsync(
            [$"api.test=127.0.0.1:{site.Port}"],
            proxy =>
            {
                proxy.AllowDirect = false;
                proxy.Allowed = [Pattern("*.test")];
            });
        Assert.StartsWith("site GET", await pair.CurlAsync("http://api.test/"), StringComparison.Ordinal);
        Assert.StartsWith("site GET", await pair.CurlAsync($"http://direct.test:{site.Port}/"), StringComparison.Ordinal);
        Assert.EndsWith(" 403", await pair.CurlAsync("-w", " %{http_code}", "http://example.org/"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_password_is_asked_for_compared_and_kept_from_targets_and_the_log()
    {
        await using var site = await WebServer.StartAsync(app => app.Run(context =>
            context.Response.WriteAsync(string.Join(',', context.Request.Headers.Select(header => header.Key).Order()))));
        await using var pair = await ProxyPair.StartAsync(
            [$"api.test=127.0.0.1:{site.Port}"], proxy => proxy.Credentials = [new ProxyCredential("ci", new Secret("s3cret:x"))]);
        foreach (var wrong in new[] { "", "ci:wrong", "ci:", "other:s3cret:x", "ci:s3cret:x2" })
        {
            var answer = await pair.CurlAsync("-w", " %{http_code}", "-U", wrong.Length > 0 ? wrong : ":", "http://api.test/");
            Assert.EndsWith(" 407", answer, StringComparison.Ordinal);
        }

        Assert.Equal("Accept,Host,User-Agent", await pair.CurlAsync("-U", "ci:s3cret:x", "http://api.test/"));
        Assert.Equal("Accept,Host,User-Agent", await pair.CurlAsync("-p", "-U", "ci:s3cret:x", "http://api.test/"));
        Assert.DoesNotContain(pair.Host.Log.Lines.Lines, line => line.Contains("s3cret", StringComparison.Ordinal) || line.Contains("Y2k6", StringComparison.Ordinal));
    }

    [Fact]
    public async Task The_log_says_of_each_request_where_it_went_and_how_much_it_was_and_nothing_secret()
    {
        using var authority = new TestAuthority();
        await using var site = await StartSiteAsync("site");
        await using var pair = await ProxyPair.StartAsync([$"api.test=127.0.0.1:{site.Port}"], proxy =>
        {
            authority.Use(proxy);
            proxy.Credentials = [new ProxyCredential("ci", new Secret("s3cret-1"))];
        });
        string[] secret = ["-k", "-U", "ci:s3cret-1", "-H", "Authorization: Bearer s3cret-2", "-H", "Cookie: a=s3cret-3"];
        await pair.CurlAsync([.. secret, "-d", "hello", "http://api.test/s3cret-4?token=s3cret-5"]);
        await pair.CurlAsync([.. secret, "https://api.test/s3cret-4?token=s3cret-5"]);
        await pair.TryCurlAsync([.. secret, "http://127.0.0.1:1/s3cret-4?token=s3cret-5"]);
        using (var visitor = await pair.ConnectAsync())
        {
            await visitor.WriteAsync("GET http://user:s3cret-6@api.test/s3cret-4 HTTP/1.1\r\nHost: api.test\r\n\r\n");
            Assert.StartsWith("HTTP/1.1 400", await visitor.ReadToEndAsync(), StringComparison.Ordinal);
        }

        foreach (var expected in new[]
        {
            @"POST api\.test:80, tunnel session-1: 200, 5 bytes in, \d+ bytes out, \d+ ms, for 127\.0\.0\.1:\d+$",
            @"GET api\.test:443, tunnel session-1: 200, 0 bytes in, \d+ bytes out, \d+ ms, for 127\.0\.0\.1:\d+$",
            @"CONNECT api\.test:443, tunnel session-1 intercepted: 200, ",
            @"GET 127\.0\.0\.1:1, direct: 403, 0 bytes in, \d+ bytes out, ",
            @"GET -, refused: 400, ",
        })
        {
            await pair.Host.Log.Lines.WaitForAsync(line => System.Text.RegularExpressions.Regex.IsMatch(line, expected), expected);
        }

        Assert.DoesNotContain(pair.Host.Log.Lines.Lines, line => line.Contains("s3cret", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Of_two_clients_with_one_domain_the_newer_gets_it_and_the_older_gets_it_back()
    {
        await using var older = await StartSiteAsync("older");
        await using var newer = await StartSiteAsync("newer");
        await using var pair = await ProxyPair.StartAsync([$"api.test=127.0.0.1:{older.Port}"]);
        Assert.StartsWith("older", await pair.CurlAsync("http://api.test/"), StringComparison.Ordinal);
        await using (var second = await pair.Host.ConnectAsync(options => options.Protocol = ProtocolPreference.V2))
        {
            await second.ListenAsync(ForwardRule.Parse($"api.test=127.0.0.1:{newer.Port}")).WaitAsync(TestTimeouts.Step);
            Assert.StartsWith("newer", await pair.CurlAsync("http://api.test/"), StringComparison.Ordinal);
        }

        await pair.Host.WaitForSessionsAsync(1);
        Assert.StartsWith("older", await pair.CurlAsync("http://api.test/"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task After_a_thousand_reconnects_there_is_one_route_and_one_listener_and_after_the_last_end_none()
    {
        const int Reconnects = 1000;
        await using var pair = await ProxyPair.StartAsync([]);
        var port = FreePorts.Next();
        var peer = await pair.Host.ConnectByHandAsync();
        for (var i = 0; i < Reconnects; i++)
        {
            await peer.SendAsync($$"""{"type":"listen","port":{{port}},"local_addr":"gitlab.example.test:443"}""");
            Assert.Equal("listen_ok", (await peer.ReceiveAsync()).Type);
            if (i == Reconnects - 1)
                break;
            await peer.DisposeAsync();
            peer = await pair.Host.ConnectByHandAsync();
        }

        await pair.Host.WaitForSessionsAsync(2);
        Assert.Equal(port, Assert.Single((await pair.Host.GetStatusAsync()).Sessions.SelectMany(session => session.Forwards)).Port);
        using (var visitor = await pair.ConnectAsync())
        {
            await visitor.WriteAsync("CONNECT gitlab.example.test:443 HTTP/1.1\r\nHost: gitlab.example.test:443\r\n\r\n");
            Assert.StartsWith("HTTP/1.1 200", await visitor.ReadUntilAsync("\r\n\r\n"), StringComparison.Ordinal);
        }

        await peer.DisposeAsync();
        await pair.Host.WaitForSessionsAsync(1);
        Assert.DoesNotContain((await pair.Host.GetStatusAsync()).Sessions.SelectMany(session => session.Forwards), forward => forward.Port is not null);
        Assert.Contains("was not found", await pair.CurlAsync("http://gitlab.example.test:443/"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Requests_wait_for_a_tunnel_that_comes_back_and_are_answered_504_when_it_does_not()
    {
        await using var site = await StartSiteAsync("site");
        await using var host = await TunnelHost.StartAsync(options =>
        {
            options.Proxy = new ProxyOptions();

            // Time for curl to start, even on a loaded machine.
            options.ResumeWindow = TimeSpan.FromSeconds(10);
        });
        await using var link = FaultProxy.Start(host.Address.Port);
        await using var client = TunnelClient.Create(new TunnelClientOptions
        {
            Server = new UriBuilder(host.Address) { Port = link.Port }.Uri,
            Protocol = ProtocolPreference.V2,
            AutoReconnect = true,
            ReconnectMin = TimeSpan.FromMilliseconds(20),
            ReconnectMax = TimeSpan.FromMilliseconds(50),
            DrainTimeout = TimeSpan.Zero,
        });
        await client.ConnectAsync().WaitAsync(TestTimeouts.Step);
        await client.ListenAsync(ForwardRule.Parse($"api.test=127.0.0.1:{site.Port}")).WaitAsync(TestTimeouts.Step);
        var proxy = $"http://{host.ProxyAddress}";

        link.RefusesConnections = true;
        await link.CutAsync(ProxyCut.Reset);
        await host.Log.Lines.WaitForAsync("has lost its connection and waits");
        var waiting = Tools.RunAsync("curl", ["-sS", "-x", proxy, "http://api.test/"]);
        await host.WaitForStatusAsync(status => status.Sessions is [{ IsConnected: false, Streams: 1 }]);
        link.RefusesConnections = false;
        Assert.StartsWith("site GET", (await waiting).StandardOutput, StringComparison.Ordinal);

        link.RefusesConnections = true;
        await link.CutAsync(ProxyCut.Reset);
        await host.Log.Lines.WaitForCountAsync("has lost its connection and waits", 2);
        var late = await Tools.TryRunAsync("curl", ["-sS", "-w", " %{http_code}", "-x", proxy, "http://api.test/"]);
        Assert.Equal("vtunnel: api.test:80 cannot be reached: the tunnel to it is down\n 504", late.StandardOutput);
    }
}
