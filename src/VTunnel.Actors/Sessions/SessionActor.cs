using System.Diagnostics;
using Akka.Actor;
using Akka.Streams;
using Microsoft.Extensions.Logging;
using VTunnel.Diagnostics;
using VTunnel.Extensions;
using VTunnel.Options;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Errors;
using VTunnel.Stages;
using VTunnel.Streams;

namespace VTunnel.Sessions;

/// <summary>What every session is made with.</summary>
/// <param name="Name">Unique in the process, e.g. <c>session-7</c>; also the actor's name.</param>
/// <param name="Wire">What it speaks and over what; the session owns it.</param>
/// <param name="Identity">The name of the token that opened it; null where none was asked for.</param>
/// <param name="Extensions">What others have added.</param>
/// <param name="Metrics">What counts.</param>
/// <param name="Logger">For its log lines.</param>
internal sealed record SessionContext(
    string Name, SessionWire Wire, string? Identity, TunnelExtensions Extensions, RoleMetrics Metrics, ILogger Logger);

/// <summary>
/// One tunnel session: owns its graph, its listeners and its streams. It never restarts, because a dead socket does not
/// come back: it stops and tells its parent why, and whoever wants another session makes another one.
/// </summary>
internal abstract class SessionActor : UntypedActor, IWithTimers
{
    /// <summary>Silence is noticed between the timeout and one part in this many later.</summary>
    private const int KeepAliveTicks = 8;

    private readonly long _started = Stopwatch.GetTimestamp();
    private readonly TimeSpan _idleTimeout;
    private readonly HashSet<IActorRef> _streams = [];
    private long _receivedSeen;
    private int _silentTicks;
    private bool _takesNothingNew;
    private bool _endsWhenIdle;
    private Exception? _endReason;
    private bool _isReported;
    private string? _lastRemote;
    private bool _ended;

    protected SessionActor(SessionContext session)
    {
        Session = session;
        _idleTimeout = session.Wire.IdleTimeout;
    }

    public ITimerScheduler Timers { get; set; } = null!;

    protected SessionContext Session { get; }

    protected ILogger Logger => Session.Logger;

    protected ISessionPump Pump { get; private set; } = null!;

    /// <summary>What its streams are made with.</summary>
    protected StreamServices StreamServices { get; private set; } = null!;

    protected int StreamCount => _streams.Count;

    /// <summary>Whether nothing new is taken.</summary>
    protected bool IsClosing => _takesNothingNew || _ended;

    private sealed record KeepAliveTick
    {
        public static readonly KeepAliveTick Instance = new();
    }

    private sealed record DrainOver
    {
        public static readonly DrainOver Instance = new();
    }

    /// <summary>A stream or listener that fails takes nothing with it.</summary>
    protected override SupervisorStrategy SupervisorStrategy() => new OneForOneStrategy(e =>
    {
        Logger.ChildFailed(e, Session.Name);
        return Directive.Stop;
    });

    protected override void PreStart()
    {
        Pump = Session.Wire.Start(SessionGraph.CreateMaterializer(Context), Self, Session);
        StreamServices = new StreamServices(
            Pump, Session.Extensions, Session.Metrics, Logger, StreamMailbox.IsKnownTo(Context.System) ? StreamMailbox.Id : null);
        Session.Metrics.SessionStarted();
        
        // A client does not know what its token is called.
        Logger.SessionUp(
            Session.Name, Session.Wire.RemoteName, Session.Wire.Protocol, Role == TunnelRole.Client ? "" : $", identity {Session.Identity ?? "none"}");
        Context.System.EventStream.Publish(new TunnelEvents.SessionStarted(
            Session.Name, Session.Wire.RemoteName, Session.Identity, Session.Wire.Protocol) { Role = Role });
        if (_idleTimeout > TimeSpan.Zero)
            Timers.StartPeriodicTimer("keep-alive", KeepAliveTick.Instance, _idleTimeout / KeepAliveTicks);
    }

    /// <summary>Which end of the tunnel this is.</summary>
    protected virtual TunnelRole Role => TunnelRole.Server;

    protected abstract void OnControl(ControlMessage message);

    protected abstract void OnStreamRequested(PumpEvents.StreamRequested requested);

    /// <summary>What the client has asked for and how that is, in any order.</summary>
    protected virtual IEnumerable<SessionProtocol.ForwardStatus> Forwards() => [];

    /// <summary>Called when draining begins: take nothing new.</summary>
    protected abstract void OnDraining();

    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case PumpEvents.ICausedByPeer caused:
                OnCausedByPeer(caused);
                Pump.ConfirmHandled();
                break;
            case PumpEvents.SessionOver over:
                TakeNothingNew();
                ReportEnd(over.Cause);
                break;
            case LinkEvents.CarrierUp up:
                OnCarrierUp(up);
                break;
            case LinkEvents.CarrierLost lost:
                OnCarrierLost(lost);
                break;
            case SessionProtocol.AttachCarrier attach:
                Session.Wire.Attach(attach.Carrier, attach.Hello);
                break;
            case PumpEvents.PumpEnded ended:
                OnPumpEnded(ended.Cause);
                break;
            case StreamProtocol.StreamGone:
                OnStreamGone(Sender);
                break;
            case KeepAliveTick:
                OnKeepAliveTick();
                break;
            case SessionProtocol.Drain drain:
                TakeNothingNew();
                _endsWhenIdle = true;
                if (StreamCount == 0)
                    EndSession(new SessionProtocolException(SessionError.ShuttingDown, "shutting down"));
                else
                    Timers.StartSingleTimer("drain", DrainOver.Instance, drain.Timeout);
                break;
            case DrainOver:
                EndSession(new SessionProtocolException(SessionError.ShuttingDown, "shutting down"));
                break;
            case SessionProtocol.End end:
                EndSession(end.Reason, end.PeerIsGone);
                break;
            case SessionProtocol.GetStatus:
                Sender.Tell(Status());
                break;
            default:
                Unhandled(message);
                break;
        }
    }

    private void OnCausedByPeer(PumpEvents.ICausedByPeer message)
    {
        switch (message)
        {
            case PumpEvents.ControlReceived control:
                OnControl(control.Message);
                break;
            case PumpEvents.StreamRequested requested:
                OnStreamRequested(requested);
                break;
            case PumpEvents.StreamCancelled cancelled:
                Context.Child(StreamName(cancelled.Key)).Tell(StreamProtocol.Cancel.Instance);
                break;
            default:
                Unhandled(message);
                break;
        }
    }

    /// <summary>By serial: an id may be used again while the actor of its last stream is still stopping.</summary>
    protected static string StreamName(StreamKey key) => $"stream-{key.Serial}";

    protected TimeSpan Age => Stopwatch.GetElapsedTime(_started);

    protected IActorRef StartStream(Props props, string? name = null)
    {
        var stream = name is null ? Context.ActorOf(props) : Context.ActorOf(props, name);
        _streams.Add(stream);
        return stream;
    }

    /// <summary>A stream of this session is gone.</summary>
    protected virtual void OnStreamGone(IActorRef stream)
    {
        _streams.Remove(stream);
        if (StreamCount > 0)
            return;
        if (_ended)
            Context.Stop(Self);
        else if (_endsWhenIdle)
            EndSession(new SessionProtocolException(SessionError.ShuttingDown, "shutting down"));
    }

    protected void EndSession(Exception reason, bool peerIsGone = false)
    {
        if (_endReason is not null && !peerIsGone)
            return;
        _endReason ??= reason;
        if (peerIsGone)
            Session.Wire.Abort();
        Pump.Stop(reason);
    }

    /// <summary>A v2 session has a connection, the first or another.</summary>
    protected virtual void OnCarrierUp(LinkEvents.CarrierUp up)
    {
        _lastRemote = up.RemoteName;
        if (up.Gap is { } gap)
            Logger.SessionResumed(Session.Name, up.RemoteName, gap);
    }

    /// <summary>A v2 session has no connection for now.</summary>
    protected virtual void OnCarrierLost(LinkEvents.CarrierLost lost) => Logger.SessionWaits(Session.Name, lost.Reason);

    private SessionProtocol.SessionStatus Status() => new(
        Session.Name,
        Session.Wire.Carrier?.RemoteName ?? _lastRemote ?? Session.Wire.RemoteName,
        Session.Identity,
        Session.Wire.Protocol,
        Session.Wire.Carrier is not null && !_isReported,
        _isReported,
        Age,
        Session.Wire.RoundTripTime,
        [.. Forwards().OrderBy(forward => forward.Port ?? int.MaxValue).ThenBy(forward => forward.Domain, StringComparer.Ordinal)],
        StreamCount,
        Pump.BytesIn,
        Pump.BytesOut);

    private void TakeNothingNew()
    {
        if (_takesNothingNew)
            return;
        _takesNothingNew = true;
        OnDraining();
    }

    private void OnKeepAliveTick()
    {
        var received = Session.Wire.Carrier?.ReceivedCount ?? 0;
        if (received != _receivedSeen || Pump.IsReceivePaused)
        {
            _receivedSeen = received;
            _silentTicks = 0;
            return;
        }

        if (++_silentTicks < KeepAliveTicks)
            return;

        EndSession(new SessionProtocolException(SessionError.KeepAliveTimeout, $"nothing was heard for {DurationText.Format(_idleTimeout)}"), peerIsGone: true);
    }

    /// <summary>What others do about the end cannot wait for slow endpoints.</summary>
    private void ReportEnd(Exception? cause)
    {
        if (_isReported)
            return;
        _isReported = true;
        var reason = _endReason ?? cause;
        var text = reason switch
        {
            null => "closed by the peer",
            SessionProtocolException e => e.Message,
            _ => "internal error",
        };
        if (reason is not null and not SessionProtocolException)
            Logger.SessionFailed(reason, Session.Name);
        Context.Parent.Tell(new SessionProtocol.SessionEnded(Self, reason, text));
        LogEnd(text);
    }

    private void OnPumpEnded(Exception? cause)
    {
        _ended = true;
        ReportEnd(cause);

        // The pump has told each stream how it ended: let them say so before they are stopped with the session.
        foreach (var stream in _streams)
            stream.Tell(StreamProtocol.Cancel.Instance);
        if (StreamCount == 0)
            Context.Stop(Self);
    }

    /// <summary>What is over before the session is said to be, for those who watch both.</summary>
    private protected virtual void OnEnding()
    {
    }

    private void LogEnd(string reason)
    {
        OnEnding();
        Session.Metrics.SessionEnded();
        Logger.SessionDown(Session.Name, Age, reason);
        Context.System.EventStream.Publish(new TunnelEvents.SessionEnded(Session.Name, Session.Wire.RemoteName, reason, Age) { Role = Role });
    }

    protected override void PostStop()
    {
        if (!_isReported)
            LogEnd("stopped");
        Session.Wire.Abort();
    }
}
