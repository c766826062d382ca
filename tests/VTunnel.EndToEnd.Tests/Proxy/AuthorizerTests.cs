using System.Collections.Concurrent;
using System.Net;
using Akka.Actor;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Extensions;
using VTunnel.Hosting;
using VTunnel.Options;

namespace VTunnel.EndToEnd.Tests.Proxy;

/// <summary>An authoriser and visitors of the proxy.</summary>
public sealed class AuthorizerTests
{
    private readonly ConcurrentQueue<StreamInfo> _asked = new();
    private readonly ConcurrentQueue<AuthorizationProtocol.AuthorizeListen> _listens = new();

    private static Task<WebServer> StartSiteAsync() => WebServer.StartAsync(app => app.Run(context => context.Response.WriteAsync($"at {context.Request.Host}\n")));

    /// <summary>Lets everybody listen; <paramref name="mayVisit"/> decides about visitors.</summary>
    private Task<ProxyPair> StartAsync(string[] forwards, Func<StreamInfo, bool> mayVisit, Action<ProxyOptions>? proxy = null) => ProxyPair.StartAsync(
        forwards, proxy, extend: builder => builder.AddVTunnelAuthorizer(_ => Props.Create(() => new Authorizer(_asked, _listens, mayVisit))));

    [Fact]
    public async Task Each_visitor_is_asked_about_once_for_each_host_with_his_address_and_what_he_asks_for()
    {
        await using var site = await StartSiteAsync();
        await using var pair = await StartAsync([$"a.test=127.0.0.1:{site.Port}", $"*.b.test=127.0.0.1:{site.Port}"], _ => true);
        Assert.Equal(["a.test", "*.b.test"], _listens.Select(listen => listen.Domain));

        // Two visitors; the connections to the target are shared between them. The first asks for three hosts on one connection.
        await pair.CurlAsync("http://a.test/", "http://a.test/again", "http://x.b.test/", "http://y.b.test/", "http://a.test/");
        await pair.CurlAsync("http://a.test/");
        await pair.CurlAsync("-p", "http://a.test/");

        Assert.Equal(["a.test:80", "x.b.test:80", "y.b.test:80", "a.test:80", "a.test:80"], _asked.Select(asked => asked.Domain));
        Assert.All(_asked, asked => Assert.True(IPEndPoint.TryParse(asked.Remote ?? "", out var remote) && IPAddress.IsLoopback(remote.Address)));
        Assert.Equal(3, _asked.Select(asked => asked.Remote).Distinct().Count());
    }

    [Theory]
    [InlineData("http://secret.test/")]
    [InlineData("-p http://secret.test/")]
    public async Task A_visitor_that_is_denied_gets_403_and_no_reason_and_the_log_has_it(string request)
    {
        await using var site = await StartSiteAsync();
        await using var pair = await StartAsync(
            [$"open.test=127.0.0.1:{site.Port}", $"secret.test=127.0.0.1:{site.Port}"], visitor => visitor.Domain == "open.test:80");

        Assert.Equal("at open.test\n", await pair.CurlAsync("http://open.test/"));
        var denied = await pair.TryCurlAsync(["-w", "%{http_code} %{http_connect}", .. request.Split(' ')]);

        Assert.Contains("403", denied.StandardOutput, StringComparison.Ordinal);
        Assert.DoesNotContain("not for you", denied.StandardOutput, StringComparison.Ordinal);
        await pair.Host.Log.Lines.WaitForAsync(
            line => line.Contains("session-1 secret.test:80: visitor 127.0.0.1:", StringComparison.Ordinal) && line.EndsWith("was denied: not for you", StringComparison.Ordinal),
            "the denial");
    }

    [Fact]
    public async Task A_visitor_whose_TLS_ends_at_the_proxy_is_asked_about_by_his_own_address()
    {
        using var authority = new TestAuthority();
        await using var site = await StartSiteAsync();
        await using var pair = await StartAsync(
            [$"a.test:443=127.0.0.1:{site.Port}"], visitor => visitor.Remote is not null, authority.Use);

        Assert.Equal("at a.test\n", await pair.CurlAsync("-k", "https://a.test/"));

        Assert.Equal("a.test:443", Assert.Single(_asked).Domain);
    }

    private sealed class Authorizer : ReceiveActor
    {
        public Authorizer(ConcurrentQueue<StreamInfo> asked, ConcurrentQueue<AuthorizationProtocol.AuthorizeListen> listens, Func<StreamInfo, bool> mayVisit)
        {
            Receive<AuthorizationProtocol.AuthorizeListen>(listen =>
            {
                listens.Enqueue(listen);
                Sender.Tell(AuthorizationProtocol.Allowed.Instance);
            });
            Receive<AuthorizationProtocol.AuthorizeConnect>(connect =>
            {
                asked.Enqueue(connect.Stream);
                Sender.Tell(mayVisit(connect.Stream) ? AuthorizationProtocol.Allowed.Instance : new AuthorizationProtocol.Denied("not for you"));
            });
        }
    }
}
