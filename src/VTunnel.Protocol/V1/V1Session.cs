using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Multiplexing;

namespace VTunnel.Protocol.V1;

/// <summary>One end of a v1 session.</summary>
/// <remarks>
/// <para>
/// v1 has no credit. What keeps memory bounded is that at most one payload per stream waits to be sent, and that the peer
/// is read no further (<see cref="CanReceive"/>) while its data waits for readers; both bounds are in the options.
/// </para>
/// <para>
/// A stream counts (<see cref="StreamCount"/>, <see cref="V1SessionOptions.MaxStreams"/>) until its <c>connect</c>, its data
/// and its <c>close</c> have been taken by the layer below and, where the peer ended it, until the caller has consumed what
/// came before the end or has reset the stream. So a peer that opens and closes without reading cannot make it grow.
/// </para>
/// <para>
/// Messages that make no sense in this role or for this stream are ignored: in v1 they are the normal races with
/// <c>close</c>. No message of a peer ends a v1 session, so <see cref="Receive"/> throws nothing.
/// </para>
/// </remarks>
public sealed class V1Session : IMultiplexer<V1Message>
{
    private const int FirstPort = 1;
    private const int LastPort = 65535;

    // What a chunk costs besides its array: the chunk, and its places in queues on the way to the reader.
    private const int ChunkOverheadBytes = 128;

    // Requests that were received before reading stopped are answered all the same, up to this many times the limit.
    private const int AnswerLimitFactor = 4;

    private static readonly V1Message Ping = new(V1MessageType.Ping);
    private static readonly V1Message Pong = new(V1MessageType.Pong);

    private readonly V1Role _role;
    private readonly V1SessionOptions _options;
    private readonly Dictionary<uint, StreamState> _streams = [];

    // Linked, because a stream that ends takes its frames out of the middle.
    private readonly LinkedList<V1Message> _control = new();
    private readonly LinkedList<StreamState> _ready = new();
    private readonly Queue<StreamEvent> _events = new();

    private bool _pingWaits;
    private bool _pongWaits;
    private uint _lastStreamId;

    private int _fullStreamCount;
    private long _heldBytes;
    private bool _sessionFull;
    private int _answerCount;
    private bool _answersFull;

    /// <summary>Makes one end of a session that has just begun.</summary>
    /// <exception cref="ArgumentOutOfRangeException">An option is out of its range.</exception>
    public V1Session(V1Role role, V1SessionOptions? options = null)
    {
        _role = role;
        _options = options ?? new V1SessionOptions();
        _options.Validate();
    }

    /// <inheritdoc />
    /// <remarks>
    /// False while a stream holds more than <see cref="V1SessionOptions.StreamBufferBytes"/>, or all of them more than
    /// <see cref="V1SessionOptions.SessionBufferBytes"/>, or more than <see cref="V1SessionOptions.MaxControlFrames"/> answers
    /// to the peer's own requests wait to be sent; true again when each is below half. Frames that this side sends of its own
    /// accord do not count: two ends that each waited for the other to read would wait for ever, and those frames are bounded
    /// by the number of streams anyway. Changes in <see cref="TryTakeFrame"/> as well.
    /// </remarks>
    public bool CanReceive => _fullStreamCount == 0 && !_sessionFull && !_answersFull;

    /// <inheritdoc />
    public bool HasHalfClose => false;

    /// <inheritdoc />
    /// <remarks>Protocol v1 measures nothing.</remarks>
    public TimeSpan Now { get; set; }

    /// <inheritdoc />
    public int StreamCount => _streams.Count;

    /// <summary>The id given last; for tests of what happens after the last one.</summary>
    internal uint LastStreamId
    {
        set => _lastStreamId = value;
    }

    /// <inheritdoc />
    /// <remarks>
    /// Ids go from 1 up; after the last one they begin again with those that no stream has. 0 when
    /// <see cref="StreamCount"/> has reached <see cref="V1SessionOptions.MaxStreams"/>.
    /// </remarks>
    /// <exception cref="InvalidOperationException">This is the client's end.</exception>
    /// <exception cref="ArgumentOutOfRangeException">The port is not 1 to 65535.</exception>
    public uint Open(StreamRequest request)
    {
        if (_role != V1Role.Server)
            throw new InvalidOperationException("In v1 only the server opens streams.");
        ArgumentOutOfRangeException.ThrowIfLessThan(request.Port, FirstPort, nameof(request));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(request.Port, LastPort, nameof(request));
        if (_streams.Count >= _options.MaxStreams)
            return 0;

        do
        {
            _lastStreamId = unchecked(_lastStreamId + 1);
        }
        while (_lastStreamId == 0 || _streams.ContainsKey(_lastStreamId));

        var stream = new StreamState(_lastStreamId);
        _streams.Add(stream.Id, stream);
        stream.Connect = _control.AddLast(new V1Message(V1MessageType.Connect, stream.Id, request.Port));
        return stream.Id;
    }

    /// <inheritdoc />
    /// <remarks>v1 has no message for it: nothing is sent.</remarks>
    public void Accept(uint streamId)
    {
    }

    /// <inheritdoc />
    /// <remarks><see cref="V1SessionOptions.MaxPayloadBytes"/> when no payload of the stream waits to be taken, else 0.</remarks>
    public int SendAllowance(uint streamId) =>
        _streams.TryGetValue(streamId, out var stream) && stream.Phase == Phase.Open && stream.Queued.IsEmpty ? _options.MaxPayloadBytes : 0;

    /// <inheritdoc />
    /// <exception cref="InvalidOperationException">The payload is longer than <see cref="SendAllowance"/>; it was released.</exception>
    public void Send(uint streamId, ByteSlice payload)
    {
        if (payload.IsEmpty || !_streams.TryGetValue(streamId, out var stream) || stream.Phase != Phase.Open)
        {
            payload.Release();
            return;
        }

        var allowance = SendAllowance(streamId);
        if (payload.Length > allowance)
        {
            payload.Release();
            throw new InvalidOperationException($"{payload.Length} bytes were sent on stream {streamId}, where {allowance} are allowed now.");
        }

        stream.Queued = payload;
        _ready.AddLast(stream.Turn);
    }

    /// <inheritdoc />
    /// <remarks>
    /// Sends <c>close</c> after what is queued. That ends both directions (<see cref="HasHalfClose"/>): no event of the stream
    /// follows, what the peer sends until it knows is dropped, and what it had sent no longer counts as held.
    /// </remarks>
    public void Finish(uint streamId)
    {
        if (!_streams.TryGetValue(streamId, out var stream) || stream.Phase != Phase.Open)
            return;

        stream.Phase = Phase.Ending;
        Forgive(stream);
        if (stream.Queued.IsEmpty)
            QueueClose(stream);
    }

    /// <inheritdoc />
    /// <remarks>
    /// Sends <c>close</c>: v1 cannot tell the peer that the stream broke. If <c>connect</c> has not been taken yet, neither is
    /// sent: the peer never hears of the stream. No event follows. After <see cref="StreamEventKind.Closed"/> it says that nobody
    /// will consume what is left.
    /// </remarks>
    public void Reset(uint streamId)
    {
        if (!_streams.TryGetValue(streamId, out var stream))
            return;

        if (stream.Phase == Phase.EndedByPeer)
            Forget(stream);
        else
            BreakOff(stream);
    }

    /// <inheritdoc />
    /// <remarks>
    /// Goes on after <see cref="StreamEventKind.Closed"/> came from the peer, until everything is consumed or the stream is
    /// <see cref="Reset"/>; does nothing for a stream that is gone.
    /// </remarks>
    /// <exception cref="ArgumentOutOfRangeException">More than was delivered and not yet consumed, or less than nothing.</exception>
    public void Consumed(uint streamId, int bytes)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(bytes);
        if (!_streams.TryGetValue(streamId, out var stream) || stream.Phase == Phase.Ending)
            return;

        ArgumentOutOfRangeException.ThrowIfGreaterThan(bytes, stream.UnreadBytes);
        if (bytes == 0)
            return;

        // The caller counts bytes and not messages, so memory is taken to be spread evenly over them; the last byte frees the rest.
        var freed = (long)((Int128)stream.HeldBytes * bytes / stream.UnreadBytes);
        stream.UnreadBytes -= bytes;
        stream.HeldBytes -= freed;
        _heldBytes -= freed;
        UpdateFull(stream);
        if (stream.Phase == Phase.EndedByPeer && stream.UnreadBytes == 0)
            Forget(stream);
    }

    /// <inheritdoc />
    /// <exception cref="ArgumentException">The message has no form in v1.</exception>
    /// <exception cref="SessionProtocolException">
    /// Four times <see cref="V1SessionOptions.MaxControlFrames"/> answers wait: not reading on was not enough, because that many
    /// requests were on their way through this side already. The peer asks and does not read.
    /// </exception>
    public void SendControl(ControlMessage message)
    {
        ArgumentNullException.ThrowIfNull(message);
        switch (message)
        {
            case Listen listen:
                _control.AddLast(new V1Message(V1MessageType.Listen, Port: listen.Port, Text: listen.LocalAddr));
                break;

            case ListenOk ok:
                CheckAnswers();
                QueueAnswer(new V1Message(V1MessageType.ListenOk, Port: ok.Port));
                break;

            case ListenErr err:
                CheckAnswers();
                QueueAnswer(new V1Message(V1MessageType.ListenErr, Port: err.Port, Text: err.Error));
                break;

            default:
                throw new ArgumentException($"v1 has no message for {message.GetType().Name}.", nameof(message));
        }
    }

    /// <inheritdoc />
    /// <remarks>In v1 only clients ask. A server's sign of life is a <c>pong</c> that nobody asked for: any message counts.</remarks>
    public void SendPing()
    {
        if (_role == V1Role.Client)
            _pingWaits = true;
        else
            _pongWaits = true;
    }

    /// <inheritdoc />
    public void Receive(V1Message frame)
    {
        ArgumentNullException.ThrowIfNull(frame);
        if (frame.Type == V1MessageType.Data)
        {
            ReceiveData(frame.StreamId, frame.Payload);
            return;
        }

        frame.Payload.Release();
        switch (frame.Type)
        {
            case V1MessageType.Connect when _role == V1Role.Client && frame.StreamId != 0:
                ReceiveConnect(frame.StreamId, frame.Port);
                break;

            case V1MessageType.Close:
                ReceiveClose(frame.StreamId);
                break;

            case V1MessageType.Listen when _role == V1Role.Server:
                RaiseControl(new Listen(frame.Port, frame.Text));
                break;

            case V1MessageType.ListenOk when _role == V1Role.Client:
                RaiseControl(new ListenOk(frame.Port));
                break;

            case V1MessageType.ListenErr when _role == V1Role.Client:
                RaiseControl(new ListenErr(frame.Port, frame.Text ?? "the server gave no reason"));
                break;

            case V1MessageType.Ping:
                // One pong answers however many pings came before it.
                _pongWaits = true;
                break;

            default:
                // Pong, which has said what it says by arriving; what this version does not know; what is not for this role.
                break;
        }
    }

    /// <inheritdoc />
    /// <remarks>The message's payload reference is the caller's. Raises <see cref="StreamEventKind.Writable"/>.</remarks>
    public bool TryTakeFrame(out V1Message frame)
    {
        if (_pongWaits)
        {
            _pongWaits = false;
            frame = Pong;
            return true;
        }

        if (_pingWaits)
        {
            _pingWaits = false;
            frame = Ping;
            return true;
        }

        if (_control.First is { } control)
        {
            _control.Remove(control);
            NoteTaken(control);
            frame = control.Value;
            return true;
        }

        // A stream has at most one payload here and comes back to the end of the line with the next one.
        if (_ready.First is { } turn)
        {
            _ready.Remove(turn);
            frame = TakePayload(turn.Value);
            return true;
        }

        frame = null!;
        return false;
    }

    /// <inheritdoc />
    public bool TryTakeEvent(out StreamEvent streamEvent) => _events.TryDequeue(out streamEvent);

    /// <inheritdoc />
    public void Abandon()
    {
        foreach (var stream in _ready)
            stream.Queued.Release();
        while (_events.TryDequeue(out var streamEvent))
            streamEvent.Payload.Release();
        _ready.Clear();
        _control.Clear();
        _streams.Clear();
    }

    private void ReceiveData(uint streamId, ByteSlice payload)
    {
        if (payload.IsEmpty || !_streams.TryGetValue(streamId, out var stream) || stream.Phase != Phase.Open)
        {
            payload.Release();
            return;
        }

        var held = payload.Chunk!.Array.Length + ChunkOverheadBytes;
        stream.UnreadBytes += payload.Length;
        stream.HeldBytes += held;
        _heldBytes += held;
        UpdateFull(stream);
        _events.Enqueue(new StreamEvent(StreamEventKind.Data, streamId, payload));
    }

    private void ReceiveConnect(uint streamId, int port)
    {
        if (_streams.TryGetValue(streamId, out var old))
        {
            ReceiveReusedId(old);
            return;
        }

        if (port is < FirstPort or > LastPort || _streams.Count >= _options.MaxStreams)
        {
            Refuse(streamId);
            return;
        }

        _streams.Add(streamId, new StreamState(streamId));
        _events.Enqueue(new StreamEvent(StreamEventKind.Opened, streamId, Request: new StreamRequest(port)));
    }

    /// <summary>
    /// A server that opens a stream under an id in use has lost count, and whatever comes under that id next may be another
    /// visitor's. So both end, the old one and the new: a visitor who has to connect again has lost less than one whose bytes
    /// reach somebody else's connection.
    /// </summary>
    private void ReceiveReusedId(StreamState old)
    {
        switch (old.Phase)
        {
            case Phase.Open:
                _events.Enqueue(new StreamEvent(StreamEventKind.Reset, old.Id));
                BreakOff(old);
                break;

            case Phase.Ending:
                // What is queued was for the old visitor. The close that is due anyway is the answer.
                BreakOff(old);
                break;

            default:
                // The old one ended in order: its reader may have the rest, which can no longer be mixed up with anything.
                Refuse(old.Id);
                break;
        }
    }

    private void ReceiveClose(uint streamId)
    {
        if (!_streams.TryGetValue(streamId, out var stream) || stream.Phase == Phase.EndedByPeer)
            return;

        // Whatever was to be sent would be dropped by a peer that has forgotten the stream.
        DropOutput(stream);
        if (stream.Phase == Phase.Open)
            _events.Enqueue(new StreamEvent(StreamEventKind.Closed, streamId));
        if (stream.UnreadBytes > 0)
            stream.Phase = Phase.EndedByPeer;
        else
            _streams.Remove(streamId);
    }

    private V1Message TakePayload(StreamState stream)
    {
        var frame = new V1Message(V1MessageType.Data, stream.Id, Payload: stream.Queued);
        stream.Queued = ByteSlice.Empty;
        if (stream.Phase == Phase.Ending)
            QueueClose(stream);
        else
            _events.Enqueue(new StreamEvent(StreamEventKind.Writable, stream.Id));
        return frame;
    }

    private void NoteTaken(LinkedListNode<V1Message> control)
    {
        var message = control.Value;
        if (message.StreamId != 0 && _streams.TryGetValue(message.StreamId, out var stream))
        {
            if (stream.Connect == control)
            {
                stream.Connect = null;
                return;
            }

            if (stream.Close == control)
            {
                _streams.Remove(stream.Id);
                return;
            }
        }

        if (message.Type == V1MessageType.Listen)
            return;

        _answerCount--;
        if (_answerCount < (_options.MaxControlFrames + 1) / 2)
            _answersFull = false;
    }

    /// <summary>Ends a stream of which the peer may know, at once.</summary>
    private void BreakOff(StreamState stream)
    {
        var peerKnows = stream.Connect is null;
        var closeWaits = stream.Close is not null;
        if (peerKnows && closeWaits)
            return;

        stream.Phase = Phase.Ending;
        Forgive(stream);
        DropOutput(stream);
        if (peerKnows)
            QueueClose(stream);
        else
            _streams.Remove(stream.Id);
    }

    private void Forget(StreamState stream)
    {
        Forgive(stream);
        _streams.Remove(stream.Id);
    }

    private void Refuse(uint streamId) => QueueAnswer(new V1Message(V1MessageType.Close, streamId));

    private void QueueClose(StreamState stream) => stream.Close = _control.AddLast(new V1Message(V1MessageType.Close, stream.Id));

    private void QueueAnswer(V1Message message)
    {
        _control.AddLast(message);
        _answerCount++;
        if (_answerCount > _options.MaxControlFrames)
            _answersFull = true;
    }

    private void CheckAnswers()
    {
        if (_answerCount >= (long)_options.MaxControlFrames * AnswerLimitFactor)
            throw new SessionProtocolException(SessionError.ProtocolViolation, $"The peer left {_answerCount} answers to its requests unread.");
    }

    private void RaiseControl(ControlMessage message) => _events.Enqueue(new StreamEvent(StreamEventKind.Control, Control: message));

    /// <summary>Takes back everything of the stream that waits to be sent.</summary>
    private void DropOutput(StreamState stream)
    {
        if (!stream.Queued.IsEmpty)
        {
            _ready.Remove(stream.Turn);
            stream.Queued.Release();
            stream.Queued = ByteSlice.Empty;
        }

        if (stream.Connect is not null)
            _control.Remove(stream.Connect);
        if (stream.Close is not null)
            _control.Remove(stream.Close);
        stream.Connect = null;
        stream.Close = null;
    }

    /// <summary>Stops counting what the stream's reader has not consumed.</summary>
    private void Forgive(StreamState stream)
    {
        _heldBytes -= stream.HeldBytes;
        stream.HeldBytes = 0;
        stream.UnreadBytes = 0;
        UpdateFull(stream);
    }

    private void UpdateFull(StreamState stream)
    {
        var full = IsFull(stream.IsFull, stream.UnreadBytes, _options.StreamBufferBytes);
        if (full != stream.IsFull)
        {
            stream.IsFull = full;
            _fullStreamCount += full ? 1 : -1;
        }

        _sessionFull = IsFull(_sessionFull, _heldBytes, _options.SessionBufferBytes);
    }

    // Full above the limit, no longer full below half of it: in between it stays what it was, so that reading does not
    // stop and start with every message.
    private static bool IsFull(bool wasFull, long bytes, int limit) => bytes > limit || (wasFull && bytes * 2 >= limit);

    private enum Phase
    {
        /// <summary>Both directions flow.</summary>
        Open,

        /// <summary>This side ended it; its close, and perhaps data before it, has not been taken yet.</summary>
        Ending,

        /// <summary>The peer ended it; what came before has not all been consumed.</summary>
        EndedByPeer,
    }

    private sealed class StreamState
    {
        public StreamState(uint id)
        {
            Id = id;
            Turn = new LinkedListNode<StreamState>(this);
        }

        public uint Id { get; }

        /// <summary>The stream's place among those with payload to send; in the list while <see cref="Queued"/> is not empty.</summary>
        public LinkedListNode<StreamState> Turn { get; }

        public Phase Phase { get; set; }

        public ByteSlice Queued { get; set; }

        /// <summary>The connect that has not been taken yet.</summary>
        public LinkedListNode<V1Message>? Connect { get; set; }

        /// <summary>The close that has not been taken yet.</summary>
        public LinkedListNode<V1Message>? Close { get; set; }

        public long UnreadBytes { get; set; }

        public long HeldBytes { get; set; }

        public bool IsFull { get; set; }
    }
}
