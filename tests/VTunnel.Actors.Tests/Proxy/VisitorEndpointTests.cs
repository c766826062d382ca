using System.Text;
using VTunnel.Proxy;
using VTunnel.Web;

namespace VTunnel.Actors.Tests.Proxy;

public sealed class VisitorEndpointTests
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    private static byte[] Bytes(string text) => Encoding.ASCII.GetBytes(text);

    [Fact]
    public async Task The_answer_is_taken_however_it_is_cut_and_what_follows_it_reaches_the_visitor()
    {
        var bytes = Bytes("{\"type\":\"connected\"}\nhello");
        for (var cut = 0; cut <= bytes.Length; cut++)
        {
            var endpoint = new VisitorEndpoint(null, answers: true);
            var pair = new DuplexPair();
            var sending = SendAsync(endpoint, bytes, cut);
            Assert.True((await endpoint.Outcome.WaitAsync(Patience)).IsConnected);
            Assert.True(endpoint.Activate(pair.Endpoint, ReadOnlyMemory<byte>.Empty));
            await sending.WaitAsync(Patience);
            var read = new byte[5];
            await pair.Stream.ReadExactlyAsync(read).AsTask().WaitAsync(Patience);
            Assert.Equal("hello", Encoding.ASCII.GetString(read));
            Assert.Equal(5, endpoint.SentBytes);
        }
    }

    private static async Task SendAsync(VisitorEndpoint endpoint, byte[] bytes, int cut)
    {
        await endpoint.SendAsync(bytes.AsMemory(0, cut));
        await endpoint.SendAsync(bytes.AsMemory(cut));
    }

    [Fact]
    public async Task A_refusal_gives_its_reason_and_an_abort_none()
    {
        var refused = new VisitorEndpoint(null, answers: true);
        await refused.SendAsync(Bytes("{\"type\":\"connect_err\",\"error\":\"no such host\"}\n"));
        Assert.Equal(new StreamOutcome(false, "no such host"), await refused.Outcome.WaitAsync(Patience));

        var aborted = new VisitorEndpoint(null, answers: true);
        aborted.Abort();
        Assert.Equal(new StreamOutcome(false, null), await aborted.Outcome.WaitAsync(Patience));
        Assert.True(aborted.Closed.IsCompleted);

        var ended = new VisitorEndpoint(null, answers: true);
        await ended.FinishSendingAsync();
        Assert.Equal(new StreamOutcome(false, null), await ended.Outcome.WaitAsync(Patience));
    }

    [Fact]
    public async Task Nothing_is_read_from_the_visitor_before_he_is_connected_and_what_he_sent_early_comes_first()
    {
        var endpoint = new VisitorEndpoint(null, answers: false);
        var buffer = new byte[100];
        var reading = endpoint.ReceiveAsync(buffer).AsTask();
        Assert.False(reading.IsCompleted);

        var pair = new DuplexPair();
        await pair.Stream.WriteAsync(Bytes("later"));
        Assert.True(endpoint.Activate(pair.Endpoint, Bytes("early")));
        Assert.Equal("early", Encoding.ASCII.GetString(buffer, 0, await reading.WaitAsync(Patience)));
        Assert.Equal("later", Encoding.ASCII.GetString(buffer, 0, await endpoint.ReceiveAsync(buffer).AsTask().WaitAsync(Patience)));
        Assert.Equal(10, endpoint.ReceivedBytes);
    }

    [Fact]
    public async Task A_visitor_who_comes_too_late_is_aborted()
    {
        var endpoint = new VisitorEndpoint(null, answers: false);
        var waiting = endpoint.ReceiveAsync(new byte[1]).AsTask();
        endpoint.Abort();
        await Assert.ThrowsAsync<IOException>(() => waiting.WaitAsync(Patience));
        var pair = new DuplexPair();
        Assert.False(endpoint.Activate(pair.Endpoint, ReadOnlyMemory<byte>.Empty));
        await Assert.ThrowsAsync<IOException>(() => pair.Stream.ReadAsync(new byte[1]).AsTask().WaitAsync(Patience));
    }

    [Fact]
    public async Task A_pair_in_memory_stops_a_writer_whose_reader_stalls_and_ends_each_direction_alone()
    {
        var pair = new DuplexPair();
        var chunk = new byte[64 * 1024];
        var written = 0;
        Task writing;
        do
        {
            writing = pair.Stream.WriteAsync(chunk).AsTask();
            written += chunk.Length;
        }
        while (writing.IsCompleted && written < 10_000_000);
        Assert.InRange(written, 256 * 1024, 512 * 1024);

        await pair.Endpoint.FinishSendingAsync();
        Assert.Equal(0, await pair.Stream.ReadAsync(new byte[1]));
        var read = 0;
        while (read < written)
            read += await pair.Endpoint.ReceiveAsync(chunk);
        await writing.WaitAsync(Patience);
        await pair.Stream.DisposeAsync();
        Assert.Equal(0, await pair.Endpoint.ReceiveAsync(chunk));
    }
}
