using System.Collections.Concurrent;
using System.Net.Security;
using System.Net.Sockets;
using System.Text;
using VTunnel.Options;
using VTunnel.Routing;
using VTunnel.Targets;

namespace VTunnel.Actors.Tests.Targets;

/// <summary>What exactly a target gets and what exactly the visitor gets back, header by header.</summary>
public sealed class HttpOnTheWireTests : IAsyncLifetime
{
    private readonly TestAuthority _authority = new();
    private readonly TargetDialer _dialer;
    private readonly ConcurrentQueue<string> _heads = [];

    public HttpOnTheWireTests() =>
        _dialer = new TargetDialer(TimeSpan.FromSeconds(20), new TlsTrustOptions { CertificateAuthorityFile = _authority.PemFile });

    public Task InitializeAsync() => Task.CompletedTask;

    public async Task DisposeAsync()
    {
        await _dialer.DisposeAsync();
        _authority.Dispose();
    }

    private TlsServer Start(Func<SslStream, Socket, Task> serve) => new(_authority.Issue(["localhost"]), serve);

    /// <summary>Answers each request, once its head is complete, with the same bytes.</summary>
    private TlsServer Answering(string response) => Start(async (stream, _) =>
    {
        while (await RawHttp.ReadHeadAsync(stream) is { Length: > 0 } head)
        {
            _heads.Enqueue(head);
            await RawHttp.WriteAsync(stream, response);
        }
    });

    [Fact]
    public async Task Host_is_the_targets_and_every_other_header_is_the_visitors()
    {
        await using var server = Answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        await endpoint.SendTextAsync(
            "GET /a%2Fb/../c%7E?q=%zz&r=a+b HTTP/1.1\r\nHost: 127.0.0.1:8085\r\nUser-Agent: curl/8\r\nAccept: */*\r\n" +
            "Cookie: a=1; b=2\r\nAuthorization: Basic eDp5\r\nUpgrade-Insecure-Requests: 1\r\nX-Odd: \u00e9\u00fc\r\nAccept-Encoding: gzip, br\r\n\r\n");
        var (head, body) = await endpoint.ReceiveResponseAsync();

        Assert.Equal("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", head);
        Assert.Equal("ok", body);
        Assert.True(_heads.TryDequeue(out var seen));
        Assert.StartsWith("GET /a%2Fb/../c%7E?q=%zz&r=a+b HTTP/1.1\r\n", seen, StringComparison.Ordinal);
        Assert.Equal([$"localhost:{server.Port}"], RawHttp.Header(seen, "Host"));
        Assert.Equal(["curl/8"], RawHttp.Header(seen, "User-Agent"));
        Assert.Equal(["\u00e9\u00fc"], RawHttp.Header(seen, "X-Odd"));
        Assert.Equal(["a=1; b=2"], RawHttp.Header(seen, "Cookie"));
        Assert.Equal(
            ["Accept", "Accept-Encoding", "Authorization", "Cookie", "Host", "Upgrade-Insecure-Requests", "User-Agent", "X-Odd"],
            RawHttp.HeaderNames(seen).Order(StringComparer.Ordinal));
        Assert.Equal(1, server.Accepted);
    }

    [Theory]
    [InlineData("HTTP/1.1 299 Rather fine\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\nSERVER: own/1\r\nX-Latin: \u00e9\r\nX-Empty:\r\n" +
        "Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\nLocation: https://elsewhere.example/x\r\nAlt-Svc: h3=\":443\"\r\nContent-Length: 2\r\n\r\nok")]
    [InlineData("HTTP/1.1 103 Early Hints\r\nLink: </x.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")]
    [InlineData("HTTP/1.1 302 Found\r\nLocation: http://localhost/elsewhere\r\nContent-Length: 0\r\n\r\n")]
    [InlineData("HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5;ext=1\r\nfirst\r\n6\r\nsecond\r\n0\r\nX-Sum: 11\r\n\r\n")]
    [InlineData("HTTP/1.0 200 OK\n\nold and odd")]
    [InlineData("no HTTP at all")]
    public async Task An_answer_passes_byte_for_byte(string answer)
    {
        await using var server = Answering(answer);
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        for (var i = 0; i < 2; i++)
        {
            await endpoint.SendTextAsync("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            Assert.Equal(answer, Encoding.Latin1.GetString(await endpoint.ReceiveExactlyAsync(answer.Length)));
        }
    }





    [Theory]
    [InlineData("GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.0")]
    [InlineData("GET / HTTP/1.0\r\nHost: 127.0.0.1:8085\r\n\r\n", "GET / HTTP/1.0")]
    [InlineData("GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET / HTTP/1.1")]
    [InlineData("GET / HTTP/1.1\r\nhOST: 127.0.0.1:8085\r\n\r\n", "GET / HTTP/1.1")]
    [InlineData("GET http://127.0.0.1:8085/a?b HTTP/1.1\r\nHost: 127.0.0.1:8085\r\n\r\n", "GET /a?b HTTP/1.1")]
    [InlineData("GET http://127.0.0.1:8085 HTTP/1.1\r\nHost: other\r\n\r\n", "GET / HTTP/1.1")]
    [InlineData("GET https://127.0.0.1:8085?q HTTP/1.1\r\nHost: other\r\n\r\n", "GET /?q HTTP/1.1")]
    [InlineData("GET / HTTP/1.1\nHost: bare-newlines\n\n", "GET / HTTP/1.1")]
    [InlineData("get /%7e HTTP/1.1\r\nHost: lower-case-method\r\n\r\n", "get /%7e HTTP/1.1")]
    [InlineData("BREW /pot HTTP/1.1\r\nHost: method-of-its-own\r\n\r\n", "BREW /pot HTTP/1.1")]
    [InlineData("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "OPTIONS * HTTP/1.1")]
    [InlineData("POST /nothing HTTP/1.1\r\nHost: x\r\n\r\n", "POST /nothing HTTP/1.1")]
    [InlineData("DELETE / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "DELETE / HTTP/1.1")]
    public async Task Every_form_of_request_gets_the_targets_host(string request, string line)
    {
        await using var server = Answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        await endpoint.SendTextAsync(request);
        Assert.Equal("ok", (await endpoint.ReceiveResponseAsync()).Body);

        Assert.True(_heads.TryDequeue(out var seen));
        Assert.StartsWith(line + "\r\n", seen, StringComparison.Ordinal);
        Assert.Equal([$"localhost:{server.Port}"], RawHttp.Header(seen, "Host"));
    }

    [Theory]
    [InlineData("www.example.com", 443, "www.example.com")]
    [InlineData("www.example.com", 8443, "www.example.com:8443")]
    [InlineData("www.example.com.", 443, "www.example.com")]
    [InlineData("::1", 443, "[::1]")]
    [InlineData("::1", 8443, "[::1]:8443")]
    public void The_host_names_the_port_unless_it_is_that_of_https(string host, int port, string expected) =>
        Assert.Equal(expected, VTunnel.Targets.Http.RequestHead.HostOf(new ForwardTarget(TargetScheme.Tls, host, port)));

    [Fact]
    public async Task Pipelined_requests_are_answered_in_order_over_one_connection()
    {
        await using var server = Start(async (stream, _) =>
        {
            while (await RawHttp.ReadHeadAsync(stream) is { Length: > 0 } head)
            {
                _heads.Enqueue(head);
                var path = head.Split(' ')[1];
                await RawHttp.WriteAsync(stream, $"HTTP/1.1 200 OK\r\nContent-Length: {path.Length}\r\n\r\n{path}");
            }
        });
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        await endpoint.SendTextAsync(string.Concat(Enumerable.Range(0, 50).Select(i => $"GET /{i} HTTP/1.1\r\nHost: visitor\r\n\r\n")));

        for (var i = 0; i < 50; i++)
            Assert.Equal($"/{i}", (await endpoint.ReceiveResponseAsync()).Body);
        Assert.Equal(50, _heads.Count);
        Assert.All(_heads, head => Assert.Equal([$"localhost:{server.Port}"], RawHttp.Header(head, "Host")));
        Assert.Equal(1, server.Accepted);
    }

    [Fact]
    public async Task An_answer_arrives_as_it_is_made()
    {
        var goOn = new TaskCompletionSource();
        await using var server = Start(async (stream, _) =>
        {
            await RawHttp.ReadHeadAsync(stream);
            await RawHttp.WriteAsync(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
            await goOn.Task;
            await RawHttp.WriteAsync(stream, "6\r\nsecond\r\n0\r\n\r\n");
            await RawHttp.ReadHeadAsync(stream);
        });
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        await endpoint.SendTextAsync("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        // The first chunk is here while the target has not made the second one.
        Assert.EndsWith("5\r\nfirst\r\n", await endpoint.ReceiveUntilAsync("first\r\n"), StringComparison.Ordinal);
        goOn.SetResult();
        Assert.Equal("6\r\nsecond\r\n0\r\n\r\n", await endpoint.ReceiveUntilAsync("0\r\n\r\n"));
    }

    [Fact]
    public async Task A_chunked_upload_with_trailers_and_the_request_after_it_arrive()
    {
        await using var server = Start(async (stream, _) =>
        {
            _heads.Enqueue(await RawHttp.ReadHeadAsync(stream));
            _heads.Enqueue(await RawHttp.ReadUntilAsync(stream, "\r\n0\r\n"));
            _heads.Enqueue(await RawHttp.ReadUntilAsync(stream, "\r\n\r\n"));
            await RawHttp.WriteAsync(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            _heads.Enqueue(await RawHttp.ReadHeadAsync(stream));
            await RawHttp.WriteAsync(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            await RawHttp.ReadHeadAsync(stream);
        });
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        await endpoint.SendTextAsync(
            "POST /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" +
            "4;ext=1\r\nGET \r\n10\r\n/ HTTP/1.1\r\nHost\r\n0\r\nX-Sum: 1\r\n\r\nGET /next HTTP/1.1\r\nHost: x\r\n\r\n");
        await endpoint.ReceiveResponseAsync();
        await endpoint.ReceiveResponseAsync();

        var seen = _heads.ToArray();
        Assert.Equal(["chunked"], RawHttp.Header(seen[0], "Transfer-Encoding"));
        Assert.Empty(RawHttp.Header(seen[0], "Content-Length"));
        // The chunks may be cut elsewhere; the payload is what counts, and it looks like a request on purpose.
        Assert.Equal("GET / HTTP/1.1\r\nHost", Unchunk(seen[1]));
        Assert.Equal("X-Sum: 1\r\n\r\n", seen[2]);
        Assert.StartsWith("GET /next HTTP/1.1\r\n", seen[3], StringComparison.Ordinal);
    }

    [Fact]
    public async Task Expect_100_continue_is_answered_by_the_target()
    {
        await using var server = Start(async (stream, _) =>
        {
            var head = await RawHttp.ReadHeadAsync(stream);
            _heads.Enqueue(head);
            await RawHttp.WriteAsync(stream, "HTTP/1.1 100 Continue\r\n\r\n");
            await RawHttp.ReadUntilAsync(stream, "hello");
            await RawHttp.WriteAsync(stream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
            await RawHttp.ReadHeadAsync(stream);
        });
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        await endpoint.SendTextAsync("PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
        Assert.Equal("HTTP/1.1 100 Continue\r\n\r\n", await endpoint.ReceiveUntilAsync("\r\n\r\n"));
        await endpoint.SendTextAsync("hello");
        Assert.Equal("done", (await endpoint.ReceiveResponseAsync()).Body);
        Assert.True(_heads.TryDequeue(out var seen));
        Assert.Equal(["100-continue"], RawHttp.Header(seen, "Expect"));
        Assert.Equal(["5"], RawHttp.Header(seen, "Content-Length"));
    }

    [Fact]
    public async Task Expect_100_continue_that_the_target_refuses_never_asks_the_visitor_for_the_body()
    {
        await using var server = Start(async (stream, _) =>
        {
            await RawHttp.ReadHeadAsync(stream);
            await RawHttp.WriteAsync(stream, "HTTP/1.1 413 Too much\r\nContent-Length: 3\r\n\r\nno!");
            await RawHttp.ReadHeadAsync(stream);
        });
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        await endpoint.SendTextAsync("PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1000000\r\n\r\n");
        var (head, body) = await endpoint.ReceiveResponseAsync();
        Assert.StartsWith("HTTP/1.1 413 Too much\r\n", head, StringComparison.Ordinal);
        Assert.Equal("no!", body);
    }

    [Fact]
    public async Task An_answer_that_comes_before_the_upload_is_complete_gets_through()
    {
        await using var server = Start(async (stream, _) =>
        {
            await RawHttp.ReadHeadAsync(stream);
            await RawHttp.ReadUntilAsync(stream, "part");
            await RawHttp.WriteAsync(stream, "HTTP/1.1 401 Who\r\nContent-Length: 2\r\n\r\nno");
            await RawHttp.ReadUntilAsync(stream, "rest");
            await RawHttp.ReadHeadAsync(stream);
        });
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        await endpoint.SendTextAsync("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\npart");
        var (head, body) = await endpoint.ReceiveResponseAsync();
        Assert.StartsWith("HTTP/1.1 401 Who\r\n", head, StringComparison.Ordinal);
        Assert.Equal("no", body);
        await endpoint.SendTextAsync("rest");
    }

    [Fact]
    public async Task A_visitor_who_has_finished_sending_gets_the_whole_answer_and_its_end()
    {
        await using var server = Start(async (stream, _) =>
        {
            _heads.Enqueue(await RawHttp.ReadHeadAsync(stream));
            // The end reaches the target, which may answer all the same.
            _heads.Enqueue(await RawHttp.ReadHeadAsync(stream));
            await RawHttp.WriteAsync(stream, "HTTP/1.0 200 OK\r\n\r\nuntil the end");
        });
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        await endpoint.SendTextAsync("GET / HTTP/1.0\r\n\r\n");
        await endpoint.FinishSendingAsync();

        Assert.Equal("HTTP/1.0 200 OK\r\n\r\nuntil the end", await endpoint.ReceiveToEndAsync());
        Assert.Equal(["GET / HTTP/1.0\r\nHost: localhost:" + server.Port + "\r\n\r\n", ""], _heads);
    }

    [Fact]
    public async Task A_target_that_closes_after_its_answer_closes_the_visitors_connection()
    {
        await using var server = Start(async (stream, _) =>
        {
            await RawHttp.ReadHeadAsync(stream);
            await RawHttp.WriteAsync(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        });
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        await endpoint.SendTextAsync("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        Assert.Equal("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", await endpoint.ReceiveToEndAsync());
    }

    [Fact]
    public async Task A_visitor_who_asks_to_close_gets_the_answer_and_the_end()
    {
        await using var server = Start(async (stream, _) =>
        {
            _heads.Enqueue(await RawHttp.ReadHeadAsync(stream));
            await RawHttp.WriteAsync(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        });
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        await endpoint.SendTextAsync("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        // What he sends after that goes nowhere and harms nobody.
        await endpoint.SendTextAsync("more");
        Assert.EndsWith("ok", await endpoint.ReceiveToEndAsync(), StringComparison.Ordinal);
        Assert.True(_heads.TryDequeue(out var seen));
        Assert.Equal(["close"], RawHttp.Header(seen, "Connection"));
    }

    [Fact]
    public async Task A_response_that_breaks_off_resets_the_visitor_instead_of_looking_complete()
    {
        await using var server = Start(async (stream, socket) =>
        {
            await RawHttp.ReadHeadAsync(stream);
            await RawHttp.WriteAsync(stream, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
            socket.LingerState = new LingerOption(true, 0);
            socket.Dispose();
        });
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        await endpoint.SendTextAsync("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        await Assert.ThrowsAsync<IOException>(() => endpoint.ReceiveToEndAsync());
    }

    [Fact]
    public async Task An_answer_to_a_refused_upload_arrives_although_the_target_takes_no_more()
    {
        var closed = new TaskCompletionSource();
        await using var server = Start(async (stream, socket) =>
        {
            await RawHttp.ReadHeadAsync(stream);
            await RawHttp.WriteAsync(stream, "HTTP/1.1 413 Too much\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            // The end of reading alone, as a server does that lingers: the answer must not be lost to a reset.
            await stream.ShutdownAsync();
            socket.Shutdown(SocketShutdown.Send);
            closed.SetResult();
            while (await stream.ReadAsync(new byte[16 * 1024]) > 0)
            {
            }
        });
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        await endpoint.SendTextAsync("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
        await closed.Task.WaitAsync(EndpointExtensions.Patience);
        await endpoint.SendTextAsync(new string('x', 500_000));
        Assert.StartsWith("HTTP/1.1 413 Too much\r\n", await endpoint.ReceiveToEndAsync(), StringComparison.Ordinal);
        await endpoint.SendTextAsync(new string('x', 500_000));
    }

    [Theory]
    [InlineData("GET / HTTP/1.1\r\n\r\n")]
    [InlineData("GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n")]
    [InlineData("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: minus\r\n\r\n")]
    [InlineData("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n")]
    public async Task A_first_request_that_cannot_be_read_is_answered_400_and_never_reaches_the_target(string request)
    {
        string? got = null;
        await using var server = Start(async (stream, _) => got = await RawHttp.ReadHeadAsync(stream));
        using var endpoint = await _dialer.DialAsync(server.Target, default);
        var answering = endpoint.ReceiveToEndAsync();

        await endpoint.SendTextAsync(request);

        // The target is reset, perhaps before its side of the handshake is over.
        Assert.StartsWith("HTTP/1.1 400 Bad Request\r\n", await answering, StringComparison.Ordinal);
        await server.WhenEndedAsync().WaitAsync(EndpointExtensions.Patience);
        Assert.Null(got);
        await endpoint.SendTextAsync("more");
    }

    [Fact]
    public async Task A_later_request_that_cannot_be_read_resets_both_ends()
    {
        var ended = new TaskCompletionSource<Exception?>();
        await using var server = Start(async (stream, _) =>
        {
            await RawHttp.ReadHeadAsync(stream);
            await RawHttp.WriteAsync(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            ended.SetResult(await Record.ExceptionAsync(() => RawHttp.ReadHeadAsync(stream)));
        });
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        await endpoint.SendTextAsync("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        Assert.Equal("ok", (await endpoint.ReceiveResponseAsync()).Body);
        var receiving = endpoint.ReceiveToEndAsync();
        await endpoint.SendTextAsync("\u0001\u0002 nonsense\r\n\r\n");

        await EndpointExtensions.AssertBrokenAsync(() => receiving);
        Assert.IsType<IOException>(await ended.Task.WaitAsync(EndpointExtensions.Patience));
    }

    [Fact]
    public async Task A_chunk_that_is_none_resets_both_ends_so_that_half_an_upload_never_looks_complete()
    {
        var ended = new TaskCompletionSource<Exception?>();
        await using var server = Start(async (stream, _) =>
        {
            await RawHttp.ReadHeadAsync(stream);
            ended.SetResult(await Record.ExceptionAsync(() => RawHttp.ReadUntilAsync(stream, "never")));
        });
        using var endpoint = await _dialer.DialAsync(server.Target, default);
        var receiving = endpoint.ReceiveToEndAsync();

        await endpoint.SendTextAsync("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nnonsense\r\n");

        await EndpointExtensions.AssertBrokenAsync(() => receiving);
        Assert.IsType<IOException>(await ended.Task.WaitAsync(EndpointExtensions.Patience));
    }

    [Fact]
    public async Task An_upload_that_breaks_off_never_looks_complete()
    {
        var got = new TaskCompletionSource<string>();
        await using var server = Start(async (stream, _) =>
        {
            await RawHttp.ReadHeadAsync(stream);
            got.SetResult(await RawHttp.ReadUntilAsync(stream, "0\r\n\r\n"));
        });
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        await endpoint.SendTextAsync("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n5\r\nha");
        await endpoint.FinishSendingAsync();

        Assert.DoesNotContain("0\r\n\r\n", await got.Task.WaitAsync(EndpointExtensions.Patience), StringComparison.Ordinal);
        Assert.Equal("", await endpoint.ReceiveToEndAsync());
    }

    [Fact]
    public async Task An_upgrade_that_the_target_refuses_leaves_the_connection_to_http()
    {
        await using var server = Answering("HTTP/1.1 426 Not here\r\nContent-Length: 2\r\n\r\nno");
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        for (var i = 0; i < 3; i++)
        {
            await endpoint.SendTextAsync("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n");
            Assert.Equal("no", (await endpoint.ReceiveResponseAsync()).Body);
        }

        Assert.Equal(3, _heads.Count);
        Assert.All(_heads, head => Assert.Equal([$"localhost:{server.Port}"], RawHttp.Header(head, "Host")));
    }

    [Fact]
    public async Task Headers_far_beyond_the_usual_limits_pass_in_both_directions()
    {
        var large = string.Concat(Enumerable.Range(0, 200).Select(i => $"X-H{i}: {new string('v', 1000)}\r\n"));
        await using var server = Answering($"HTTP/1.1 200 OK\r\n{large}Content-Length: 2\r\n\r\nok");
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        await endpoint.SendTextAsync($"GET /{new string('p', 20_000)} HTTP/1.1\r\nHost: x\r\n{large}\r\n");
        var head = await endpoint.ReceiveUntilAsync("ok");
        Assert.Equal(201, RawHttp.HeaderNames(head).Length);
        Assert.True(_heads.TryDequeue(out var seen));
        Assert.Equal(201, RawHttp.HeaderNames(seen).Length);
    }

    [Fact]
    public async Task Visitors_never_share_a_connection_to_the_target()
    {
        await using var server = Answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        using var one = await _dialer.DialAsync(server.Target, default);
        using var two = await _dialer.DialAsync(server.Target, default);

        foreach (var visitor in new[] { one, two, one, two })
        {
            await visitor.SendTextAsync("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            Assert.Equal("ok", (await visitor.ReceiveResponseAsync()).Body);
        }

        // And none is dialled for what the first one can carry.
        Assert.Equal(2, server.Accepted);
    }

    [Theory]
    [InlineData("websocket")]
    [InlineData("tcp")]
    public async Task After_an_upgrade_bytes_pass_both_ways_and_each_end_ends(string protocol)
    {
        var ended = new TaskCompletionSource<string>();
        await using var server = Start(async (stream, _) =>
        {
            _heads.Enqueue(await RawHttp.ReadHeadAsync(stream));
            await RawHttp.WriteAsync(stream, $"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\nhello");
            var got = await RawHttp.ReadUntilAsync(stream, "never");
            await RawHttp.WriteAsync(stream, "bye");
            ended.SetResult(got);
        });
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        await endpoint.SendTextAsync($"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n");
        Assert.Equal("HTTP/1.1 100 Continue\r\n\r\n", await endpoint.ReceiveUntilAsync("\r\n\r\n"));
        var head = await endpoint.ReceiveUntilAsync("\r\n\r\n");
        Assert.StartsWith("HTTP/1.1 101 ", head, StringComparison.Ordinal);
        Assert.Equal([protocol], RawHttp.Header(head, "Upgrade"));
        Assert.Equal("hello", await endpoint.ReceiveUntilAsync("hello"));
        await endpoint.SendTextAsync("\0binary\u00ff");
        await endpoint.FinishSendingAsync();

        // The half-close goes through to the target, and its last words come back.
        Assert.Equal("\0binary\u00ff", await ended.Task.WaitAsync(EndpointExtensions.Patience));
        Assert.Equal("bye", await endpoint.ReceiveToEndAsync());
        Assert.True(_heads.TryDequeue(out var seen));
        Assert.Equal([protocol], RawHttp.Header(seen, "Upgrade"));
        Assert.Equal([$"localhost:{server.Port}"], RawHttp.Header(seen, "Host"));
    }

    private static string Unchunk(string chunks)
    {
        var payload = new StringBuilder();
        for (var at = 0; ;)
        {
            var line = chunks.IndexOf("\r\n", at, StringComparison.Ordinal);
            var length = Convert.ToInt32(chunks[at..line], 16);
            if (length == 0)
                return payload.ToString();
            payload.Append(chunks, line + 2, length);
            at = line + 2 + length + 2;
        }
    }
}
