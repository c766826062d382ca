using Akka.Actor;
using Microsoft.Extensions.Logging;
using VTunnel.Carriers;
using VTunnel.Diagnostics;
using VTunnel.Protocol.Errors;
using VTunnel.Sessions;

namespace VTunnel.Supervision;

/// <summary>
/// The root of a side that dials: supervises one session at a time, and dials again when it has lost its connection or has ended.
/// What is dialled, what a session is, how long to wait and whom to tell is left to those who derive from it.
/// </summary>
public abstract class ReconnectingActor : UntypedActor, IWithTimers
{
    private const string DialTimer = "dial";
    private const string StableTimer = "stable";

    private readonly CancellationTokenSource _dialing = new();
    private SessionProtocol.SessionEnded? _lastEnd;
    private long _nextSession = 1;
    private int _failures;
    private bool _isDialling;
    private bool _isResuming;

    private protected ReconnectingActor()
    {
    }

    /// <inheritdoc />
    public ITimerScheduler Timers { get; set; } = null!;

    /// <summary>The session that there is; it may be without a connection.</summary>
    private protected IActorRef? Session { get; private set; }

    /// <summary>Whether nothing is dialled any more.</summary>
    private protected bool IsStopping { get; private set; }

    /// <summary>Whether the last attempt has failed, or a connection was lost that had not been up for long.</summary>
    private protected bool HasFailed => _failures > 0;

    private protected abstract ILogger Logger { get; }

    /// <summary>What this is, for the log.</summary>
    private protected abstract string Role { get; }

    /// <summary>How the names of its sessions begin.</summary>
    private protected abstract string SessionPrefix { get; }

    /// <summary>After which a connection's loss is followed by the shortest wait again.</summary>
    private protected abstract TimeSpan StableAfter { get; }

    /// <summary>False to end with the first loss.</summary>
    private protected virtual bool Reconnects => true;

    /// <summary>Makes a connection. What it awaits is outside the actor: it may not touch what can change.</summary>
    private protected abstract Task<ICarrier> ConnectAsync(CancellationToken cancellationToken);

    /// <summary>The session over a new connection, which it owns from now on.</summary>
    private protected abstract Props CreateSession(string name, ICarrier carrier);

    /// <summary>The wait before the next attempt.</summary>
    /// <param name="failures">How many have failed in a row, from 0 up.</param>
    private protected abstract TimeSpan RetryDelay(int failures);

    /// <summary>An attempt begins.</summary>
    private protected virtual void OnDialling()
    {
    }

    /// <summary>The session is up, or goes on.</summary>
    private protected abstract void OnUp(string protocol);

    /// <summary>The session has lost its connection, or is gone.</summary>
    private protected virtual void OnDown(string reason)
    {
    }

    /// <summary>Whether this end of a session is the end of everything; whoever says so has seen to it.</summary>
    private protected virtual bool IsFinal(Exception? cause) => false;

    /// <summary>There will be another attempt.</summary>
    private protected abstract void OnRetry(TunnelConnectException cause, TimeSpan delay);

    /// <summary>There will be no other attempt: <see cref="Reconnects"/> is false.</summary>
    private protected virtual void OnGaveUp(TunnelConnectException cause)
    {
    }

    /// <summary>What <see cref="Stop"/> began is done.</summary>
    private protected abstract void OnStopped();

    private sealed record Dialled(ICarrier Carrier) : IDisposable
    {
        public void Dispose()
        {
            Carrier.Abort();

            // An aborted carrier has nothing to wait for.
            _ = Carrier.DisposeAsync().AsTask();
        }
    }

    private sealed record DialFailed(Exception Cause);

    private sealed record DialAgain
    {
        public static readonly DialAgain Instance = new();
    }

    private sealed record Stable
    {
        public static readonly Stable Instance = new();
    }

    /// <inheritdoc />
    protected override SupervisorStrategy SupervisorStrategy() => new OneForOneStrategy(e =>
    {
        Logger.ChildFailed(e, Role);
        return Directive.Stop;
    });

    /// <inheritdoc />
    protected override void PreStart() => Context.ActorOf(OrphanActor.Props(), "orphans");

    /// <inheritdoc />
    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case Dialled dialled:
                OnDialled(dialled);
                break;
            case DialFailed failed:
                _isDialling = false;
                if (!IsStopping)
                    Retry(failed.Cause as TunnelConnectException ?? new TunnelConnectException(ConnectError.Unreachable, failed.Cause.Message, failed.Cause));
                break;
            case DialAgain:
                Dial();
                break;
            case Stable:
                _failures = 0;
                break;
            case SessionProtocol.CarrierAttached when Sender.Equals(Session):
                OnConnected("v2");
                break;
            case SessionProtocol.NeedsCarrier needs when Sender.Equals(Session):
                OnCarrierLost(needs.Reason);
                break;
            case SessionProtocol.SessionEnded ended when ended.Session.Equals(Session):
                OnSessionEnded(ended);
                break;
            case Terminated terminated when terminated.ActorRef.Equals(Session):
                OnSessionGone();
                break;
            case SessionProtocol.SessionEnded or SessionProtocol.NeedsCarrier or SessionProtocol.CarrierAttached or Terminated:
                // From a session that has been replaced.
                break;
            default:
                Unhandled(message);
                break;
        }
    }

    /// <summary>Begins an attempt, unless one is under way.</summary>
    private protected void Dial()
    {
        if (IsStopping || _isDialling)
            return;
        _isDialling = true;
        OnDialling();
        _ = DialAsync(_dialing.Token).PipeTo(Self, success: carrier => new Dialled(carrier), failure: e => new DialFailed(e));
    }

    private async Task<ICarrier> DialAsync(CancellationToken cancellationToken)
    {
        var carrier = await ConnectAsync(cancellationToken).ConfigureAwait(false);
        if (!cancellationToken.IsCancellationRequested)
            return carrier;
        carrier.Abort();
        await carrier.DisposeAsync().ConfigureAwait(false);
        throw new OperationCanceledException(cancellationToken);
    }

    private void OnDialled(Dialled dialled)
    {
        _isDialling = false;
        if (IsStopping)
        {
            dialled.Dispose();
            return;
        }

        var speaksV2 = dialled.Carrier.SpeaksV2;
        if (Session is not null && speaksV2)
        {
            // The session has been waiting for this; it says when it goes on, or ends when the far end does not know it any more.
            _isResuming = true;
            Session.Tell(new SessionProtocol.AttachCarrier(dialled.Carrier, null));
            return;
        }

        if (Session is not null)
        {
            // The server has become one that cannot go on with it.
            Context.Unwatch(Session);
            Session.Tell(new SessionProtocol.End(
                new SessionProtocolException(SessionError.ConnectionLost, "the server does not speak protocol v2 any more"), PeerIsGone: true));
        }

        var name = $"{SessionPrefix}{_nextSession++}";
        _lastEnd = null;
        _isResuming = false;
        Session = Context.Watch(Context.ActorOf(CreateSession(name, dialled.Carrier), name));
        if (!speaksV2)
            OnConnected("v1");
    }

    /// <summary>A v1 session is up with its connection, a v2 session when both sides have greeted each other.</summary>
    private void OnConnected(string protocol)
    {
        _isResuming = false;
        Timers.StartSingleTimer(StableTimer, Stable.Instance, StableAfter);
        OnUp(protocol);
    }

    private void OnCarrierLost(string reason)
    {
        _isResuming = false;
        Timers.Cancel(StableTimer);
        OnDown(reason);
        if (IsStopping)
            return;
        if (Reconnects)
            Retry(new TunnelConnectException(ConnectError.ConnectionLost, reason));
        else
            Session!.Tell(new SessionProtocol.End(new SessionProtocolException(SessionError.ConnectionLost, reason), PeerIsGone: true));
    }

    private void OnSessionEnded(SessionProtocol.SessionEnded ended)
    {
        _lastEnd = ended;

        // A slow endpoint that still takes its last bytes must not hold up the next session, but the end of everything.
        if (IsStopping)
            return;
        Context.Unwatch(Session);
        OnSessionGone();
    }

    private void OnSessionGone()
    {
        Timers.Cancel(StableTimer);
        Session = null;
        var reason = _lastEnd?.Reason ?? "the session failed";
        OnDown(reason);
        if (IsStopping)
        {
            OnStopped();
            return;
        }

        // A v2 session that ends in a gap leaves the dialling that was for it to the next session.
        if (IsFinal(_lastEnd?.Cause) || _isDialling || Timers.IsTimerActive(DialTimer))
            return;
        if (_isResuming)
        {
            // The far end answers, but has started anew: nothing to wait for.
            Dial();
            return;
        }

        Retry(new TunnelConnectException(ConnectError.ConnectionLost, reason, _lastEnd?.Cause));
    }

    private void Retry(TunnelConnectException cause)
    {
        if (!Reconnects)
        {
            OnGaveUp(cause);
            return;
        }

        var delay = RetryDelay(_failures++);
        Timers.StartSingleTimer(DialTimer, DialAgain.Instance, delay);
        OnRetry(cause, delay);
    }

    /// <summary>Dials no more. The session that there is goes on.</summary>
    private protected void StopDialling()
    {
        IsStopping = true;
        _dialing.Cancel();
        Timers.Cancel(DialTimer);
        Timers.Cancel(StableTimer);
    }

    /// <summary>Dials no more and lets the session's streams finish; <see cref="OnStopped"/> follows.</summary>
    private protected void Stop(TimeSpan drainTimeout)
    {
        StopDialling();
        if (Session is null)
            OnStopped();
        else
            Session.Tell(new SessionProtocol.Drain(drainTimeout));
    }

    /// <inheritdoc />
    protected override void PostStop()
    {
        _dialing.Cancel();
        _dialing.Dispose();
    }
}
