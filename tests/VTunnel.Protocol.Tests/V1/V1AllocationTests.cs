using System.Text;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Protocol.V1;

namespace VTunnel.Protocol.Tests.V1;

/// <summary>The path of every payload byte in v1 makes no garbage: allocated bytes are exact, unlike times.</summary>
[Collection(Alone.Name)]
public sealed class V1AllocationTests
{
    private const int Operations = 200;

    private static V1Message? _kept;

    [Fact]
    public void Reading_32_KiB_of_data_allocates_the_message_and_nothing_else()
    {
        var bytes = WireOf(Payload());
        var one = LeastAllocated(() => _kept = new V1Message(V1MessageType.Data, 1));
        Assert.InRange(one, 40, 80);
        Assert.InRange(LeastAllocated(() => ReadAndRelease(bytes)), 0, one);
    }

    [Fact]
    public void Reading_data_of_an_unusual_shape_allocates_the_message_and_nothing_else()
    {
        var usual = Encoding.UTF8.GetString(WireOf(Payload()));
        var escaped = Encoding.UTF8.GetBytes(usual.Replace("/", "\\/", StringComparison.Ordinal));
        var spaced = Encoding.UTF8.GetBytes(usual.Replace(",", ", ", StringComparison.Ordinal));
        var one = LeastAllocated(() => _kept = new V1Message(V1MessageType.Data, 1));
        Assert.InRange(LeastAllocated(() => ReadAndRelease(escaped)), 0, one);
        Assert.InRange(LeastAllocated(() => ReadAndRelease(spaced)), 0, one);
    }

    [Fact]
    public void Writing_32_KiB_of_data_allocates_nothing()
    {
        var message = new V1Message(V1MessageType.Data, 1, Payload: ByteChunk.Copy(Payload()));
        Assert.Equal(0, LeastAllocated(() => V1Writer.Write(message).Release()));
        message.Payload.Release();
    }

    [Fact]
    public void Reading_and_writing_ping_pong_connect_and_close_allocates_no_more_than_the_message()
    {
        var close = new V1Message(V1MessageType.Close, 1);
        var connect = new V1Message(V1MessageType.Connect, 1, 9000);
        var closeBytes = V1Testing.Write(close);
        var pingBytes = V1Testing.Write(new V1Message(V1MessageType.Ping));
        var one = LeastAllocated(() => _kept = new V1Message(V1MessageType.Close, 1));
        Assert.InRange(LeastAllocated(() => ReadAndRelease(closeBytes)), 0, one);
        Assert.Equal(0, LeastAllocated(() => ReadAndRelease(pingBytes)));
        Assert.Equal(0, LeastAllocated(() => V1Writer.Write(close).Release()));
        Assert.Equal(0, LeastAllocated(() => V1Writer.Write(connect).Release()));
    }

    [Fact]
    public void A_session_passes_data_on_in_both_directions_without_allocating_anything_but_the_message()
    {
        var session = new V1Session(V1Role.Server);
        var id = session.Open(new StreamRequest(9000));
        var payload = ByteChunk.Copy(Payload());
        var one = LeastAllocated(() => _kept = new V1Message(V1MessageType.Data, 1));
        var received = new V1Message(V1MessageType.Data, id, Payload: payload);

        Assert.InRange(LeastAllocated(Exchange), 0, one);
        session.Abandon();
        payload.Release();

        void Exchange()
        {
            session.Send(id, payload.RetainPart(0, payload.Length));
            while (session.TryTakeFrame(out var frame))
                frame.Payload.Release();

            payload.Chunk!.Retain();
            session.Receive(received);
            while (session.TryTakeEvent(out var happened))
                happened.Payload.Release();
            session.Consumed(id, payload.Length);
        }
    }

    /// <summary>
    /// Bytes that one operation allocates when everything is warm. The least of several batches: a garbage collection that
    /// another test causes may empty the pools in one of them.
    /// </summary>
    private static double LeastAllocated(Action operation)
    {
        var least = double.MaxValue;
        for (var batch = 0; batch < 10; batch++)
        {
            var before = GC.GetAllocatedBytesForCurrentThread();
            for (var i = 0; i < Operations; i++)
                operation();
            least = Math.Min(least, (GC.GetAllocatedBytesForCurrentThread() - before) / (double)Operations);
        }

        return least;
    }

    private static void ReadAndRelease(byte[] bytes)
    {
        if (!V1Reader.TryRead(bytes, out var message, out var error))
            throw new InvalidOperationException(error);
        message.Payload.Release();
    }

    private static byte[] WireOf(byte[] payload) => V1Testing.Write(new V1Message(V1MessageType.Data, 1, Payload: ByteChunk.Copy(payload)));

    private static byte[] Payload()
    {
        var bytes = new byte[32 * 1024];
        new Random(1).NextBytes(bytes);
        return bytes;
    }
}
