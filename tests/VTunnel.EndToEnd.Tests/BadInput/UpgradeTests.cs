using System.Net;
using System.Net.WebSockets;
using System.Security.Cryptography;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Options;
using VTunnel.Testing;

namespace VTunnel.EndToEnd.Tests.BadInput;

/// <summary>Requests to the tunnel's path that get no tunnel.</summary>
public sealed class UpgradeTests
{
    private static readonly AccessToken Token = new("alice", SHA256.HashData("the-right-token-of-alice"u8), []);

    [Fact]
    public async Task A_plain_GET_is_told_to_upgrade()
    {
        await using var host = await TunnelHost.StartAsync();
        using var http = new HttpClient();
        using var response = await http.GetAsync(new UriBuilder(host.Address) { Scheme = "http" }.Uri);

        Assert.Equal(HttpStatusCode.UpgradeRequired, response.StatusCode);
        Assert.Equal("websocket", response.Headers.Upgrade.ToString());
        Assert.Equal("this is a tunnel endpoint: connect with a WebSocket\n", await response.Content.ReadAsStringAsync());
        await host.Log.Lines.WaitForAsync("(status 426)");
    }

    [Theory]
    [InlineData(null)]
    [InlineData("Bearer the-wrong-token")]
    [InlineData("Bearer the-right-token-of-alice-and-more")]
    [InlineData("Bearer the-right-token-of-alic")]
    [InlineData("Bearer")]
    [InlineData("Bearer ")]
    [InlineData("Basic the-right-token-of-alice")]
    [InlineData("the-right-token-of-alice")]
    public async Task Without_the_right_token_the_answer_is_401_and_nothing_else(string? authorization)
    {
        await using var host = await TunnelHost.StartAsync(server => server.Tokens = [Token]);
        using var http = new HttpClient();
        using var request = new HttpRequestMessage(HttpMethod.Get, new UriBuilder(host.Address) { Scheme = "http" }.Uri);
        if (authorization is not null)
            request.Headers.TryAddWithoutValidation("Authorization", authorization);
        request.Headers.Add("Origin", "https://evil.example");
        using var response = await http.SendAsync(request);

        Assert.Equal(HttpStatusCode.Unauthorized, response.StatusCode);
        Assert.Equal("Bearer", response.Headers.WwwAuthenticate.ToString());
        await host.Log.Lines.WaitForAsync("a valid bearer token is required (status 401)");
        Assert.Equal(0, host.Log.Lines.CountOf("the-right-token"));
        Assert.Equal(0, host.Log.Lines.CountOf("the-wrong-token"));

        var refusal = await Assert.ThrowsAsync<WebSocketException>(() => host.ConnectByHandAsync(options =>
        {
            if (authorization is not null)
                options.SetRequestHeader("Authorization", authorization);
        }));
        Assert.Contains("401", refusal.Message, StringComparison.Ordinal);
        Assert.Empty((await host.GetStatusAsync()).Sessions);
    }

    [Fact]
    public async Task With_the_right_token_the_session_has_its_name()
    {
        await using var host = await TunnelHost.StartAsync(server => server.Tokens = [Token]);
        await using var peer = await host.ConnectByHandAsync(options => options.SetRequestHeader("Authorization", "bearer the-right-token-of-alice"));
        await peer.ExpectPongAsync();
        await host.Log.Lines.WaitForAsync("identity alice");
    }

    [Fact]
    public async Task A_web_page_gets_in_only_if_its_origin_is_named()
    {
        await using var host = await TunnelHost.StartAsync(server => server.AllowedOrigins = ["https://app.example.com"]);
        foreach (var foreign in new[] { "https://evil.example", "http://app.example.com", "https://app.example.com:444", "null" })
        {
            var refusal = await Assert.ThrowsAsync<WebSocketException>(() =>
                host.ConnectByHandAsync(options => options.SetRequestHeader("Origin", foreign)));
            Assert.Contains("403", refusal.Message, StringComparison.Ordinal);
        }

        Assert.Equal(4, host.Log.Lines.CountOf("(status 403)"));
        await using var allowed = await host.ConnectByHandAsync(options => options.SetRequestHeader("Origin", "https://app.example.com"));
        await allowed.ExpectPongAsync();
    }

    [Fact]
    public async Task No_web_page_gets_in_by_default()
    {
        await using var host = await TunnelHost.StartAsync();
        var refusal = await Assert.ThrowsAsync<WebSocketException>(() =>
            host.ConnectByHandAsync(options => options.SetRequestHeader("Origin", $"http://127.0.0.1:{host.Address.Port}")));
        Assert.Contains("403", refusal.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task One_session_beyond_the_limit_is_answered_503_until_one_has_left()
    {
        await using var host = await TunnelHost.StartAsync(server => server.MaxSessions = 1);
        await using var first = await host.ConnectByHandAsync();
        var refusal = await Assert.ThrowsAsync<WebSocketException>(() => host.ConnectByHandAsync());
        Assert.Contains("503", refusal.Message, StringComparison.Ordinal);
        await host.Log.Lines.WaitForAsync("the server is at its limit of 1 sessions (status 503)");
        await first.ExpectPongAsync();

        await first.CloseAsync();
        await using var next = await ConnectWhenFreeAsync(host);
        await next.ExpectPongAsync();
    }

    private static async Task<HandPeer> ConnectWhenFreeAsync(TunnelHost host)
    {
        using var deadline = new CancellationTokenSource(TestTimeouts.Step);
        while (true)
        {
            try
            {
                return await host.ConnectByHandAsync();
            }
            catch (WebSocketException) when (!deadline.IsCancellationRequested)
            {
                // The place is free a moment after the goodbye.
            }
        }
    }
}
