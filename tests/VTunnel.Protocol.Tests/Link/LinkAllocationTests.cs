using VTunnel.Protocol.Buffers;
using static VTunnel.Protocol.Tests.Link.LinkTesting;

namespace VTunnel.Protocol.Tests.Link;

[Collection(Alone.Name)]
public sealed class LinkAllocationTests
{
    [Fact]
    public void The_steady_state_allocates_nothing()
    {
        var pair = Connected(Quiet with { MaxUnsentBytes = 1 << 20 });
        var (client, server) = (pair.Client, pair.Server);
        var (clientCarrier, serverCarrier, now) = (pair.ClientCarrier, pair.ServerCarrier, pair.Now);

        // The pools belong to the whole process and are trimmed now and then; what the link itself
        // allocates it allocates in every batch, the first of which warms up the code.
        var perTurn = double.MaxValue;
        for (var batch = 0; batch < 10; batch++)
        {
            var before = GC.GetAllocatedBytesForCurrentThread();
            for (var i = 0; i < 500; i++)
                Turn();
            perTurn = Math.Min(perTurn, (GC.GetAllocatedBytesForCurrentThread() - before) / 500.0);
        }

        Assert.True(perTurn < 1, $"{perTurn} bytes for each turn of two small writes, a large one, and their acknowledgements");

        void Turn()
        {
            for (var j = 0; j < 2; j++)
            {
                var small = ByteChunk.Rent(128);
                client.Write(new ByteSlice(small, ByteChunk.Headroom, 12));
            }

            var large = ByteChunk.Rent();
            client.Write(new ByteSlice(large, ByteChunk.Headroom, large.Array.Length - ByteChunk.Headroom));
            while (client.TryTakeMessage(clientCarrier, now, out var message))
            {
                // As on one machine: the receiver gets the very chunk, with the sender's reference.
                server.Receive(serverCarrier, message, now);
                while (server.TryRead(out var slice))
                    slice.Release();
            }

            while (server.TryTakeMessage(serverCarrier, now, out var answer))
                client.Receive(clientCarrier, answer, now);
            now += Ms(1);
            server.Advance(now);
            client.Advance(now);
        }
    }
}
