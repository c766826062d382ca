using Akka.Actor;
using Microsoft.Extensions.Logging;
using VTunnel.Carriers;
using VTunnel.Diagnostics;
using VTunnel.Options;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Routing;
using VTunnel.Sessions;
using VTunnel.Extensions;
using VTunnel.Targets;

namespace VTunnel.Supervision;

/// <summary>Where a client is in its life.</summary>
public enum TunnelClientState
{
    /// <summary>Not asked to connect yet.</summary>
    Disconnected,

    /// <summary>Dialling.</summary>
    Connecting,

    /// <summary>A session is up.</summary>
    Connected,

    /// <summary>No session; dialling again after a wait.</summary>
    WaitingToReconnect,

    /// <summary>Over for good.</summary>
    Stopped,
}

/// <summary>What a client's actor is told and answers.</summary>
public static class TunnelClientProtocol
{
    /// <summary>Connect; answered with <see cref="Connected"/>, or <see cref="Failed"/> when the client gave up.</summary>
    public sealed record Connect
    {
        /// <summary>The one instance.</summary>
        public static readonly Connect Instance = new();
    }

    /// <summary>A session is up.</summary>
    public sealed record Connected
    {
        /// <summary>The one instance.</summary>
        public static readonly Connected Instance = new();
    }

    /// <summary>The client gave up, or was stopped.</summary>
    public sealed record Failed(TunnelConnectException Cause);

    /// <summary>Forward this too, now and after every reconnect; answered with <see cref="ListenSucceeded"/>, <see cref="ListenRefused"/> or <see cref="Failed"/>.</summary>
    public sealed record Listen(ForwardRule Rule);

    /// <summary>The server listens.</summary>
    public sealed record ListenSucceeded(int Port);

    /// <summary>The server refuses, with its reason.</summary>
    public sealed record ListenRefused(int Port, string Reason);

    /// <summary>Let streams finish, then stop; answered with <see cref="Stopped"/>.</summary>
    public sealed record Stop
    {
        /// <summary>The one instance.</summary>
        public static readonly Stop Instance = new();
    }

    /// <summary>The client has stopped.</summary>
    public sealed record Stopped
    {
        /// <summary>The one instance.</summary>
        public static readonly Stopped Instance = new();
    }

    /// <summary>To the observer: the state changed.</summary>
    public sealed record StateChanged(TunnelClientState State, string? Reason, TunnelConnectException? Failure);
}

/// <summary>
/// The root of a client: supervises one session at a time, dials again with exponential backoff and full jitter when it
/// is lost, and has every listen replayed in the order in which it was asked for.
/// </summary>
public sealed class TunnelClientActor : UntypedActor, IWithTimers
{
    private readonly TunnelClientOptions _options;
    private readonly ICarrierConnector _connector;
    private readonly ITargetDialer _dialer;
    private readonly TunnelExtensions _extensions;
    private readonly TunnelMetrics _metrics;
    private readonly IActorRef _observer;
    private readonly Func<double> _random;
    private readonly ILogger _logger;
    private readonly string _serverName;
    private readonly List<ForwardRule> _forwards;
    private readonly Dictionary<int, List<IActorRef>> _listenAskers = [];
    private readonly Dictionary<HostPattern, int> _domains = [];
    private readonly List<IActorRef> _connectAskers = [];
    private readonly List<IActorRef> _stopAskers = [];
    private readonly CancellationTokenSource _dialing = new();

    private TunnelClientState _state = TunnelClientState.Disconnected;
    private IActorRef? _session;
    private SessionProtocol.SessionEnded? _lastEnd;
    private long _nextSession = 1;
    private int _failures;
    private bool _stopping;
    private bool _isDialling;
    private TunnelConnectException? _failure;

    /// <inheritdoc cref="Props"/>
    public TunnelClientActor(
        TunnelClientOptions options,
        ICarrierConnector connector,
        ITargetDialer dialer,
        TunnelExtensions extensions,
        TunnelMetrics metrics,
        IActorRef observer,
        Func<double> random,
        ILogger logger)
    {
        _options = options;
        _connector = connector;
        _dialer = dialer;
        _extensions = extensions;
        _metrics = metrics;
        _observer = observer;
        _random = random;
        _logger = logger;
        _forwards = [];
        foreach (var rule in options.Forwards)
            _forwards.Add(Numbered(rule));
        _serverName = options.Server?.GetLeftPart(UriPartial.Path) ?? "the server";
    }

    /// <inheritdoc />
    public ITimerScheduler Timers { get; set; } = null!;

    /// <param name="options">Validated.</param>
    /// <param name="connector">Dials the server.</param>
    /// <param name="dialer">Dials targets.</param>
    /// <param name="extensions">What others have added.</param>
    /// <param name="metrics">What counts.</param>
    /// <param name="observer">Told <see cref="TunnelClientProtocol.StateChanged"/>.</param>
    /// <param name="random">From 0 (included) to 1, for jitter.</param>
    /// <param name="logger">For log lines.</param>
    public static Props Props(
        TunnelClientOptions options,
        ICarrierConnector connector,
        ITargetDialer dialer,
        TunnelExtensions extensions,
        TunnelMetrics metrics,
        IActorRef observer,
        Func<double> random,
        ILogger logger) =>
        Akka.Actor.Props.Create(() => new TunnelClientActor(options, connector, dialer, extensions, metrics, observer, random, logger));

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
        _logger.ChildFailed(e, "the client");
        return Directive.Stop;
    });

    /// <inheritdoc />
    protected override void PreStart() => Context.ActorOf(OrphanActor.Props(), "orphans");

    /// <inheritdoc />
    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case TunnelClientProtocol.Connect:
                OnConnect();
                break;
            case TunnelClientProtocol.Listen listen:
                OnListen(listen.Rule);
                break;
            case Dialled dialled:
                OnDialled(dialled);
                break;
            case DialFailed failed:
                OnDialFailed(failed.Cause);
                break;
            case DialAgain:
                Dial();
                break;
            case Stable:
                _failures = 0;
                break;
            case ClientSessionProtocol.ListenAnswered answered when Sender.Equals(_session):
                OnListenAnswered(answered);
                break;
            case SessionProtocol.CarrierAttached when Sender.Equals(_session):
                OnConnected("v2");
                break;
            case SessionProtocol.NeedsCarrier needs when Sender.Equals(_session):
                OnCarrierLost(needs.Reason);
                break;
            case SessionProtocol.SessionEnded ended when ended.Session.Equals(_session):
                OnSessionEnded(ended);
                break;
            case Terminated terminated when terminated.ActorRef.Equals(_session):
                OnSessionGone();
                break;
            case TunnelClientProtocol.Stop:
                OnStop();
                break;
            case SessionProtocol.SessionEnded or SessionProtocol.NeedsCarrier or SessionProtocol.CarrierAttached
                or ClientSessionProtocol.ListenAnswered or Terminated:
                // From a session that has been replaced.
                break;
            default:
                Unhandled(message);
                break;
        }
    }

    private void OnConnect()
    {
        switch (_state)
        {
            case TunnelClientState.Connected:
                Sender.Tell(TunnelClientProtocol.Connected.Instance);
                break;
            case TunnelClientState.Stopped:
                Sender.Tell(new TunnelClientProtocol.Failed(_failure!));
                break;
            default:
                _connectAskers.Add(Sender);
                if (_state == TunnelClientState.Disconnected)
                    Dial();
                break;
        }
    }

    private void Dial()
    {
        _isDialling = true;
        ChangeState(TunnelClientState.Connecting, null);
        _logger.ClientConnecting(_serverName);
        _ = DialAsync(_connector, _dialing.Token).PipeTo(Self, success: carrier => new Dialled(carrier), failure: e => new DialFailed(e));
    }

    private static async Task<ICarrier> DialAsync(ICarrierConnector connector, CancellationToken cancellationToken)
    {
        var carrier = await connector.ConnectAsync(cancellationToken).ConfigureAwait(false);
        if (!cancellationToken.IsCancellationRequested)
            return carrier;
        carrier.Abort();
        await carrier.DisposeAsync().ConfigureAwait(false);
        throw new OperationCanceledException(cancellationToken);
    }

    private void OnDialled(Dialled dialled)
    {
        _isDialling = false;
        if (_stopping)
        {
            dialled.Dispose();
            return;
        }

        if (_session is not null && dialled.Carrier.SpeaksV2)
        {
            // The session has been waiting for this; it says when it goes on, or ends when the server does not know it any more.
            _session.Tell(new SessionProtocol.AttachCarrier(dialled.Carrier, null));
            return;
        }

        if (_session is not null)
        {
            // The server has become one that cannot go on with it.
            Context.Unwatch(_session);
            _session.Tell(new SessionProtocol.End(
                new SessionProtocolException(SessionError.ConnectionLost, "the server does not speak protocol v2 any more"), PeerIsGone: true));
        }

        var name = $"session-{_nextSession++}";
        _lastEnd = null;
        var wire = dialled.Carrier.SpeaksV2 ? SessionWires.ForV2Client(_options, dialled.Carrier) : SessionWires.ForV1Client(_options, dialled.Carrier);
        var session = new SessionContext(name, wire, null, _extensions, _metrics.For(TunnelRole.Client), _logger);
        _session = Context.Watch(Context.ActorOf(ClientSessionActor.Props(session, _options, [.. _forwards], _dialer), name));
        if (!dialled.Carrier.SpeaksV2)
            OnConnected(wire.Protocol);
    }

    /// <summary>A v1 session is up with its connection, a v2 session when both sides have greeted each other.</summary>
    private void OnConnected(string protocol)
    {
        _logger.ClientConnected(_serverName, protocol);
        Timers.StartSingleTimer("stable", Stable.Instance, _options.StableAfter);
        ChangeState(TunnelClientState.Connected, null);
        foreach (var asker in _connectAskers)
            asker.Tell(TunnelClientProtocol.Connected.Instance);
        _connectAskers.Clear();
    }

    private void OnDialFailed(Exception cause)
    {
        _isDialling = false;
        if (_stopping)
            return;
        Retry(cause as TunnelConnectException ?? new TunnelConnectException(ConnectError.Unreachable, cause.Message, cause));
    }

    private void OnCarrierLost(string reason)
    {
        Timers.Cancel("stable");
        if (_stopping)
            return;
        if (_options.AutoReconnect)
            Retry(new TunnelConnectException(ConnectError.ConnectionLost, reason));
        else
            _session!.Tell(new SessionProtocol.End(new SessionProtocolException(SessionError.ConnectionLost, reason), PeerIsGone: true));
    }

    private void OnSessionEnded(SessionProtocol.SessionEnded ended)
    {
        _lastEnd = ended;

        // A slow target that still takes its last bytes must not hold up the next session, but the end of the client.
        if (_stopping)
            return;
        Context.Unwatch(_session);
        OnSessionGone();
    }

    private void OnSessionGone()
    {
        Timers.Cancel("stable");
        _session = null;
        if (_stopping)
        {
            Finish("stopped", null);
            return;
        }

        // A v2 session that ends in a gap leaves the dialling that was for it to the next session.
        if (_isDialling || Timers.IsTimerActive("dial"))
            return;

        var reason = _lastEnd?.Reason ?? "the session failed";
        Retry(new TunnelConnectException(ConnectError.ConnectionLost, reason, _lastEnd?.Cause));
    }

    private void Retry(TunnelConnectException cause)
    {
        if (!_options.AutoReconnect)
        {
            _logger.ClientGaveUp(_serverName, cause.Message);
            Finish(cause.Message, cause);
            return;
        }

        // Full jitter: anything from zero to the doubled bound, so that a thousand clients do not come back together.
        var bound = Math.Min(_options.ReconnectMax.TotalMilliseconds, _options.ReconnectMin.TotalMilliseconds * Math.Pow(2, Math.Min(_failures, 30)));
        _failures++;
        var delay = TimeSpan.FromMilliseconds(bound * _random());
        _logger.ClientRetry(_serverName, cause.Message, delay);
        ChangeState(TunnelClientState.WaitingToReconnect, cause.Message);
        Timers.StartSingleTimer("dial", DialAgain.Instance, delay);
    }

    private void OnListen(ForwardRule rule)
    {
        if (_state == TunnelClientState.Stopped)
        {
            Sender.Tell(new TunnelClientProtocol.Failed(_failure!));
            return;
        }

        rule = Numbered(rule);
        _forwards.RemoveAll(known => known.RemotePort == rule.RemotePort);
        _forwards.Add(rule);
        if (!_listenAskers.TryGetValue(rule.RemotePort, out var askers))
            _listenAskers.Add(rule.RemotePort, askers = []);
        askers.Add(Sender);
        _session?.Tell(new ClientSessionProtocol.AddForward(rule));
    }

    /// <summary>A domain has a number in the place of a port; the same domain always the same.</summary>
    private ForwardRule Numbered(ForwardRule rule)
    {
        if (rule.Domain is not { } domain)
            return rule;
        if (!_domains.TryGetValue(domain, out var number))
            _domains.Add(domain, number = StreamRequest.MaxTcpPort + 1 + _domains.Count);
        return rule with { RemotePort = number };
    }

    private void OnListenAnswered(ClientSessionProtocol.ListenAnswered answered)
    {
        if (answered.Error is not null && !_options.AutoReconnect)
            _forwards.RemoveAll(rule => rule.RemotePort == answered.Port);
        if (!_listenAskers.Remove(answered.Port, out var askers))
            return;
        object reply = answered.Error is null
            ? new TunnelClientProtocol.ListenSucceeded(answered.Port)
            : new TunnelClientProtocol.ListenRefused(answered.Port, answered.Error);
        foreach (var asker in askers)
            asker.Tell(reply);
    }

    private void OnStop()
    {
        if (_state == TunnelClientState.Stopped)
        {
            Sender.Tell(TunnelClientProtocol.Stopped.Instance);
            return;
        }

        _stopAskers.Add(Sender);
        _stopping = true;
        _dialing.Cancel();
        Timers.Cancel("dial");
        if (_session is null)
            Finish("stopped", null);
        else
            _session.Tell(new SessionProtocol.Drain(_options.DrainTimeout));
    }

    private void Finish(string reason, TunnelConnectException? failure)
    {
        _failure = failure ?? new TunnelConnectException(ConnectError.Stopped, "the client was stopped");
        ChangeState(TunnelClientState.Stopped, reason, failure);
        _logger.ClientStopped(reason);
        var failed = new TunnelClientProtocol.Failed(_failure);
        foreach (var asker in _connectAskers.Concat(_listenAskers.Values.SelectMany(askers => askers)))
            asker.Tell(failed);
        foreach (var asker in _stopAskers)
            asker.Tell(TunnelClientProtocol.Stopped.Instance);
        _connectAskers.Clear();
        _listenAskers.Clear();
        _stopAskers.Clear();
    }

    private void ChangeState(TunnelClientState state, string? reason, TunnelConnectException? failure = null)
    {
        _state = state;
        _observer.Tell(new TunnelClientProtocol.StateChanged(state, reason, failure));
    }

    /// <inheritdoc />
    protected override void PostStop()
    {
        _dialing.Cancel();
        _dialing.Dispose();
        if (_state != TunnelClientState.Stopped)
            Finish("stopped", null);
    }
}
