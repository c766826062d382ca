using System.Net.WebSockets;
using Akka.Streams;
using Akka.Streams.Stage;
using VTunnel.Carriers;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Errors;

namespace VTunnel.Stages;

/// <summary>
/// Whole text messages over one carrier: sends what comes in, gives out what arrives, reads only on demand.
/// Completes after a close frame; fails with a <see cref="SessionProtocolException"/> otherwise. When upstream
/// completes it says goodbye with a close frame, waits for the peer's, and completes.
/// </summary>
internal sealed class CarrierStage : GraphStage<FlowShape<ByteSlice, ByteSlice>>
{
    private const int SmallReceiveBytes = 4 * 1024;
    private const int LargeReceiveBytes = ByteChunk.DefaultSize;

    /// <summary>How long a peer that does not read, or does not answer, may hold up a goodbye.</summary>
    private static readonly TimeSpan FarewellTimeout = TimeSpan.FromSeconds(2);

    private readonly Inlet<ByteSlice> _in = new("Carrier.in");
    private readonly Outlet<ByteSlice> _out = new("Carrier.out");
    private readonly ICarrier _carrier;
    private readonly int _maxMessageBytes;

    /// <param name="carrier">The connection.</param>
    /// <param name="maxMessageBytes">What the peer may send at once.</param>
    public CarrierStage(ICarrier carrier, int maxMessageBytes)
    {
        _carrier = carrier;
        _maxMessageBytes = maxMessageBytes;
        Shape = new FlowShape<ByteSlice, ByteSlice>(_in, _out);
    }

    public override FlowShape<ByteSlice, ByteSlice> Shape { get; }

    protected override GraphStageLogic CreateLogic(Attributes inheritedAttributes) => new Logic(this);

    /// <summary>The close frame that tells the peer why its session ends.</summary>
    internal static (WebSocketCloseStatus Status, string Reason) CloseFor(Exception? cause) => cause switch
    {
        null => (WebSocketCloseStatus.NormalClosure, ""),
        SessionProtocolException { Code: SessionError.MessageTooLarge } e => (WebSocketCloseStatus.MessageTooBig, e.Message),
        SessionProtocolException { Code: SessionError.UnexpectedMessageKind } e => (WebSocketCloseStatus.InvalidMessageType, e.Message),
        SessionProtocolException { Code: SessionError.ProtocolViolation } e => (WebSocketCloseStatus.ProtocolError, e.Message),
        SessionProtocolException { Code: SessionError.ShuttingDown } e => (WebSocketCloseStatus.EndpointUnavailable, e.Message),
        SessionProtocolException e => (WebSocketCloseStatus.NormalClosure, e.Message),
        _ => (WebSocketCloseStatus.InternalServerError, "internal error"),
    };

    private sealed class Logic : TimerGraphStageLogic, IInHandler, IOutHandler
    {
        private const int ReceivesInARow = 256;
        private const string FarewellTimer = "farewell";

        private readonly CarrierStage _stage;
        private readonly ICarrier _carrier;
        private readonly StageWake _wake;
        private readonly StageOperation<ValueWebSocketReceiveResult> _receive;
        private readonly StageOperation _send;

        /// <summary>The loop of receives was left to let others in.</summary>
        private bool _hasMore;

        private ByteChunk? _message;
        private int _length;

        /// <summary>Room for the next message, as the one before it needed; who waits long holds little.</summary>
        private int _receiveBytes = SmallReceiveBytes;

        private ByteSlice _outgoing;
        private Exception? _closeCause;
        private bool _closing;
        private bool _farewellStarted;
        private bool _farewellSent;
        private bool _peerSaidGoodbye;

        /// <summary>
        /// Whether to go on reading. After the own close frame too, only to drop what comes before the peer's: a socket that is
        /// closed with unread bytes is reset, and the reset would overtake the close frame.
        /// </summary>
        private bool WantsToReceive => _closing ? _farewellSent && !_peerSaidGoodbye : IsAvailable(_stage._out);

        public Logic(CarrierStage stage)
            : base(stage.Shape)
        {
            _stage = stage;
            _carrier = stage._carrier;
            _wake = new StageWake(GetAsyncCallback(OnWake));
            _receive = new StageOperation<ValueWebSocketReceiveResult>(_wake.Signal);
            _send = new StageOperation(_wake.Signal);
            SetHandler(stage._in, this);
            SetHandler(stage._out, this);
        }

        public override void PreStart()
        {
            // The stage ends when the carrier has been said goodbye to, not when its ports are done.
            SetKeepGoing(true);
            Pull(_stage._in);
        }

        public void OnPush()
        {
            _outgoing = Grab(_stage._in);
            Send();
        }

        public void OnPull() => Receive();

        public void OnUpstreamFinish() => SayGoodbye(null);

        public void OnUpstreamFailure(Exception e) => SayGoodbye(e);

        public void OnDownstreamFinish(Exception cause) =>
            SayGoodbye(cause is SubscriptionWithCancelException.NonFailureCancellation ? null : cause);

        private void OnWake()
        {
            _wake.Clear();
            if (_send.IsCompleted)
                OnSent();
            if (_receive.IsCompleted ? TakeReceived() : _hasMore)
                Receive();
        }

        private void Receive()
        {
            // Loops instead of recursing: a busy carrier completes many receives at once. But not for ever, where all is dropped.
            _hasMore = false;
            for (var left = ReceivesInARow; !_receive.IsPending && WantsToReceive; left--)
            {
                if (left == 0)
                {
                    _hasMore = true;
                    _wake.Signal();
                    return;
                }

                _message ??= ByteChunk.Rent(_receiveBytes);
                if (_length == _message.Array.Length)
                    Grow();

                bool completed;
                try
                {
                    completed = _receive.Start(_carrier.ReceiveAsync(_message.Array.AsMemory(_length)));
                }
                catch (Exception e)
                {
                    Fail(e);
                    return;
                }

                if (!completed || !TakeReceived())
                    return;
            }
        }

        /// <summary>Takes the result of a receive; false when the stage is ending.</summary>
        private bool TakeReceived()
        {
            ValueWebSocketReceiveResult result;
            try
            {
                result = _receive.Take();
            }
            catch (Exception e)
            {
                Fail(e);
                return false;
            }

            if (result.MessageType == WebSocketMessageType.Close)
            {
                _peerSaidGoodbye = true;
                if (_farewellSent)
                    Stop();
                else
                    SayGoodbye(null);
                return false;
            }

            if (_closing)
            {
                _length = 0;
                return true;
            }

            if (result.MessageType != WebSocketMessageType.Text)
            {
                SayGoodbye(new SessionProtocolException(SessionError.UnexpectedMessageKind, "binary messages are not part of protocol v1"));
                return false;
            }

            _length += result.Count;
            if (_length > _stage._maxMessageBytes)
            {
                SayGoodbye(new SessionProtocolException(
                    SessionError.MessageTooLarge, $"a message exceeds the limit of {_stage._maxMessageBytes} bytes"));
                return false;
            }

            if (!result.EndOfMessage)
                return true;

            var message = new ByteSlice(_message, 0, _length);
            _receiveBytes = _length > SmallReceiveBytes ? LargeReceiveBytes : SmallReceiveBytes;
            _message = null;
            _length = 0;
            Push(_stage._out, message);
            return true;
        }

        private void Grow()
        {
            // One byte beyond the limit is enough to know that the limit is exceeded.
            var size = (int)Math.Min(_message!.Array.Length * 4L, _stage._maxMessageBytes + 1L);
            var larger = ByteChunk.Rent(Math.Max(size, _length + 1));
            _message.Array.AsSpan(0, _length).CopyTo(larger.Array);
            _message.Release();
            _message = larger;
        }

        private void Send()
        {
            bool completed;
            try
            {
                completed = _send.Start(_carrier.SendAsync(_outgoing.Memory, WebSocketMessageType.Text));
            }
            catch (Exception e)
            {
                Fail(e);
                return;
            }

            if (completed)
                OnSent();
        }

        private void OnSent()
        {
            try
            {
                _send.Take();
            }
            catch (Exception e)
            {
                Fail(e);
                return;
            }

            _outgoing.Release();
            _outgoing = default;
            if (_farewellStarted)
                OnFarewellSent();
            else if (_closing)
                StartFarewell();
            else if (!HasBeenPulled(_stage._in))
                Pull(_stage._in);
        }

        private void SayGoodbye(Exception? cause)
        {
            if (_closing)
                return;
            _closing = true;
            _closeCause = cause;
            ScheduleOnce(FarewellTimer, FarewellTimeout);
            if (!_send.IsPending)
                StartFarewell();
        }

        protected override void OnTimer(object timerKey) => Stop();

        private void StartFarewell()
        {
            _farewellStarted = true;
            var (status, reason) = CloseFor(_closeCause);
            bool completed;
            try
            {
                completed = _send.Start(_carrier.CloseAsync(status, reason));
            }
            catch (Exception e)
            {
                Fail(e);
                return;
            }

            if (completed)
                OnSent();
        }

        private void OnFarewellSent()
        {
            _farewellSent = true;
            if (_peerSaidGoodbye)
                Stop();
            else
                Receive();
        }

        private void Stop()
        {
            if (_closeCause is null)
                CompleteStage();
            else
                FailStage(_closeCause);
        }

        private void Fail(Exception e)
        {
            if (_closing)
                Stop();
            else
                FailStage(new SessionProtocolException(SessionError.ConnectionLost, $"the connection was lost: {e.Message.TrimEnd('.')}", e));
        }

        public override void PostStop()
        {
            _carrier.Abort();

            // A receive or send under way uses its buffer until it completes.
            _receive.Abandon(_message);
            _send.Abandon(_outgoing.Chunk);
        }
    }
}
