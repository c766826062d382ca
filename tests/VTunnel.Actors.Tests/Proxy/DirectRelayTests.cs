using System.Security.Cryptography;
using System.Text;
using VTunnel.Endpoints;
using VTunnel.Proxy;
using VTunnel.Testing;
using VTunnel.Web;

namespace VTunnel.Actors.Tests.Proxy;

/// <summary>What moves bytes where no tunnel is involved.</summary>
public sealed class DirectRelayTests
{
    private readonly DuplexPair _visitor = new();
    private readonly DuplexPair _target = new();

    [Fact]
    public async Task What_was_read_before_goes_first_and_both_directions_are_counted()
    {
        var relay = DirectRelay.RunAsync(_visitor.Endpoint, "GET "u8.ToArray(), _target.Endpoint);
        await _visitor.Stream.WriteAsync("/ now"u8.ToArray());
        Assert.Equal("GET / now", await ReadAsync(_target.Stream, 9));

        await _target.Stream.WriteAsync("200"u8.ToArray());
        Assert.Equal("200", await ReadAsync(_visitor.Stream, 3));
        Assert.False(relay.IsCompleted);

        _visitor.Stream.Dispose();
        _target.Stream.Dispose();
        Assert.Equal((9, 3), await relay.WaitAsync(TestTimeouts.Long));
    }

    [Fact]
    public async Task Both_ends_are_closed_in_order_when_both_directions_have_ended()
    {
        var (first, second) = (new Watched(_visitor.Endpoint), new Watched(_target.Endpoint));
        var relay = DirectRelay.RunAsync(first, default, second);
        _visitor.Stream.Dispose();
        _target.Stream.Dispose();
        await relay.WaitAsync(TestTimeouts.Long);
        Assert.Equal([(true, false), (true, false)], [(first.IsDisposed, first.IsAborted), (second.IsDisposed, second.IsAborted)]);
    }

    [Fact]
    public async Task An_end_that_breaks_takes_the_other_with_it_although_that_one_says_nothing()
    {
        var (first, second) = (new Watched(_visitor.Endpoint), new Watched(_target.Endpoint));
        var relay = DirectRelay.RunAsync(first, default, second);
        _visitor.Endpoint.Abort();

        // The target neither sends nor ends: its direction must not wait for it for ever.
        await relay.WaitAsync(TestTimeouts.Long);
        Assert.True(second.IsAborted);
        await Assert.ThrowsAsync<IOException>(async () => await _target.Stream.ReadExactlyAsync(new byte[1]).AsTask().WaitAsync(TestTimeouts.Long));
    }

    [Fact]
    public async Task A_target_that_cannot_take_what_was_read_before_ends_the_visitor()
    {
        var first = new Watched(_visitor.Endpoint);
        _target.Stream.Dispose();
        _target.Endpoint.Abort();
        Assert.Equal((0, 0), await DirectRelay.RunAsync(first, "GET"u8.ToArray(), _target.Endpoint).WaitAsync(TestTimeouts.Long));
        Assert.True(first.IsAborted);
    }

    [Fact]
    public async Task Two_ends_that_are_always_ready_do_not_keep_the_thread()
    {
        const int Much = 100_000;
        var received = 0;
        var (first, second) = (new Scripted { Receive = () => ++received <= Much ? 1 : 0 }, new Scripted { Receive = () => 0 });
        var relay = DirectRelay.RunAsync(first, default, second);
        var atOnce = Volatile.Read(ref received);
        Assert.Equal((Much, 0), await relay.WaitAsync(TestTimeouts.Long));
        Assert.InRange(atOnce, 0, Much - 1);
    }

    [Fact]
    public async Task A_record_of_tls_that_was_tampered_with_breaks_both_ends()
    {
        var (first, second) = (new Watched(new Scripted { Receive = () => throw new CryptographicException("the tag is wrong") }), new Watched(_target.Endpoint));
        Assert.Equal((0, 0), await DirectRelay.RunAsync(first, default, second).WaitAsync(TestTimeouts.Long));
        Assert.True(first.IsAborted);
        Assert.True(second.IsAborted);
    }

    private static async Task<string> ReadAsync(Stream stream, int count)
    {
        var bytes = new byte[count];
        await stream.ReadExactlyAsync(bytes).AsTask().WaitAsync(TestTimeouts.Long);
        return Encoding.ASCII.GetString(bytes);
    }

    private sealed class Watched(StreamEndpoint inner) : DelegatingEndpoint(inner)
    {
        public bool IsAborted { get; private set; }

        public bool IsDisposed { get; private set; }

        public override void Abort()
        {
            IsAborted = true;
            base.Abort();
        }

        protected override void Dispose(bool disposing)
        {
            IsDisposed = true;
            base.Dispose(disposing);
        }
    }

    /// <summary>Is always ready: to receive what the test says, and to take everything.</summary>
    private sealed class Scripted : StreamEndpoint
    {
        public required Func<int> Receive { get; init; }

        public override ValueTask<int> ReceiveAsync(Memory<byte> buffer) => buffer.IsEmpty ? new ValueTask<int>(0) : new ValueTask<int>(Receive());

        public override ValueTask SendAsync(ReadOnlyMemory<byte> buffer) => default;

        public override ValueTask FinishSendingAsync() => default;

        public override void Abort()
        {
        }

        protected override void Dispose(bool disposing)
        {
        }
    }
}
