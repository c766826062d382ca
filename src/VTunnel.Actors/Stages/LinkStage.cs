using System.Collections.Concurrent;
using System.Net.WebSockets;
using Akka.Actor;
using Akka.Streams;
using Akka.Streams.Stage;
using VTunnel.Carriers;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Link;

namespace VTunnel.Stages;

/// <summary>A session's link as actors see it. Every member may be called from any thread.</summary>
public interface ILinkPort
{
    /// <summary>The carrier in use; null during a gap.</summary>
    ICarrier? Carrier { get; }

    /// <summary>The smoothed round trip; null until measured.</summary>
    TimeSpan? RoundTripTime { get; }

    /// <summary>Goes on over this carrier; one that is still in use is dropped. The link owns it from now on.</summary>
    /// <param name="carrier">An open connection.</param>
    /// <param name="hello">On a server, what the client said on it; null on a client.</param>
    void Attach(ICarrier carrier, LinkHello? hello);
}

/// <summary>What a link tells its session.</summary>
public static class LinkEvents
{
    /// <summary>A carrier is up; <paramref name="Gap"/> is null for the first, else how long there was none.</summary>
    public sealed record CarrierUp(string RemoteName, TimeSpan? Gap);

    /// <summary>There is no carrier; the session lives on until the resume window is over.</summary>
    public sealed record CarrierLost(string Reason);
}

/// <summary>
/// A byte stream that outlives its carriers: wraps <see cref="LinkState"/>, moves its messages over whichever carrier is
/// attached, and calls it at its deadlines. Fails with a <see cref="SessionProtocolException"/> when the link ends
/// otherwise than in order.
/// </summary>
internal sealed class LinkStage : GraphStageWithMaterializedValue<FlowShape<ByteSlice, ByteSlice>, ILinkPort>
{
    /// <summary>How long an orderly end may take before the link is cut.</summary>
    private static readonly TimeSpan FarewellTimeout = TimeSpan.FromSeconds(3);

    private readonly Inlet<ByteSlice> _in = new("Link.in");
    private readonly Outlet<ByteSlice> _out = new("Link.out");
    private readonly LinkState _link;
    private readonly Func<bool> _isInteractive;
    private readonly IActorRef _session;
    private readonly TimeProvider _clock;

    /// <param name="link">The protocol; owned by the stage from now on.</param>
    /// <param name="isInteractive">Whether somebody waits for small answers; asked inside the graph before each write.</param>
    /// <param name="session">Told what <see cref="LinkEvents"/> says.</param>
    /// <param name="clock">For what the protocol measures.</param>
    public LinkStage(LinkState link, Func<bool> isInteractive, IActorRef session, TimeProvider clock)
    {
        _link = link;
        _isInteractive = isInteractive;
        _session = session;
        _clock = clock;
        Shape = new FlowShape<ByteSlice, ByteSlice>(_in, _out);
    }

    public override FlowShape<ByteSlice, ByteSlice> Shape { get; }

    public override ILogicAndMaterializedValue<ILinkPort> CreateLogicAndMaterializedValue(Attributes inheritedAttributes)
    {
        var logic = new Logic(this);
        return new LogicAndMaterializedValue<ILinkPort>(logic, logic);
    }

    /// <summary>A carrier and what is under way on it. One that was replaced lives until its last operation has ended.</summary>
    private sealed class Attached(ICarrier carrier, Action wake)
    {
        public const int SmallReceiveBytes = 4 * 1024;
        public const int LargeReceiveBytes = ByteChunk.DefaultSize;

        public ICarrier Carrier { get; } = carrier;
        public StageOperation<ValueWebSocketReceiveResult> Receiving { get; } = new(wake);
        public StageOperation Sending { get; } = new(wake);
        public int Number;
        public ByteChunk? Buffer;
        public int MessageStart;
        public int BufferEnd;
        public int ReceiveBytes = SmallReceiveBytes;
        public ByteSlice Outgoing;
        public bool ClosesAfterSend;
        public bool IsClosed;
    }

    private sealed record AttachRequest(ICarrier Carrier, LinkHello? Hello);

    private sealed class Logic : TimerGraphStageLogic, ILinkPort, IInHandler, IOutHandler
    {
        private const int ReceivesInARow = 256;
        private const string DeadlineTimer = "deadline";
        private const string FarewellTimer = "farewell";

        private readonly LinkStage _stage;
        private readonly LinkState _link;
        private readonly StageWake _wake;
        private readonly long _origin;

        // Bounded by the connections that the endpoint admits.
        private readonly ConcurrentQueue<AttachRequest> _attachRequests = new();

        private Attached? _current;
        private readonly List<Attached> _leaving = [];
        private volatile ICarrier? _carrier;
        private TimeSpan? _armed;
        private Exception? _endCause;
        private ByteSlice? _unwritten;
        private bool _isEnding;
        private bool _finishWhenWritten;
        private bool _peerClosed;
        private bool _isStopped;
        private bool _isWorking;
        private bool _workAgain;

        public Logic(LinkStage stage)
            : base(stage.Shape)
        {
            _stage = stage;
            _link = stage._link;
            _origin = stage._clock.GetTimestamp();
            _wake = new StageWake(GetAsyncCallback(OnWake));
            SetHandler(stage._in, this);
            SetHandler(stage._out, this);
        }

        private TimeSpan Now => _stage._clock.GetElapsedTime(_origin);

        ICarrier? ILinkPort.Carrier => _carrier;

        TimeSpan? ILinkPort.RoundTripTime => _link.RoundTripTime;

        public void Attach(ICarrier carrier, LinkHello? hello)
        {
            _attachRequests.Enqueue(new AttachRequest(carrier, hello));
            if (_isStopped)
                DropAttachRequests();
            else
                _wake.Signal();
        }

        public override void PreStart()
        {
            // The stage ends when the link does, not when its ports are done.
            SetKeepGoing(true);
            Work();
        }

        public void OnPush()
        {
            _unwritten = Grab(_stage._in);
            Work();
        }

        public void OnPull() => Work();

        public void OnUpstreamFinish() => EndInOrder(null);

        public void OnUpstreamFailure(Exception e)
        {
            if (e is SessionProtocolException { Code: SessionError.ShuttingDown })
                EndInOrder(e);
            else if (e is SessionProtocolException failure)
                EndAtOnce(failure.Code, failure.Message, e);
            else
                EndAtOnce(SessionError.InternalError, "internal error", e);
        }

        public void OnDownstreamFinish(Exception cause) => EndInOrder(null);

        private void OnWake()
        {
            _wake.Clear();
            while (_attachRequests.TryDequeue(out var request))
                Accept(request);
            if (_current is { } current)
                Collect(current);
            for (var i = _leaving.Count - 1; i >= 0; i--)
            {
                Collect(_leaving[i]);
                if (_leaving[i] is { Receiving.IsPending: false, Sending.IsPending: false })
                    _leaving.RemoveAt(i);
            }

            Work();
        }

        protected override void OnTimer(object timerKey)
        {
            if (timerKey is FarewellTimer)
            {
                if (!_link.IsEnded)
                    _link.Abort(SessionError.ShuttingDown, "the session did not end in time");
                Work();
                StopStage();
                return;
            }

            _armed = null;

            // While nobody takes what arrives, nothing is read, and what the peer has said lies unread.
            if (_current is { Receiving.IsPending: false })
                _link.ExcuseSilence(Now);
            _link.Advance(Now);
            Work();
        }

        /// <summary>Everything that may have become possible. Never recursive: what it causes is done in another round.</summary>
        private void Work()
        {
            if (_isWorking)
            {
                _workAgain = true;
                return;
            }

            _isWorking = true;
            do
            {
                _workAgain = false;
                HandleEvents();
                if (_isStopped)
                    break;
                Deliver();
                Send();
                Receive();
                HandleEvents();
                if (!_isStopped)
                    Write();
            }
            while (_workAgain && !_isStopped);
            _isWorking = false;
            if (!_isStopped)
                ArmDeadline();
        }

        private void Accept(AttachRequest request)
        {
            if (_link.IsEnded)
            {
                Drop(request.Carrier);
                return;
            }

            var attached = new Attached(request.Carrier, _wake.Signal);
            var former = _current;
            if (request.Hello is null)
            {
                attached.Number = _link.AttachCarrier(Now);
            }
            else if (!_link.TryAttachCarrier(request.Hello, Now, out attached.Number, out var refusal))
            {
                HandleEvents();
                attached.Outgoing = refusal!.ToMessage();
                attached.ClosesAfterSend = true;
                Leave(attached);
                StartSend(attached);
                return;
            }

            _current = attached;
            _carrier = attached.Carrier;
            if (former is not null)
            {
                Leave(former);
                Drop(former.Carrier);
            }

            HandleEvents();
        }

        private void HandleEvents()
        {
            while (_link.TryTakeEvent(out var happened))
            {
                switch (happened.Kind)
                {
                    case LinkEventKind.Established:
                        _stage._session.Tell(new LinkEvents.CarrierUp(_carrier?.RemoteName ?? "", null), ActorRefs.NoSender);
                        break;
                    case LinkEventKind.Resumed:
                        _stage._session.Tell(new LinkEvents.CarrierUp(_carrier?.RemoteName ?? "", happened.Gap), ActorRefs.NoSender);
                        break;
                    case LinkEventKind.CarrierLost:
                        Lose(happened);
                        break;
                    case LinkEventKind.Ended:
                        OnLinkEnded(happened);
                        break;
                }
            }
        }

        private void Lose(in LinkEvent lost)
        {
            if (_current?.Number == lost.Carrier)
            {
                var former = _current;
                _current = null;
                _carrier = null;
                Leave(former);
                Drop(former.Carrier);
            }

            if (lost.Loss != CarrierLoss.Replaced)
                _stage._session.Tell(new LinkEvents.CarrierLost(lost.Text), ActorRefs.NoSender);
        }

        private void OnLinkEnded(in LinkEvent ended)
        {
            _isEnding = true;
            if (ended.End != LinkEnd.Completed && _endCause is null)
            {
                var code = ended.Code == SessionError.None ? SessionError.ConnectionLost : ended.Code;
                _endCause = new SessionProtocolException(code, ended.Text);
            }

            if (_current is null)
            {
                StopStage();
                return;
            }

            // The last word goes out first, but a peer that does not read cannot hold it up for long.
            _current.ClosesAfterSend = true;
            ScheduleOnce(FarewellTimer, FarewellTimeout);
            _workAgain = true;
        }

        private void EndInOrder(Exception? cause)
        {
            if (_isEnding)
                return;
            _isEnding = true;
            _endCause = cause;
            if (!_link.IsEstablished || !_link.IsUp)
            {
                // Nobody to agree with: the peer's resume window ends it there.
                _link.Abort(SessionError.ShuttingDown, cause?.Message ?? "the session was ended");
            }
            else
            {
                if (_unwritten is null)
                    _link.Finish();
                else
                    _finishWhenWritten = true;
                ScheduleOnce(FarewellTimer, FarewellTimeout);
            }

            Work();
        }

        private void EndAtOnce(SessionError code, string text, Exception cause)
        {
            if (_isEnding)
                return;
            _isEnding = true;
            _endCause = cause;
            _link.Abort(code, text);
            Work();
        }

        private void StopStage()
        {
            if (_isStopped)
                return;
            _isStopped = true;
            if (_endCause is null)
                CompleteStage();
            else
                FailStage(_endCause);
        }

        /// <summary>Writes what was pushed and asks for more. A lost carrier can fill the replay buffer between the two.</summary>
        private void Write()
        {
            _link.IsInteractive = _stage._isInteractive();
            if (_unwritten is { } slice)
            {
                if (_link.WritableBytes == 0 && !_link.IsEnded)
                    return;
                _unwritten = null;
                _link.Write(slice);
                _workAgain = true;
                if (_finishWhenWritten)
                    _link.Finish();
            }

            if (!_isEnding && _link.WritableBytes > 0 && !HasBeenPulled(_stage._in) && !IsClosed(_stage._in))
                Pull(_stage._in);
        }

        private void Deliver()
        {
            if (_link.IsPeerFinished && !_isEnding)
            {
                // The peer ends the session in order: so does this side, once what came before has been taken.
                EndInOrder(null);
                return;
            }

            if (IsClosed(_stage._out))
            {
                while (_link.TryRead(out var unread))
                    unread.Release();
            }
            else if (IsAvailable(_stage._out) && _link.TryRead(out var slice))
            {
                Push(_stage._out, slice);
            }
        }

        private void Send()
        {
            while (_current is { } current && !current.Sending.IsPending)
            {
                if (!_link.TryTakeMessage(current.Number, Now, out current.Outgoing))
                {
                    if (current.ClosesAfterSend && !current.IsClosed)
                        StartClose(current);
                    return;
                }

                StartSend(current);
            }
        }

        private void StartSend(Attached attached)
        {
            bool completed;
            try
            {
                completed = attached.Sending.Start(attached.Carrier.SendAsync(attached.Outgoing.Memory, WebSocketMessageType.Binary));
            }
            catch (Exception e)
            {
                Detach(attached, e);
                return;
            }

            if (completed)
                TakeSent(attached);
        }

        private void TakeSent(Attached attached)
        {
            attached.Outgoing.Release();
            attached.Outgoing = default;
            try
            {
                attached.Sending.Take();
            }
            catch (Exception e)
            {
                Detach(attached, e);
                return;
            }

            if (attached.IsClosed)
                OnFarewellSent(attached);
            else if (attached.ClosesAfterSend && attached != _current)
                StartClose(attached);
        }

        private void StartClose(Attached attached)
        {
            attached.IsClosed = true;
            bool completed;
            try
            {
                var (status, reason) = CarrierStage.CloseFor(_endCause);
                completed = attached.Sending.Start(attached.Carrier.CloseAsync(status, reason));
            }
            catch (Exception e)
            {
                Detach(attached, e);
                return;
            }

            if (completed)
                TakeSent(attached);
        }

        /// <summary>
        /// What was sent last is lost if the connection is cut before the peer has read it: so the peer closes first, or
        /// the farewell timer runs out.
        /// </summary>
        private void OnFarewellSent(Attached attached)
        {
            if (attached != _current)
                Dispose(attached.Carrier);
            else if (_peerClosed)
                StopStage();
            else
                _workAgain = true;
        }

        /// <summary>
        /// For a while only: records that deliver nothing, as pings, would keep the thread as long as they come, and timers and
        /// whatever else it has to do would wait.
        /// </summary>
        private void Receive()
        {
            for (var left = ReceivesInARow; _current is { Receiving.IsPending: false } current && !_isStopped && !_peerClosed
                && (current.IsClosed || IsAvailable(_stage._out) || IsClosed(_stage._out) || !_link.IsUp); left--)
            {
                if (left == 0)
                {
                    _wake.Signal();
                    return;
                }

                if (!StartReceive(current) || !TakeReceived(current))
                    return;
                HandleEvents();
                if (_isStopped)
                    return;
                Deliver();
                Send();
            }
        }

        /// <summary>True when the result is there at once.</summary>
        private bool StartReceive(Attached attached)
        {
            MakeRoom(attached);
            try
            {
                return attached.Receiving.Start(attached.Carrier.ReceiveAsync(attached.Buffer!.Array.AsMemory(attached.BufferEnd)));
            }
            catch (Exception e)
            {
                Detach(attached, e);
                return false;
            }
        }

        /// <summary>Small messages share a buffer; a large one gets a new one of its size.</summary>
        private static void MakeRoom(Attached attached)
        {
            if (attached.Buffer is null)
            {
                attached.Buffer = ByteChunk.Rent(attached.ReceiveBytes);
                attached.MessageStart = attached.BufferEnd = 0;
                return;
            }

            var partial = attached.BufferEnd - attached.MessageStart;
            var free = attached.Buffer.Array.Length - attached.BufferEnd;
            if (partial == 0 ? free >= Attached.SmallReceiveBytes / 4 : free > 0)
                return;

            var size = Math.Max(attached.ReceiveBytes, partial * 2);
            var next = ByteChunk.Rent(Math.Min(size, LinkRecord.MaxBytes + 1));
            attached.Buffer.Array.AsSpan(attached.MessageStart, partial).CopyTo(next.Array);
            attached.Buffer.Release();
            attached.Buffer = next;
            attached.MessageStart = 0;
            attached.BufferEnd = partial;
        }

        /// <summary>Takes the result of a receive; false when the carrier is of no more use.</summary>
        private bool TakeReceived(Attached attached)
        {
            ValueWebSocketReceiveResult result;
            try
            {
                result = attached.Receiving.Take();
            }
            catch (SessionProtocolException e)
            {
                Refuse(attached, e.Code, e.Message);
                return false;
            }
            catch (Exception e)
            {
                Detach(attached, e);
                return false;
            }

            if (result.MessageType == WebSocketMessageType.Close)
            {
                if (_link.IsEnded)
                    OnPeerClosed(attached);
                else
                    Detach(attached, "the peer closed the connection");
                return false;
            }

            if (_link.IsEnded)
            {
                // Read and dropped, until the peer has read the last word and says goodbye.
                attached.BufferEnd = attached.MessageStart;
                return true;
            }

            if (result.MessageType != WebSocketMessageType.Binary)
                return Refuse(attached, SessionError.UnexpectedMessageKind, "the peer sent a text message, which protocol v2 does not use");

            attached.BufferEnd += result.Count;
            var length = attached.BufferEnd - attached.MessageStart;
            if (length > LinkRecord.MaxBytes)
                return Refuse(attached, SessionError.MessageTooLarge, $"the peer sent a message of more than {LinkRecord.MaxBytes} bytes");

            if (!result.EndOfMessage)
            {
                attached.ReceiveBytes = Math.Max(attached.ReceiveBytes, Attached.LargeReceiveBytes);
                return true;
            }

            attached.Buffer!.Retain();
            var message = new ByteSlice(attached.Buffer, attached.MessageStart, length);
            attached.MessageStart = attached.BufferEnd;
            if (length > Attached.SmallReceiveBytes)
            {
                // The next one is probably as large: give it a buffer of its own rather than a copy.
                attached.ReceiveBytes = Math.Max(Attached.LargeReceiveBytes, (int)System.Numerics.BitOperations.RoundUpToPowerOf2((uint)length));
                ReleaseBuffer(attached);
            }
            else if (attached.ReceiveBytes != Attached.SmallReceiveBytes)
            {
                attached.ReceiveBytes = Attached.SmallReceiveBytes;
                ReleaseBuffer(attached);
            }

            _link.Receive(attached.Number, message, Now);
            return true;
        }

        /// <summary>
        /// What the peer would do again on every other carrier ends the session. But as long as nobody knows who it is, only
        /// the carrier. Gives false, as there is no more to be taken.
        /// </summary>
        private bool Refuse(Attached attached, SessionError code, string text)
        {
            if (_link.IsUp)
                EndAtOnce(code, text, new SessionProtocolException(code, text));
            else
                Detach(attached, text);
            return false;
        }

        private void OnPeerClosed(Attached attached)
        {
            _peerClosed = true;
            if (attached.IsClosed && !attached.Sending.IsPending)
                StopStage();
        }

        /// <summary>Takes what has completed on a carrier since.</summary>
        private void Collect(Attached attached)
        {
            if (attached.Sending.IsCompleted)
                TakeSent(attached);
            if (!attached.Receiving.IsCompleted)
                return;
            if (attached == _current)
                TakeReceived(attached);
            else
                Discard(attached);
        }

        private static void Discard(Attached attached)
        {
            try
            {
                attached.Receiving.Take();
            }
            catch (Exception)
            {
                // The carrier was dropped on purpose; how its last receive ended is of no interest.
            }

            ReleaseBuffer(attached);
        }

        private void Detach(Attached attached, Exception e) => Detach(attached, $"the connection was lost: {e.Message.TrimEnd('.')}");

        private void Detach(Attached attached, string reason)
        {
            _link.DetachCarrier(attached.Number, reason, Now);
            HandleEvents();
            if (attached == _current)
            {
                // The link had ended before: nobody is left to send the last word to.
                _current = null;
                _carrier = null;
                Leave(attached);
                Drop(attached.Carrier);
                if (_link.IsEnded)
                    StopStage();
            }
            else
            {
                Drop(attached.Carrier);
            }

            _workAgain = true;
        }

        private void Leave(Attached attached)
        {
            if (!attached.Receiving.IsPending)
                ReleaseBuffer(attached);
            _leaving.Add(attached);
        }

        private static void ReleaseBuffer(Attached attached)
        {
            attached.Buffer?.Release();
            attached.Buffer = null;
        }

        private static void Drop(ICarrier carrier)
        {
            carrier.Abort();
            Dispose(carrier);
        }

        private static void Dispose(ICarrier carrier)
        {
            // Disposing a carrier does not wait for anything, so the task is complete by now.
            _ = carrier.DisposeAsync().AsTask();
        }

        private void ArmDeadline()
        {
            // A timer that is early costs one look; moving it with every message would cost more.
            if (_link.NextDeadline is not { } deadline || _armed <= deadline)
                return;
            _armed = deadline;
            var delay = deadline - Now;
            ScheduleOnce(DeadlineTimer, delay > TimeSpan.Zero ? delay : TimeSpan.FromMilliseconds(1));
        }

        private void DropAttachRequests()
        {
            while (_attachRequests.TryDequeue(out var request))
                Drop(request.Carrier);
        }

        public override void PostStop()
        {
            _isStopped = true;
            if (_current is { } current)
            {
                Leave(current);
                Drop(current.Carrier);
            }

            // An operation under way uses its buffer until it completes, wherever the stage is by then.
            foreach (var leaving in _leaving)
            {
                // One that was refused is closed by whoever sent the refusal, which is over now.
                if (leaving.ClosesAfterSend && leaving != _current)
                    Drop(leaving.Carrier);
                leaving.Receiving.Abandon(leaving.Buffer);
                leaving.Sending.Abandon(leaving.Outgoing.Chunk);
                leaving.Buffer = null;
                leaving.Outgoing = default;
            }

            _carrier = null;
            _unwritten?.Release();
            _unwritten = null;
            _link.Abandon();
            DropAttachRequests();
        }
    }
}
