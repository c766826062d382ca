using System.Net.WebSockets;
using VTunnel.Carriers;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Link;

namespace VTunnel.Actors.Tests.Carriers;

[Collection(Alone.Name)]
public sealed class FrameAllocationTests
{
    /// <summary>What is written is there to be read at once, so that all happens on this thread and can be counted.</summary>
    [Theory]
    [InlineData(true, 20)]
    [InlineData(false, 20)]
    [InlineData(true, 65_000)]
    [InlineData(false, 65_000)]
    public async Task A_frame_costs_no_allocation_at_either_end(bool fromClient, int size)
    {
        var line = new LineStream();
        using var near = FramedCarrierTests.LibrarySocket(line, !fromClient);
        using var far = FramedCarrierTests.LibrarySocket(line, fromClient);
        var sender = new FramedCarrier(near, new ProbedStream(line), fromClient, "receiver");
        var receiver = new FramedCarrier(far, new ProbedStream(line), !fromClient, "sender");
        var slice = ByteChunk.Copy(FramedCarrierTests.Message(size));
        var buffer = new byte[size + LinkRecord.CarrierHeadroomBytes];
        await RoundAsync(300);

        // The pool is shared with whatever runs beside this test, which can only add: the least of some rounds counts.
        var least = long.MaxValue;
        for (var round = 0; round < 10 && least > 0; round++)
        {
            var before = GC.GetAllocatedBytesForCurrentThread();
            var moved = RoundAsync(200);
            Assert.True(moved.IsCompletedSuccessfully);
            least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
            await moved;
        }

        // One task for all of them.
        Assert.InRange(least, 0, 200);
        slice.Release();

        async Task RoundAsync(int times)
        {
            for (var i = 0; i < times; i++)
            {
                await sender.SendAsync(slice.Memory, WebSocketMessageType.Binary);
                var count = 0;
                ValueWebSocketReceiveResult result;
                do
                {
                    result = await receiver.ReceiveAsync(buffer.AsMemory(count));
                    count += result.Count;
                }
                while (!result.EndOfMessage);
                if (count != size)
                    throw new InvalidOperationException($"{count} bytes of {size}");
            }
        }
    }

    /// <summary>What is written to it can be read from it.</summary>
    private sealed class LineStream : MemoryStream
    {
        private int _readAt;

        public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
        {
            var length = Math.Min(buffer.Length, (int)Position - _readAt);
            GetBuffer().AsSpan(_readAt, length).CopyTo(buffer.Span);
            _readAt += length;
            if (_readAt == Position)
                _readAt = (int)(Position = 0);
            return new ValueTask<int>(length);
        }
    }
}
