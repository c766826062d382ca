using VTunnel.Protocol.Buffers;

namespace VTunnel.Protocol.Link;

/// <summary>
/// What was written and is not acknowledged, in the order of the stream: a part that was sent and may have to be sent
/// again, and a part that was not sent yet.
/// </summary>
/// <remarks>
/// <para>
/// A slice of 4 KiB or more that fills a good part of its chunk is kept as it is and sent once from where it lies, the
/// DATA header written in place before it (where there is room for it). Anything smaller is copied behind what was written before it, into a chunk of
/// this buffer's own: that gathers small writes into one record, and a chunk of 64 KiB is not held for 12 bytes.
/// </para>
/// <para>
/// Bytes that a carrier may still be reading are never written again. A record that was given to a carrier stays as it
/// is; whatever is sent a second time is sent from a copy, and so is what a limit cuts in two, since the header of the
/// second half would lie on the last byte of the first. Between two records in a chunk of the buffer's own there is a
/// gap for the headers of the second.
/// </para>
/// </remarks>
internal sealed class ReplayBuffer
{
    /// <summary>Charged for each segment beside its bytes: the gap before it and its entry here.</summary>
    internal const int SegmentOverhead = 64;

    private const int GapBytes = 32;
    private const int SmallBytes = 4 * 1024;
    private const int CopiedRecordBytes = ByteChunk.DefaultSize - ByteChunk.Headroom;

    private readonly RingQueue<Segment> _segments = new();
    private ByteChunk? _tail;
    private int _tailUsed;
    private long _firstOffset;
    private int _nextIndex;
    private int _nextSkip;

    /// <summary>Everything below was acknowledged.</summary>
    public long Acknowledged { get; private set; }

    /// <summary>The offset of the next byte to send.</summary>
    public long Next { get; private set; }

    /// <summary>The highest <see cref="Next"/> ever: nothing beyond it can have arrived.</summary>
    public long Highest { get; private set; }

    /// <summary>The offset after the last byte that was written.</summary>
    public long End { get; private set; }

    /// <summary>The memory that is held, in bytes.</summary>
    public long Cost { get; private set; }

    /// <summary>Bytes that wait to be sent, for the first time or again.</summary>
    public long Unsent => End - Next;

    /// <summary>Takes the slice and its reference.</summary>
    public void Append(ByteSlice slice)
    {
        End += slice.Length;
        if (slice.Length >= SmallBytes && (long)slice.Length * 4 >= slice.Chunk!.Array.Length)
        {
            Add(new Segment(slice, Math.Max(slice.Length, slice.Chunk.Array.Length) + SegmentOverhead));
            return;
        }

        var rest = slice.Span;
        while (!rest.IsEmpty)
            rest = rest[AppendCopy(rest)..];
        slice.Release();
    }

    /// <summary>Drops what lies wholly below <paramref name="offset"/>, which is at most <see cref="Next"/>, and returns the memory freed.</summary>
    public long Acknowledge(long offset)
    {
        var before = Cost;
        Acknowledged = Math.Max(Acknowledged, offset);
        while (_segments.Count > 0 && _firstOffset + _segments[0].Slice.Length <= Acknowledged)
        {
            var segment = _segments.Dequeue();
            _firstOffset += segment.Slice.Length;
            Cost -= segment.Cost;
            segment.Slice.Release();
            _nextIndex--;
        }

        // An idle link gives its memory back.
        if (_segments.Count == 0)
            DropTail();
        return before - Cost;
    }

    /// <summary>Goes on sending from <paramref name="offset"/>, between <see cref="Acknowledged"/> and <see cref="Highest"/>.</summary>
    public void Rewind(long offset)
    {
        Next = offset;
        (_nextIndex, _nextSkip) = (0, (int)(offset - _firstOffset));
        while (_nextIndex < _segments.Count && _nextSkip >= _segments[_nextIndex].Slice.Length)
            _nextSkip -= _segments[_nextIndex++].Slice.Length;
    }

    /// <summary>The next DATA record below <paramref name="limit"/>, if any; the caller owns the reference.</summary>
    public bool TryTake(long limit, out ByteSlice message)
    {
        message = default;
        var available = Math.Min(limit, End) - Next;
        if (available <= 0)
            return false;

        ref var segment = ref _segments[_nextIndex];
        var slice = segment.Slice;
        if (!segment.IsTaken && slice.Length <= available && slice.Length < LinkRecord.MaxBytes && slice.Offset >= LinkRecord.HeadroomBytes)
        {
            segment.IsTaken = true;
            var chunk = slice.Chunk!;
            chunk.Array[slice.Offset - 1] = (byte)LinkRecordType.Data;
            chunk.Retain();
            message = new ByteSlice(chunk, slice.Offset - 1, slice.Length + 1);
            _nextIndex++;
            Next += slice.Length;
        }
        else
        {
            message = TakeCopy((int)Math.Min(available, CopiedRecordBytes));
        }

        Highest = Math.Max(Highest, Next);
        return true;
    }

    /// <summary>Releases everything.</summary>
    public void Clear()
    {
        while (_segments.Count > 0)
            _segments.Dequeue().Slice.Release();
        DropTail();
        (_firstOffset, Next, Cost, _nextIndex, _nextSkip) = (End, End, 0, 0, 0);
    }

    private ByteSlice TakeCopy(int length)
    {
        var chunk = ByteChunk.Rent(ByteChunk.Headroom + length);
        var target = chunk.Array.AsSpan(ByteChunk.Headroom, length);
        var copied = 0;
        while (copied < length)
        {
            ref var segment = ref _segments[_nextIndex];
            // What was never sent goes from where it lies, in a record of its own.
            if (copied > 0 && !segment.IsTaken)
                break;

            segment.IsTaken = true;
            var part = segment.Slice.Span[_nextSkip..];
            part = part[..Math.Min(part.Length, length - copied)];
            part.CopyTo(target[copied..]);
            copied += part.Length;
            _nextSkip += part.Length;
            if (_nextSkip == segment.Slice.Length)
                (_nextIndex, _nextSkip) = (_nextIndex + 1, 0);
        }

        Next += copied;
        chunk.Array[ByteChunk.Headroom - 1] = (byte)LinkRecordType.Data;
        return new ByteSlice(chunk, ByteChunk.Headroom - 1, copied + 1);
    }

    private int AppendCopy(ReadOnlySpan<byte> bytes)
    {
        if (_tail is null || _tailUsed + GapBytes >= _tail.Array.Length)
        {
            DropTail();
            _tail = ByteChunk.Rent();
        }

        var last = _segments.Count - 1;
        var continues = last >= 0 && !_segments[last].IsTaken && _segments[last].Slice.Chunk == _tail;
        var start = continues ? _tailUsed : _tailUsed + GapBytes;
        var length = Math.Min(bytes.Length, _tail.Array.Length - start);
        bytes[..length].CopyTo(_tail.Array.AsSpan(start));
        _tailUsed = start + length;
        if (continues)
        {
            ref var segment = ref _segments[last];
            segment.Slice = segment.Slice with { Length = segment.Slice.Length + length };
            segment.Cost += length;
            Cost += length;
        }
        else
        {
            _tail.Retain();
            Add(new Segment(new ByteSlice(_tail, start, length), length + SegmentOverhead));
        }

        return length;
    }

    private void Add(Segment segment)
    {
        _segments.Enqueue(segment);
        Cost += segment.Cost;
    }

    private void DropTail()
    {
        _tail?.Release();
        _tail = null;
        _tailUsed = 0;
    }

    private struct Segment(ByteSlice slice, int cost)
    {
        public ByteSlice Slice = slice;
        public int Cost = cost;
        public bool IsTaken;
    }
}
