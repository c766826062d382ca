using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Errors;

namespace VTunnel.Protocol.Link;

/// <summary>
/// One end of a link: makes a sequence of carriers look like one unbroken byte stream in each direction. A state machine
/// without sockets, clock, randomness or threads.
/// </summary>
/// <remarks>
/// <para>
/// The caller serialises all calls. After any of them it drains <see cref="TryTakeEvent"/> and <see cref="TryRead"/>,
/// sends what <see cref="TryTakeMessage"/> gives whenever the carrier can take a message, and sees to it that
/// <see cref="Advance"/> is called at <see cref="NextDeadline"/>. Times are counted from any fixed moment and never go back.
/// </para>
/// <para>
/// A carrier is known by the number that attaching it returned. Calls with the number of one that is no longer attached
/// do nothing, so what a replaced carrier still delivers cannot reach the stream.
/// </para>
/// <para>
/// Nothing that arrives waits here: it is read at once by the layer above, which has credit of its own. What limits the
/// sender is the replay buffer; when it is full <see cref="WritableBytes"/> is 0 until an ACK comes.
/// </para>
/// </remarks>
public sealed class LinkState
{
    private readonly LinkOptions _options;
    private readonly ReplayBuffer _replay = new();
    private readonly ReplayWindow _window;
    private readonly KeepAlive _keepAlive = new();
    private readonly RingQueue<ByteSlice> _inbound = new();
    private readonly RingQueue<LinkEvent> _events = new();

    private LinkSecret? _secret;
    private TimeSpan _now;
    private bool _isEnded;

    // The carrier.
    private int _carrier;
    private int _carrierCount;
    private uint _attempt;
    private bool _isUp;
    private byte[] _clientProof = [];
    private TimeSpan _handshakeDeadline;
    private TimeSpan? _lostAt;

    // What both sides agreed on.
    private TimeSpan _resumeWindow;
    private int _peerReceiveWindow;
    private int _ackAfter;

    // Outbound.
    private ByteSlice _hello;
    private ByteSlice _last;
    private ulong? _pong;
    private long _peerConsumed;
    private bool _isFinished;
    private bool _isEndSent;
    private bool _wasEndSent;
    private bool _isByeSent;

    // Inbound; offsets count the end of the stream as one.
    private long _received;
    private long _consumed;
    private long _acknowledged;
    private bool _hasPeerEnded;
    private bool _isAckDue;
    private TimeSpan? _ackDeadline;

    private LinkState(LinkRole role, LinkOptions options, LinkId id, LinkSecret? secret)
    {
        ArgumentNullException.ThrowIfNull(options);
        var errors = options.GetErrors();
        if (errors.Count > 0)
            throw new ArgumentException(string.Join(' ', errors), nameof(options));

        (Role, _options, Id, _secret) = (role, options, id, secret);
        _window = new ReplayWindow(options.InitialReplayWindowBytes, options.InteractiveReplayWindowBytes, options.MaxReplayWindowBytes);
        _resumeWindow = options.ResumeWindow;
    }

    /// <summary>Which end this is.</summary>
    public LinkRole Role { get; }

    /// <summary>The link's name; a client has none before <see cref="LinkEventKind.Established"/>.</summary>
    public LinkId Id { get; private set; }

    /// <summary>Whether there ever was a carrier with a HELLO in both directions.</summary>
    public bool IsEstablished { get; private set; }

    /// <summary>Whether the stream moves: there is a carrier and the handshake on it is over.</summary>
    public bool IsUp => _isUp && !_isEnded;

    /// <summary>Whether <see cref="LinkEventKind.Ended"/> was raised.</summary>
    public bool IsEnded => _isEnded;

    /// <summary>Whether a client should dial: there is no carrier and the link has not ended.</summary>
    public bool NeedsCarrier => Role == LinkRole.Client && !_isEnded && _carrier == 0;

    /// <summary>
    /// Bytes that may be written now: what is left of the replay window, or of <see cref="LinkOptions.MaxUnsentBytes"/>.
    /// While it is above 0, one slice of any length may be written.
    /// </summary>
    public int WritableBytes => _isEnded || _isFinished
        ? 0
        : (int)Math.Max(0, Math.Min(_window.Bytes - _replay.Cost, _options.MaxUnsentBytes - _replay.Unsent));

    /// <summary>The most that is held for replay at present, in bytes of memory; grows up to <see cref="LinkOptions.MaxReplayWindowBytes"/>.</summary>
    public int ReplayWindowBytes => _window.Bytes;

    /// <summary>
    /// Whether somebody waits for small answers among the bytes of this link; set by the layer above, which knows. Keeps what is
    /// under way shorter, where the path does not need more.
    /// </summary>
    public bool IsInteractive
    {
        get => _window.IsInteractive;
        set => _window.IsInteractive = value;
    }

    /// <summary>The memory held for replay, in bytes.</summary>
    public long ReplayBufferedBytes => _replay.Cost;

    /// <summary>Bytes that were written and wait for the carrier, for the first time or again.</summary>
    public long UnsentBytes => _replay.Unsent;

    /// <summary>Bytes written since the link began.</summary>
    public long WrittenBytes => _replay.End;

    /// <summary>Bytes of the peer's stream that were read since the link began.</summary>
    public long ReadBytes => _consumed - (IsPeerFinished ? 1 : 0);

    /// <summary>Whether the peer's stream has ended and everything of it was read.</summary>
    public bool IsPeerFinished { get; private set; }

    /// <summary>The smoothed time from PING to PONG, over all carriers; null before the first. Includes what queues in carriers cost.</summary>
    public TimeSpan? RoundTripTime => _keepAlive.RoundTripTime;

    /// <summary>When to call <see cref="Advance"/>, or null if nothing is due by time alone.</summary>
    public TimeSpan? NextDeadline
    {
        get
        {
            if (_isEnded)
                return null;
            if (_carrier == 0)
                return _lostAt + _resumeWindow;
            if (!_isUp)
                return _handshakeDeadline;
            return Earlier(_keepAlive.Deadline, _isAckDue ? null : _ackDeadline);
        }
    }

    /// <summary>Everything of both directions was delivered, as far as this side knows.</summary>
    private bool IsDone => IsPeerFinished && _isFinished && _peerConsumed == _replay.End + 1;

    private bool IsExpired => _carrier == 0 && _lostAt is { } lostAt && _now >= lostAt + _resumeWindow;

    /// <summary>The side that dials. The server gives the link its name and secret.</summary>
    /// <exception cref="ArgumentException">The options are wrong; the message lists all errors.</exception>
    public static LinkState CreateClient(LinkOptions options) => new(LinkRole.Client, options, LinkId.None, null);

    /// <summary>The side that accepts.</summary>
    /// <param name="options">How it behaves.</param>
    /// <param name="id">128 bits that no other link of this server has, drawn at random.</param>
    /// <param name="secret">256 bits from a cryptographic source.</param>
    /// <exception cref="ArgumentException">The options are wrong (the message lists all errors), or the id is none.</exception>
    public static LinkState CreateServer(LinkOptions options, LinkId id, LinkSecret secret)
    {
        ArgumentNullException.ThrowIfNull(secret);
        if (id == LinkId.None)
            throw new ArgumentException("A link needs an id other than zeros.", nameof(id));
        return new LinkState(LinkRole.Server, options, id, secret);
    }

    /// <summary>Client: a new carrier is open. One that is still attached is given up for it.</summary>
    /// <returns>The carrier's number, from 1 up.</returns>
    /// <exception cref="InvalidOperationException">This is a server, or the link has ended.</exception>
    public int AttachCarrier(TimeSpan now)
    {
        Tick(now);
        if (Role != LinkRole.Client)
            throw new InvalidOperationException("A server attaches a carrier with the client's HELLO: TryAttachCarrier.");
        if (_isEnded)
            throw new InvalidOperationException("The link has ended; make a new one.");

        if (_carrier != 0)
            Lose(CarrierLoss.Replaced, "a newer carrier took its place", mayEnd: false);
        _carrier = ++_carrierCount;
        _attempt++;
        _handshakeDeadline = now + _options.HandshakeTimeout;
        _hello = MakeHello(IsEstablished).ToClientMessage(_secret, out _clientProof);
        return _carrier;
    }

    /// <summary>Server: a carrier is open and this is what the client said on it. One that is still attached is a ghost and is given up for it.</summary>
    /// <param name="hello">What <see cref="LinkAcceptor.TryRead"/> read.</param>
    /// <param name="now">The time.</param>
    /// <param name="carrier">The carrier's number, from 1 up.</param>
    /// <param name="refusal">
    /// What to send before closing the carrier instead: nothing of the link has changed, unless the client asks for bytes
    /// that are not held, which ends it.
    /// </param>
    /// <exception cref="InvalidOperationException">This is a client, or the HELLO asks for a new link and this one has begun.</exception>
    public bool TryAttachCarrier(LinkHello hello, TimeSpan now, out int carrier, out LinkRefusal? refusal)
    {
        ArgumentNullException.ThrowIfNull(hello);
        Tick(now);
        if (Role != LinkRole.Server)
            throw new InvalidOperationException("A client attaches a carrier before it knows anything: AttachCarrier.");
        if (!hello.IsResume && IsEstablished)
            throw new InvalidOperationException("A HELLO for a new link belongs to a new LinkState.");

        carrier = 0;
        refusal = Examine(hello);
        if (refusal is not null)
            return false;

        if (_carrier != 0)
            Lose(CarrierLoss.Replaced, "the client came back on a newer carrier", mayEnd: false);
        carrier = _carrier = ++_carrierCount;
        _attempt = hello.Attempt;
        _hello = MakeHello(hello.IsResume).ToServerMessage(_secret!, hello.Proof.Span);
        Begin(hello);
        return true;
    }

    /// <summary>The carrier closed or broke, or its owner gives it up. Does nothing if it is not attached any more.</summary>
    public void DetachCarrier(int carrier, string reason, TimeSpan now)
    {
        Tick(now);
        if (carrier == 0 || carrier != _carrier)
            return;
        if (_isEnded)
            DropCarrier();
        else
            Lose(CarrierLoss.Closed, reason);
    }

    /// <summary>
    /// Queues bytes of the stream and takes the reference. Nobody else may read the <see cref="LinkRecord.HeadroomBytes"/>
    /// bytes before the slice any more, or write to it. Dropped if the link has ended.
    /// </summary>
    /// <exception cref="InvalidOperationException"><see cref="WritableBytes"/> is 0, or <see cref="Finish"/> was called.</exception>
    public void Write(ByteSlice slice)
    {
        if (_isEnded || slice.IsEmpty)
        {
            slice.Release();
            return;
        }

        if (_isFinished)
            throw new InvalidOperationException("The stream was finished; nothing can be written after its end.");
        if (WritableBytes == 0)
            throw new InvalidOperationException("The replay buffer is full; write when WritableBytes is above 0.");
        _replay.Append(slice);
        _window.OnHeld(_replay.Cost);
    }

    /// <summary>The stream ends here, after what was written. The other direction goes on. Idempotent.</summary>
    public void Finish() => _isFinished = true;

    /// <summary>Ends the link at once in both directions and says BYE to the peer if there is a carrier.</summary>
    /// <param name="code">The reason, for the peer; not <see cref="SessionError.None"/>, which is what an orderly end says.</param>
    /// <param name="text">For people at the peer.</param>
    public void Abort(SessionError code, string text)
    {
        if (code == SessionError.None)
            throw new ArgumentException("An orderly end is Finish on both sides; Abort needs a reason.", nameof(code));
        if (!_isEnded)
            End(LinkEnd.Aborted, code, text, _isUp ? LinkRecordWriter.Bye(code, text) : default);
    }

    /// <summary>The next bytes of the peer's stream, if any; the caller owns the reference. Reading is what is acknowledged to the peer.</summary>
    public bool TryRead(out ByteSlice slice)
    {
        slice = default;
        if (_inbound.Count == 0)
            return false;

        slice = _inbound.Dequeue();
        OnConsumed(slice.Length);
        return true;
    }

    /// <summary>
    /// A whole message arrived on a carrier; takes the reference. What the peer does wrong ends the link with
    /// <see cref="LinkEnd.ProtocolViolation"/>, or before the handshake is over, the carrier.
    /// </summary>
    public void Receive(int carrier, ByteSlice message, TimeSpan now)
    {
        Tick(now);
        if (carrier == 0 || carrier != _carrier || _isEnded)
        {
            message.Release();
            return;
        }

        if (!_isUp)
        {
            ReceiveHandshake(message.Span);
            message.Release();
            return;
        }

        _keepAlive.OnHeard(now);
        if (!LinkRecordReader.TryRead(message.Span, out var record, out var error))
        {
            message.Release();
            Violate(error);
        }
        else if (record.Type == LinkRecordType.Data)
        {
            ReceiveData(message.Skip(LinkRecord.DataHeaderBytes));
        }
        else
        {
            message.Release();
            ReceiveControl(record);
        }
    }

    /// <summary>
    /// The next message for a carrier, if any; the caller owns the reference. ACK, PING and PONG come before data.
    /// Take one when the carrier can send it: what is taken waits in the carrier, where nothing can overtake it.
    /// </summary>
    /// <remarks>
    /// The bytes stay part of the replay buffer: read them only, and do not mask them in place. The
    /// <see cref="LinkRecord.CarrierHeadroomBytes"/> bytes before them belong to this message alone and may be written
    /// to. A message that is sent again after a loss is another one, over a copy, so a send that is still under way on a
    /// lost carrier never reads bytes that are being changed.
    /// </remarks>
    public bool TryTakeMessage(int carrier, TimeSpan now, out ByteSlice message)
    {
        Tick(now);
        message = default;
        if (carrier == 0 || carrier != _carrier)
            return false;
        if (_isEnded)
            return TryTake(ref _last, out message);
        if (TryTake(ref _hello, out message))
            return true;
        if (!_isUp)
            return false;
        return TryTakeControl(out message)
            || _replay.TryTake(_peerConsumed + _peerReceiveWindow, out message)
            || TryTakeEnd(out message);
    }

    /// <summary>The next thing that happened, if any.</summary>
    public bool TryTakeEvent(out LinkEvent linkEvent)
    {
        linkEvent = default;
        if (_events.Count == 0)
            return false;
        linkEvent = _events.Dequeue();
        return true;
    }

    /// <summary>This side has not been reading, so that nothing was heard says nothing of the peer: its time begins anew.</summary>
    public void ExcuseSilence(TimeSpan now)
    {
        Tick(now);
        if (_isUp)
            _keepAlive.OnHeard(_now);
    }

    /// <summary>Does what is due by now. Early and repeated calls do no harm.</summary>
    public void Advance(TimeSpan now)
    {
        Tick(now);
        if (_isEnded)
            return;

        if (_carrier == 0)
        {
            if (IsExpired)
                Expire();
            return;
        }

        if (!_isUp)
        {
            if (_now >= _handshakeDeadline)
                Lose(CarrierLoss.HandshakeTimeout, $"no HELLO from the server within {_options.HandshakeTimeout.TotalSeconds:0.###} s");
            return;
        }

        if (!_keepAlive.Advance(_now))
        {
            Lose(CarrierLoss.KeepAliveTimeout, "nothing was heard for twice the keepalive interval");
            return;
        }

        if (_ackDeadline <= _now)
            _isAckDue = true;
    }

    /// <summary>Releases everything that is held, without a word to the peer. Nothing may be called afterwards.</summary>
    public void Abandon()
    {
        _isEnded = true;
        DropCarrier();
        DropStreams();
    }

    private void Tick(TimeSpan now)
    {
        if (now > _now)
            _now = now;
    }

    private LinkHello MakeHello(bool isResume) => new()
    {
        Role = Role,
        IsResume = isResume,
        LinkId = Id,
        Attempt = _attempt,
        NextOffset = _received,
        ReplayWindowBytes = _window.LeastBytes,
        ReceiveWindowBytes = _options.ReceiveWindowBytes,
        KeepAliveInterval = _options.KeepAliveInterval,
        ResumeWindow = _options.ResumeWindow,
        Features = _options.Features,
    };

    /// <summary>Server: why this HELLO cannot be accepted, or null.</summary>
    private LinkRefusal? Examine(LinkHello hello)
    {
        if (hello.IsResume)
        {
            // One answer whatever is wrong, and no look at anything else before the proof is right.
            if (_isEnded || !IsEstablished || hello.LinkId != Id || !hello.ClientProves(_secret!))
                return LinkRefusal.UnknownLink;
            if (_resumeWindow == TimeSpan.Zero || IsExpired)
                return LinkRefusal.UnknownLink;
        }

        if (hello.RefuseUnknownFeatures(_options.KnownFeatures) is { } unknown)
            return unknown;
        if (hello.Attempt <= _attempt)
            return new LinkRefusal(LinkRefusalCode.Stale, $"attempt {hello.Attempt} comes after attempt {_attempt} was accepted");
        if (!hello.IsResume || CanReplayFrom(hello.NextOffset))
            return null;

        var refusal = UnavailableOffset(hello);
        Enqueue(LinkEventKind.Refused, refusal: refusal);
        End(LinkEnd.Refused, SessionError.ProtocolViolation, refusal.Text);
        return refusal;
    }

    private bool CanReplayFrom(long offset) =>
        offset >= Math.Max(_replay.Acknowledged, _peerConsumed) && offset <= _replay.Highest + (_wasEndSent ? 1 : 0);

    private LinkRefusal UnavailableOffset(LinkHello hello) => new(
        LinkRefusalCode.OffsetUnavailable,
        $"offset {hello.NextOffset} was asked for; {_replay.Acknowledged} to {_replay.Highest} are held");

    /// <summary>Client: the first message on a carrier.</summary>
    private void ReceiveHandshake(ReadOnlySpan<byte> message)
    {
        if (!LinkHello.IsHello(message))
        {
            if (!LinkRecordReader.TryRead(message, out var record, out var error))
                Lose(CarrierLoss.HandshakeFailed, error);
            else if (record.Type == LinkRecordType.Refuse)
                OnRefused((LinkRefusalCode)record.Code, record.Text);
            else
                Lose(CarrierLoss.HandshakeFailed, $"the server's first record is HELLO or REFUSE, not {LinkRecordReader.NameOf(record.Type)}");
            return;
        }

        if (!LinkHello.TryRead(message, out var hello, out var refusal))
            Lose(CarrierLoss.HandshakeFailed, refusal.Text);
        else if (hello.Role != LinkRole.Server || hello.IsResume != IsEstablished || hello.Attempt != _attempt)
            Lose(CarrierLoss.HandshakeFailed, "the answer is not a server's HELLO to this client's");
        else if (hello.IsResume && (hello.LinkId != Id || !hello.ServerProves(_secret!, _clientProof)))
            Lose(CarrierLoss.HandshakeFailed, "the server did not prove that it holds this link");
        else if (hello.RefuseUnknownFeatures(_options.KnownFeatures) is { } unknown)
            Refuse(unknown);
        else if (hello.IsResume && !CanReplayFrom(hello.NextOffset))
            Refuse(UnavailableOffset(hello));
        else
            Begin(hello);
    }

    /// <summary>Both HELLOs are known: the stream moves, from what each side has.</summary>
    private void Begin(LinkHello hello)
    {
        if (!hello.IsResume && Role == LinkRole.Client)
            (Id, _secret) = (hello.LinkId, hello.Secret);

        _isUp = true;
        _resumeWindow = hello.ResumeWindow < _options.ResumeWindow ? hello.ResumeWindow : _options.ResumeWindow;
        _peerReceiveWindow = hello.ReceiveWindowBytes;
        _ackAfter = Math.Max(1, Math.Min(_options.AckAfterBytes, Math.Min(hello.ReplayWindowBytes, _options.ReceiveWindowBytes) / 4));
        _keepAlive.Start(ShorterInterval(hello.KeepAliveInterval, _options.KeepAliveInterval), _now);
        _window.Restart(_now);

        var next = Math.Min(hello.NextOffset, _replay.End);
        _replay.Rewind(next);
        _replay.Acknowledge(next);
        _isEndSent = hello.NextOffset > _replay.End;
        // The HELLO said what was received; what was consumed may have been in an ACK that the last carrier took along.
        _isAckDue = _consumed > 0;

        Enqueue(IsEstablished ? LinkEventKind.Resumed : LinkEventKind.Established, gap: _now - (_lostAt ?? _now));
        IsEstablished = true;
        _lostAt = null;
    }

    private void ReceiveData(ByteSlice payload)
    {
        if (_hasPeerEnded || _received + payload.Length - _acknowledged > _options.ReceiveWindowBytes)
        {
            payload.Release();
            Violate(_hasPeerEnded
                ? "DATA after END"
                : $"more than the receive window of {_options.ReceiveWindowBytes} bytes beyond the last ACK");
            return;
        }

        _received += payload.Length;
        _inbound.Enqueue(payload);
    }

    private void ReceiveControl(in LinkRecordFields record)
    {
        switch (record.Type)
        {
            case LinkRecordType.Ack:
                OnAck(record.Offset);
                break;

            case LinkRecordType.Ping:
                // A peer has one PING under way; if it sends more, the newest is answered and nothing piles up.
                _pong = record.Token;
                break;

            case LinkRecordType.Pong:
                _keepAlive.OnPong(record.Token, _now);
                break;

            case LinkRecordType.End when _hasPeerEnded:
                Violate("END twice");
                break;

            case LinkRecordType.End when record.Offset != _received:
                Violate($"END at {record.Offset} where {_received} bytes have arrived");
                break;

            case LinkRecordType.End:
                _hasPeerEnded = true;
                _received++;
                OnConsumed(0);
                break;

            case LinkRecordType.Bye:
                OnBye((SessionError)record.Code, record.Text);
                break;

            case LinkRecordType.Refuse:
                OnRefused((LinkRefusalCode)record.Code, record.Text);
                break;

            default:
                // Types from 0x80 up are extensions that this side need not know.
                break;
        }
    }

    private void OnAck(long offset)
    {
        var sent = _replay.Next + (_isEndSent ? 1 : 0);
        if (offset < _peerConsumed || offset > sent)
        {
            Violate($"ACK of {offset}; between {_peerConsumed} and {sent} would be right");
            return;
        }

        _peerConsumed = offset;
        var freed = _replay.Acknowledge(Math.Min(offset, _replay.End));
        if (_keepAlive.ShortestRoundTripTime is { } shortest
            && _window.OnAcknowledged(freed, shortest, _keepAlive.LastShortRoundTrip, _now) is { } known)
            _keepAlive.OnShortestKnown(known, _now);
        _keepAlive.OnActive(_now);
    }

    private void OnBye(SessionError code, string text)
    {
        if (code != SessionError.None)
        {
            End(LinkEnd.EndedByPeer, code, text);
            return;
        }

        if (!IsPeerFinished || !_isEndSent)
        {
            Violate("BYE without an error before both streams ended");
            return;
        }

        // The peer says so only when it has everything, so this stands for the ACK too.
        End(LinkEnd.Completed, SessionError.None, text, _isByeSent ? default : LinkRecordWriter.Bye(SessionError.None, ""));
    }

    private void OnRefused(LinkRefusalCode code, string text)
    {
        Enqueue(LinkEventKind.Refused, refusal: new LinkRefusal(code, text));
        if (code is LinkRefusalCode.Stale or LinkRefusalCode.Unavailable)
            Lose(CarrierLoss.Refused, text);
        else if (IsDone)
            End(LinkEnd.Completed, SessionError.None, "the peer has forgotten the link, and nothing was left to deliver");
        else
            End(LinkEnd.Refused, ErrorFor(code), text);
    }

    private static SessionError ErrorFor(LinkRefusalCode code) => code switch
    {
        LinkRefusalCode.UnknownLink => SessionError.ConnectionLost,
        LinkRefusalCode.NotAdmitted => SessionError.NotAdmitted,
        _ => SessionError.ProtocolViolation,
    };

    private void Refuse(LinkRefusal refusal)
    {
        Enqueue(LinkEventKind.Refused, refusal: refusal);
        End(LinkEnd.Refused, SessionError.ProtocolViolation, refusal.Text, refusal.ToMessage());
    }

    private void OnConsumed(int bytes)
    {
        _consumed += bytes;
        if (_hasPeerEnded && !IsPeerFinished && _consumed == _received - 1)
        {
            IsPeerFinished = true;
            _consumed++;
            _isAckDue = true;
        }

        if (_consumed - _acknowledged >= _ackAfter)
            _isAckDue = true;
        else if (_consumed > _acknowledged)
            _ackDeadline ??= _now + _options.AckDelay;
    }

    private bool TryTakeControl(out ByteSlice message)
    {
        if (_pong is { } token)
        {
            _pong = null;
            message = LinkRecordWriter.Pong(token);
            return true;
        }

        if (_isAckDue)
        {
            (_isAckDue, _ackDeadline, _acknowledged) = (false, null, _consumed);
            message = LinkRecordWriter.Ack(_consumed);
            return true;
        }

        if (_keepAlive.IsPingDue)
        {
            message = LinkRecordWriter.Ping(_keepAlive.TakePing(_now));
            return true;
        }

        message = default;
        return false;
    }

    private bool TryTakeEnd(out ByteSlice message)
    {
        message = default;
        if (_isFinished && !_isEndSent && _replay.Unsent == 0)
        {
            _isEndSent = _wasEndSent = true;
            message = LinkRecordWriter.End(_replay.End);
            return true;
        }

        if (!IsDone || _isByeSent)
            return false;
        _isByeSent = true;
        message = LinkRecordWriter.Bye(SessionError.None, "");
        return true;
    }

    private void Violate(string what) =>
        End(LinkEnd.ProtocolViolation, SessionError.ProtocolViolation, what, LinkRecordWriter.Bye(SessionError.ProtocolViolation, what));

    private void Lose(CarrierLoss loss, string text, bool mayEnd = true)
    {
        Enqueue(LinkEventKind.CarrierLost, loss: loss, text: text);
        if (_isUp)
            _lostAt = _now;
        DropCarrier();
        if (mayEnd && IsExpired)
            Expire(loss);
    }

    private void Expire(CarrierLoss loss = CarrierLoss.None)
    {
        if (IsDone)
            End(LinkEnd.Completed, SessionError.None, "the peer did not come back, and nothing was left to deliver");
        else if (_resumeWindow == TimeSpan.Zero)
            End(LinkEnd.CarrierLost, loss == CarrierLoss.KeepAliveTimeout ? SessionError.KeepAliveTimeout : SessionError.ConnectionLost, "the carrier was lost and resuming is disabled");
        else
            End(LinkEnd.ResumeWindowExpired, SessionError.ConnectionLost, $"no connection for longer than the resume window of {_resumeWindow.TotalSeconds:0.###} s");
    }

    private void End(LinkEnd end, SessionError code, string text, ByteSlice last = default)
    {
        _isEnded = true;
        _keepAlive.Stop();
        DropStreams();
        if (_carrier == 0)
            last.Release();
        else
            _last = last;
        _events.Enqueue(new LinkEvent(LinkEventKind.Ended, _carrier, End: end, Code: code, Text: text));
    }

    private void DropCarrier()
    {
        _keepAlive.Stop();
        _hello.Release();
        _last.Release();
        (_hello, _last, _pong, _ackDeadline) = (default, default, null, null);
        (_carrier, _isUp, _isAckDue, _isEndSent, _isByeSent) = (0, false, false, false, false);
    }

    private void DropStreams()
    {
        _replay.Clear();
        while (_inbound.Count > 0)
            _inbound.Dequeue().Release();
    }

    private void Enqueue(
        LinkEventKind kind,
        TimeSpan gap = default,
        CarrierLoss loss = CarrierLoss.None,
        LinkRefusal? refusal = null,
        string text = "") =>
        _events.Enqueue(new LinkEvent(kind, _carrier, gap, loss, refusal?.Code ?? default, Text: refusal?.Text ?? text));

    private static bool TryTake(ref ByteSlice pending, out ByteSlice message)
    {
        (message, pending) = (pending, default);
        return !message.IsEmpty;
    }

    private static TimeSpan ShorterInterval(TimeSpan one, TimeSpan other)
    {
        if (one == TimeSpan.Zero || other == TimeSpan.Zero)
            return one > other ? one : other;
        return one < other ? one : other;
    }

    private static TimeSpan? Earlier(TimeSpan? one, TimeSpan? other) =>
        one is null || other < one ? other : one;
}
