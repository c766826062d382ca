using VTunnel.Protocol.Buffers;

namespace VTunnel.Stages;

/// <summary>
/// What a stream has received and its endpoint has not yet taken. The protocol bounds the bytes; this bounds what they
/// cost, to nine times the bytes and one chunk: small pieces are gathered, because each would hold a chunk of its own,
/// and so is a small piece of a large chunk, because it would hold all of it.
/// </summary>
internal sealed class InboundQueue
{
    private const int CopyBelowFraction = 8;
    private const int SmallBytes = 2 * 1024;
    private const int GatherBytes = 16 * 1024;

    private readonly Queue<ByteSlice> _slices = new();
    private ByteChunk? _gather;
    private int _gatherEnd;

    /// <summary>Whether there is nothing to take.</summary>
    public bool IsEmpty => _slices.Count == 0 && _gather is null;

    /// <summary>Memory that is held, in bytes: whole chunks, not just their used part.</summary>
    public long HeldBytes { get; private set; }

    /// <summary>Queues a slice and takes its reference.</summary>
    public void Enqueue(ByteSlice slice)
    {
        if (slice.IsEmpty)
        {
            slice.Release();
            return;
        }

        if (slice.Length > SmallBytes && slice.Length > slice.Chunk!.Array.Length / CopyBelowFraction)
        {
            Flush(compact: true);
            Add(slice);
            return;
        }

        var rest = slice.Span;
        while (!rest.IsEmpty)
        {
            if (_gather is null)
            {
                _gather = ByteChunk.Rent(GatherBytes);
                HeldBytes += _gather.Array.Length;
            }

            var count = Math.Min(rest.Length, _gather.Array.Length - _gatherEnd);
            rest[..count].CopyTo(_gather.Array.AsSpan(_gatherEnd));
            _gatherEnd += count;
            rest = rest[count..];
            if (_gatherEnd == _gather.Array.Length)
                Flush(compact: false);
        }

        slice.Release();
    }

    /// <summary>Takes the oldest bytes with their reference.</summary>
    public bool TryDequeue(out ByteSlice slice)
    {
        if (_slices.Count == 0)
            Flush(compact: false);
        if (!_slices.TryDequeue(out slice))
            return false;
        HeldBytes -= slice.Chunk!.Array.Length;
        return true;
    }

    /// <summary>Releases everything.</summary>
    public void Clear()
    {
        while (TryDequeue(out var slice))
            slice.Release();
    }

    private void Add(ByteSlice slice)
    {
        _slices.Enqueue(slice);
        HeldBytes += slice.Chunk!.Array.Length;
    }

    /// <summary>Ends gathering; <paramref name="compact"/> where what was gathered may have to wait long in a chunk of its own.</summary>
    private void Flush(bool compact)
    {
        if (_gather is null)
            return;

        var gathered = new ByteSlice(_gather, 0, _gatherEnd);
        HeldBytes -= _gather.Array.Length;
        _gather = null;
        _gatherEnd = 0;
        if (compact && gathered.Length <= GatherBytes / 4)
        {
            Add(ByteChunk.Copy(gathered.Span));
            gathered.Release();
        }
        else
        {
            Add(gathered);
        }
    }
}
