using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Protocol.Mux;

namespace VTunnel.Protocol.V2;

/// <summary>
/// Protocol v2 above the link: mux, control stream and stream prefaces, as a state machine without clock or threads.
/// A frame is a run of bytes for the link; received bytes may be cut anywhere.
/// </summary>
/// <remarks>
/// The dialer opens the control stream at once, as its first stream; each side's first message on it is its
/// <see cref="Hello"/>. Set <see cref="Now"/> before every call. There is nothing to do on a timer.
/// </remarks>
public sealed class V2Session : IMultiplexer<ByteSlice>
{
    /// <summary>Control messages that may wait for a peer that does not read them, in bytes.</summary>
    private const int MaxControlBacklogBytes = 4 * 1024 * 1024;

    private readonly MuxSession _mux;
    private readonly FrameGather _gather;
    private readonly MuxRole _role;
    private readonly int _maxStreams;
    private readonly RingQueue<(StreamEvent Event, MuxStream? Stream)> _events = new();
    private readonly ControlLineReader _controlReader = new();
    private readonly ControlLineWriter _writer = new();
    private readonly RingQueue<ByteSlice> _controlBacklog = new();
    private int _controlBacklogBytes;
    private MuxStream? _control;
    private bool _controlSeen;
    private bool _failed;
    private MuxStream? _last;

    /// <summary>A session whose peer has been told nothing yet; take the first frame at once.</summary>
    /// <param name="role">The dialer opens the control stream.</param>
    /// <param name="hello">What the peer is told first.</param>
    /// <param name="options">Limits; both ends may differ.</param>
    /// <exception cref="ArgumentException">The options are not valid.</exception>
    public V2Session(MuxRole role, Hello hello, MuxOptions? options = null)
    {
        options ??= new MuxOptions();
        _role = role;
        _maxStreams = options.MaxStreams;
        _mux = new MuxSession(role, options);
        _gather = new FrameGather(_mux);
        if (role == MuxRole.Dialer)
        {
            _control = _mux.Open()!;
            _controlSeen = true;
            _mux.Prioritize(_control);
        }

        SendControl(hello);
        _mux.SendPing();
    }

    /// <inheritdoc />
    public TimeSpan Now
    {
        get => _mux.Now;
        set => _mux.Now = value;
    }

    /// <summary>The smoothed round trip; null until the first ping was answered.</summary>
    public TimeSpan? RoundTrip => _mux.RoundTrip;

    /// <summary>Bytes of payload that wait to be sent.</summary>
    public long QueuedBytes => _mux.QueuedBytes;

    /// <inheritdoc cref="MuxSession.IsInteractive"/>
    public bool IsInteractive => _mux.IsInteractive;

    /// <summary>What the peer said of itself; null until it did.</summary>
    public Hello? PeerHello { get; private set; }

    /// <summary>Whether the peer has ended the session in order; <see cref="Open"/> gives 0 from then on.</summary>
    public bool PeerIsGoingAway => _mux.PeerIsGoingAway;

    /// <inheritdoc />
    public bool CanReceive => true;

    /// <inheritdoc />
    public bool HasHalfClose => true;

    /// <inheritdoc />
    public int StreamCount => _mux.StreamCount - (_control is { IsGone: false } ? 1 : 0);

    /// <inheritdoc />
    public uint Open(StreamRequest request)
    {
        // The peer's first stream must find room, or it is reset and the session with it.
        if (!_controlSeen && _mux.StreamCount >= _maxStreams - 1)
            return 0;

        var preface = _writer.Write(request);
        var stream = _mux.Open();
        if (stream is null)
        {
            preface.Release();
            return 0;
        }

        _mux.Send(stream, preface);
        return stream.Id;
    }

    /// <inheritdoc />
    public void Accept(uint streamId)
    {
        if (Find(streamId) is { } stream)
            _mux.Accept(stream);
    }

    /// <inheritdoc />
    public int SendAllowance(uint streamId) => Find(streamId) is { } stream ? _mux.SendAllowance(stream) : 0;

    /// <inheritdoc />
    public void Send(uint streamId, ByteSlice payload)
    {
        if (Find(streamId) is { } stream)
            _mux.Send(stream, payload);
        else
            payload.Release();
    }

    /// <inheritdoc />
    public void Finish(uint streamId)
    {
        if (Find(streamId) is { } stream)
            _mux.Finish(stream);
    }

    /// <inheritdoc />
    public void Reset(uint streamId)
    {
        if (FindUnread(streamId) is not { } stream)
            return;

        _mux.Reset(stream);
        TakeMuxEvents();
    }

    /// <inheritdoc />
    public void Consumed(uint streamId, int bytes)
    {
        if (FindUnread(streamId) is { } stream)
            _mux.Consumed(stream, bytes);
    }

    /// <inheritdoc />
    /// <exception cref="ArgumentException">The message is too long for a line.</exception>
    public void SendControl(ControlMessage message)
    {
        var line = _writer.Write(message);
        _controlBacklog.Enqueue(line);
        _controlBacklogBytes += line.Length;
        FlushControl();
        if (_controlBacklogBytes > MaxControlBacklogBytes)
        {
            throw Failed(new SessionProtocolException(
                SessionError.ProtocolViolation,
                $"The peer does not read its control stream: {_controlBacklogBytes} bytes wait for it."));
        }
    }

    /// <inheritdoc />
    public void SendPing() => _mux.SendPing();

    /// <summary>Ends the session in order: nothing further is opened by either side, streams that exist may finish.</summary>
    public void GoAway(MuxGoAwayCode code = MuxGoAwayCode.Normal) => _mux.GoAway(code);

    /// <inheritdoc />
    public void Receive(ByteSlice frame)
    {
        try
        {
            _mux.Receive(frame);
            TakeMuxEvents();
        }
        catch (SessionProtocolException e)
        {
            throw Failed(e);
        }
    }

    /// <inheritdoc />
    public bool TryTakeFrame(out ByteSlice frame)
    {
        var taken = _gather.TryTake(out frame);
        TakeMuxEvents();
        return taken;
    }

    /// <inheritdoc />
    public bool TryTakeEvent(out StreamEvent streamEvent)
    {
        while (_events.Count > 0)
        {
            (streamEvent, var stream) = _events.Dequeue();
            if (stream is not { WasResetHere: true })
                return true;
            streamEvent.Payload.Release();
        }

        streamEvent = default;
        return false;
    }

    /// <inheritdoc />
    public void Abandon()
    {
        _mux.Abandon();
        _gather.Abandon();
        while (_events.Count > 0)
            _events.Dequeue().Event.Payload.Release();
        while (_controlBacklog.Count > 0)
            _controlBacklog.Dequeue().Release();
        _controlBacklogBytes = 0;
        _last = null;
    }

    private void TakeMuxEvents()
    {
        while (!_failed && _mux.TryTakeEvent(out var muxEvent))
        {
            if (muxEvent.Stream is not { } stream)
                continue; // Go-away: a property says so.

            if (stream == _control)
                OnControl(stream, muxEvent);
            else if (stream.Tag is StreamPreface preface)
                OnUnopened(stream, preface, muxEvent);
            else if (muxEvent.Kind == MuxEventKind.Opened)
                OnOpened(stream);
            else
                Raise(Kind(muxEvent.Kind), stream, muxEvent.Payload);
        }
    }

    private static StreamEventKind Kind(MuxEventKind kind) => kind switch
    {
        MuxEventKind.Accepted => StreamEventKind.Accepted,
        MuxEventKind.Data => StreamEventKind.Data,
        MuxEventKind.Finished => StreamEventKind.Finished,
        MuxEventKind.Reset => StreamEventKind.Reset,
        MuxEventKind.Writable => StreamEventKind.Writable,
        _ => throw new ArgumentOutOfRangeException(nameof(kind), kind, null),
    };

    private void OnOpened(MuxStream stream)
    {
        if (_controlSeen || _role == MuxRole.Dialer)
        {
            stream.Tag = new StreamPreface();
            return;
        }

        _controlSeen = true;
        _control = stream;
        _mux.Accept(stream);
        _mux.Prioritize(stream);
        FlushControl();
    }

    private void OnUnopened(MuxStream stream, StreamPreface preface, in MuxEvent muxEvent)
    {
        switch (muxEvent.Kind)
        {
            case MuxEventKind.Data:
                break;
            case MuxEventKind.Finished:
                // An end before the stream said what it is for: there is nobody here to tell.
                _mux.Reset(stream);
                return;
            default:
                return;
        }

        var payload = muxEvent.Payload;
        var rest = payload.Span;
        bool complete;
        StreamRequest? request;
        try
        {
            complete = preface.TryRead(ref rest, out request);
        }
        catch (SessionProtocolException)
        {
            payload.Release();
            throw;
        }

        var prefaceBytes = payload.Length - rest.Length;
        if (complete && request is null)
        {
            _mux.Reset(stream);
            payload.Release();
            return;
        }

        _mux.Consumed(stream, prefaceBytes);
        if (complete)
        {
            stream.Tag = null;
            Raise(StreamEventKind.Opened, stream, request: request!.Value);
        }

        if (rest.IsEmpty)
            payload.Release();
        else
            Raise(StreamEventKind.Data, stream, payload.Skip(prefaceBytes));
    }

    private void OnControl(MuxStream stream, in MuxEvent muxEvent)
    {
        switch (muxEvent.Kind)
        {
            case MuxEventKind.Data:
                var payload = muxEvent.Payload;
                try
                {
                    var input = payload.Span;
                    while (_controlReader.TryRead(ref input, out var message))
                    {
                        if (message is Hello hello)
                            PeerHello = hello;
                        Raise(StreamEventKind.Control, null, control: message);
                    }
                }
                finally
                {
                    payload.Release();
                }

                _mux.Consumed(stream, payload.Length);
                break;
            case MuxEventKind.Writable:
                FlushControl();
                break;
            case MuxEventKind.Finished when _controlReader.HasPartialLine:
                throw new SessionProtocolException(SessionError.ProtocolViolation, "The control stream ended in the middle of a line.");
            case MuxEventKind.Reset:
                throw new SessionProtocolException(SessionError.ProtocolViolation, "The peer reset the control stream.");
            default:
                break;
        }
    }

    private void FlushControl()
    {
        while (_controlBacklog.Count > 0 && _control is { } control)
        {
            var allowance = _mux.SendAllowance(control);
            if (allowance == 0)
                return;

            ref var line = ref _controlBacklog[0];
            if (line.Length > allowance)
            {
                _mux.Send(control, ByteChunk.Copy(line.Span[..allowance]));
                _controlBacklogBytes -= allowance;
                line = line.Skip(allowance);
                continue;
            }

            _controlBacklogBytes -= line.Length;
            _mux.Send(control, _controlBacklog.Dequeue());
        }
    }

    private void Raise(
        StreamEventKind kind, MuxStream? stream, ByteSlice payload = default, StreamRequest request = default, ControlMessage? control = null) =>
        _events.Enqueue((new StreamEvent(kind, stream?.Id ?? 0, payload, request, control), stream));

    private SessionProtocolException Failed(SessionProtocolException failure)
    {
        _failed = true;
        _mux.Fail(failure);
        return failure;
    }

    private MuxStream? Find(uint streamId)
    {
        // Calls come in runs for one stream; ids are never used again, so one that is gone is simply gone.
        if (_last?.Id == streamId)
            return _last.IsGone ? null : _last;
        if (!_mux.TryGetStream(streamId, out var stream) || stream == _control)
            return null;

        _last = stream;
        return stream;
    }

    /// <summary>One that has ended in order may still have bytes for its reader.</summary>
    private MuxStream? FindUnread(uint streamId) => Find(streamId) ?? (_mux.TryGetUnread(streamId, out var stream) ? stream : null);
}
