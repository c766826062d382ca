using System.Net.Sockets;
using System.Net.WebSockets;
using System.Text;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Proxy;

/// <summary>What visitors of the proxy may send, and what they must not.</summary>
public sealed class HttpTests
{
    private static Task<WebServer> StartEchoAsync() => WebServer.StartAsync(app => app.Run(async context =>
    {
        using var reader = new StreamReader(context.Request.Body, Encoding.Latin1);
        var body = await reader.ReadToEndAsync();
        var headers = context.Request.Headers.Select(header => $"{header.Key}={header.Value}").Order(StringComparer.Ordinal);
        await context.Response.WriteAsync($"[{context.Request.Method} {context.Request.Path}|{string.Join('|', headers)}|{body}]");
    }));

    [Fact]
    public async Task Requests_are_pipelined_on_one_connection_with_bodies_of_both_kinds()
    {
        await using var site = await StartEchoAsync();
        await using var pair = await ProxyPair.StartAsync([$"api.test=127.0.0.1:{site.Port}"]);
        using var connection = await pair.ConnectAsync();
        await connection.WriteAsync(
            "GET http://api.test/1 HTTP/1.1\r\nHost: api.test\r\n\r\n" +
            "POST http://api.test/2 HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\n\r\nhello" +
            "POST http://api.test/3 HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nfoo\r\n3\r\nbar\r\n0\r\nX-Trailer: yes\r\n\r\n" +
            "GET http://api.test/4 HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n");
        var answer = await connection.ReadToEndAsync();
        Assert.Contains("[GET /1|Host=api.test|]", answer, StringComparison.Ordinal);
        Assert.Contains("[POST /2|Content-Length=5|Host=api.test|hello]", answer, StringComparison.Ordinal);
        Assert.Contains("[POST /3|Host=api.test|Transfer-Encoding=chunked|foobar]", answer, StringComparison.Ordinal);
        Assert.Contains("[GET /4|Host=api.test|]", answer, StringComparison.Ordinal);
        Assert.True(answer.IndexOf("/1", StringComparison.Ordinal) < answer.IndexOf("/4", StringComparison.Ordinal));
    }

    [Fact]
    public async Task What_belongs_to_the_visitors_connection_stops_at_the_proxy()
    {
        await using var site = await StartEchoAsync();
        await using var pair = await ProxyPair.StartAsync([$"api.test=127.0.0.1:{site.Port}"]);
        var answer = await pair.CurlAsync(
            "-H", "Connection: X-Hop, keep-alive", "-H", "X-Hop: 1", "-H", "Keep-Alive: 5", "-H", "Proxy-Connection: keep-alive", "-H", "TE: trailers",
            "-H", "X-End: 2", "-H", "User-Agent:", "-H", "Accept:", "http://api.test/");
        Assert.Equal("[GET /|Host=api.test|X-End=2|]", answer.Replace("TE=trailers|", "", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("NTLM TlRMTVNTUAAD")]
    [InlineData("Negotiate YIIZ")]
    public async Task A_login_that_counts_for_a_connection_is_not_that_of_the_next_visitor(string login)
    {
        // As Windows' servers do: who has logged in on a connection is known there from then on.
        await using var site = await WebServer.StartAsync(app => app.Run(async context =>
        {
            var known = context.Features.GetRequiredFeature<IConnectionItemsFeature>().Items;
            if (context.Request.Headers.Authorization.Count > 0)
                known["user"] = "alice";
            context.Response.Headers.Append("WWW-Authenticate", "NTLM");
            context.Response.Headers.Append("WWW-Authenticate", "Negotiate");
            await context.Response.WriteAsync($"[{known["user"] ?? "nobody"}]");
        }));
        await using var pair = await ProxyPair.StartAsync([$"api.test=127.0.0.1:{site.Port}"]);
        await pair.CurlAsync("http://api.test/");

        Assert.Equal("[alice]", await pair.CurlAsync("-H", $"Authorization: {login}", "http://api.test/"));

        for (var visit = 0; visit < 3; visit++)
        {
            var answer = await pair.CurlAsync("-i", "http://api.test/");
            Assert.EndsWith("[nobody]", answer, StringComparison.Ordinal);
            Assert.Contains("WWW-Authenticate: Negotiate", answer, StringComparison.OrdinalIgnoreCase);
            Assert.DoesNotContain("NTLM", answer, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task A_visitor_who_waits_for_100_is_told_to_go_on_by_the_target()
    {
        await using var target = TargetServer.Start(async (client, cancellationToken) =>
        {
            using var connection = new RawConnection(client);
            await connection.ReadUntilAsync("\r\n\r\n");
            await connection.WriteAsync("HTTP/1.1 100 Continue\r\n\r\n");
            await connection.ReadUntilAsync("hello");
            await connection.WriteAsync("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
            await connection.ReadToEndAsync();
        });
        await using var pair = await ProxyPair.StartAsync([$"api.test=127.0.0.1:{target.Port}"]);
        using var visitor = await pair.ConnectAsync();
        await visitor.WriteAsync("POST http://api.test/ HTTP/1.1\r\nHost: api.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n");
        Assert.StartsWith("HTTP/1.1 100", await visitor.ReadUntilAsync("\r\n\r\n"), StringComparison.Ordinal);
        await visitor.WriteAsync("hello");
        Assert.EndsWith("done", await visitor.ReadToEndAsync(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_web_socket_passes_through_an_absolute_request_and_through_CONNECT()
    {
        await using var site = await WebServer.StartAsync(app =>
        {
            app.UseWebSockets();
            app.Run(async context =>
            {
                using var socket = await context.WebSockets.AcceptWebSocketAsync();
                var buffer = new byte[1000];
                var received = await socket.ReceiveAsync(buffer, CancellationToken.None);
                await socket.SendAsync(buffer.AsMemory(0, received.Count), received.MessageType, true, CancellationToken.None);
                await socket.CloseAsync(WebSocketCloseStatus.NormalClosure, "", CancellationToken.None);
            });
        });
        await using var pair = await ProxyPair.StartAsync([$"api.test=127.0.0.1:{site.Port}"]);

        // .NET's client takes CONNECT.
        using var socket = new ClientWebSocket();
        socket.Options.Proxy = new System.Net.WebProxy(pair.Url);
        await socket.ConnectAsync(new Uri("ws://api.test/"), CancellationToken.None).WaitAsync(TestTimeouts.Step);
        await socket.SendAsync(Encoding.ASCII.GetBytes("hello"), WebSocketMessageType.Text, true, CancellationToken.None);
        var answer = new byte[100];
        var got = await socket.ReceiveAsync(answer, CancellationToken.None).WaitAsync(TestTimeouts.Step);
        Assert.Equal("hello", Encoding.ASCII.GetString(answer, 0, got.Count));

        using var raw = await pair.ConnectAsync();
        await raw.WriteAsync(
            "GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
        var head = await raw.ReadUntilAsync("\r\n\r\n");
        Assert.StartsWith("HTTP/1.1 101", head, StringComparison.Ordinal);
        Assert.Contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", head, StringComparison.Ordinal);
        await raw.WriteAsync("\u0081\u0082\0\0\0\0hi");
        Assert.Equal("\u0081\u0002hi", await raw.ReadUntilAsync("hi"));
    }

    [Fact]
    public async Task Each_direction_of_a_CONNECT_ends_alone()
    {
        await using var target = TargetServer.Start(async (client, cancellationToken) =>
        {
            using var connection = new RawConnection(client);
            var all = await connection.ReadToEndAsync();
            await connection.WriteAsync($"got {all.Length}, and now the answer");
        });
        await using var pair = await ProxyPair.StartAsync([$"api.test:9000=127.0.0.1:{target.Port}"]);
        foreach (var host in new[] { "api.test:9000", $"direct.test:{target.Port}" })
        {
            using var visitor = await pair.ConnectAsync();

            // The first bytes come along with the request, before anyone is connected.
            await visitor.WriteAsync($"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\nearly");
            Assert.StartsWith("HTTP/1.1 200", await visitor.ReadUntilAsync("\r\n\r\n"), StringComparison.Ordinal);
            await visitor.WriteAsync(" and late");
            visitor.FinishSending();
            Assert.Equal("got 14, and now the answer", await visitor.ReadToEndAsync());
        }
    }

    [Fact]
    public async Task A_reset_inside_a_CONNECT_is_a_reset_at_the_visitor()
    {
        await using var target = TargetServer.Start(async (client, cancellationToken) =>
        {
            await client.GetStream().ReadExactlyAsync(new byte[1], cancellationToken);
            client.LingerState = new LingerOption(true, 0);
            client.Client.Close();
        });
        await using var pair = await ProxyPair.StartAsync([$"api.test:9000=127.0.0.1:{target.Port}"]);
        foreach (var host in new[] { "api.test:9000", $"direct.test:{target.Port}" })
        {
            using var visitor = await pair.ConnectAsync();
            await visitor.WriteAsync($"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            await visitor.ReadUntilAsync("\r\n\r\n");
            await visitor.WriteAsync("x");
            var failure = await Assert.ThrowsAsync<IOException>(() => visitor.Stream.ReadAsync(new byte[1]).AsTask().WaitAsync(TestTimeouts.Step));
            Assert.Equal(SocketError.ConnectionReset, Assert.IsType<SocketException>(failure.InnerException).SocketErrorCode);
        }
    }

    [Theory]
    [InlineData("GET http://api.test/ HTTP/1.1\r\nHost: other.test\r\n\r\n")]
    [InlineData("GET http://api.test/ HTTP/1.1\r\n\r\n")]
    [InlineData("GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\nHost: api.test\r\n\r\n")]
    [InlineData("CONNECT api.test:443 HTTP/1.1\r\nHost: other.test:443\r\n\r\n")]
    [InlineData("CONNECT api.test HTTP/1.1\r\nHost: api.test\r\n\r\n")]
    [InlineData("GET http://user@api.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n")]
    [InlineData("GET https://api.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n")]
    public async Task A_request_that_does_not_say_clearly_which_host_it_is_for_reaches_nobody(string request)
    {
        await using var target = TargetServer.StartEcho();
        await using var pair = await ProxyPair.StartAsync([$"api.test=127.0.0.1:{target.Port}"]);
        using var visitor = await pair.ConnectAsync();
        await visitor.WriteAsync(request);
        visitor.FinishSending();
        Assert.StartsWith("HTTP/1.1 400", await visitor.ReadToEndAsync(), StringComparison.Ordinal);
        Assert.Equal(0, target.ConnectionCount);
    }

    [Theory]
    [InlineData("")]
    [InlineData("G")]
    [InlineData("P")]
    [InlineData("GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\nX-")]
    public async Task A_visitor_who_does_not_finish_a_head_is_cut_off_in_time(string beginning)
    {
        await using var pair = await ProxyPair.StartAsync([], proxy => proxy.HeaderTimeout = TimeSpan.FromMilliseconds(500));
        using var visitor = await pair.ConnectAsync();
        await visitor.WriteAsync(beginning);
        Assert.Matches("^(HTTP/1.1 408|$)", await visitor.ReadToEndAsync());
    }

    [Fact]
    public async Task A_visitor_who_leaves_while_he_waits_takes_his_request_back_from_the_target()
    {
        var left = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var begun = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var target = TargetServer.Start(async (client, cancellationToken) =>
        {
            using var connection = new RawConnection(client);
            await connection.ReadUntilAsync("\r\n\r\n");
            begun.TrySetResult();
            await connection.ReadToEndAsync();
            left.TrySetResult();
        });
        await using var pair = await ProxyPair.StartAsync([$"api.test=127.0.0.1:{target.Port}"]);
        using (var visitor = await pair.ConnectAsync())
        {
            await visitor.WriteAsync("GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n");
            await begun.Task.WaitAsync(TestTimeouts.Step);
        }

        await left.Task.WaitAsync(TestTimeouts.Step);
    }

    [Fact]
    public async Task A_streamed_answer_arrives_as_it_is_written()
    {
        var goOn = new SemaphoreSlim(0);
        await using var site = await WebServer.StartAsync(app => app.Run(async context =>
        {
            context.Response.ContentType = "text/event-stream";
            for (var i = 0; i < 3; i++)
            {
                await context.Response.WriteAsync($"data: {i}\n\n");
                await context.Response.Body.FlushAsync();
                await goOn.WaitAsync();
            }
        }));
        await using var pair = await ProxyPair.StartAsync([$"api.test=127.0.0.1:{site.Port}"]);
        using var visitor = await pair.ConnectAsync();
        await visitor.WriteAsync("GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n");
        for (var i = 0; i < 3; i++)
        {
            await visitor.ReadUntilAsync($"data: {i}");
            goOn.Release();
        }

        await visitor.ReadUntilAsync("0\r\n\r\n");
    }

    [Fact]
    public async Task IPv6_literals_are_hosts()
    {
        await using var pair = await ProxyPair.StartAsync(["[2001:db8::5]:80=127.0.0.1:1"]);
        var answer = await pair.CurlAsync("-g", "-w", " %{http_code}", "http://[2001:DB8:0::5]/");
        Assert.Equal("vtunnel: [2001:db8::5]:80, behind the tunnel: cannot reach 127.0.0.1:1: connection refused\n 502", answer);
        var guarded = await pair.CurlAsync("-g", "-w", " %{http_code}", "http://[::1]:1/");
        Assert.EndsWith(" 403", guarded, StringComparison.Ordinal);
    }
}
