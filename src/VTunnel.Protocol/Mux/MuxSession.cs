using System.Diagnostics.CodeAnalysis;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Errors;

namespace VTunnel.Protocol.Mux;

/// <summary>Which side of a session this is; it decides who uses which stream ids.</summary>
public enum MuxRole
{
    /// <summary>The side that dialled: its streams have odd ids.</summary>
    Dialer,

    /// <summary>The side that accepted: its streams have even ids.</summary>
    Acceptor,
}

/// <summary>
/// The yamux protocol, version 0, as a state machine: streams, credit, half-close, reset, ping and go-away over one
/// ordered byte stream. Owns no socket, clock or thread: the caller serialises all calls, sets <see cref="Now"/> before
/// them, hands received bytes to <see cref="Receive"/>, drains <see cref="TryTakeEvent"/> after every call, and sends
/// what <see cref="TryTakeFrame"/> gives. Receiving never waits for sending.
/// </summary>
/// <remarks>
/// What is held is bounded: sending by <see cref="MuxOptions.MaxSendQueueBytes"/>, received payload by the windows (it
/// is held by the caller, not here), control frames by one per stream and a fixed number for the session.
/// </remarks>
public sealed class MuxSession
{
    /// <summary>Answers to pings that may wait to be sent. An honest peer has one ping outstanding; of a flood the oldest are dropped.</summary>
    private const int MaxPendingPongs = 16;

    /// <summary>Resets that may wait to be sent while the peer opens more streams.</summary>
    private const int MaxPendingResets = 16 * 1024;

    /// <summary>Payloads that one stream may have queued however small they are: each holds a chunk.</summary>
    private const int MaxQueuedFrames = 64;

    /// <summary>Control frames in one slice: 4 KiB with the headroom.</summary>
    private const int MaxControlBatch = (4096 - ByteChunk.Headroom) / MuxFrameHeader.Size;

    private readonly MuxOptions _options;
    private readonly MuxRole _role;
    private readonly Dictionary<uint, MuxStream> _streams = [];

    /// <summary>Streams that both sides have finished, of which delivered bytes wait for their reader.</summary>
    private readonly Dictionary<uint, MuxStream> _unread = [];
    private readonly StreamIdHistory _peerIds = new();
    private readonly MuxFrameReader _reader = new();
    private readonly RingQueue<MuxEvent> _events = new();
    private readonly WindowBudget _windowBudget;
    private readonly RoundTripEstimate _roundTrip = new();
    private readonly DeficitRoundRobin _scheduler;
    private readonly LinkedList<MuxStream> _control = new();
    private readonly LinkedList<MuxStream> _waitingForBudget = new();
    private readonly RingQueue<uint> _pongs = new();
    private readonly RingQueue<uint> _resets = new();

    private TimeSpan _interactiveUntil;
    private long _nextId;
    private int _unaccepted;
    private long _queuedBytes;
    private MuxStream? _urgent;
    private MuxStream? _payloadStream;
    private bool _payloadFinishes;
    private SessionProtocolException? _failure;

    private bool _pingPending;
    private bool _pingOutstanding;
    private uint _pingValue;
    private TimeSpan _pingSentAt;
    private bool _goAwayPending;
    private MuxGoAwayCode? _goAway;

    /// <summary>A session with no streams.</summary>
    /// <exception cref="ArgumentException">The options are not valid.</exception>
    public MuxSession(MuxRole role, MuxOptions? options = null)
    {
        _options = options ?? new MuxOptions();
        var errors = _options.Validate();
        if (errors.Count > 0)
            throw new ArgumentException(string.Join(' ', errors), nameof(options));

        _role = role;
        _nextId = role == MuxRole.Dialer ? 1 : 2;
        _windowBudget = new WindowBudget(_options.MaxSessionWindowBytes);
        // The largest frame of a turn: the opening of a stream, the header, the payload.
        _scheduler = new DeficitRoundRobin(_options.SendQuantumBytes + 2 * MuxFrameHeader.Size);
    }

    /// <summary>The time, since any origin; never goes back. Set it before every call.</summary>
    public TimeSpan Now { get; set; }

    /// <summary>The smoothed round trip; null until the first ping was answered.</summary>
    public TimeSpan? RoundTrip => _roundTrip.Smoothed > TimeSpan.Zero ? _roundTrip.Smoothed : null;

    /// <summary>The number of streams that exist.</summary>
    public int StreamCount => _streams.Count;

    /// <summary>Bytes of payload that wait to be sent.</summary>
    public long QueuedBytes => _queuedBytes;

    /// <summary>
    /// Whether somebody waits for small answers: a stream that sends little has sent some, a moment ago. Frames are shorter then,
    /// and the layer below should keep little under way.
    /// </summary>
    public bool IsInteractive => _interactiveUntil > Now;

    /// <summary>Bytes by which all receive windows together exceed their initial size.</summary>
    public long GrownWindowBytes => _windowBudget.Used;

    /// <summary>Whether the peer has ended the session in order; nothing can be opened any more.</summary>
    public bool PeerIsGoingAway { get; private set; }

    /// <summary>The stream with this id, if it exists.</summary>
    public bool TryGetStream(uint id, [NotNullWhen(true)] out MuxStream? stream) => _streams.TryGetValue(id, out stream);

    /// <summary>The stream with this id, if both sides have finished it and delivered bytes of it were not <see cref="Consumed"/> yet.</summary>
    public bool TryGetUnread(uint id, [NotNullWhen(true)] out MuxStream? stream) => _unread.TryGetValue(id, out stream);

    /// <summary>
    /// Opens a stream; data may be sent at once. Null when there can be no more: the session is ending, the limit
    /// <see cref="MuxOptions.MaxStreams"/> is reached, or all ids were used.
    /// </summary>
    public MuxStream? Open()
    {
        if (_failure is not null || _goAway is not null || PeerIsGoingAway || _streams.Count >= _options.MaxStreams || _nextId > uint.MaxValue)
            return null;

        var stream = new MuxStream((uint)_nextId, isLocal: true, Now) { SynPending = true };
        _nextId += 2;
        _streams.Add(stream.Id, stream);
        _scheduler.Activate(stream);
        return stream;
    }

    /// <summary>Accepts a stream that the peer opened. Sending or finishing accepts, too.</summary>
    public void Accept(MuxStream stream)
    {
        ArgumentNullException.ThrowIfNull(stream);
        if (stream.IsLocal || stream.IsAccepted || stream.IsGone)
            return;

        stream.IsAccepted = true;
        stream.AckPending = true;
        _unaccepted--;
        QueueControl(stream);
    }

    /// <summary>Serves one stream ahead of all others, without a share; for control messages, never for payload of users.</summary>
    /// <exception cref="InvalidOperationException">Another stream has the place.</exception>
    public void Prioritize(MuxStream stream)
    {
        ArgumentNullException.ThrowIfNull(stream);
        if (stream.IsGone || stream == _urgent)
            return;
        if (_urgent is not null)
            throw new InvalidOperationException($"Stream {_urgent.Id} goes ahead of all others; only one can.");

        _scheduler.Remove(stream);
        stream.IsUrgent = true;
        _urgent = stream;
    }

    /// <summary>
    /// Payload bytes that may be handed to <see cref="Send"/> now: what the peer's credit, the stream's queue and the
    /// session's queue allow. A stream's queue that is more than half full allows nothing, so that reads stay large.
    /// After 0, <see cref="MuxEventKind.Writable"/> says when to ask again. 0 for ever once the stream is finished or gone.
    /// </summary>
    public int SendAllowance(MuxStream stream)
    {
        ArgumentNullException.ThrowIfNull(stream);
        var allowance = Allowance(stream, out var waitsForBudget);
        if (allowance == 0 && !stream.IsGone && !stream.Finished)
        {
            stream.WantsWritable = true;
            if (waitsForBudget)
                WaitForBudget(stream);
        }

        return allowance;
    }

    /// <summary>
    /// Queues payload as one frame; takes the reference. It is at most <see cref="SendAllowance"/> long (what the
    /// session's queue allowed when the read began counts) and has <see cref="ByteChunk.Headroom"/> writable bytes
    /// before it. Dropped in silence if the stream is gone.
    /// </summary>
    /// <exception cref="InvalidOperationException">The stream was finished by this side.</exception>
    /// <exception cref="ArgumentException">The slice is longer than allowed, or lacks the headroom.</exception>
    public void Send(MuxStream stream, ByteSlice payload)
    {
        ArgumentNullException.ThrowIfNull(stream);
        if (stream.IsGone || payload.IsEmpty)
        {
            payload.Release();
            return;
        }

        if (stream.Finished)
            throw new InvalidOperationException($"Stream {stream.Id} was finished; nothing can be sent on it.");
        if (payload.Offset < ByteChunk.Headroom)
            throw new ArgumentException($"A payload needs {ByteChunk.Headroom} bytes of headroom; this one has {payload.Offset}.", nameof(payload));
        var room = Math.Min(_options.SendQuantumBytes - stream.QueuedBytes, stream.SendCredit);
        if (payload.Length > room)
            throw new ArgumentException($"Stream {stream.Id} may queue {room} bytes, not {payload.Length}: ask SendAllowance first.", nameof(payload));

        Accept(stream);
        stream.SendCredit -= payload.Length;
        stream.WasWoken = false;
        _queuedBytes += payload.Length;
        var idle = stream.NextCost == 0;
        stream.Enqueue(payload);
        if (idle)
            Activate(stream);
    }

    /// <summary>Half-close: nothing further is sent; what is queued goes first. Receiving goes on.</summary>
    public void Finish(MuxStream stream)
    {
        ArgumentNullException.ThrowIfNull(stream);
        if (stream.IsGone || stream.Finished)
            return;

        Accept(stream);
        stream.Finished = true;
        stream.WantsWritable = false;
        LeaveBudgetQueue(stream);
        var idle = stream.NextCost == 0;
        stream.FinPending = true;
        if (idle)
            Activate(stream);
    }

    /// <summary>Ends both directions at once, drops what is queued, and raises no further event of the stream.</summary>
    public void Reset(MuxStream stream)
    {
        ArgumentNullException.ThrowIfNull(stream);
        if (stream.IsGone)
        {
            stream.WasResetHere = true;
            if (_unread.Remove(stream.Id))
                stream.Window.Release(_windowBudget);
            return;
        }

        // A stream that the peer was never told of needs no reset; its id stays unused.
        if (!stream.SynPending)
            _resets.Enqueue(stream.Id);
        stream.WasResetHere = true;
        Forget(stream);
    }

    /// <summary>The reader has taken <paramref name="bytes"/> of what <see cref="MuxEventKind.Data"/> delivered.</summary>
    /// <exception cref="ArgumentOutOfRangeException">More than was delivered.</exception>
    public void Consumed(MuxStream stream, int bytes)
    {
        ArgumentNullException.ThrowIfNull(stream);
        ArgumentOutOfRangeException.ThrowIfNegative(bytes);
        if (bytes == 0 || (stream.IsGone && !_unread.ContainsKey(stream.Id)))
            return;

        ArgumentOutOfRangeException.ThrowIfGreaterThan(bytes, stream.Window.Buffered);
        var isCreditDue = stream.Window.Consume(bytes, Now, _roundTrip.Least, _windowBudget, _options);
        if (stream.IsGone && stream.Window.Buffered == 0)
            _unread.Remove(stream.Id);
        if (!isCreditDue)
            return;

        QueueControl(stream);
        // Streams that move bytes need a round trip that is not too old.
        if (_roundTrip.Least == TimeSpan.Zero || Now - _pingSentAt >= _options.RoundTripInterval)
            SendPing();
    }

    /// <summary>Queues a ping, unless one is queued or not answered yet.</summary>
    public void SendPing()
    {
        if (!_pingOutstanding)
            _pingPending = true;
    }

    /// <summary>Ends the session in order (or not): nothing further can be opened by either side; streams that exist go on.</summary>
    public void GoAway(MuxGoAwayCode code = MuxGoAwayCode.Normal)
    {
        if (_goAway is not null)
            return;

        _goAway = code;
        _goAwayPending = true;
    }

    /// <summary>Takes bytes from the layer below, cut anywhere, and their reference.</summary>
    /// <exception cref="SessionProtocolException">
    /// The peer broke the protocol, or says that this side did. The session must end; a go-away frame waits in
    /// <see cref="TryTakeFrame"/>, and nothing else will.
    /// </exception>
    public void Receive(ByteSlice bytes)
    {
        if (_failure is not null)
        {
            bytes.Release();
            throw new SessionProtocolException(_failure.Code, _failure.Message, _failure);
        }

        try
        {
            _reader.Append(bytes);
            while (true)
            {
                switch (_reader.Read(out var header, out var payload))
                {
                    case MuxRead.Header:
                        OnHeader(header);
                        break;
                    case MuxRead.Payload:
                        OnPayload(payload);
                        break;
                    default:
                        return;
                }
            }
        }
        catch (SessionProtocolException e)
        {
            Fail(e);
            throw;
        }
    }

    /// <summary>
    /// The next frame, or run of frames, to send, if any; header and payload are one slice, whose reference is the
    /// caller's. Control frames come first, then streams in fair turns. At least 40 bytes before the slice are free
    /// for the headers of the layers below.
    /// </summary>
    public bool TryTakeFrame(out ByteSlice frame)
    {
        if (TryTakeControl(out frame))
            return true;
        if (_failure is not null)
            return false;

        var stream = _urgent is { NextCost: > 0 } urgent ? urgent : (MuxStream?)_scheduler.Next();
        if (stream is null)
            return false;

        frame = TakeFrame(stream);
        return true;
    }

    /// <summary>The next thing that happened, if any.</summary>
    public bool TryTakeEvent(out MuxEvent muxEvent)
    {
        while (_events.Count > 0)
        {
            muxEvent = _events.Dequeue();
            if (muxEvent.Stream is not { WasResetHere: true })
                return true;
            muxEvent.Payload.Release();
        }

        muxEvent = default;
        return false;
    }

    /// <summary>Releases everything that is queued and forgets all streams. Nothing may be called afterwards.</summary>
    public void Abandon()
    {
        _reader.Clear();
        while (_events.Count > 0)
            _events.Dequeue().Payload.Release();
        foreach (var stream in _streams.Values)
        {
            stream.IsGone = true;
            stream.ReleaseQueue();
            _scheduler.Remove(stream);
        }

        _streams.Clear();
        _unread.Clear();
        _control.Clear();
        _waitingForBudget.Clear();
        _urgent = null;
        _payloadStream = null;
        _queuedBytes = 0;
    }

    /// <summary>Ends the session for a reason found above: queues go-away, and every further <see cref="Receive"/> throws.</summary>
    internal void Fail(SessionProtocolException failure)
    {
        _failure ??= failure;
        _reader.Clear();
        // A go-away with an error is the last word, not something to answer.
        if (_goAway is not (null or MuxGoAwayCode.Normal))
            return;

        _goAway = failure.Code == SessionError.InternalError ? MuxGoAwayCode.InternalError : MuxGoAwayCode.ProtocolError;
        _goAwayPending = true;
    }

    private void OnHeader(in MuxFrameHeader header)
    {
        switch (header.Type)
        {
            case MuxFrameType.Data:
            case MuxFrameType.WindowUpdate:
                OnStreamFrame(header);
                break;
            case MuxFrameType.Ping:
                OnPing(header);
                break;
            default:
                OnGoAway(header);
                break;
        }
    }

    private void OnStreamFrame(in MuxFrameHeader header)
    {
        // Until the frame turns out to be for a stream that takes it, its payload is dropped.
        _payloadStream = null;
        if (header.StreamId == 0)
            throw Violation($"A {Name(header)} frame is for stream 0, which is the session.");

        _streams.TryGetValue(header.StreamId, out var stream);
        if (header.Has(MuxFrameFlags.Syn))
        {
            if (stream is not null)
                throw Violation($"Stream {header.StreamId} was opened while it exists.");
            stream = OnSyn(header);
            if (stream is null)
                return;
        }
        else if (stream is null or { SynPending: true })
        {
            // Frames for a stream that is gone are the normal race: the peer sent them before it heard.
            if (stream is not null || !WasOpened(header.StreamId))
                throw Violation($"A {Name(header)} frame is for stream {header.StreamId}, which was never opened.");
            return;
        }

        if (header.Has(MuxFrameFlags.Rst))
        {
            Forget(stream);
            Raise(new MuxEvent(MuxEventKind.Reset, stream));
            return;
        }

        if (header.Has(MuxFrameFlags.Ack) && stream.IsLocal && !stream.IsAccepted)
        {
            stream.IsAccepted = true;
            Raise(new MuxEvent(MuxEventKind.Accepted, stream));
        }

        if (header.Type == MuxFrameType.Data)
            OnDataHeader(stream, header);
        else
            OnCredit(stream, header);
    }

    private MuxStream? OnSyn(in MuxFrameHeader header)
    {
        var id = header.StreamId;
        if (IsLocalId(id))
        {
            throw Violation($"The peer opened stream {id}: {(_role == MuxRole.Dialer ? "odd" : "even")} ids are this side's.");
        }

        if (!_peerIds.TryAdd(id))
            throw Violation($"The peer opened stream {id}, an id that it has used before.");
        if (header.Has(MuxFrameFlags.Rst))
            return null;

        // Every reset that waits is for a stream that was opened, so this bounds them: a peer that keeps opening
        // streams without reading that they are refused must not fill memory with refusals.
        if (_resets.Count >= MaxPendingResets)
            throw Violation($"The peer opened more streams without reading that {MaxPendingResets} were refused or reset.");
        if (_goAway is not null || _streams.Count >= _options.MaxStreams || _unaccepted >= _options.MaxUnacceptedStreams)
        {
            _resets.Enqueue(id);
            return null;
        }

        var stream = new MuxStream(id, isLocal: false, Now);
        _streams.Add(id, stream);
        _unaccepted++;
        Raise(new MuxEvent(MuxEventKind.Opened, stream));
        return stream;
    }

    private void OnDataHeader(MuxStream stream, in MuxFrameHeader header)
    {
        if (header.Length > 0)
        {
            if (stream.PeerFinished)
                throw Violation($"Data for stream {stream.Id} came after its end.");
            if (!stream.Window.TryReceive(header.Length))
                throw Violation($"A data frame of {header.Length} bytes for stream {stream.Id} exceeds its window of {stream.Window.Credit} bytes.");

            _payloadStream = stream;
            _payloadFinishes = header.Has(MuxFrameFlags.Fin);
        }
        else if (header.Has(MuxFrameFlags.Fin))
        {
            OnFin(stream);
        }
    }

    private void OnCredit(MuxStream stream, in MuxFrameHeader header)
    {
        if (header.Length > 0)
        {
            stream.SendCredit += header.Length;
            if (stream.SendCredit > uint.MaxValue)
                throw Violation($"Window updates raised the credit of stream {stream.Id} beyond 4294967295 bytes.");
            CheckWritable(stream);
        }

        if (header.Has(MuxFrameFlags.Fin))
            OnFin(stream);
    }

    private void OnPayload(ByteSlice payload)
    {
        if (_payloadStream is not { IsGone: false } stream)
        {
            payload.Release();
            return;
        }

        if (payload.Length <= _options.CopyBelowBytes && payload.Chunk!.Array.Length >= 8 * (ByteChunk.Headroom + payload.Length))
        {
            var copy = ByteChunk.Copy(payload.Span);
            payload.Release();
            payload = copy;
        }

        Raise(new MuxEvent(MuxEventKind.Data, stream, payload));
        if (_payloadFinishes && _reader.PayloadLeft == 0)
            OnFin(stream);
    }

    private void OnFin(MuxStream stream)
    {
        // Some implementations repeat their FIN when the stream is closed; it says nothing new.
        if (stream.PeerFinished)
            return;

        stream.PeerFinished = true;
        stream.Window.Finish(_windowBudget);
        Raise(new MuxEvent(MuxEventKind.Finished, stream));
        if (stream.Finished && !stream.FinPending)
            Forget(stream, inOrder: true);
    }

    private void OnPing(in MuxFrameHeader header)
    {
        if (header.StreamId != 0)
            throw Violation($"A ping is for stream {header.StreamId}; pings belong to the session, stream 0.");

        if (header.Has(MuxFrameFlags.Syn))
        {
            if (_pongs.Count == MaxPendingPongs)
                _pongs.Dequeue();
            _pongs.Enqueue(header.Length);
        }
        else if (header.Has(MuxFrameFlags.Ack) && _pingOutstanding && !_pingPending && header.Length == _pingValue)
        {
            _pingOutstanding = false;
            _roundTrip.Add(Now - _pingSentAt);
        }
    }

    private void OnGoAway(in MuxFrameHeader header)
    {
        if (header.StreamId != 0)
            throw Violation($"A go-away is for stream {header.StreamId}; it belongs to the session, stream 0.");

        if (header.Length == (uint)MuxGoAwayCode.Normal)
        {
            if (!PeerIsGoingAway)
                Raise(new MuxEvent(MuxEventKind.GoAway, null));
            PeerIsGoingAway = true;
            return;
        }

        // Nothing is answered to a peer that has given up.
        _goAway = MuxGoAwayCode.ProtocolError;
        _goAwayPending = false;
        throw header.Length switch
        {
            (uint)MuxGoAwayCode.ProtocolError => Violation("The peer ended the session with go-away 1: it found a protocol error."),
            (uint)MuxGoAwayCode.InternalError => new SessionProtocolException(
                SessionError.InternalError, "The peer ended the session with go-away 2: an internal error of the peer."),
            _ => Violation($"The peer ended the session with go-away {header.Length}, which is no known reason."),
        };
    }

    private bool TryTakeControl(out ByteSlice frame)
    {
        frame = default;
        if (_failure is not null)
        {
            if (!_goAwayPending)
                return false;
            _resets.Clear();
            _pongs.Clear();
            _control.Clear();
            _pingPending = false;
        }

        var count = Math.Min(
            MaxControlBatch,
            _pongs.Count + _resets.Count + _control.Count + (_pingPending ? 1 : 0) + (_goAwayPending ? 1 : 0));
        if (count == 0)
            return false;

        var chunk = ByteChunk.Rent(ByteChunk.Headroom + count * MuxFrameHeader.Size);
        var end = ByteChunk.Headroom;
        var last = ByteChunk.Headroom + count * MuxFrameHeader.Size;
        if (_pingPending)
        {
            _pingPending = false;
            _pingOutstanding = true;
            _pingSentAt = Now;
            Put(new MuxFrameHeader(MuxFrameType.Ping, MuxFrameFlags.Syn, 0, ++_pingValue));
        }

        while (_pongs.Count > 0 && end < last)
            Put(new MuxFrameHeader(MuxFrameType.Ping, MuxFrameFlags.Ack, 0, _pongs.Dequeue()));
        while (_resets.Count > 0 && end < last)
            Put(new MuxFrameHeader(MuxFrameType.WindowUpdate, MuxFrameFlags.Rst, _resets.Dequeue(), 0));
        while (_control.First is { } node && end < last)
        {
            _control.Remove(node);
            var stream = node.Value;
            var flags = stream.AckPending ? MuxFrameFlags.Ack : MuxFrameFlags.None;
            var credit = stream.Window.TakeCredit();
            stream.AckPending = false;
            if (credit > 0 || flags != MuxFrameFlags.None)
                Put(new MuxFrameHeader(MuxFrameType.WindowUpdate, flags, stream.Id, credit));
        }

        if (_goAwayPending && end < last)
        {
            _goAwayPending = false;
            Put(new MuxFrameHeader(MuxFrameType.GoAway, MuxFrameFlags.None, 0, (uint)_goAway!));
        }

        if (end == ByteChunk.Headroom)
        {
            // Every update was for a stream that needs none any more.
            chunk.Release();
            return false;
        }

        frame = new ByteSlice(chunk, ByteChunk.Headroom, end - ByteChunk.Headroom);
        return true;

        void Put(in MuxFrameHeader header)
        {
            header.Write(chunk.Array.AsSpan(end, MuxFrameHeader.Size));
            end += MuxFrameHeader.Size;
        }
    }

    // SYN and FIN travel in window updates of their own, as most implementations send them: some look at the flags of
    // a data frame before its payload and lose one of the two.
    private ByteSlice TakeFrame(MuxStream stream)
    {
        ByteSlice frame;
        if (stream.QueuedFrames > 0)
        {
            var payload = stream.Dequeue();
            _queuedBytes -= payload.Length;
            if (!stream.IsUrgent && stream.IsInteractive(payload.Length))
                _interactiveUntil = Now + _options.InteractiveHold;
            frame = new MuxFrameHeader(MuxFrameType.Data, MuxFrameFlags.None, stream.Id, (uint)payload.Length).Prepend(payload);
            CheckWritable(stream);
            WakeWaiting();
        }
        else if (stream.FinPending)
        {
            frame = Prepend(MuxFrameFlags.Fin, stream, EmptyFrame());
            stream.FinPending = false;
        }
        else
        {
            frame = EmptyFrame();
        }

        if (stream.SynPending)
        {
            stream.SynPending = false;
            frame = Prepend(MuxFrameFlags.Syn, stream, frame);
        }

        if (stream.PeerFinished && stream.Finished && !stream.FinPending)
            Forget(stream, inOrder: true);
        return frame;
    }

    private static ByteSlice EmptyFrame()
    {
        const int End = ByteChunk.Headroom + 2 * MuxFrameHeader.Size;
        return new ByteSlice(ByteChunk.Rent(End), End, 0);
    }

    private static ByteSlice Prepend(MuxFrameFlags flags, MuxStream stream, ByteSlice frame) =>
        new MuxFrameHeader(MuxFrameType.WindowUpdate, flags, stream.Id, 0).Prepend(frame);

    private int Allowance(MuxStream stream, out bool waitsForBudget)
    {
        waitsForBudget = false;
        if (stream.IsGone || stream.Finished || _failure is not null)
            return 0;

        var quantum = IsInteractive ? Math.Min(_options.SendQuantumBytes, _options.InteractiveQuantumBytes) : _options.SendQuantumBytes;
        var room = quantum - stream.QueuedBytes;
        if (room < quantum / 2 || stream.QueuedFrames >= MaxQueuedFrames)
            return 0;

        var allowance = (int)Math.Min(room, stream.SendCredit);
        if (stream.IsUrgent || _queuedBytes + allowance <= _options.MaxSendQueueBytes)
            return allowance;

        // All or nothing, so that a full session does not make everyone read in dribbles.
        waitsForBudget = allowance > 0;
        return 0;
    }

    private void CheckWritable(MuxStream stream)
    {
        if (!stream.WantsWritable)
            return;

        var allowance = Allowance(stream, out var waitsForBudget);
        if (waitsForBudget || (allowance > 0 && _waitingForBudget.Count > 0 && !stream.WasWoken && !stream.IsUrgent))
        {
            // Room that it has just made itself belongs to those who wait longer.
            WaitForBudget(stream);
        }
        else if (allowance > 0)
        {
            stream.WantsWritable = false;
            LeaveBudgetQueue(stream);
            Raise(new MuxEvent(MuxEventKind.Writable, stream));
        }
    }

    private void WaitForBudget(MuxStream stream)
    {
        if (stream.BudgetNode.List is not null)
            return;
        // Someone else took the room that it was told of: it stays the first in line.
        if (stream.WasWoken)
            _waitingForBudget.AddFirst(stream.BudgetNode);
        else
            _waitingForBudget.AddLast(stream.BudgetNode);
    }

    private void LeaveBudgetQueue(MuxStream stream)
    {
        if (stream.BudgetNode.List is not null)
            _waitingForBudget.Remove(stream.BudgetNode);
    }

    // One at a time while frames are still to be taken, for those who are woken may have nothing to send; all once
    // nothing is queued, for then no later frame would wake the rest.
    private void WakeWaiting()
    {
        while (_waitingForBudget.First is { } node && _queuedBytes + _options.SendQuantumBytes <= _options.MaxSendQueueBytes)
        {
            _waitingForBudget.Remove(node);
            node.Value.WasWoken = true;
            CheckWritable(node.Value);
            if (_queuedBytes > 0)
                return;
        }
    }

    private void Activate(MuxStream stream)
    {
        if (!stream.IsUrgent)
            _scheduler.Activate(stream);
    }

    private void QueueControl(MuxStream stream)
    {
        if (stream.ControlNode.List is null)
            _control.AddLast(stream.ControlNode);
    }

    private void Forget(MuxStream stream, bool inOrder = false)
    {
        stream.IsGone = true;
        _streams.Remove(stream.Id);
        if (!stream.IsLocal && !stream.IsAccepted)
            _unaccepted--;

        _scheduler.Remove(stream);
        if (stream.ControlNode.List is not null)
            _control.Remove(stream.ControlNode);
        LeaveBudgetQueue(stream);

        // Bytes that still wait for their reader are paid for until he has taken them.
        if (inOrder && stream.Window.Buffered > 0)
            _unread.Add(stream.Id, stream);
        else
            stream.Window.Release(_windowBudget);
        if (_urgent == stream)
            _urgent = null;

        _queuedBytes -= stream.QueuedBytes;
        stream.ReleaseQueue();
        WakeWaiting();
    }

    private void Raise(in MuxEvent muxEvent) => _events.Enqueue(muxEvent);

    private bool IsLocalId(uint id) => (id & 1) == (_role == MuxRole.Dialer ? 1u : 0u);

    private bool WasOpened(uint id) => IsLocalId(id) ? id < _nextId : _peerIds.WasUsed(id);

    private static string Name(in MuxFrameHeader header) => header.Type == MuxFrameType.Data ? "data" : "window update";

    private static SessionProtocolException Violation(string message) => new(SessionError.ProtocolViolation, message);
}
