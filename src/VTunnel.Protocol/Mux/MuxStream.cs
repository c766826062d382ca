using VTunnel.Protocol.Buffers;

namespace VTunnel.Protocol.Mux;

/// <summary>One stream of a <see cref="MuxSession"/>: a handle for its owner, state for the session.</summary>
public sealed class MuxStream : ScheduledEntry
{
    private const int SmallFrameBytes = 2048;
    private const int InteractiveFrames = 4;

    private readonly RingQueue<ByteSlice> _queue = new();
    private int _smallFrames;

    internal MuxStream(uint id, bool isLocal, TimeSpan now)
    {
        Id = id;
        IsLocal = isLocal;
        SendCredit = MuxOptions.InitialWindowBytes;
        Window = new ReceiveWindow(now);
        ControlNode = new LinkedListNode<MuxStream>(this);
        BudgetNode = new LinkedListNode<MuxStream>(this);
    }

    /// <summary>Its number in the session: odd if the dialer opened it, even if the acceptor did.</summary>
    public uint Id { get; }

    /// <summary>Whether this side opened it.</summary>
    public bool IsLocal { get; }

    /// <summary>Whatever the owner of the session wants to find again with the stream.</summary>
    public object? Tag { get; set; }

    /// <summary>Whether the far side accepted it (of a local stream) or this side did (of any other).</summary>
    public bool IsAccepted { get; internal set; }

    /// <summary>Whether the peer has finished sending.</summary>
    public bool PeerFinished { get; internal set; }

    /// <summary>Whether this side was told to finish sending; what is queued is still sent.</summary>
    public bool Finished { get; internal set; }

    /// <summary>Whether the session has forgotten the stream: both sides finished, or one reset it.</summary>
    public bool IsGone { get; internal set; }

    /// <summary>Bytes of payload that wait to be sent.</summary>
    public int QueuedBytes { get; private set; }

    /// <summary>The size of the receive window, in bytes.</summary>
    public int ReceiveWindowBytes => Window.Target;

    /// <summary>Bytes that the peer allows beyond what was handed to <see cref="MuxSession.Send"/>.</summary>
    public long SendCredit { get; internal set; }

    internal override int NextCost
    {
        get
        {
            var cost = SynPending ? MuxFrameHeader.Size : 0;
            if (_queue.Count > 0)
                return cost + MuxFrameHeader.Size + _queue[0].Length;
            return FinPending ? cost + MuxFrameHeader.Size : cost;
        }
    }

    internal LinkedListNode<MuxStream> ControlNode { get; }

    internal LinkedListNode<MuxStream> BudgetNode { get; }

#pragma warning disable CA1051 // A mutable struct must be a field to be changed in place.
    internal ReceiveWindow Window;
#pragma warning restore CA1051

    internal bool SynPending { get; set; }

    internal bool AckPending { get; set; }

    internal bool FinPending { get; set; }

    internal bool IsUrgent { get; set; }

    internal bool WasResetHere { get; set; }

    internal bool WantsWritable { get; set; }

    /// <summary>Told that it may send, and has not sent since: it keeps its place at the head of those who wait.</summary>
    internal bool WasWoken { get; set; }

    internal int QueuedFrames => _queue.Count;

    /// <summary>
    /// Says that a frame goes out; whether this is the stream of somebody who waits for answers: one small frame after another. The few
    /// with which a download begins do not make one.
    /// </summary>
    internal bool IsInteractive(int frameBytes)
    {
        _smallFrames = frameBytes > SmallFrameBytes ? 0 : Math.Min(_smallFrames + 1, InteractiveFrames);
        return _smallFrames == InteractiveFrames;
    }

    internal void Enqueue(ByteSlice payload)
    {
        _queue.Enqueue(payload);
        QueuedBytes += payload.Length;
    }

    internal ByteSlice Dequeue()
    {
        var payload = _queue.Dequeue();
        QueuedBytes -= payload.Length;
        return payload;
    }

    internal void ReleaseQueue()
    {
        while (_queue.Count > 0)
            Dequeue().Release();
    }
}
