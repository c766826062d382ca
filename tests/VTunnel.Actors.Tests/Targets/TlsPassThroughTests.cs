using System.Net.Security;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using Microsoft.Extensions.Time.Testing;
using VTunnel.Options;
using VTunnel.Endpoints;
using VTunnel.Targets;

namespace VTunnel.Actors.Tests.Targets;

/// <summary>What is not HTTP passes as it is, at once, and without the web server.</summary>
public sealed class TlsPassThroughTests : IAsyncLifetime
{
    private readonly TestAuthority _authority = new();
    private readonly FakeTimeProvider _time = new();
    private readonly TargetDialer _dialer;

    public TlsPassThroughTests() =>
        _dialer = new TargetDialer(
            TimeSpan.FromSeconds(20), new TlsTrustOptions { CertificateAuthorityFile = _authority.PemFile }, timeProvider: _time);

    public Task InitializeAsync() => Task.CompletedTask;

    public async Task DisposeAsync()
    {
        try
        {
            // Whatever a test did here, nothing of it was HTTP.
            Assert.False(_dialer.IsRewriterStarted);
        }
        finally
        {
            await _dialer.DisposeAsync();
            _authority.Dispose();
        }
    }

    private TlsServer Start(Func<SslStream, Socket, Task> serve) => new(_authority.Issue(["localhost"]), serve);

    [Theory]
    [InlineData("\0\u0001\u0002\u00ff")]
    [InlineData("hello")]
    [InlineData("PING")]
    [InlineData("GET key\r\n")]
    [InlineData("CONNECT other:443 HTTP/1.1\r\nHost: other:443\r\n\r\n")]
    [InlineData("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")]
    [InlineData("SSH-2.0-OpenSSH_9.2\r\n")]
    public async Task Bytes_that_are_no_request_pass_untouched_however_they_are_split(string bytes)
    {
        await using var server = Start(TlsServer.EchoAsync);
        for (var split = 1; split <= bytes.Length; split++)
        {
            using var endpoint = await _dialer.DialAsync(server.Target, default);
            await endpoint.SendTextAsync(bytes[..split]);
            await endpoint.SendTextAsync(bytes[split..]);
            Assert.Equal(bytes, Encoding.Latin1.GetString(await endpoint.ReceiveExactlyAsync(bytes.Length)));
        }
    }

    [Fact]
    public async Task A_server_that_speaks_first_is_heard_at_once()
    {
        await using var server = Start(async (stream, _) =>
        {
            await RawHttp.WriteAsync(stream, "220 ready\r\n");
            Assert.Equal("GET / HTTP/1.1\r\nHost: kept\r\n\r\n", await RawHttp.ReadHeadAsync(stream));
            await RawHttp.WriteAsync(stream, "bye\r\n");
        });
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        Assert.Equal("220 ready\r\n", await endpoint.ReceiveUntilAsync("\n"));
        // Its protocol is not HTTP, so what looks like it is passed as it is.
        await endpoint.SendTextAsync("GET / HTTP/1.1\r\nHost: kept\r\n\r\n");
        Assert.Equal("bye\r\n", await endpoint.ReceiveUntilAsync("\n"));
    }

    [Fact]
    public async Task A_server_that_speaks_while_a_request_line_is_incomplete_gets_what_was_held_back()
    {
        var speak = new TaskCompletionSource();
        var got = new TaskCompletionSource<string>();
        await using var server = Start(async (stream, _) =>
        {
            await speak.Task;
            await RawHttp.WriteAsync(stream, "hurry\r\n");
            got.SetResult(await RawHttp.ReadUntilAsync(stream, "T"));
        });
        using var endpoint = await _dialer.DialAsync(server.Target, default);
        var hearing = endpoint.ReceiveUntilAsync("\n");
        await endpoint.SendTextAsync("GET");
        speak.SetResult();

        Assert.Equal("hurry\r\n", await hearing);
        Assert.Equal("GET", await got.Task.WaitAsync(EndpointExtensions.Patience));
    }

    [Fact]
    public async Task The_beginning_of_a_request_that_never_goes_on_is_let_go_after_a_while()
    {
        await using var server = Start(TlsServer.EchoAsync);
        using var endpoint = await _dialer.DialAsync(server.Target, default);
        var echo = endpoint.ReceiveExactlyAsync(2);

        await endpoint.SendTextAsync("P");
        _time.Advance(TlsTargetEndpoint.HoldTime - TimeSpan.FromSeconds(1));
        Assert.Equal(FirstBytes.Undecided, ((TlsTargetEndpoint)endpoint).Kind);
        // Each byte that comes gives it time for another.
        await endpoint.SendTextAsync("O");
        _time.Advance(TlsTargetEndpoint.HoldTime - TimeSpan.FromSeconds(1));
        Assert.Equal(FirstBytes.Undecided, ((TlsTargetEndpoint)endpoint).Kind);
        _time.Advance(TimeSpan.FromSeconds(1));

        Assert.Equal("PO", Encoding.Latin1.GetString(await echo));
        await endpoint.SendTextAsync("ST / HTTP/1.1\r\n");
        Assert.Equal("ST / HTTP/1.1\r\n", await endpoint.ReceiveUntilAsync("\n"));
    }

    [Theory]
    [InlineData("")]
    [InlineData("GET / HT")]
    public async Task The_end_of_the_visitor_reaches_the_target_with_what_was_held_back_and_the_answer_comes(string sent)
    {
        await using var server = Start(async (stream, _) =>
        {
            var all = await RawHttp.ReadUntilAsync(stream, "never");
            await RawHttp.WriteAsync(stream, "got '" + all + "'");
        });
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        await endpoint.SendTextAsync(sent);
        await endpoint.FinishSendingAsync();

        Assert.Equal($"got '{sent}'", await endpoint.ReceiveToEndAsync());
    }

    [Fact]
    public async Task The_end_of_the_target_leaves_the_other_direction_open()
    {
        var got = new TaskCompletionSource<string>();
        await using var server = Start(async (stream, socket) =>
        {
            await RawHttp.WriteAsync(stream, "last words");
            await stream.ShutdownAsync();
            socket.Shutdown(SocketShutdown.Send);
            got.SetResult(await RawHttp.ReadUntilAsync(stream, "never"));
        });
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        Assert.Equal("last words", await endpoint.ReceiveToEndAsync());
        await endpoint.SendTextAsync("mine come later");
        await endpoint.FinishSendingAsync();
        Assert.Equal("mine come later", await got.Task.WaitAsync(EndpointExtensions.Patience));
    }

    [Theory]
    [InlineData("")]
    [InlineData("GE")]
    [InlineData("\0")]
    public async Task An_abort_resets_the_target_and_fails_what_is_under_way(string sent)
    {
        var connected = new TaskCompletionSource();
        var ended = new TaskCompletionSource<Exception?>();
        await using var server = Start(async (stream, _) =>
        {
            connected.SetResult();
            ended.SetResult(await Record.ExceptionAsync(() => RawHttp.ReadUntilAsync(stream, "never")));
        });
        using var endpoint = await _dialer.DialAsync(server.Target, default);
        await connected.Task.WaitAsync(EndpointExtensions.Patience);
        await endpoint.SendTextAsync(sent);
        var receiving = endpoint.ReceiveToEndAsync();

        endpoint.Abort();

        await EndpointExtensions.AssertBrokenAsync(() => receiving);
        await EndpointExtensions.AssertBrokenAsync(() => endpoint.SendTextAsync("more"));
        var e = Assert.IsType<IOException>(await ended.Task.WaitAsync(EndpointExtensions.Patience));
        Assert.Equal(SocketError.ConnectionReset, Assert.IsType<SocketException>(e.InnerException).SocketErrorCode);
    }

    [Fact]
    public async Task A_reset_of_the_target_fails_the_receiver()
    {
        await using var server = Start((_, socket) =>
        {
            socket.LingerState = new LingerOption(true, 0);
            socket.Dispose();
            return Task.CompletedTask;
        });
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        var e = await Assert.ThrowsAsync<IOException>(() => endpoint.ReceiveToEndAsync());
        Assert.Equal(SocketError.ConnectionReset, Assert.IsType<SocketException>(e.InnerException).SocketErrorCode);
    }

    [Fact]
    public async Task An_empty_receive_waits_until_there_is_something()
    {
        var speak = new TaskCompletionSource();
        await using var server = Start(async (stream, _) =>
        {
            await speak.Task;
            await RawHttp.WriteAsync(stream, "now");
            await RawHttp.ReadHeadAsync(stream);
        });
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        var waiting = endpoint.ReceiveAsync(Memory<byte>.Empty).AsTask();
        await endpoint.SendTextAsync("\0");
        Assert.False(waiting.IsCompleted);
        speak.SetResult();
        Assert.Equal(0, await waiting.WaitAsync(EndpointExtensions.Patience));
        Assert.Equal("now", await endpoint.ReceiveUntilAsync("now"));
        var again = endpoint.ReceiveAsync(Memory<byte>.Empty).AsTask();
        await endpoint.FinishSendingAsync();
        Assert.Equal(0, await again.WaitAsync(EndpointExtensions.Patience));
        Assert.Equal(0, await endpoint.ReceiveAsync(new byte[1]).AsTask().WaitAsync(EndpointExtensions.Patience));
    }

    [Fact]
    public async Task Sixty_four_mebibytes_pass_both_ways_at_the_same_time()
    {
        const int Length = 64 * 1024 * 1024;
        await using var server = Start(TlsServer.EchoAsync);
        using var endpoint = await _dialer.DialAsync(server.Target, default);

        var sending = SendAsync(endpoint);
        var received = await HashAsync(endpoint);

        Assert.Equal(await sending, received);

        static async Task<string> SendAsync(StreamEndpoint endpoint)
        {
            using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
            var random = new Random(1);
            var buffer = new byte[64 * 1024];
            for (var sent = 0; sent < Length; sent += buffer.Length)
            {
                random.NextBytes(buffer);
                hash.AppendData(buffer);
                await endpoint.SendAsync(buffer);
            }

            await endpoint.FinishSendingAsync();
            return Convert.ToHexString(hash.GetHashAndReset());
        }

        static async Task<string> HashAsync(StreamEndpoint endpoint)
        {
            using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
            var buffer = new byte[64 * 1024];
            while (await endpoint.ReceiveAsync(buffer).AsTask().WaitAsync(EndpointExtensions.Patience) is var read and > 0)
                hash.AppendData(buffer.AsSpan(0, read));
            return Convert.ToHexString(hash.GetHashAndReset());
        }
    }
}
