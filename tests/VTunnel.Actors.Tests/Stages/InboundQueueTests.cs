using VTunnel.Protocol.Buffers;
using VTunnel.Stages;

namespace VTunnel.Actors.Tests.Stages;

public sealed class InboundQueueTests
{
    private const int GatherBytes = 16 * 1024;

    [Fact]
    public void Bytes_come_out_as_they_went_in_whatever_their_sizes()
    {
        using var books = ChunkLedger.Open();
        var random = new Random(17);
        var queue = new InboundQueue();
        var expected = new List<byte>();
        var actual = new List<byte>();
        for (var i = 0; i < 2000; i++)
        {
            var bytes = new byte[SomeSize(random)];
            random.NextBytes(bytes);
            expected.AddRange(bytes);
            queue.Enqueue(ByteChunk.Copy(bytes));
            while (random.Next(3) == 0 && queue.TryDequeue(out var slice))
            {
                actual.AddRange(slice.Span);
                slice.Release();
            }
        }

        while (queue.TryDequeue(out var slice))
        {
            actual.AddRange(slice.Span);
            slice.Release();
        }

        Assert.True(expected.SequenceEqual(actual));
        Assert.True(queue.IsEmpty);
        Assert.Equal(0, queue.HeldBytes);
        Assert.Equal(0, books.Outstanding);
    }

    private static int SomeSize(Random random) => random.Next(4) switch
    {
        0 => random.Next(0, 4),
        1 => random.Next(1, 200),
        2 => random.Next(1, 5000),
        _ => random.Next(1, 100_000),
    };

    public static TheoryData<string> Patterns =>
        ["single bytes", "single bytes of large chunks", "single bytes between small pieces", "single bytes between large pieces", "anything"];

    [Theory]
    [MemberData(nameof(Patterns))]
    public void Memory_is_bounded_by_the_bytes_whatever_their_shape(string pattern)
    {
        using var books = ChunkLedger.Open();
        var random = new Random(18);
        var queue = new InboundQueue();
        long bytes = 0;
        for (var i = 0; i < 5000; i++)
        {
            var slice = pattern switch
            {
                "single bytes" => ByteChunk.Copy([1]),
                "single bytes of large chunks" => PartOfLargeChunk(1),
                "single bytes between small pieces" => ByteChunk.Copy(new byte[i % 2 == 0 ? 1 : 20]),
                "single bytes between large pieces" => i % 2 == 0 ? ByteChunk.Copy([1]) : PartOfLargeChunk(64 * 1024 / 8 + 1),
                _ => PartOfLargeChunk(random.Next(1, 64 * 1024)),
            };
            bytes += slice.Length;
            queue.Enqueue(slice);
            Assert.True(queue.HeldBytes <= 9 * bytes + GatherBytes, $"{queue.HeldBytes} held for {bytes} after {i + 1} pieces");
        }

        queue.Clear();
        Assert.Equal(0, queue.HeldBytes);
        Assert.Equal(0, books.Outstanding);
    }

    private static ByteSlice PartOfLargeChunk(int length) => new(ByteChunk.Rent(), 0, length);

    [Fact]
    public void What_is_held_is_what_is_rented()
    {
        using var books = ChunkLedger.Open();
        var queue = new InboundQueue();
        for (var i = 0; i < GatherBytes; i++)
            queue.Enqueue(ByteChunk.Copy([1]));
        Assert.Equal(1, books.Outstanding);
        Assert.Equal(GatherBytes, queue.HeldBytes);
        queue.Clear();
        Assert.True(queue.IsEmpty);
    }

    [Fact]
    public void An_empty_slice_is_released_and_forgotten()
    {
        using var books = ChunkLedger.Open();
        var queue = new InboundQueue();
        queue.Enqueue(default);
        queue.Enqueue(new ByteSlice(ByteChunk.Rent(), 10, 0));
        Assert.True(queue.IsEmpty);
        Assert.Equal(0, books.Outstanding);
    }
}
