using System.Collections.Concurrent;
using Akka.Actor;
using Akka.Streams;
using Akka.Streams.Stage;
using VTunnel.Diagnostics;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Streams;

namespace VTunnel.Stages;

/// <summary>
/// The pump of a session: one stage that serves the endpoints of all streams of the session and speaks to the peer
/// through a multiplexer. Streams join and leave without stopping anything.
/// </summary>
/// <remarks>
/// Reading an endpoint waits for the multiplexer's allowance, so nothing is read that cannot be sent soon; writing to an
/// endpoint returns credit, so nothing is received that cannot be stored. A failing endpoint ends its stream alone.
/// </remarks>
internal sealed class SessionPumpStage<TFrame> : GraphStageWithMaterializedValue<FlowShape<TFrame, TFrame>, ISessionPump>
{
    private readonly Inlet<TFrame> _in = new("SessionPump.in");
    private readonly Outlet<TFrame> _out = new("SessionPump.out");
    private readonly IMultiplexer<TFrame> _multiplexer;
    private readonly IActorRef _session;
    private readonly TimeSpan _lingerTimeout;
    private readonly TimeProvider _clock;

    /// <param name="multiplexer">The protocol; owned by the stage from now on.</param>
    /// <param name="session">Told what <see cref="PumpEvents"/> says.</param>
    /// <param name="lingerTimeout">How long a visitor who has been told the end may go on sending before its socket is closed.</param>
    /// <param name="clock">For what the protocol measures.</param>
    public SessionPumpStage(IMultiplexer<TFrame> multiplexer, IActorRef session, TimeSpan lingerTimeout, TimeProvider clock)
    {
        _clock = clock;
        _multiplexer = multiplexer;
        _session = session;
        _lingerTimeout = lingerTimeout;
        Shape = new FlowShape<TFrame, TFrame>(_in, _out);
    }

    public override FlowShape<TFrame, TFrame> Shape { get; }

    /// <summary>How long slow endpoints may take what has arrived for them after the session's end.</summary>
    private static TimeSpan TailTimeout => TimeSpan.FromSeconds(30);

    /// <summary>How long what is queued may take to be sent after the session was told to stop.</summary>
    private static TimeSpan StopTimeout => TimeSpan.FromSeconds(2);

    public override ILogicAndMaterializedValue<ISessionPump> CreateLogicAndMaterializedValue(Attributes inheritedAttributes)
    {
        var logic = new Logic(this);
        return new LogicAndMaterializedValue<ISessionPump>(logic, logic);
    }

    private sealed class PumpedStream
    {
        public const int SmallReadBytes = 4 * 1024;
        public const int MiddleReadBytes = 16 * 1024;

        private readonly Logic _pump;
        private int _signalled;

        public PumpedStream(Logic pump, uint id)
        {
            _pump = pump;
            Id = id;
        }

        public uint Id { get; }
        public StreamEndpoint? Endpoint { get; private set; }
        public IActorRef? Owner { get; private set; }
        public StageOperation<int>? Reading { get; private set; }
        public StageOperation? Writing { get; private set; }

        public ByteChunk? ReadBuffer;
        public bool ReadAtOnce;
        public int ReadSize = SmallReadBytes;
        public bool ReadDone;
        public bool Lingering;

        public InboundQueue? Inbound;
        public ByteSlice Writes;
        public bool PeerDone;
        public bool FinishStarted;
        public bool WriteDone;
        public bool GoneFromSession;
        public bool Ended;

        public long BytesIn;
        public long BytesOut;

        public void Attach(StreamEndpoint endpoint, IActorRef owner)
        {
            Endpoint = endpoint;
            Owner = owner;
            Reading = new StageOperation<int>(Signal);
            Writing = new StageOperation(Signal);
        }

        private void Signal()
        {
            if (Interlocked.Exchange(ref _signalled, 1) == 0)
                _pump.Signal(this);
        }

        public void ClearSignal() => Interlocked.Exchange(ref _signalled, 0);
    }

    private abstract record Command
    {
        public sealed record Open(StreamRequest Request, StreamEndpoint Endpoint, IActorRef Owner) : Command;

        public sealed record Attach(uint StreamId, StreamEndpoint Endpoint, IActorRef Owner) : Command;

        public sealed record Reset(uint StreamId) : Command;

        public sealed record Control(ControlMessage Message) : Command;

        public sealed record Ping : Command
        {
            public static readonly Ping Instance = new();
        }

        public sealed record Stop(Exception? Reason) : Command;
    }

    private sealed class Logic : TimerGraphStageLogic, ISessionPump, IInHandler, IOutHandler
    {
        private readonly SessionPumpStage<TFrame> _stage;
        private readonly IMultiplexer<TFrame> _mux;
        private readonly StageWake _wake;
        private readonly Dictionary<uint, PumpedStream> _streams = [];

        // Bounded by what exists: each stream is in it at most once, and actors send a few commands per stream.
        private readonly ConcurrentQueue<object> _signals = new();

        private const string StopTimer = "stop";
        private const string TailTimer = "tail";

        private readonly long _origin;
        private bool _drainingEvents;
        private bool _isStopping;
        private bool _isOver;
        private Exception? _cause;
        private int _stopped;
        private long _receivedFrames;
        private volatile bool _receivePaused;

        public Logic(SessionPumpStage<TFrame> stage)
            : base(stage.Shape)
        {
            _stage = stage;
            _mux = stage._multiplexer;
            _origin = stage._clock.GetTimestamp();
            _wake = new StageWake(GetAsyncCallback(OnWake));
            SetHandler(stage._in, this);
            SetHandler(stage._out, this);
        }

        public long ReceivedFrames => Interlocked.Read(ref _receivedFrames);

        public bool IsReceivePaused => _receivePaused;

        public void Open(StreamRequest request, StreamEndpoint endpoint, IActorRef owner) => Post(new Command.Open(request, endpoint, owner));

        public void Attach(uint streamId, StreamEndpoint endpoint, IActorRef owner) => Post(new Command.Attach(streamId, endpoint, owner));

        public void Reset(uint streamId) => Post(new Command.Reset(streamId));

        public void SendControl(ControlMessage message) => Post(new Command.Control(message));

        public void SendPing() => Post(Command.Ping.Instance);

        public void Stop(Exception? reason) => Post(new Command.Stop(reason));

        public void Signal(PumpedStream stream)
        {
            _signals.Enqueue(stream);
            _wake.Signal();
        }

        private void Post(Command command)
        {
            _signals.Enqueue(command);
            if (Volatile.Read(ref _stopped) != 0)
                RefuseLateCommands();
            else
                _wake.Signal();
        }

        public override void PreStart() => PullIfAllowed();

        public void OnPush()
        {
            Interlocked.Increment(ref _receivedFrames);
            Tick();
            try
            {
                _mux.Receive(Grab(_stage._in));
            }
            catch (Exception e)
            {
                End(e);
                return;
            }

            Progress();
        }

        public void OnPull()
        {
            Tick();
            Progress();
        }

        private void Tick() => _mux.Now = _stage._clock.GetElapsedTime(_origin);

        public void OnUpstreamFinish() => End(null);

        public void OnUpstreamFailure(Exception e) => End(e);

        public void OnDownstreamFinish(Exception cause) =>
            End(cause is SubscriptionWithCancelException.NonFailureCancellation ? null : cause);

        private void OnWake()
        {
            _wake.Clear();
            Tick();
            try
            {
                // Only what is here now: an endpoint that is always ready must not keep the stage from its ports.
                for (var left = _signals.Count; left > 0 && _signals.TryDequeue(out var signal); left--)
                {
                    if (signal is PumpedStream stream)
                        OnEndpointSignal(stream);
                    else
                        Execute((Command)signal);
                }
            }
            catch (Exception e)
            {
                End(e);
                return;
            }

            if (!_signals.IsEmpty)
                _wake.Signal();
            Progress();
        }

        /// <summary>Everything that may have become possible: deliver, send, receive.</summary>
        private void Progress()
        {
            if (_isOver)
                return;
            try
            {
                DrainEvents();
                if (IsAvailable(_stage._out) && _mux.TryTakeFrame(out var frame))
                {
                    Push(_stage._out, frame);
                    DrainEvents();
                }
                else if (_isStopping && IsAvailable(_stage._out))
                {
                    // Everything that was to be sent is below; only now may the session end.
                    End(null);
                    return;
                }
            }
            catch (Exception e)
            {
                End(e);
                return;
            }

            PullIfAllowed();
        }

        private void PullIfAllowed()
        {
            _receivePaused = !_mux.CanReceive;
            if (!_receivePaused && !HasBeenPulled(_stage._in) && !IsClosed(_stage._in))
                Pull(_stage._in);
        }

        private void Execute(Command command)
        {
            if (_isOver)
            {
                Refuse(command);
                return;
            }

            switch (command)
            {
                case Command.Open open:
                    {
                        var id = _mux.Open(open.Request);
                        if (id == 0)
                        {
                            open.Endpoint.Abort();
                            open.Owner.Tell(new PumpEvents.StreamEnded(StreamEnd.Cancelled, 0, 0), _stage._session);
                            break;
                        }

                        var stream = new PumpedStream(this, id);
                        _streams.Add(stream.Id, stream);
                        stream.Attach(open.Endpoint, open.Owner);
                        open.Owner.Tell(new PumpEvents.StreamOpened(stream.Id), _stage._session);
                        Read(stream);
                        break;
                    }

                case Command.Attach attach:
                    if (_streams.TryGetValue(attach.StreamId, out var requested) && requested.Endpoint is null)
                    {
                        requested.Attach(attach.Endpoint, attach.Owner);
                        if (!requested.GoneFromSession)
                            _mux.Accept(requested.Id);
                        Write(requested);
                        if (!requested.Ended)
                            Read(requested);
                    }
                    else
                    {
                        attach.Endpoint.Abort();
                        attach.Owner.Tell(new PumpEvents.StreamEnded(StreamEnd.PeerReset, 0, 0), _stage._session);
                    }

                    break;

                case Command.Reset reset:
                    if (_streams.TryGetValue(reset.StreamId, out var refused))
                        Break(refused, StreamEnd.Cancelled);
                    break;

                case Command.Control control:
                    _mux.SendControl(control.Message);
                    break;

                case Command.Ping:
                    _mux.SendPing();
                    break;

                case Command.Stop stop:
                    _cause ??= stop.Reason;
                    if (!_isStopping)
                        ScheduleOnce(StopTimer, StopTimeout);
                    _isStopping = true;
                    break;
            }
        }

        private void DrainEvents()
        {
            if (_drainingEvents)
                return;
            _drainingEvents = true;
            try
            {
                while (_mux.TryTakeEvent(out var happened))
                    Handle(happened);
            }
            finally
            {
                _drainingEvents = false;
            }
        }

        private void Handle(in StreamEvent happened)
        {
            switch (happened.Kind)
            {
                case StreamEventKind.Opened:
                    // A peer may use an id again while the tail of its last stream is still being delivered here.
                    if (_streams.TryGetValue(happened.StreamId, out var former))
                        EndStream(former, StreamEnd.PeerReset, abort: true);
                    _streams.Add(happened.StreamId, new PumpedStream(this, happened.StreamId));
                    _stage._session.Tell(new PumpEvents.StreamRequested(happened.StreamId, happened.Request), ActorRefs.NoSender);
                    return;
                case StreamEventKind.Control:
                    _stage._session.Tell(new PumpEvents.ControlReceived(happened.Control!), ActorRefs.NoSender);
                    return;
            }

            if (!_streams.TryGetValue(happened.StreamId, out var stream))
            {
                happened.Payload.Release();
                return;
            }

            switch (happened.Kind)
            {
                case StreamEventKind.Data:
                    if (stream.Lingering || stream.PeerDone)
                    {
                        happened.Payload.Release();
                        break;
                    }

                    if (stream.Endpoint is null || stream.Writing!.IsPending || stream.Inbound is { IsEmpty: false })
                        (stream.Inbound ??= new InboundQueue()).Enqueue(happened.Payload);
                    else
                        StartWrites(stream, happened.Payload);
                    break;

                case StreamEventKind.Finished:
                    stream.PeerDone = true;
                    Write(stream);
                    break;

                case StreamEventKind.Closed:
                    stream.PeerDone = true;
                    stream.GoneFromSession = true;
                    Write(stream);
                    break;

                case StreamEventKind.Reset:
                    stream.GoneFromSession = true;
                    if (stream.Endpoint is null)
                        _stage._session.Tell(new PumpEvents.StreamCancelled(stream.Id), ActorRefs.NoSender);
                    Break(stream, StreamEnd.PeerReset);
                    break;

                case StreamEventKind.Writable:
                    Read(stream);
                    break;
            }
        }

        private void OnEndpointSignal(PumpedStream stream)
        {
            stream.ClearSignal();
            if (stream.Reading!.IsCompleted && TakeRead(stream))
                Read(stream);
            if (stream.Writing!.IsCompleted && TakeWrite(stream))
                Write(stream);
            if (stream.Ended && !stream.Reading.IsPending)
                ReleaseReadBuffer(stream);
        }

        /// <summary>Reads from the endpoint while the session can take more and the endpoint has it at once.</summary>
        private void Read(PumpedStream stream)
        {
            while (!stream.Ended && !stream.ReadDone && stream.Endpoint is not null && !stream.Reading!.IsPending)
            {
                var allowance = stream.GoneFromSession ? PumpedStream.SmallReadBytes : _mux.SendAllowance(stream.Id);
                if (allowance <= 0)
                    return;

                var buffer = Memory<byte>.Empty;
                if (stream.ReadAtOnce)
                {
                    stream.ReadBuffer = ByteChunk.Rent(stream.ReadSize);
                    var room = Math.Min(allowance, stream.ReadBuffer.Array.Length - ByteChunk.Headroom);
                    buffer = stream.ReadBuffer.Array.AsMemory(ByteChunk.Headroom, room);
                }

                try
                {
                    if (!stream.Reading.Start(stream.Endpoint.ReceiveAsync(buffer)))
                        return;
                }
                catch (Exception)
                {
                    // The same end as a failed receive: the endpoint broke, and only this stream with it.
                    ReleaseReadBuffer(stream);
                    Break(stream, StreamEnd.EndpointReset);
                    return;
                }

                if (!TakeRead(stream))
                    return;
            }
        }

        /// <summary>Takes the result of a read; false when there is no sense in reading on.</summary>
        private bool TakeRead(PumpedStream stream)
        {
            int count;
            try
            {
                count = stream.Reading!.Take();
            }
            catch (Exception)
            {
                ReleaseReadBuffer(stream);
                Break(stream, StreamEnd.EndpointReset);
                return false;
            }

            if (stream.Ended)
            {
                ReleaseReadBuffer(stream);
                return false;
            }

            if (stream.ReadBuffer is null)
            {
                stream.ReadAtOnce = true;
                return true;
            }

            if (count == 0)
            {
                ReleaseReadBuffer(stream);
                stream.ReadDone = true;
                if (!stream.GoneFromSession)
                {
                    _mux.Finish(stream.Id);
                    if (!_mux.HasHalfClose)
                    {
                        stream.GoneFromSession = true;
                        stream.PeerDone = true;
                        Write(stream);
                    }
                }

                EndIfDone(stream);
                return false;
            }

            if (stream.GoneFromSession)
            {
                // The peer has closed in order and takes no more; what the visitor still says has no reader.
                ReleaseReadBuffer(stream);
                return true;
            }

            var room = stream.ReadBuffer.Array.Length - ByteChunk.Headroom;
            if (count < room)
            {
                // The endpoint is drained: wait for more without holding a buffer.
                stream.ReadAtOnce = false;
                if (count < room / 4)
                    stream.ReadSize = room > PumpedStream.MiddleReadBytes ? PumpedStream.MiddleReadBytes : PumpedStream.SmallReadBytes;
            }
            else
            {
                stream.ReadSize = stream.ReadSize == PumpedStream.SmallReadBytes ? PumpedStream.MiddleReadBytes : ByteChunk.DefaultSize;
            }

            stream.BytesOut += count;
            var payload = new ByteSlice(stream.ReadBuffer, ByteChunk.Headroom, count);
            stream.ReadBuffer = null;
            _mux.Send(stream.Id, payload);
            if (IsAvailable(_stage._out) && _mux.TryTakeFrame(out var frame))
                Push(_stage._out, frame);
            return true;
        }

        /// <summary>Writes what has arrived, then the peer's end if it has come.</summary>
        private void Write(PumpedStream stream)
        {
            if (stream.Ended || stream.Endpoint is null || stream.Writing!.IsPending || stream.FinishStarted)
                return;

            while (stream.Inbound is not null && stream.Inbound.TryDequeue(out var slice))
            {
                if (!StartWrite(stream, slice))
                    return;
            }

            if (stream.PeerDone)
                StartFinish(stream);
        }

        private void StartWrites(PumpedStream stream, ByteSlice slice)
        {
            if (StartWrite(stream, slice))
                Write(stream);
        }

        /// <summary>Starts a write; true when it completed at once and the stream lives.</summary>
        private bool StartWrite(PumpedStream stream, ByteSlice slice)
        {
            stream.Writes = slice;
            try
            {
                if (!stream.Writing!.Start(stream.Endpoint!.SendAsync(slice.Memory)))
                    return false;
            }
            catch (Exception)
            {
                Break(stream, StreamEnd.EndpointReset);
                return false;
            }

            return TakeWrite(stream);
        }

        private bool TakeWrite(PumpedStream stream)
        {
            var slice = stream.Writes;
            stream.Writes = default;
            try
            {
                stream.Writing!.Take();
            }
            catch (Exception)
            {
                slice.Release();
                Break(stream, StreamEnd.EndpointReset);
                return false;
            }

            slice.Release();
            if (stream.Ended)
                return false;

            if (stream.FinishStarted)
            {
                stream.WriteDone = true;
                OnWriteDone(stream);
                return false;
            }

            stream.BytesIn += slice.Length;
            if (!_isOver)
                _mux.Consumed(stream.Id, slice.Length);
            return true;
        }

        private void StartFinish(PumpedStream stream)
        {
            stream.FinishStarted = true;
            try
            {
                if (!stream.Writing!.Start(stream.Endpoint!.FinishSendingAsync()))
                    return;
            }
            catch (Exception)
            {
                Break(stream, StreamEnd.EndpointReset);
                return;
            }

            TakeWrite(stream);
        }

        private void OnWriteDone(PumpedStream stream)
        {
            if (stream.GoneFromSession && !stream.ReadDone && !stream.Lingering)
            {
                // Closing a socket with unread bytes resets it, and the reset may overtake what was just delivered.
                // So: the end has been said; read and drop until the far side ends too, or for a while.
                stream.Lingering = true;
                ScheduleOnce(stream, _stage._lingerTimeout);
                Read(stream);
            }

            EndIfDone(stream);
        }

        protected override void OnTimer(object timerKey)
        {
            if (timerKey is StopTimer)
            {
                End(null);
                return;
            }

            if (timerKey is TailTimer)
            {
                StopStage();
                return;
            }

            if (timerKey is PumpedStream { Ended: false } stream)
            {
                stream.ReadDone = true;
                EndIfDone(stream);
            }
        }

        private void EndIfDone(PumpedStream stream)
        {
            if (stream is { Ended: false, ReadDone: true, WriteDone: true })
                EndStream(stream, StreamEnd.Completed, abort: false);
        }

        /// <summary>Ends both directions at once, here and at the peer.</summary>
        private void Break(PumpedStream stream, StreamEnd end)
        {
            if (stream.Ended)
                return;

            // After an orderly close nothing more is owed to the peer, but its accounts of unread bytes must be settled.
            if (!_isOver)
                _mux.Reset(stream.Id);
            EndStream(stream, end, abort: true);
        }

        private void EndStream(PumpedStream stream, StreamEnd end, bool abort)
        {
            stream.Ended = true;
            if (stream.Lingering)
                CancelTimer(stream);
            if (abort)
                stream.Endpoint?.Abort();
            else
                stream.Endpoint?.Dispose();
            _streams.Remove(stream.Id);
            stream.Inbound?.Clear();
            if (stream.Reading is { IsPending: false })
                ReleaseReadBuffer(stream);
            if (stream.Writing is { IsPending: false })
            {
                stream.Writes.Release();
                stream.Writes = default;
            }

            stream.Owner?.Tell(new PumpEvents.StreamEnded(end, stream.BytesIn, stream.BytesOut), _stage._session);
            if (_isOver && _streams.Count == 0)
                StopStage();
        }

        private static void ReleaseReadBuffer(PumpedStream stream)
        {
            stream.ReadBuffer?.Release();
            stream.ReadBuffer = null;
        }

        /// <summary>
        /// The session is over. Streams whose peer had finished sending still deliver what has arrived; all others break.
        /// </summary>
        private void End(Exception? cause)
        {
            if (_isOver)
                return;
            _isOver = true;
            _cause ??= cause;
            foreach (var stream in _streams.Values.ToArray())
            {
                if (stream is { PeerDone: true, Endpoint: not null, WriteDone: false })
                    stream.GoneFromSession = true;
                else
                    EndStream(stream, StreamEnd.SessionEnded, abort: true);
            }

            if (_streams.Count == 0)
            {
                StopStage();
                return;
            }

            SetKeepGoing(true);
            ScheduleOnce(TailTimer, TailTimeout);
            _stage._session.Tell(new PumpEvents.SessionOver(), ActorRefs.NoSender);
            Cancel(_stage._in);
            if (_cause is null)
                Complete(_stage._out);
            else
                Fail(_stage._out, _cause);
        }

        private void StopStage()
        {
            if (_cause is null)
                CompleteStage();
            else
                FailStage(_cause);
        }

        public override void PostStop()
        {
            Interlocked.Exchange(ref _stopped, 1);
            foreach (var stream in _streams.Values.ToArray())
                EndStream(stream, StreamEnd.SessionEnded, abort: true);

            _mux.Abandon();
            RefuseLateCommands();
            _stage._session.Tell(new PumpEvents.PumpEnded(_cause), ActorRefs.NoSender);
        }

        /// <summary>A command that comes after the end must not leave its endpoint open or its owner waiting.</summary>
        private void RefuseLateCommands()
        {
            while (_signals.TryDequeue(out var signal))
            {
                if (signal is Command command)
                    Refuse(command);
            }
        }

        private static void Refuse(Command command)
        {
            var (endpoint, owner) = command switch
            {
                Command.Open open => (open.Endpoint, open.Owner),
                Command.Attach attach => (attach.Endpoint, attach.Owner),
                _ => (null, null),
            };
            endpoint?.Abort();
            owner?.Tell(new PumpEvents.StreamEnded(StreamEnd.SessionEnded, 0, 0), ActorRefs.NoSender);
        }
    }
}
