using VTunnel.Protocol.Buffers;

namespace VTunnel.Protocol.Tests.Buffers;

public sealed class ChunkLedgerTests
{
    [Fact]
    public void A_chunk_is_outstanding_until_its_last_reference_is_dropped()
    {
        using var ledger = ChunkLedger.Open();
        var chunk = ByteChunk.Rent(100);
        Assert.Equal(1, ledger.Outstanding);

        chunk.Retain();
        chunk.Release();
        Assert.Equal(1, ledger.Outstanding);

        chunk.Release();
        Assert.Equal(0, ledger.Outstanding);
        Assert.Equal(1, ledger.Rented);
    }

    [Fact]
    public void A_chunk_that_was_rented_before_is_not_counted_when_it_comes_back()
    {
        var before = ByteChunk.Rent(100);
        using var ledger = ChunkLedger.Open();
        before.Release();
        Assert.Equal(0, ledger.Outstanding);
        Assert.Equal(0, ledger.Rented);
    }

    [Fact]
    public void The_inner_of_two_ledgers_counts()
    {
        using var outer = ChunkLedger.Open();
        using (var inner = ChunkLedger.Open())
        {
            var chunk = ByteChunk.Rent(100);
            Assert.Equal(1, inner.Outstanding);
            chunk.Release();
        }

        Assert.Equal(0, outer.Rented);
        Assert.Same(outer, ChunkLedger.Current);
    }
}
