using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Mux;

namespace VTunnel.Protocol.V2;

/// <summary>
/// Gives short frames that are ready at the same time as one run of bytes: a stream that is accepted, answers and ends at
/// once then costs one system call and one wake-up of the peer, not three. Never waits for more.
/// </summary>
internal sealed class FrameGather(MuxSession mux)
{
    private const int MaxBytes = 4 * 1024 - ByteChunk.Headroom;

    /// <summary>With more queued, a long frame would be taken out of its turn, and what becomes urgent meanwhile would wait behind it.</summary>
    private const int MaxQueuedBytes = 64 * 1024;

    /// <summary>Taken, but too long for the run before it.</summary>
    private ByteSlice _next;

    /// <summary>The next run, if any; the caller owns the reference.</summary>
    public bool TryTake(out ByteSlice run)
    {
        if (!TryTakeNext(out run))
            return false;
        if (run.Length >= MaxBytes || mux.QueuedBytes > MaxQueuedBytes || !mux.TryTakeFrame(out _next) || run.Length + _next.Length > MaxBytes)
            return true;

        var chunk = ByteChunk.Rent(ByteChunk.Headroom + MaxBytes);
        var end = Append(chunk, ByteChunk.Headroom, run);
        while (!_next.IsEmpty && end + _next.Length <= ByteChunk.Headroom + MaxBytes)
        {
            end = Append(chunk, end, _next);
            mux.TryTakeFrame(out _next);
        }

        run = new ByteSlice(chunk, ByteChunk.Headroom, end - ByteChunk.Headroom);
        return true;
    }

    /// <summary>Releases what was taken; nothing may be called afterwards.</summary>
    public void Abandon()
    {
        _next.Release();
        _next = default;
    }

    private static int Append(ByteChunk chunk, int end, ByteSlice frame)
    {
        frame.Span.CopyTo(chunk.Array.AsSpan(end));
        frame.Release();
        return end + frame.Length;
    }

    private bool TryTakeNext(out ByteSlice frame)
    {
        if (_next.IsEmpty)
            return mux.TryTakeFrame(out frame);
        (frame, _next) = (_next, default);
        return true;
    }
}
