using System.Net;
using System.Net.Http.Headers;
using System.Net.WebSockets;
using System.Security.Cryptography;
using System.Text;
using VTunnel.Options;
using VTunnel.Endpoints;
using VTunnel.Routing;
using VTunnel.Targets;

namespace VTunnel.Actors.Tests.Targets;

/// <summary>Real visitors at a real virtual-hosted HTTPS site.</summary>
public sealed class HttpsSiteTests : IAsyncLifetime, IDisposable
{
    private const int Large = 64 * 1024 * 1024;
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    /// <summary>What may be on its way between two ends that wait: buffers of four sockets, generously.</summary>
    private const long InFlight = 24 * 1024 * 1024;

    private readonly TestAuthority _authority = new();
    private readonly TargetDialer _dialer;
    private readonly HttpMessageInvoker _visitor;
    private HttpsSite _site = null!;

    public HttpsSiteTests()
    {
        _dialer = new TargetDialer(TimeSpan.FromSeconds(20), new TlsTrustOptions { CertificateAuthorityFile = _authority.PemFile });
        _visitor = new HttpMessageInvoker(new SocketsHttpHandler
        {
            ConnectCallback = async (_, token) => new EndpointStream(await _dialer.DialAsync(_site.Target, token)),
            AllowAutoRedirect = false,
            UseProxy = false,
        });
    }

    public async Task InitializeAsync() => _site = await HttpsSite.StartAsync(_authority.Issue(["localhost"]));

    public async Task DisposeAsync()
    {
        await _dialer.DisposeAsync();
        await _site.DisposeAsync();
    }

    public void Dispose()
    {
        _visitor.Dispose();
        _authority.Dispose();
    }

    private Task<HttpResponseMessage> SendAsync(HttpMethod method, string path, HttpContent? content = null, bool? expect = null)
    {
        var request = new HttpRequestMessage(method, "http://127.0.0.1:8085" + path) { Content = content };
        request.Headers.ExpectContinue = expect;
        return _visitor.SendAsync(request, default).WaitAsync(Patience);
    }

    [Fact]
    public async Task A_visitor_of_another_host_gets_the_virtual_host_and_without_the_rewriting_would_not()
    {
        for (var i = 0; i < 3; i++)
        {
            using var response = await SendAsync(HttpMethod.Get, "/x?y=%2F");
            Assert.Equal(HttpStatusCode.OK, response.StatusCode);
            Assert.Equal($"GET localhost:{_site.Port} /x?y=%2F", await response.Content.ReadAsStringAsync());
        }

        // The same request past the detection: the site does tell hosts apart.
        using var endpoint = await _dialer.DialAsync(_site.Target, default);
        await endpoint.SendTextAsync("\n");
        await endpoint.SendTextAsync("GET / HTTP/1.1\r\nHost: 127.0.0.1:8085\r\nConnection: close\r\n\r\n");
        Assert.StartsWith("HTTP/1.1 404 ", await endpoint.ReceiveToEndAsync(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_redirect_passes_unrewritten()
    {
        using var response = await SendAsync(HttpMethod.Get, "/moved");
        Assert.Equal(HttpStatusCode.Found, response.StatusCode);
        Assert.Equal("https://elsewhere.example/x", response.Headers.Location!.OriginalString);
    }

    [Theory]
    [InlineData("GET / HTTP/1.1\r\nHost: 127.0.0.1:8085\r\nUser-Agent: curl/8\r\n\r\nGET /second HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n")]
    [InlineData("POST /hash HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloPOST / HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n")]
    public async Task Requests_split_at_any_byte_get_the_same_answers(string requests)
    {
        var expected = await AskAsync(requests, requests.Length);
        Assert.Equal(2, expected.Split("HTTP/1.1 200 OK\r\n").Length - 1);
        for (var split = 1; split < requests.Length; split++)
            Assert.Equal(expected, await AskAsync(requests, split));
    }

    [Fact]
    public async Task Requests_sent_byte_by_byte_get_the_same_answers()
    {
        const string Requests = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /x HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n";
        using var endpoint = await _dialer.DialAsync(_site.Target, default);
        foreach (var b in Encoding.Latin1.GetBytes(Requests))
            await endpoint.SendAsync(new[] { b });
        Assert.Equal(await AskAsync(Requests, Requests.Length), WithoutDate(await endpoint.ReceiveToEndAsync()));
    }

    [Fact]
    public async Task A_visitor_who_pauses_between_requests_and_within_one_is_waited_for()
    {
        // Both at once: a pause takes seconds.
        using var plain = await _dialer.DialAsync(_site.Target, default);
        using var withHeaders = await _dialer.DialAsync(new TargetRequest(_site.Target, null, [new InjectedHeader("X-Way", "tunnel")]), default);
        StreamEndpoint[] endpoints = [plain, withHeaders];
        await AskAndPauseAsync("GET /first HTTP/1.1\r\nHost: x\r\n\r\n", "/first");
        foreach (var endpoint in endpoints)
            await endpoint.SendTextAsync("GET /second HTTP/1.1\r\nHo");
        await _site.Heartbeat.WaitAsync(3);
        await AskAndPauseAsync("st: x\r\n\r\n", "/second");
        await AskAndPauseAsync("GET /third HTTP/1.1\r\nHost: x\r\n\r\n", "/third");

        async Task AskAndPauseAsync(string text, string path)
        {
            foreach (var endpoint in endpoints)
            {
                await endpoint.SendTextAsync(text);
                Assert.Contains($"GET localhost:{_site.Port} {path}\r\n", await endpoint.ReceiveUntilAsync("\r\n0\r\n\r\n"), StringComparison.Ordinal);
            }

            await _site.Heartbeat.WaitAsync(3);
        }
    }

    [Theory]
    [InlineData(true, null)]
    [InlineData(false, null)]
    [InlineData(true, true)]
    [InlineData(false, true)]
    public async Task A_large_upload_arrives_whole_in_every_framing(bool chunked, bool? expect)
    {
        var bytes = new byte[Large / 4];
        new Random(2).NextBytes(bytes);
        var content = new ByteArrayContent(bytes);
        using var response = await SendAsync(HttpMethod.Post, "/hash", chunked ? new Unsized(bytes) : content, expect);
        Assert.Equal(Convert.ToHexString(SHA256.HashData(bytes)), await response.Content.ReadAsStringAsync().WaitAsync(Patience));
    }

    [Fact]
    public async Task A_target_that_answers_while_it_reads_never_blocks_on_it()
    {
        using var endpoint = await _dialer.DialAsync(_site.Target, default);
        var bytes = new byte[Large];
        new Random(3).NextBytes(bytes);

        var sending = SendAsync();
        var head = await endpoint.ReceiveUntilAsync("\r\n\r\n");
        Assert.StartsWith("HTTP/1.1 200 OK\r\n", head, StringComparison.Ordinal);
        // Kestrel answers in chunks here; what is between them is the echo.
        var echo = await UnchunkAsync(endpoint, bytes.Length);
        await sending.WaitAsync(Patience);
        Assert.Equal(SHA256.HashData(bytes), SHA256.HashData(echo));

        async Task SendAsync()
        {
            await endpoint.SendTextAsync($"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {bytes.Length}\r\n\r\n");
            for (var sent = 0; sent < bytes.Length; sent += 64 * 1024)
                await endpoint.SendAsync(bytes.AsMemory(sent, 64 * 1024));
        }
    }

    [Fact]
    public async Task A_visitor_who_does_not_read_stops_the_target()
    {
        using var stalled = await _dialer.DialAsync(_site.Target, default);
        await stalled.SendTextAsync($"GET /stream?{Large} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        var head = await stalled.ReceiveUntilAsync("\r\n\r\n");
        Assert.Contains($"Content-Length: {Large}", head, StringComparison.Ordinal);

        // Another visitor takes as much to the end meanwhile: the target has had the time to send it all to the first one too.
        using var busy = await _dialer.DialAsync(_site.Target, default);
        await busy.SendTextAsync($"GET /stream?{Large} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        await busy.ReceiveUntilAsync("\r\n\r\n");
        var expected = Hash(Large);
        Assert.Equal(expected, await HashToEndAsync(busy));
        Assert.InRange(_site.Written - Large, 0, InFlight);

        Assert.Equal(expected, await HashToEndAsync(stalled));
        Assert.Equal(2L * Large, _site.Written);
    }

    [Fact]
    public async Task A_target_that_does_not_read_stops_the_visitor()
    {
        using var stalled = await _dialer.DialAsync(_site.Target, default);
        long taken = 0;
        var uploading = UploadAsync();

        // Another upload of the same size goes to its end meanwhile.
        var bytes = new byte[Large];
        using var response = await SendAsync(HttpMethod.Post, "/hash", new ByteArrayContent(bytes));
        Assert.Equal(Convert.ToHexString(SHA256.HashData(bytes)), await response.Content.ReadAsStringAsync().WaitAsync(Patience));
        Assert.InRange(Interlocked.Read(ref taken), 1, InFlight);
        Assert.False(uploading.IsCompleted);

        _site.GoOn.SetResult();
        var hash = await uploading.WaitAsync(Patience);
        Assert.EndsWith(hash, await stalled.ReceiveToEndAsync(), StringComparison.Ordinal);
        Assert.Equal(Large, _site.Read);

        async Task<string> UploadAsync()
        {
            using var sha = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
            var random = new Random(4);
            var buffer = new byte[64 * 1024];
            await stalled.SendTextAsync($"POST /slow HTTP/1.0\r\nHost: x\r\nContent-Length: {Large}\r\n\r\n");
            for (var sent = 0; sent < Large; sent += buffer.Length)
            {
                random.NextBytes(buffer);
                sha.AppendData(buffer);
                await stalled.SendAsync(buffer);
                Interlocked.Add(ref taken, buffer.Length);
            }

            return Convert.ToHexString(sha.GetHashAndReset());
        }
    }

    [Fact]
    public async Task A_visitor_who_finishes_sending_before_the_answer_still_gets_it_and_its_end()
    {
        using var endpoint = await _dialer.DialAsync(_site.Target, default);
        await endpoint.SendTextAsync("GET /late HTTP/1.1\r\nHost: x\r\n\r\n");
        await endpoint.FinishSendingAsync();
        await _site.Asked.Task.WaitAsync(Patience);
        _site.GoOn.SetResult();

        var answer = await endpoint.ReceiveToEndAsync();
        Assert.StartsWith("HTTP/1.1 200 OK\r\n", answer, StringComparison.Ordinal);
        Assert.Contains("late", answer, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_web_socket_passes()
    {
        using var socket = new ClientWebSocket();
        socket.Options.AddSubProtocol("echo");
        await socket.ConnectAsync(new Uri("ws://127.0.0.1:8085/ws"), _visitor, default).WaitAsync(Patience);
        Assert.Equal("echo", socket.SubProtocol);

        var message = new byte[1024 * 1024];
        new Random(5).NextBytes(message);
        for (var i = 0; i < 3; i++)
        {
            var sending = socket.SendAsync(message.AsMemory(), WebSocketMessageType.Binary, true, default).AsTask();
            var echo = new byte[message.Length];
            for (var got = 0; got < echo.Length;)
                got += (await socket.ReceiveAsync(echo.AsMemory(got), default).AsTask().WaitAsync(Patience)).Count;
            await sending.WaitAsync(Patience);
            Assert.Equal(message, echo);
        }

        await socket.CloseAsync(WebSocketCloseStatus.NormalClosure, null, default).WaitAsync(Patience);
        Assert.Equal("bye", socket.CloseStatusDescription);
    }

    [Fact]
    public async Task A_visitor_who_leaves_in_the_middle_of_a_web_socket_takes_the_target_along()
    {
        using var endpoint = await _dialer.DialAsync(_site.Target, default);
        await endpoint.SendTextAsync(
            "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
            "Sec-WebSocket-Protocol: echo\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
        Assert.StartsWith("HTTP/1.1 101 ", await endpoint.ReceiveUntilAsync("\r\n\r\n"), StringComparison.Ordinal);
        await endpoint.FinishSendingAsync();

        // In order or by a reset, as this server does when a web socket breaks off; what matters is that it learns of it.
        var e = await Record.ExceptionAsync(() => endpoint.ReceiveToEndAsync());
        Assert.True(e is null or IOException, e?.ToString());
    }

    [Fact]
    public async Task Fifty_visitors_at_once_get_their_own_answers()
    {
        await Task.WhenAll(Enumerable.Range(0, 50).Select(async i =>
        {
            using var endpoint = await _dialer.DialAsync(_site.Target, default);
            for (var j = 0; j < 5; j++)
            {
                await endpoint.SendTextAsync($"GET /{i}/{j} HTTP/1.1\r\nHost: x\r\n\r\n");
                var answer = await endpoint.ReceiveUntilAsync("\r\n0\r\n\r\n");
                Assert.Contains($"GET localhost:{_site.Port} /{i}/{j}\r\n", answer, StringComparison.Ordinal);
            }
        })).WaitAsync(Patience);
    }

    [Fact]
    public async Task Disposing_the_dialer_fails_visitors_who_speak_http()
    {
        using var endpoint = await _dialer.DialAsync(_site.Target, default);
        await endpoint.SendTextAsync("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        await endpoint.ReceiveUntilAsync("\r\n0\r\n\r\n");
        await _dialer.DisposeAsync();
        await EndpointExtensions.AssertBrokenAsync(() => endpoint.SendTextAsync("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
    }

    private async Task<string> AskAsync(string requests, int split)
    {
        using var endpoint = await _dialer.DialAsync(_site.Target, default);
        await endpoint.SendTextAsync(requests[..split]);
        await endpoint.SendTextAsync(requests[split..]);
        return WithoutDate(await endpoint.ReceiveToEndAsync());
    }

    private static string WithoutDate(string answer) =>
        string.Join("\r\n", answer.Split("\r\n").Where(line => !line.StartsWith("Date:", StringComparison.Ordinal)));

    private static string Hash(long length)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var block = new byte[64 * 1024];
        for (long sent = 0; sent < length; sent += block.Length)
        {
            HttpsSite.Fill(block, sent / block.Length);
            hash.AppendData(block);
        }

        return Convert.ToHexString(hash.GetHashAndReset());
    }

    private static async Task<string> HashToEndAsync(StreamEndpoint endpoint)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var buffer = new byte[64 * 1024];
        while (await endpoint.ReceiveAsync(buffer).AsTask().WaitAsync(Patience) is var read and > 0)
            hash.AppendData(buffer.AsSpan(0, read));
        return Convert.ToHexString(hash.GetHashAndReset());
    }

    private static async Task<byte[]> UnchunkAsync(StreamEndpoint endpoint, int length)
    {
        var all = new byte[length];
        for (var got = 0; got < length;)
        {
            var chunk = Convert.ToInt32((await endpoint.ReceiveUntilAsync("\r\n")).TrimEnd(), 16);
            (await endpoint.ReceiveExactlyAsync(chunk)).CopyTo(all, got);
            got += chunk;
            await endpoint.ReceiveUntilAsync("\r\n");
        }

        return all;
    }

    /// <summary>Content that does not say how long it is, so that it goes in chunks.</summary>
    private sealed class Unsized : HttpContent
    {
        private readonly byte[] _bytes;

        public Unsized(byte[] bytes)
        {
            _bytes = bytes;
            Headers.ContentType = new MediaTypeHeaderValue("application/octet-stream");
        }

        protected override async Task SerializeToStreamAsync(Stream stream, TransportContext? context) => await stream.WriteAsync(_bytes);

        protected override bool TryComputeLength(out long length)
        {
            length = 0;
            return false;
        }
    }
}
