using System.Buffers;
using System.Collections.Concurrent;
using Microsoft.AspNetCore.Connections;

namespace VTunnel.Cli.Hosting;

/// <summary>
/// Gives Kestrel blocks of 256 KiB to read into instead of its own of 4 KiB: as much as a frame of a tunnel, which then takes one
/// system call. A connection that waits for data holds none, and of a block just the part that was used is in memory.
/// </summary>
internal sealed class LargeBlockPoolFactory : IMemoryPoolFactory<byte>
{
    public MemoryPool<byte> Create(MemoryPoolOptions? options = null) => new LargeBlockPool();
}

/// <summary>Blocks of 256 KiB, pinned for their life so that a system call need not pin them.</summary>
internal sealed class LargeBlockPool : MemoryPool<byte>
{
    private const int BlockBytes = 256 * 1024;

    /// <summary>What is kept for later: 16 MiB at most. More may be in use; it is left to the garbage collector then.</summary>
    private const int MaxSpareCount = 64;

    private readonly ConcurrentQueue<Block> _spare = new();
    private int _spareCount;
    private volatile bool _isDisposed;

    public override int MaxBufferSize => BlockBytes;

    public override IMemoryOwner<byte> Rent(int minBufferSize = -1)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(minBufferSize, BlockBytes);
        if (!_spare.TryDequeue(out var block))
            return new Block(this);
        Interlocked.Decrement(ref _spareCount);
        block.Take();
        return block;
    }

    protected override void Dispose(bool disposing)
    {
        _isDisposed = true;
        _spare.Clear();
    }

    private void Return(Block block)
    {
        if (!_isDisposed && Interlocked.Increment(ref _spareCount) <= MaxSpareCount)
            _spare.Enqueue(block);
        else
            Interlocked.Decrement(ref _spareCount);
    }

    private sealed class Block(LargeBlockPool pool) : IMemoryOwner<byte>
    {
        private readonly byte[] _bytes = GC.AllocateUninitializedArray<byte>(BlockBytes, pinned: true);
        private int _isReturned;

        public Memory<byte> Memory => _bytes;

        public void Take() => Volatile.Write(ref _isReturned, 0);

        public void Dispose()
        {
            if (Interlocked.Exchange(ref _isReturned, 1) == 0)
                pool.Return(this);
        }
    }
}
