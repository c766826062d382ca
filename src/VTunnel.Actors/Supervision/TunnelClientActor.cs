using System.Text.Json.Serialization;
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

    /// <summary>Answered with <see cref="ClientStatus"/>.</summary>
    public sealed record GetStatus
    {
        /// <summary>The one instance.</summary>
        public static readonly GetStatus Instance = new();
    }

    /// <summary>The client's state.</summary>
    /// <param name="State">Where it is in its life.</param>
    /// <param name="Server">The server that it dials.</param>
    /// <param name="Problem">Why it is not connected; null where it is.</param>
    /// <param name="Forwards">All that it was asked to forward, and whether the server listens.</param>
    /// <param name="Session">Its session; null where there is none. One over v2 outlives its connection.</param>
    public sealed record ClientStatus(
        [property: JsonConverter(typeof(JsonStringEnumConverter<TunnelClientState>))] TunnelClientState State,
        string Server,
        string? Problem,
        IReadOnlyList<SessionProtocol.ForwardStatus> Forwards,
        SessionProtocol.SessionStatus? Session)
    {
        /// <summary>Whether its session has a connection.</summary>
        public bool IsConnected => State == TunnelClientState.Connected && Session is { IsConnected: true };
    }

    /// <summary>To the observer: the state changed.</summary>
    public sealed record StateChanged(TunnelClientState State, string? Reason, TunnelConnectException? Failure);
}

/// <summary>
/// The root of a client: dials again with exponential backoff and full jitter when its session is lost, and has every listen
/// replayed in the order in which it was asked for.
/// </summary>
public sealed class TunnelClientActor : ReconnectingActor
{
    private static readonly TimeSpan StatusTimeout = TimeSpan.FromSeconds(2);

    private readonly TunnelClientOptions _options;
    private readonly ICarrierConnector _connector;
    private readonly ITargetDialer _dialer;
    private readonly Func<TunnelExtensions> _extensions;
    private readonly TunnelMetrics _metrics;
    private readonly IActorRef _observer;
    private readonly Func<double> _random;
    private readonly string _serverName;
    private readonly List<ForwardRule> _forwards;

    /// <summary>Not asked for again, since reconnecting is off.</summary>
    private readonly Dictionary<int, (ForwardRule Rule, string Reason)> _refused = [];
    private readonly Dictionary<int, List<IActorRef>> _listenAskers = [];
    private readonly Dictionary<HostPattern, int> _domains = [];
    private readonly List<IActorRef> _connectAskers = [];
    private readonly List<IActorRef> _stopAskers = [];

    private TunnelClientState _state = TunnelClientState.Disconnected;
    private TunnelConnectException? _failure;
    private string? _problem;

    /// <summary>Made with what <c>Props</c> says.</summary>
    public TunnelClientActor(
        TunnelClientOptions options,
        ICarrierConnector connector,
        ITargetDialer dialer,
        Func<TunnelExtensions> extensions,
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
        Logger = logger;
        _forwards = [];
        foreach (var rule in options.Forwards)
            _forwards.Add(Numbered(rule));
        _serverName = options.Server?.GetLeftPart(UriPartial.Path) ?? "the server";
    }

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
        Props(options, connector, dialer, () => extensions, metrics, observer, random, logger);

    /// <summary>The same where extensions are there only when the client connects.</summary>
    internal static Props Props(
        TunnelClientOptions options,
        ICarrierConnector connector,
        ITargetDialer dialer,
        Func<TunnelExtensions> extensions,
        TunnelMetrics metrics,
        IActorRef observer,
        Func<double> random,
        ILogger logger) =>
        Akka.Actor.Props.Create(() => new TunnelClientActor(options, connector, dialer, extensions, metrics, observer, random, logger));

    private protected override ILogger Logger { get; }

    private protected override string Role => "the client";

    private protected override string SessionPrefix => "session-";

    private protected override TimeSpan StableAfter => _options.StableAfter;

    private protected override bool Reconnects => _options.AutoReconnect;

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
            case ClientSessionProtocol.ListenAnswered answered when Sender.Equals(Session):
                OnListenAnswered(answered);
                break;
            case TunnelClientProtocol.Stop:
                OnStop();
                break;
            case TunnelClientProtocol.GetStatus:
                OnGetStatus();
                break;
            case ClientSessionProtocol.ListenAnswered:
                // From a session that has been replaced.
                break;
            default:
                base.OnReceive(message);
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

    private protected override void OnDialling()
    {
        ChangeState(TunnelClientState.Connecting, null);
        Logger.ClientConnecting(_serverName);
    }

    private protected override Task<ICarrier> ConnectAsync(CancellationToken cancellationToken) => _connector.ConnectAsync(cancellationToken);

    private protected override Props CreateSession(string name, ICarrier carrier)
    {
        var wire = carrier.SpeaksV2 ? SessionWires.ForV2Client(_options, carrier) : SessionWires.ForV1Client(_options, carrier);
        var session = new SessionContext(name, wire, null, _extensions(), _metrics.For(TunnelRole.Client), Logger);
        return ClientSessionActor.Props(session, _options, [.. _forwards], _dialer);
    }

    private protected override void OnUp(string protocol)
    {
        Logger.ClientConnected(_serverName, protocol);
        ChangeState(TunnelClientState.Connected, null);
        foreach (var asker in _connectAskers)
            asker.Tell(TunnelClientProtocol.Connected.Instance);
        _connectAskers.Clear();
    }

    /// <summary>Full jitter: anything from zero to the doubled bound, so that a thousand clients do not come back together.</summary>
    private protected override TimeSpan RetryDelay(int failures)
    {
        var bound = Math.Min(_options.ReconnectMax.TotalMilliseconds, _options.ReconnectMin.TotalMilliseconds * Math.Pow(2, Math.Min(failures, 30)));
        return TimeSpan.FromMilliseconds(bound * _random());
    }

    private protected override void OnRetry(TunnelConnectException cause, TimeSpan delay)
    {
        Logger.ClientRetry(_serverName, cause.Message, delay);
        ChangeState(TunnelClientState.WaitingToReconnect, cause.Message);
    }

    private protected override void OnGaveUp(TunnelConnectException cause)
    {
        Logger.ClientGaveUp(_serverName, cause.Message);
        Finish(cause.Message, cause);
    }

    private protected override void OnStopped() => Finish("stopped", null);

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
        _refused.Remove(rule.RemotePort);
        if (!_listenAskers.TryGetValue(rule.RemotePort, out var askers))
            _listenAskers.Add(rule.RemotePort, askers = []);
        askers.Add(Sender);
        Session?.Tell(new ClientSessionProtocol.AddForward(rule));
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
        if (answered.Error is not null && !_options.AutoReconnect && _forwards.Find(rule => rule.RemotePort == answered.Port) is { } refused)
        {
            _forwards.Remove(refused);
            _refused[answered.Port] = (refused, answered.Error);
        }

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
        Stop(_options.DrainTimeout);
    }

    private void OnGetStatus()
    {
        var problem = _state switch
        {
            TunnelClientState.Connected => null,
            TunnelClientState.Disconnected => "it was not told to connect yet",
            _ => _problem ?? "the first attempt is under way",
        };
        var refused = _refused.Values.Select(each => Closed(each.Rule, each.Reason)).ToList();
        var status = new TunnelClientProtocol.ClientStatus(
            _state, _serverName, problem, [.. _forwards.Select(rule => Closed(rule, "the client is not connected")), .. refused], null);
        if (Session is { } session)
            _ = WithSessionAsync(status, refused, session).PipeTo(Sender);
        else
            Sender.Tell(status);
    }

    private static async Task<TunnelClientProtocol.ClientStatus> WithSessionAsync(
        TunnelClientProtocol.ClientStatus status, List<SessionProtocol.ForwardStatus> refused, IActorRef session)
    {
        try
        {
            var now = await session.Ask<SessionProtocol.SessionStatus>(SessionProtocol.GetStatus.Instance, StatusTimeout).ConfigureAwait(false);
            return status with
            {
                Problem = status.Problem ?? (now.IsConnected ? null : "the connection has just been lost"),
                Forwards = [.. now.Forwards, .. refused],
                Session = now,
            };
        }
        catch (AskTimeoutException)
        {
            return status with { Problem = status.Problem ?? "its session has just ended, or is too busy to answer" };
        }
    }

    private static SessionProtocol.ForwardStatus Closed(ForwardRule rule, string problem) => new(
        rule.Domain is null ? rule.RemotePort : null, rule.Domain?.ToString(), rule.Target.ToString(), false, problem);

    private void Finish(string reason, TunnelConnectException? failure)
    {
        _failure = failure ?? new TunnelConnectException(ConnectError.Stopped, "the client was stopped");

        // Before anybody is told: what they log of it comes after.
        Logger.ClientStopped(reason);
        ChangeState(TunnelClientState.Stopped, reason, failure);
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

        // While it dials again, what it dials again for is still so.
        if (state != TunnelClientState.Connecting)
            _problem = reason;
        _observer.Tell(new TunnelClientProtocol.StateChanged(state, reason, failure));
    }

    /// <inheritdoc />
    protected override void PostStop()
    {
        base.PostStop();
        if (_state != TunnelClientState.Stopped)
            Finish("stopped", null);
    }
}
