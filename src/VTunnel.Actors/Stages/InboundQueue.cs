using VTunnel.Protocol.Buffers;

namespace VTunnel.Stages;

/// <summary>
/// What a stream has received and its endpoint has not yet taken. The protocol bounds the bytes; this bounds what they
/// cost: a small piece of a large chunk is copied, because queueing it would hold the whole chunk.
/// </summary>
internal sealed class InboundQueue
{
    private const int CopyBelowFraction = 8;
    private const int GatherBytes = 16 * 1024;

    private readonly Queue<ByteSlice> _slices = new();
    private ByteChunk? _gather;
    private int _gatherEnd;

    /// <summary>Whether there is nothing to take.</summary>
    public bool IsEmpty => _slices.Count == 0 && _gather is null;

    /// <summary>Queues a slice and takes its reference.</summary>
    public void Enqueue(ByteSlice slice)
    {
        if (slice.Chunk is null)
            return;
        if (slice.Length > slice.Chunk.Array.Length / CopyBelowFraction)
        {
            Flush();
            _slices.Enqueue(slice);
            return;
        }

        var rest = slice.Span;
        while (!rest.IsEmpty)
        {
            _gather ??= ByteChunk.Rent(GatherBytes);
            var count = Math.Min(rest.Length, _gather.Array.Length - _gatherEnd);
            rest[..count].CopyTo(_gather.Array.AsSpan(_gatherEnd));
            _gatherEnd += count;
            rest = rest[count..];
            if (_gatherEnd == _gather.Array.Length)
                Flush();
        }

        slice.Release();
    }

    /// <summary>Takes the oldest bytes with their reference.</summary>
    public bool TryDequeue(out ByteSlice slice)
    {
        if (_slices.Count == 0)
            Flush();
        return _slices.TryDequeue(out slice);
    }

    /// <summary>Releases everything.</summary>
    public void Clear()
    {
        while (TryDequeue(out var slice))
            slice.Release();
    }

    private void Flush()
    {
        if (_gather is null)
            return;
        _slices.Enqueue(new ByteSlice(_gather, 0, _gatherEnd));
        _gather = null;
        _gatherEnd = 0;
    }
}
