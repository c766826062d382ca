using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Mux;

namespace VTunnel.Protocol.Tests.Mux;

[Collection(Alone.Name)]
public class MuxAllocationTests
{
    [Theory]
    [InlineData(64)]
    [InlineData(4096)]
    [InlineData(65_472)]
    public void A_data_frame_costs_no_allocation_from_writing_to_reading(int size)
    {
        var dialer = new MuxSession(MuxRole.Dialer);
        var acceptor = new MuxSession(MuxRole.Acceptor);
        var streams = Enumerable.Range(0, 8).Select(_ => dialer.Open()!).ToArray();
        Transfer();
        foreach (var e in Frames.Events(acceptor))
            acceptor.Accept(e.Stream!);
        Transfer();

        var least = Allocations.LeastPerFrame(Round);

        // Windows were updated meanwhile, pings sent and answered.
        Assert.True(least < 1, $"{least} bytes a frame");

        int Round(int count)
        {
            var taken = 0;
            for (var i = 0; i < count; i++)
            {
                var stream = streams[i % streams.Length];
                if (dialer.SendAllowance(stream) >= size)
                {
                    dialer.Send(stream, new ByteSlice(ByteChunk.Rent(), ByteChunk.Headroom, size));
                    taken++;
                }

                dialer.Now += TimeSpan.FromMilliseconds(1);
                acceptor.Now = dialer.Now;
                Transfer();
                while (acceptor.TryTakeEvent(out var e))
                {
                    if (e.Kind != MuxEventKind.Data)
                        continue;
                    e.Payload.Release();
                    acceptor.Consumed(e.Stream!, e.Payload.Length);
                }

                while (dialer.TryTakeEvent(out _))
                {
                }
            }

            return taken;
        }

        void Transfer()
        {
            bool moved;
            do
            {
                moved = false;
                while (dialer.TryTakeFrame(out var frame))
                {
                    // In two parts, so that headers and payloads are cut, too.
                    var half = frame.Length / 2;
                    acceptor.Receive(frame.RetainPart(0, half));
                    acceptor.Receive(frame.Skip(half));
                    moved = true;
                }

                while (acceptor.TryTakeFrame(out var frame))
                {
                    dialer.Receive(frame);
                    moved = true;
                }
            }
            while (moved);
        }
    }
}
