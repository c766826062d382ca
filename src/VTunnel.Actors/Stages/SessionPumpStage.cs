using System.Collections.Concurrent;
using Akka.Actor;
using Akka.Streams;
using Akka.Streams.Stage;
using VTunnel.Diagnostics;
using VTunnel.Endpoints;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Protocol.V1;

namespace VTunnel.Stages;

/// <summary>How long a pump waits for others.</summary>
internal sealed record PumpTimeouts
{
    /// <summary>How long a far side that has been told the end may go on sending before its socket is closed. Default 5 s.</summary>
    public TimeSpan Linger { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>
    /// How long a far side may take nothing of what is left of a stream that has ended on the session. Default 60 s; a
    /// stream that goes on may stall for ever.
    /// </summary>
    public TimeSpan TailStall { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>How long a peer that does not read may hold up what is sent at the end of a session. Default 2 s.</summary>
    public TimeSpan Flush { get; init; } = TimeSpan.FromSeconds(2);
}

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
    private readonly RoleMetrics _metrics;
    private readonly TimeProvider _clock;
    private readonly PumpTimeouts _timeouts;

    /// <param name="multiplexer">The protocol; owned by the stage from now on.</param>
    /// <param name="session">Told what <see cref="PumpEvents"/> says.</param>
    /// <param name="metrics">Counts bytes.</param>
    /// <param name="clock">For what the protocol measures.</param>
    /// <param name="timeouts">Null for the defaults.</param>
    public SessionPumpStage(
        IMultiplexer<TFrame> multiplexer, IActorRef session, RoleMetrics metrics, TimeProvider clock, PumpTimeouts? timeouts = null)
    {
        _clock = clock;
        _multiplexer = multiplexer;
        _session = session;
        _metrics = metrics;
        _timeouts = timeouts ?? new PumpTimeouts();
        Shape = new FlowShape<TFrame, TFrame>(_in, _out);
    }

    public override FlowShape<TFrame, TFrame> Shape { get; }

    public override ILogicAndMaterializedValue<ISessionPump> CreateLogicAndMaterializedValue(Attributes inheritedAttributes)
    {
        var logic = new Logic(this);
        return new LogicAndMaterializedValue<ISessionPump>(logic, logic);
    }

    private sealed class PumpedStream
    {
        public const int SmallReadBytes = 4 * 1024;
        public const int MiddleReadBytes = 16 * 1024;
        public const int LargeReadBytes = ByteChunk.DefaultSize;
        public const int BulkReadBytes = 256 * 1024;

        private readonly Logic _pump;
        private int _signalled;

        public PumpedStream(Logic pump, StreamKey key)
        {
            _pump = pump;
            Key = key;
        }

        public StreamKey Key { get; }
        public uint Id => Key.Id;
        public StreamEndpoint? Endpoint { get; private set; }
        public IActorRef? Owner { get; private set; }
        public StageOperation<int>? Reading { get; private set; }
        public StageOperation? Writing { get; private set; }

        public ByteChunk? ReadBuffer;
        public int ReadRoom;
        public bool ReadAtOnce;
        public int ReadSize = SmallReadBytes;
        public bool ReadDone;
        public bool Lingering;

        public InboundQueue? Inbound;
        public ByteSlice Writes;
        public bool PeerDone;
        public bool FinishStarted;
        public bool WriteDone;

        /// <summary>The session carries nothing further of it; the endpoint may still have to take what came before.</summary>
        public bool GoneFromSession;

        /// <summary>Its id belongs to another stream: the multiplexer must not hear of it again.</summary>
        public bool LostItsId;

        /// <summary>The multiplexer no longer counts what is queued here, so the pump does.</summary>
        public bool CountsAsTail;
        public long TailBytes;
        public long BytesInAtTimer;
        public bool Ended;

        public long BytesIn;
        public long BytesOut;

        public void Attach(StreamEndpoint endpoint, IActorRef owner)
        {
            Endpoint = endpoint;
            Owner = owner;
            Action signal = Signal;
            Reading = new StageOperation<int>(signal);
            Writing = new StageOperation(signal);
        }

        public void Signal()
        {
            if (Interlocked.Exchange(ref _signalled, 1) == 0)
                _pump.Signal(this);
        }

        public void ClearSignal() => Interlocked.Exchange(ref _signalled, 0);

        /// <summary>A read that fills its buffer makes the next one larger: system calls and wake-ups cost more than bytes do.</summary>
        public static int Larger(int size) => size switch
        {
            SmallReadBytes => MiddleReadBytes,
            MiddleReadBytes => LargeReadBytes,
            _ => BulkReadBytes,
        };

        public static int Smaller(int size) => size switch
        {
            BulkReadBytes => LargeReadBytes,
            LargeReadBytes => MiddleReadBytes,
            _ => SmallReadBytes,
        };
    }

    private abstract record Command
    {
        public sealed record Open(StreamRequest Request, StreamEndpoint Endpoint, IActorRef Owner) : Command;

        public sealed record Attach(StreamKey Key, StreamEndpoint Endpoint, IActorRef Owner) : Command;

        public sealed record Reset(StreamKey Key) : Command;

        public sealed record Control(ControlMessage Message) : Command;

        public sealed record Ping : Command
        {
            public static readonly Ping Instance = new();
        }

        public sealed record Stop(Exception? Reason) : Command;
    }

    private sealed class Logic : TimerGraphStageLogic, ISessionPump, IInHandler, IOutHandler
    {
        private const string FlushTimer = "flush";
        private const string SignTimer = "sign";

        /// <summary>
        /// How often the peer gets a sign of life while nothing is read from it: its pings lie unread then, and it would take a
        /// session that waits for a slow endpoint for a dead one.
        /// </summary>
        private static readonly TimeSpan SignInterval = TimeSpan.FromMilliseconds(500);

        /// <summary>What one stream may read before the others have their turn.</summary>
        private const int TurnBytes = 256 * 1024;

        /// <summary>What may be held for endpoints whose streams the session has forgotten, before it is read no further.</summary>
        private const long MaxTailBytes = 16 * 1024 * 1024;

        /// <summary>Messages that a peer caused and the session's actor has not dealt with, before the peer is read no further until half of them are.</summary>
        private const int MaxUnhandled = 1024;

        private readonly SessionPumpStage<TFrame> _stage;
        private readonly IMultiplexer<TFrame> _mux;
        private readonly StageWake _wake;
        private readonly Dictionary<uint, PumpedStream> _streams = [];
        private readonly HashSet<PumpedStream> _withoutId = [];

        // Bounded by what exists: each stream is in it at most once, and actors send a few commands per stream.
        private readonly ConcurrentQueue<object> _signals = new();

        private readonly long _origin;
        private bool _drainingEvents;
        private long _lastSerial;
        private long _tailBytes;
        private bool _stopping;
        private bool _failed;
        private bool _ended;
        private bool _carrierGone;
        private Exception? _cause;
        private int _stopped;
        private bool _givesSigns;
        private volatile bool _receivePaused;
        private int _unhandled;
        private bool _isSessionBehind;

        // Written by the graph alone.
        private long _bytesIn;
        private long _bytesOut;

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

        public bool IsReceivePaused => _receivePaused;

        public long BytesIn => Volatile.Read(ref _bytesIn);

        public long BytesOut => Volatile.Read(ref _bytesOut);

        public void Open(StreamRequest request, StreamEndpoint endpoint, IActorRef owner) => Post(new Command.Open(request, endpoint, owner));

        public void Attach(StreamKey key, StreamEndpoint endpoint, IActorRef owner) => Post(new Command.Attach(key, endpoint, owner));

        public void Reset(StreamKey key) => Post(new Command.Reset(key));

        public void ConfirmHandled()
        {
            if (Interlocked.Decrement(ref _unhandled) == MaxUnhandled / 2)
                _wake.Signal();
        }

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
            var frame = Grab(_stage._in);
            if (_ended)
            {
                Drop(frame);
                PullToDrop();
                return;
            }

            Tick();
            try
            {
                _mux.Receive(frame);
            }
            catch (Exception e)
            {
                Fail(e);
                return;
            }

            Progress();
        }

        public void OnPull()
        {
            Tick();
            Progress();
        }

        /// <summary>A carrier that says goodbye may have to get rid of what came before the peer's.</summary>
        private void PullToDrop()
        {
            if (!HasBeenPulled(_stage._in) && !IsClosed(_stage._in))
                Pull(_stage._in);
        }

        private static void Drop(TFrame frame)
        {
            switch (frame)
            {
                case ByteSlice slice:
                    slice.Release();
                    break;
                case V1Message message:
                    message.Payload.Release();
                    break;
            }
        }

        private void Tick() => _mux.Now = _stage._clock.GetElapsedTime(_origin);

        public void OnUpstreamFinish() => EndNow(null);

        public void OnUpstreamFailure(Exception e) => EndNow(e);

        public void OnDownstreamFinish(Exception cause) =>
            EndNow(cause is SubscriptionWithCancelException.NonFailureCancellation ? null : cause);

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
                    else if (_ended)
                        Refuse((Command)signal);
                    else
                        Execute((Command)signal);
                }
            }
            catch (Exception e)
            {
                Fail(e);
            }

            if (!_signals.IsEmpty)
                _wake.Signal();
            Progress();
        }

        /// <summary>Everything that may have become possible: deliver, send, receive.</summary>
        private void Progress()
        {
            if (_ended)
                return;

            try
            {
                DrainEvents();
                if (IsAvailable(_stage._out))
                {
                    if (_mux.TryTakeFrame(out var frame))
                    {
                        Push(_stage._out, frame);
                        DrainEvents();
                    }
                    else if (_stopping)
                    {
                        // Everything before has been taken by the layer below, or it would not ask for more.
                        End();
                        return;
                    }
                }
            }
            catch (Exception e)
            {
                Fail(e);
                return;
            }

            PullIfAllowed();
        }

        private void PullIfAllowed()
        {
            _isSessionBehind = Volatile.Read(ref _unhandled) > (_isSessionBehind ? MaxUnhandled / 2 : MaxUnhandled - 1);
            _receivePaused = !_mux.CanReceive || _tailBytes > MaxTailBytes || _isSessionBehind;
            if (_receivePaused && !_givesSigns)
            {
                // Runs on until a pause is found over at one of its ticks: pauses may be many and short.
                _givesSigns = true;
                ScheduleRepeatedly(SignTimer, SignInterval);
            }

            if (!_receivePaused && !_failed && !HasBeenPulled(_stage._in) && !IsClosed(_stage._in))
                Pull(_stage._in);
        }

        private void Execute(Command command)
        {
            switch (command)
            {
                case Command.Open open:
                    Open(open);
                    break;

                case Command.Attach attach:
                    Attach(attach);
                    break;

                case Command.Reset reset:
                    if (_streams.TryGetValue(reset.Key.Id, out var refused) && refused.Key == reset.Key)
                        Break(refused, StreamEnd.Cancelled);
                    break;

                case Command.Control control:
                    _mux.SendControl(control.Message);
                    break;

                case Command.Ping:
                    _mux.SendPing();
                    break;

                case Command.Stop stop:
                    BeginStop(stop.Reason);
                    break;
            }
        }

        private void Open(Command.Open open)
        {
            var id = _stopping ? 0 : _mux.Open(open.Request);
            if (id == 0)
            {
                Refuse(open.Endpoint, open.Owner, _stopping ? StreamEnd.SessionEnded : StreamEnd.Cancelled);
                return;
            }

            var stream = Add(id);
            stream.Attach(open.Endpoint, open.Owner);
            open.Owner.Tell(new PumpEvents.StreamOpened(stream.Key), _stage._session);
            Read(stream);
        }

        private void Attach(Command.Attach attach)
        {
            if (!_streams.TryGetValue(attach.Key.Id, out var requested) || requested.Key != attach.Key || requested.Endpoint is not null)
            {
                Refuse(attach.Endpoint, attach.Owner, _stopping ? StreamEnd.SessionEnded : StreamEnd.PeerReset);
                return;
            }

            requested.Attach(attach.Endpoint, attach.Owner);
            if (requested.GoneFromSession)
            {
                LeaveSession(requested);
            }
            else
            {
                _mux.Accept(requested.Id);
                Write(requested);
            }

            Read(requested);
        }

        private void Refuse(StreamEndpoint endpoint, IActorRef owner, StreamEnd end)
        {
            Close(endpoint, abort: true);
            owner.Tell(new PumpEvents.StreamEnded(end, 0, 0), _stage._session);
        }

        private PumpedStream Add(uint id)
        {
            // An id may come back while the tail of its last stream is still being delivered here.
            if (_streams.Remove(id, out var former))
            {
                former.LostItsId = true;
                _withoutId.Add(former);
                if (former.Endpoint is null)
                {
                    // Nothing is delivered of it, and its target, which is still dialled, finds nobody any more.
                    TellSession(new PumpEvents.StreamCancelled(former.Key));
                    EndStream(former, StreamEnd.PeerReset, abort: true);
                }
            }

            var stream = new PumpedStream(this, new StreamKey(id, ++_lastSerial));
            _streams.Add(id, stream);
            return stream;
        }

        private void DrainEvents()
        {
            if (_drainingEvents)
                return;
            _drainingEvents = true;
            try
            {
                while (!_ended && _mux.TryTakeEvent(out var happened))
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
                    if (_stopping)
                        _mux.Reset(happened.StreamId);
                    else
                        TellSession(new PumpEvents.StreamRequested(Add(happened.StreamId).Key, happened.Request));
                    return;
                case StreamEventKind.Control:
                    TellSession(new PumpEvents.ControlReceived(happened.Control!));
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
                    if (stream.PeerDone)
                        happened.Payload.Release();
                    else if (stream.Endpoint is null || stream.Writing!.IsPending || stream.Inbound is { IsEmpty: false })
                        (stream.Inbound ??= new InboundQueue()).Enqueue(happened.Payload);
                    else if (StartWrite(stream, happened.Payload))
                        Write(stream);
                    break;

                case StreamEventKind.Finished:
                    stream.PeerDone = true;
                    Write(stream);
                    break;

                case StreamEventKind.Closed:
                    LeaveSession(stream);
                    break;

                case StreamEventKind.Reset:
                    stream.GoneFromSession = true;
                    if (stream.Endpoint is null)
                        TellSession(new PumpEvents.StreamCancelled(stream.Key));
                    Break(stream, StreamEnd.PeerReset);
                    break;

                case StreamEventKind.Writable:
                    Read(stream);
                    break;
            }
        }

        private void TellSession(PumpEvents.ICausedByPeer message)
        {
            Interlocked.Increment(ref _unhandled);
            _stage._session.Tell(message, ActorRefs.NoSender);
        }

        private void OnEndpointSignal(PumpedStream stream)
        {
            stream.ClearSignal();
            if (stream.Ended)
                return;
            if (stream.Reading!.IsCompleted)
                TakeRead(stream);
            Read(stream);
            if (stream.Writing!.IsCompleted && TakeWrite(stream))
                Write(stream);
        }

        /// <summary>Reads from the endpoint while the session can take more and the endpoint has it at once.</summary>
        private void Read(PumpedStream stream)
        {
            var left = TurnBytes;
            while (!stream.Ended && !stream.ReadDone && stream.Endpoint is not null && !stream.Reading!.IsPending)
            {
                var allowance = stream.GoneFromSession ? int.MaxValue : _mux.SendAllowance(stream.Id);
                if (allowance <= 0)
                    return;
                if (left <= 0)
                {
                    stream.Signal();
                    return;
                }

                var buffer = Memory<byte>.Empty;
                if (stream.ReadAtOnce)
                {
                    stream.ReadBuffer = ByteChunk.Rent(stream.ReadSize);
                    stream.ReadRoom = Math.Min(allowance, stream.ReadBuffer.Array.Length - ByteChunk.Headroom);
                    buffer = stream.ReadBuffer.Array.AsMemory(ByteChunk.Headroom, stream.ReadRoom);
                }

                try
                {
                    if (!stream.Reading.Start(stream.Endpoint.ReceiveAsync(buffer)))
                        return;
                }
                catch (Exception)
                {
                    // The same end as a failed receive: the endpoint broke, and only this stream with it.
                    Break(stream, StreamEnd.EndpointReset);
                    return;
                }

                // A small read costs a turn as much as one that fills a small buffer.
                left -= Math.Max(TakeRead(stream), PumpedStream.SmallReadBytes);
            }
        }

        /// <summary>Takes the result of a read; gives the bytes that it brought.</summary>
        private int TakeRead(PumpedStream stream)
        {
            int count;
            try
            {
                count = stream.Reading!.Take();
            }
            catch (Exception)
            {
                Break(stream, StreamEnd.EndpointReset);
                return 0;
            }

            if (stream.ReadBuffer is null)
            {
                stream.ReadAtOnce = true;
                return 0;
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
                        stream.CountsAsTail = true;
                        LeaveSession(stream);
                    }
                }

                EndIfDone(stream);
                return 0;
            }

            if ((uint)count > (uint)stream.ReadRoom)
            {
                // Only an endpoint of somebody else's can claim to have filled more than it was given.
                Break(stream, StreamEnd.EndpointReset);
                return 0;
            }

            if (count < stream.ReadRoom)
            {
                // The endpoint is drained: wait for more without holding a buffer.
                stream.ReadAtOnce = false;
                if (count < stream.ReadRoom / 4)
                    stream.ReadSize = PumpedStream.Smaller(stream.ReadSize);
            }
            else
            {
                stream.ReadSize = PumpedStream.Larger(stream.ReadSize);
            }

            if (stream.GoneFromSession)
            {
                // The peer has closed in order and takes no more; what the visitor still says has no reader.
                ReleaseReadBuffer(stream);
                return count;
            }

            stream.BytesOut += count;
            Volatile.Write(ref _bytesOut, _bytesOut + count);
            _stage._metrics.BytesOut(count);
            var payload = new ByteSlice(stream.ReadBuffer, ByteChunk.Headroom, count);
            stream.ReadBuffer = null;
            _mux.Send(stream.Id, payload);
            if (IsAvailable(_stage._out) && _mux.TryTakeFrame(out var frame))
                Push(_stage._out, frame);
            return count;
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
            try
            {
                stream.Writing!.Take();
            }
            catch (Exception)
            {
                Break(stream, StreamEnd.EndpointReset);
                return false;
            }

            if (stream.FinishStarted)
            {
                stream.WriteDone = true;
                OnWriteDone(stream);
                return false;
            }

            var slice = stream.Writes;
            stream.Writes = default;
            stream.BytesIn += slice.Length;
            Volatile.Write(ref _bytesIn, _bytesIn + slice.Length);
            _stage._metrics.BytesIn(slice.Length);
            slice.Release();
            CountTail(stream);
            if (!stream.LostItsId)
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

        /// <summary>The session carries no more of this stream: deliver what is here, then end.</summary>
        private void LeaveSession(PumpedStream stream)
        {
            stream.PeerDone = true;
            stream.GoneFromSession = true;
            CountTail(stream);
            Write(stream);
            if (stream.Ended || stream.Lingering)
                return;
            if (stream.WriteDone)
                OnWriteDone(stream);
            else if (stream.Endpoint is not null)
                StartTimer(stream, _stage._timeouts.TailStall);
        }

        private void OnWriteDone(PumpedStream stream)
        {
            if (stream.GoneFromSession && !stream.ReadDone && !stream.Lingering)
            {
                // Closing a socket with unread bytes resets it, and the reset may overtake what was just delivered.
                // So: the end has been said; read and drop until the far side ends too, or for a while.
                stream.Lingering = true;
                StartTimer(stream, _stage._timeouts.Linger);
                Read(stream);
            }

            EndIfDone(stream);
        }

        private void StartTimer(PumpedStream stream, TimeSpan timeout)
        {
            stream.BytesInAtTimer = stream.BytesIn;
            ScheduleOnce(stream, timeout);
        }

        protected override void OnTimer(object timerKey)
        {
            Tick();
            if (timerKey is PumpedStream stream)
                OnStreamTimer(stream);
            else if (timerKey is SignTimer)
                GiveSign();
            else
                End();
        }

        private void GiveSign()
        {
            if (!_receivePaused)
            {
                _givesSigns = false;
                CancelTimer(SignTimer);
                return;
            }

            _mux.SendPing();
            Progress();
        }

        private void OnStreamTimer(PumpedStream stream)
        {
            if (stream.Ended)
                return;
            if (stream.Lingering)
            {
                stream.ReadDone = true;
                EndIfDone(stream);
            }
            else if (stream.BytesIn != stream.BytesInAtTimer)
            {
                StartTimer(stream, _stage._timeouts.TailStall);
            }
            else
            {
                Break(stream, StreamEnd.EndpointReset);
            }

            Progress();
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
            if (!stream.LostItsId)
                _mux.Reset(stream.Id);
            EndStream(stream, end, abort: true);
        }

        private void EndStream(PumpedStream stream, StreamEnd end, bool abort)
        {
            stream.Ended = true;
            if (stream.GoneFromSession)
                CancelTimer(stream);
            if (stream.Endpoint is not null)
                Close(stream.Endpoint, abort);
            if (stream.LostItsId)
                _withoutId.Remove(stream);
            else
                _streams.Remove(stream.Id);
            stream.Inbound?.Clear();
            CountTail(stream);

            // An operation under way uses its buffer until it completes, wherever the stage is by then.
            stream.Reading?.Abandon(stream.ReadBuffer);
            stream.Writing?.Abandon(stream.Writes.Chunk);
            stream.ReadBuffer = null;
            stream.Writes = default;
            stream.Owner?.Tell(new PumpEvents.StreamEnded(end, stream.BytesIn, stream.BytesOut), _stage._session);
            if (_carrierGone && _withoutId.Count == 0)
                StopStage();
        }

        /// <summary>Endpoints may be anybody's: one that throws here must not take the session with it.</summary>
        private static void Close(StreamEndpoint endpoint, bool abort)
        {
            try
            {
                if (abort)
                    endpoint.Abort();
                else
                    endpoint.Dispose();
            }
            catch (Exception)
            {
                // It promises not to throw, and there is nothing left that could be done with it.
            }
        }

        private void CountTail(PumpedStream stream)
        {
            if (!stream.CountsAsTail)
                return;
            var held = stream.Inbound?.HeldBytes ?? 0;
            _tailBytes += held - stream.TailBytes;
            stream.TailBytes = held;
        }

        private static void ReleaseReadBuffer(PumpedStream stream)
        {
            stream.ReadBuffer?.Release();
            stream.ReadBuffer = null;
        }

        /// <summary>The protocol was broken, or this program is.</summary>
        private void Fail(Exception e)
        {
            _failed = true;
            if (e is SessionProtocolException)
            {
                // The multiplexer may have something to say to the peer yet.
                BeginStop(e);
                Progress();
            }
            else
            {
                _cause ??= e;
                End();
            }
        }

        private void BeginStop(Exception? reason)
        {
            if (_stopping)
                return;
            _stopping = true;
            _cause ??= reason;
            ScheduleOnce(FlushTimer, _stage._timeouts.Flush);
            foreach (var stream in AllStreams())
            {
                if (stream is not { PeerDone: true, Endpoint: not null })
                {
                    Break(stream, StreamEnd.SessionEnded);
                }
                else if (!stream.GoneFromSession)
                {
                    // All that the peer had to say is here and is delivered; what it still expects, it does not get.
                    _mux.Reset(stream.Id);
                    LeaveSession(stream);
                }
            }
        }

        /// <summary>
        /// Ends this side. The stage itself ends when the carrier has, which says goodbye to the peer meanwhile.
        /// </summary>
        private void End()
        {
            EndStreams();
            if (_cause is null)
                Complete(_stage._out);
            else
                Fail(_stage._out, _cause);
            PullToDrop();
        }

        /// <summary>The carrier is gone. The stage stays for what has arrived and its endpoints have yet to take.</summary>
        private void EndNow(Exception? cause)
        {
            if (_carrierGone)
                return;
            if (!_ended)
                _cause ??= cause;
            EndStreams();
            if (_withoutId.Count == 0)
            {
                StopStage();
                return;
            }

            _carrierGone = true;
            SetKeepGoing(true);
            _stage._session.Tell(new PumpEvents.SessionOver(_cause), ActorRefs.NoSender);
        }

        private void StopStage()
        {
            if (_cause is null)
                CompleteStage();
            else
                FailStage(_cause);
        }

        /// <summary>Streams whose peer had finished still deliver what has arrived; all others break.</summary>
        private void EndStreams()
        {
            if (_ended)
                return;
            _ended = true;
            CancelTimer(FlushTimer);
            CancelTimer(SignTimer);
            foreach (var stream in AllStreams())
            {
                if (stream is not { PeerDone: true, WriteDone: false, Endpoint: not null })
                {
                    // One that has been told everything is closed like any other; the rest is cut off, and learns it.
                    EndStream(stream, StreamEnd.SessionEnded, abort: !stream.WriteDone);
                    continue;
                }

                // Settled below by abandoning the multiplexer, which must not hear of it again.
                if (!stream.LostItsId)
                    _streams.Remove(stream.Id);
                stream.LostItsId = true;
                _withoutId.Add(stream);
                if (!stream.GoneFromSession)
                    LeaveSession(stream);
            }

            _mux.Abandon();

            // Not thrown away: a write of a stream that is still being delivered may have completed just now.
            if (!_signals.IsEmpty)
                _wake.Signal();
        }

        private PumpedStream[] AllStreams() => [.. _streams.Values, .. _withoutId];

        public override void PostStop()
        {
            Interlocked.Exchange(ref _stopped, 1);
            EndStreams();
            foreach (var stream in _withoutId.ToArray())
                EndStream(stream, StreamEnd.SessionEnded, abort: true);
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

        private void Refuse(Command command)
        {
            switch (command)
            {
                case Command.Open open:
                    Refuse(open.Endpoint, open.Owner, StreamEnd.SessionEnded);
                    break;
                case Command.Attach attach:
                    Refuse(attach.Endpoint, attach.Owner, StreamEnd.SessionEnded);
                    break;
            }
        }
    }
}
