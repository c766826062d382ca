using System.Buffers;
using System.Collections.Concurrent;

namespace VTunnel.Protocol.Buffers;

/// <summary>
/// A pooled array with a reference count. Whoever holds a reference may read; only the one who rented it writes,
/// and only before the first <see cref="ByteSlice"/> of it is handed on (the headroom before a payload excepted).
/// </summary>
/// <remarks>
/// Payload is read at offset <see cref="Headroom"/>, so that each layer can put its header in front in place.
/// A chunk that is never released is not returned to the pool; it is collected like any other object.
/// </remarks>
public sealed class ByteChunk
{
    /// <summary>Bytes kept free before a payload for the headers of every layer below: 64.</summary>
    public const int Headroom = 64;

    /// <summary>The usual size of a chunk, headroom included: 64 KiB, so that the array is exactly one pool bucket.</summary>
    public const int DefaultSize = 64 * 1024;

    private const int MaxSpareCount = 1024;
    private static readonly ConcurrentQueue<ByteChunk> Spare = new();
    private static int _spareCount;

    private byte[] _array = [];
    private int _references;
    private ChunkLedger? _ledger;

    private ByteChunk()
    {
    }

    /// <summary>The array; at least as long as was asked for.</summary>
    public byte[] Array => _array;

    /// <summary>Rents a chunk of at least <paramref name="size"/> bytes with one reference.</summary>
    public static ByteChunk Rent(int size = DefaultSize)
    {
        if (Spare.TryDequeue(out var chunk))
            Interlocked.Decrement(ref _spareCount);
        else
            chunk = new ByteChunk();

        chunk._array = ArrayPool<byte>.Shared.Rent(size);
        chunk._references = 1;
        chunk._ledger = ChunkLedger.Current;
        chunk._ledger?.NoteRented();
        return chunk;
    }

    /// <summary>A slice over a copy of <paramref name="bytes"/>, with <see cref="Headroom"/> before it.</summary>
    public static ByteSlice Copy(ReadOnlySpan<byte> bytes)
    {
        var chunk = Rent(Headroom + bytes.Length);
        bytes.CopyTo(chunk._array.AsSpan(Headroom));
        return new ByteSlice(chunk, Headroom, bytes.Length);
    }

    /// <summary>Adds a reference.</summary>
    public void Retain()
    {
        if (Interlocked.Increment(ref _references) <= 1)
            throw new InvalidOperationException("A released chunk was used again.");
    }

    /// <summary>Drops a reference; the last one returns the array to the pool.</summary>
    public void Release()
    {
        var left = Interlocked.Decrement(ref _references);
        if (left > 0)
            return;
        if (left < 0)
            throw new InvalidOperationException("A chunk was released more often than it was retained.");

        ArrayPool<byte>.Shared.Return(_array);
        _array = [];
        _ledger?.NoteReleased();
        _ledger = null;
        if (Interlocked.Increment(ref _spareCount) <= MaxSpareCount)
            Spare.Enqueue(this);
        else
            Interlocked.Decrement(ref _spareCount);
    }
}

/// <summary>A run of bytes in a <see cref="ByteChunk"/>. Passing it on passes the reference on, unless a member says otherwise.</summary>
public readonly record struct ByteSlice(ByteChunk? Chunk, int Offset, int Length)
{
    /// <summary>No bytes and no chunk.</summary>
    public static ByteSlice Empty => default;

    /// <summary>Whether there is nothing to read.</summary>
    public bool IsEmpty => Length == 0;

    /// <summary>The bytes.</summary>
    public ReadOnlySpan<byte> Span => Chunk is null ? default : Chunk.Array.AsSpan(Offset, Length);

    /// <summary>The bytes, for asynchronous operations; valid while a reference is held.</summary>
    public ReadOnlyMemory<byte> Memory => Chunk is null ? default : Chunk.Array.AsMemory(Offset, Length);

    /// <summary>A part of this slice with a reference of its own.</summary>
    public ByteSlice RetainPart(int start, int length)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(start);
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(start + length, Length);
        Chunk?.Retain();
        return new ByteSlice(Chunk, Offset + start, length);
    }

    /// <summary>The same slice without its first <paramref name="count"/> bytes; the reference moves along.</summary>
    public ByteSlice Skip(int count)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)count, (uint)Length, nameof(count));
        return new ByteSlice(Chunk, Offset + count, Length - count);
    }

    /// <summary>Drops the reference.</summary>
    public void Release() => Chunk?.Release();
}
