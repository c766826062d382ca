using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Link;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Protocol.Mux;
using VTunnel.Protocol.V2;

namespace VTunnel.Testing.Simulation;

/// <summary>A v2 session on a link, and the applications at its streams. Checks every event against what the far side did.</summary>
public sealed class SessionUser : ILinkUser
{
    private readonly SimulationWorld _world;
    private readonly SimulatedStreams _streams;
    private readonly MuxRole _role;
    private readonly MuxOptions _options;
    private readonly V2Session _session;
    private readonly string _name;
    private int _controlSent;
    private int _controlReceived;
    private bool _isOver;

    /// <summary>One side.</summary>
    public SessionUser(SimulationWorld world, SimulatedStreams streams, MuxRole role, MuxOptions options)
    {
        (_world, _streams, _role, _options) = (world, streams, role, options);
        _name = role == MuxRole.Dialer ? "client" : "server";
        _session = new V2Session(role, new Hello(_name, "1", []), options);
    }

    /// <summary>Lets the link move what the session has to say.</summary>
    public Action? Pump { get; set; }

    /// <summary>Streams that the session has.</summary>
    public int StreamCount => _session.StreamCount;

    /// <summary>Bytes that the session has queued.</summary>
    public long QueuedBytes => _session.QueuedBytes;

    /// <summary>Whether readers take what arrives after a while of their own, rather than at once.</summary>
    public bool IsLeisurely { get; set; }

    private MuxRole Far => _role == MuxRole.Dialer ? MuxRole.Acceptor : MuxRole.Dialer;

    /// <inheritdoc />
    public void OnRead(ByteSlice bytes) => Do(() => _session.Receive(bytes));

    /// <inheritdoc />
    public void OnEvent(LinkEvent linkEvent)
    {
        if (linkEvent.Kind != LinkEventKind.Ended)
            return;
        _isOver = true;
        _session.Abandon();
    }

    /// <inheritdoc />
    public void OnSettled(LinkState link)
    {
        ArgumentNullException.ThrowIfNull(link);
        link.IsInteractive = _session.IsInteractive;
    }

    /// <inheritdoc />
    public bool TryWrite(LinkState link)
    {
        ArgumentNullException.ThrowIfNull(link);
        _session.Now = _world.Now;
        if (!_session.TryTakeFrame(out var frame))
            return false;
        link.Write(frame);
        DrainEvents();
        return true;
    }

    /// <summary>Opens a stream.</summary>
    public void Open()
    {
        if (_isOver)
            return;
        _session.Now = _world.Now;
        var id = _session.Open(new StreamRequest(_world.Random.Next(1, 65_536), _world.Chance(0.5) ? "192.0.2.7:4711" : null));
        _world.Check(id != 0 && _streams.Find(id) is null, $"{_name}: opened stream {id}");
        _world.Log?.Invoke($"{_world.Now:mm\\:ss\\.ffffff} {_name}: opens stream {id}");
        _streams.Add(id, _role);
        Settle();
    }

    /// <summary>Says something on the control stream.</summary>
    public void SendControl() => Do(() => _session.SendControl(new Listen(++_controlSent)));

    /// <summary>Asks for a sign of life.</summary>
    public void SendPing() => Do(_session.SendPing);

    /// <summary>Everything that the far side said on the control stream has arrived.</summary>
    public bool HasAllControlOf(SessionUser far)
    {
        ArgumentNullException.ThrowIfNull(far);
        return _controlReceived == far._controlSent;
    }

    /// <summary>Fails unless it has.</summary>
    public void CheckControl(SessionUser far) =>
        _world.Check(HasAllControlOf(far), $"{_name}: {_controlReceived} control messages arrived; {far._controlSent} were sent");

    /// <summary>Breaks a stream.</summary>
    public void Reset(SimulatedStream stream)
    {
        ArgumentNullException.ThrowIfNull(stream);
        var side = stream[_role];
        if (_isOver || !side.IsKnown || side.WasReset || side is { IsFinished: true, SawFinish: true })
            return;
        _world.Log?.Invoke($"{_world.Now:mm\\:ss\\.ffffff} {_name}: resets {stream}");
        side.DidReset = true;
        Do(() => _session.Reset(stream.Id));
    }

    /// <summary>Gives the session what a stream has to write, as far as it may, and finishes it when that is wanted.</summary>
    public void Write(SimulatedStream stream)
    {
        ArgumentNullException.ThrowIfNull(stream);
        var side = stream[_role];
        _session.Now = _world.Now;
        while (!_isOver && side is { IsKnown: true, WasReset: false, IsFinished: false })
        {
            if (side is { ToWrite: 0, WantsFinish: true })
            {
                (side.IsFinished, side.WaitsForWritable) = (true, false);
                _session.Finish(stream.Id);
            }

            if (side.ToWrite == 0 || side.WaitsForWritable)
                return;

            var allowance = _session.SendAllowance(stream.Id);
            if (allowance == 0)
            {
                side.WaitsForWritable = true;
                return;
            }

            var length = (int)Math.Min(side.ToWrite, _world.Chance(0.8) ? allowance : _world.Random.Next(1, allowance + 1));
            var chunk = ByteChunk.Rent(ByteChunk.Headroom + length);
            SimulationPattern.Fill(chunk.Array.AsSpan(ByteChunk.Headroom, length), stream.KeyOf(_role), side.Written);
            side.Written += length;
            side.ToWrite -= length;
            _session.Send(stream.Id, new ByteSlice(chunk, ByteChunk.Headroom, length));
        }
    }

    /// <summary>The reader of a stream takes what has arrived, unless it stalls.</summary>
    public void Read(SimulatedStream stream)
    {
        ArgumentNullException.ThrowIfNull(stream);
        var side = stream[_role];
        if (_isOver || side.IsStalled || side.WasReset || side.Unread == 0)
            return;
        var bytes = IsLeisurely && _world.Chance(0.5) ? _world.Random.Next(1, (int)side.Unread + 1) : (int)side.Unread;
        side.Unread -= bytes;
        _session.Now = _world.Now;
        _session.Consumed(stream.Id, bytes);
        if (side.Unread > 0)
            _world.After(_world.Between(TimeSpan.Zero, TimeSpan.FromMilliseconds(50)), () => Do(() => Read(stream)));
    }

    /// <summary>Does something with the session and what follows from it.</summary>
    public void Do(Action action)
    {
        ArgumentNullException.ThrowIfNull(action);
        if (_isOver)
            return;
        _session.Now = _world.Now;
        action();
        Settle();
    }

    private void Settle()
    {
        DrainEvents();
        Pump?.Invoke();
    }

    private void DrainEvents()
    {
        while (!_isOver && _session.TryTakeEvent(out var streamEvent))
        {
            if (streamEvent.Kind == StreamEventKind.Control)
            {
                OnControl(streamEvent.Control!);
                continue;
            }

            var stream = _streams.Find(streamEvent.StreamId);
            _world.Check(stream is not null, $"{_name}: {streamEvent.Kind} for stream {streamEvent.StreamId}, which nobody opened");
            _world.Check(!stream[_role].WasReset, $"{_name}: {streamEvent.Kind} after a reset, {stream}");
            OnStream(stream, stream[_role], stream[Far], streamEvent);
        }
    }

    private void OnControl(ControlMessage message)
    {
        if (message is Hello)
            return;
        _world.Check(message is Listen listen && listen.Port == _controlReceived + 1, $"{_name}: control message {message} where the {_controlReceived + 1}th was expected");
        _controlReceived++;
    }

    private void OnStream(SimulatedStream stream, StreamSide here, StreamSide there, in StreamEvent streamEvent)
    {
        switch (streamEvent.Kind)
        {
            case StreamEventKind.Opened:
                _world.Check(!here.IsKnown && there.IsKnown, $"{_name}: opened twice, {stream}");
                here.IsKnown = true;
                OnOpened(stream);
                break;

            case StreamEventKind.Accepted:
                break;

            case StreamEventKind.Data:
                OnData(stream, here, there, streamEvent.Payload);
                break;

            case StreamEventKind.Finished:
                _world.Check(!here.SawFinish && there.IsFinished && here.Received == there.Written, $"{_name}: an end that is not one, {stream}");
                here.SawFinish = true;
                break;

            case StreamEventKind.Reset:
                _world.Check(there.DidReset, $"{_name}: a reset that nobody asked for, {stream}");
                here.SawReset = true;
                break;

            case StreamEventKind.Writable:
                _world.Check(here.WaitsForWritable, $"{_name}: writable though nobody waits, {stream}");
                here.WaitsForWritable = false;
                Write(stream);
                break;

            default:
                _world.Check(false, $"{_name}: {streamEvent.Kind} has no place in v2, {stream}");
                break;
        }
    }

    /// <summary>The target is connected after a while, or refused.</summary>
    private void OnOpened(SimulatedStream stream)
    {
        var isRefused = _world.Chance(0.1);
        _world.After(_world.Between(TimeSpan.Zero, TimeSpan.FromMilliseconds(300)), () =>
        {
            if (isRefused)
                Reset(stream);
            else
                Do(() => Accept(stream));
        });
    }

    private void Accept(SimulatedStream stream)
    {
        _session.Accept(stream.Id);
        Write(stream);
    }

    private void OnData(SimulatedStream stream, StreamSide here, StreamSide there, ByteSlice payload)
    {
        _world.Check(here.IsKnown && !here.SawFinish, $"{_name}: data before the beginning or after the end, {stream}");
        _world.Check(here.Received + payload.Length <= there.Written, $"{_name}: more data than was written, {stream}");
        _world.Check(SimulationPattern.Matches(payload.Span, stream.KeyOf(Far), here.Received), $"{_name}: wrong bytes at {here.Received}, {stream}");
        here.Received += payload.Length;
        here.Unread += payload.Length;
        payload.Release();
        _world.Check(here.Unread <= _options.MaxStreamWindowBytes, $"{_name}: {here.Unread} bytes beyond the reader, the window is at most {_options.MaxStreamWindowBytes}, {stream}");

        if (IsLeisurely)
            _world.After(_world.Between(TimeSpan.Zero, TimeSpan.FromMilliseconds(20)), () => Do(() => Read(stream)));
        else
            Read(stream);
    }
}
