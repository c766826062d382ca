using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Protocol.Mux;
using VTunnel.Protocol.V2;

namespace VTunnel.Protocol.Tests.V2;

[Collection(Alone.Name)]
public sealed class V2AllocationTests : IDisposable
{
    private static readonly StreamRequest Request = new(9000, "127.0.0.1:53211");
    private readonly V2Session _dialer = new(MuxRole.Dialer, new Hello("client", "1", []));
    private readonly V2Session _acceptor = new(MuxRole.Acceptor, new Hello("server", "2", []));

    public void Dispose()
    {
        _dialer.Abandon();
        _acceptor.Abandon();
    }

    [Theory]
    [InlineData(100)]
    [InlineData(60_000)]
    public void A_data_frame_costs_no_allocation(int size)
    {
        Run();
        Drain(_acceptor);
        var ids = new[] { _acceptor.Open(Request), _acceptor.Open(Request), _acceptor.Open(Request) };
        Run();
        Drain(_dialer);
        Array.ForEach(ids, _dialer.Accept);
        Run();
        Drain(_acceptor);

        var least = Allocations.LeastPerFrame(Round);
        Assert.True(least < 1, $"{least} bytes a frame");

        int Round(int count)
        {
            var sent = 0;
            for (var i = 0; i < count; i++)
            {
                var id = ids[i % ids.Length];
                if (_acceptor.SendAllowance(id) >= size)
                {
                    _acceptor.Send(id, new ByteSlice(ByteChunk.Rent(), ByteChunk.Headroom, size));
                    sent++;
                }

                Run();
                while (_dialer.TryTakeEvent(out var e))
                {
                    if (e.Kind != StreamEventKind.Data)
                        continue;
                    e.Payload.Release();
                    _dialer.Consumed(e.StreamId, e.Payload.Length);
                }

                Drain(_acceptor);
            }

            return sent;
        }
    }

    private void Run() => V2Testing.Exchange(_dialer, _acceptor);

    private static void Drain(V2Session session)
    {
        while (session.TryTakeEvent(out var e))
            e.Payload.Release();
    }
}
