using Akka.Actor;
using Microsoft.Extensions.Logging;
using VTunnel.Carriers;
using VTunnel.Diagnostics;
using VTunnel.Options;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Link;
using VTunnel.Proxy;
using VTunnel.Routing;
using VTunnel.Sessions;
using VTunnel.Extensions;

namespace VTunnel.Supervision;

/// <summary>What the server's actor is told.</summary>
public static class TunnelServerProtocol
{
    /// <summary>A client's connection was admitted; the actor owns the carrier from now on.</summary>
    /// <param name="Carrier">The connection.</param>
    /// <param name="Token">What opened it; null where no token was asked for.</param>
    /// <param name="Hello">The first message of a v2 client; null for v1.</param>
    public sealed record StartSession(ICarrier Carrier, AccessToken? Token, LinkHello? Hello) : IDisposable
    {
        /// <summary>Drops the connection; for those who find no receiver.</summary>
        public void Dispose()
        {
            Carrier.Abort();

            // An aborted carrier has nothing to wait for.
            _ = Carrier.DisposeAsync().AsTask();
        }
    }

    /// <summary>Take no new sessions, let streams finish, end. Answered with <see cref="Drained"/>.</summary>
    public sealed record Drain
    {
        /// <summary>The one instance.</summary>
        public static readonly Drain Instance = new();
    }

    /// <summary>Every session has ended.</summary>
    public sealed record Drained
    {
        /// <summary>The one instance.</summary>
        public static readonly Drained Instance = new();
    }

    /// <summary>Answered with <see cref="ServerStatus"/>.</summary>
    public sealed record GetStatus
    {
        /// <summary>The one instance.</summary>
        public static readonly GetStatus Instance = new();
    }

    /// <summary>The server's state.</summary>
    /// <param name="IsDraining">Whether it lets connections finish before it ends.</param>
    /// <param name="Sessions">Its clients, those that have come first at the beginning.</param>
    public sealed record ServerStatus(bool IsDraining, IReadOnlyList<SessionProtocol.SessionStatus> Sessions);
}

/// <summary>
/// The root of a server: supervises the sessions and decides which session holds which port. A port held by a session
/// that no longer answers goes to the newcomer as soon as a probe has failed.
/// </summary>
public sealed class TunnelServerActor : UntypedActor
{
    private static readonly TimeSpan StatusTimeout = TimeSpan.FromSeconds(2);

    private readonly TunnelServerOptions _options;
    private readonly TunnelExtensions _extensions;
    private readonly TunnelMetrics _metrics;
    private readonly ILogger _logger;
    private readonly Dictionary<int, IActorRef> _holders = [];
    private readonly Dictionary<int, Queue<IActorRef>> _claims = [];

    /// <summary>Holders of ports that others want, until they have answered or are gone.</summary>
    private readonly HashSet<IActorRef> _probed = [];
    private readonly HashSet<IActorRef> _sessions = [];
    private readonly Dictionary<LinkId, IActorRef> _links = [];
    private readonly List<IActorRef> _drainAskers = [];
    private readonly Dictionary<IActorRef, (long Order, SessionProtocol.RoutesChanged Offer)> _routes = [];
    private readonly Props? _proxyProps;
    private IActorRef? _proxy;
    private long _nextOffer = 1;
    private long _nextSession = 1;
    private bool _draining;

    /// <inheritdoc cref="Props"/>
    public TunnelServerActor(TunnelServerOptions options, TunnelExtensions extensions, TunnelMetrics metrics, ILogger logger, Props? proxy)
    {
        _proxyProps = proxy;
        _options = options;
        _extensions = extensions;
        _metrics = metrics;
        _logger = logger;
    }

    /// <summary>How to make one.</summary>
    /// <param name="options">Validated.</param>
    /// <param name="extensions">What others have added.</param>
    /// <param name="metrics">What counts.</param>
    /// <param name="logger">For log lines.</param>
    /// <param name="proxy">How to make its HTTP proxy, if it has one.</param>
    public static Props Props(
        TunnelServerOptions options, TunnelExtensions extensions, TunnelMetrics metrics, ILogger logger, Props? proxy = null) =>
        Akka.Actor.Props.Create(() => new TunnelServerActor(options, extensions, metrics, logger, proxy));

    /// <inheritdoc />
    protected override SupervisorStrategy SupervisorStrategy() => new OneForOneStrategy(e =>
    {
        _logger.ChildFailed(e, "the server");
        return Directive.Stop;
    });

    /// <inheritdoc />
    protected override void PreStart()
    {
        Context.ActorOf(OrphanActor.Props(), "orphans");
        if (_proxyProps is not null)
            _proxy = Context.Watch(Context.ActorOf(_proxyProps, "proxy"));
    }

    /// <inheritdoc />
    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case TunnelServerProtocol.StartSession start:
                OnStartSession(start);
                break;
            case SessionProtocol.ClaimPort claim:
                OnClaim(claim.Port, Sender);
                break;
            case SessionProtocol.ReleasePort release:
                Release(release.Port, Sender);
                break;
            case SessionProtocol.RoutesChanged changed:
                OnRoutes(Sender, changed);
                break;
            case ProxyProtocol.GetAddress when _proxy is not null:
                _proxy.Forward(message);
                break;
            case SessionProtocol.ProbeResult result:
                OnProbeResult(Sender, result.Alive);
                break;
            case SessionProtocol.SessionEnded:
                // The ports follow when the actor has stopped and its sockets are closed.
                break;
            case Terminated terminated when terminated.ActorRef.Equals(_proxy):
                OnProxyGone();
                break;
            case Terminated terminated:
                OnTerminated(terminated.ActorRef);
                break;
            case TunnelServerProtocol.Drain:
                OnDrain();
                break;
            case TunnelServerProtocol.GetStatus:
                OnGetStatus();
                break;
            default:
                Unhandled(message);
                break;
        }
    }

    private void OnStartSession(TunnelServerProtocol.StartSession start)
    {
        if (start.Hello is { IsResume: true } resume)
        {
            if (_links.TryGetValue(resume.LinkId, out var known))
                known.Tell(new SessionProtocol.AttachCarrier(start.Carrier, resume));
            else
                Refuse(start.Carrier, LinkRefusal.UnknownLink);
            return;
        }

        if (_draining)
        {
            Refuse(start.Carrier, new LinkRefusal(LinkRefusalCode.Unavailable, "the server is shutting down"));
            return;
        }

        if (_sessions.Count >= _options.MaxSessions)
        {
            Refuse(start.Carrier, new LinkRefusal(LinkRefusalCode.Unavailable, $"the server is at its limit of {_options.MaxSessions} sessions"));
            return;
        }

        var name = $"session-{_nextSession++}";
        var linkId = LinkId.None;
        var wire = start.Hello is { } hello
            ? SessionWires.ForServer(_options, start.Carrier, hello, out linkId)
            : SessionWires.ForServer(_options, start.Carrier);
        var context = new SessionContext(name, wire, start.Token?.Name, _extensions, _metrics.For(TunnelRole.Server), _logger);
        var session = Context.Watch(Context.ActorOf(ServerSessionActor.Props(context, _options, start.Token), name));
        _sessions.Add(session);
        if (linkId != LinkId.None)
            _links.Add(linkId, session);
    }

    private void Refuse(ICarrier carrier, LinkRefusal refusal)
    {
        _logger.LinkRefused(carrier.RemoteName, refusal.Text);

        // RefuseAsync ends the carrier whatever happens and does not throw.
        _ = CarrierHandshake.RefuseAsync(carrier, refusal);
    }

    private void OnClaim(int port, IActorRef claimant)
    {
        if (!_holders.TryGetValue(port, out var holder) || holder.Equals(claimant))
        {
            _holders[port] = claimant;
            claimant.Tell(new SessionProtocol.PortGranted(port));
            return;
        }

        if (!_claims.TryGetValue(port, out var waiting))
            _claims.Add(port, waiting = new Queue<IActorRef>());
        waiting.Enqueue(claimant);

        // However many ports are wanted of it, it is asked once; one that did not answer is on its way out.
        if (_probed.Add(holder))
            holder.Tell(new SessionProtocol.Probe(_options.ProbeTimeout));
    }

    /// <summary>What a session offers keeps its place in the order in which sessions came: of two that offer the same the newer counts.</summary>
    private void OnRoutes(IActorRef session, SessionProtocol.RoutesChanged? offer)
    {
        if (offer is null)
        {
            if (!_routes.Remove(session))
                return;
        }
        else if (_proxy is null)
        {
            session.Tell(SessionProtocol.RoutesTaken.Instance);
            return;
        }
        else
        {
            _routes[session] = (_routes.TryGetValue(session, out var known) ? known.Order : _nextOffer++, offer);
        }

        var entries = _routes.OrderBy(entry => entry.Value.Order).ToList();
        _proxy?.Tell(new ProxyProtocol.SetRoutes(new ProxyRoutes(
            new RouteTable<ProxyRoute>(entries.SelectMany(entry => entry.Value.Offer.Routes)),
            entries.Where(entry => !entry.Value.Offer.IsConnected).Select(entry => entry.Key.Path.Name).ToHashSet())), session);
    }

    /// <summary>It failed: nobody is routed to the sessions any more, and none of them is to wait for that.</summary>
    private void OnProxyGone()
    {
        _proxy = null;
        foreach (var session in _routes.Keys)
            session.Tell(SessionProtocol.RoutesTaken.Instance);
        _routes.Clear();
    }

    private void OnProbeResult(IActorRef holder, bool alive)
    {
        var wanted = _claims.Where(claim => _holders.GetValueOrDefault(claim.Key)?.Equals(holder) == true).OrderBy(claim => claim.Key).ToArray();
        if (alive)
        {
            _probed.Remove(holder);
            foreach (var (port, waiting) in wanted)
            {
                _claims.Remove(port);
                foreach (var claimant in waiting)
                    claimant.Tell(new SessionProtocol.PortRefused(port, $"port {port} is held by {holder.Path.Name} of the server, which is alive"));
            }
        }
        else if (wanted.Length > 0)
        {
            var (port, waiting) = wanted[0];
            _logger.SessionSuperseded(holder.Path.Name, _options.ProbeTimeout, waiting.Peek().Path.Name, port);
            holder.Tell(new SessionProtocol.End(
                new SessionProtocolException(SessionError.Superseded, $"it did not answer while another session wanted port {port}"),
                PeerIsGone: true));
        }
        else
        {
            _probed.Remove(holder);
        }
    }

    private void Release(int port, IActorRef holder)
    {
        if (!holder.Equals(_holders.GetValueOrDefault(port)))
            return;

        _holders.Remove(port);
        if (!_claims.Remove(port, out var waiting))
            return;
        while (waiting.TryDequeue(out var claimant))
        {
            if (_sessions.Contains(claimant))
                OnClaim(port, claimant);
        }
    }

    private void OnTerminated(IActorRef session)
    {
        _sessions.Remove(session);
        _probed.Remove(session);
        OnRoutes(session, null);
        foreach (var link in _links.Where(link => link.Value.Equals(session)).Select(link => link.Key).ToArray())
            _links.Remove(link);
        foreach (var port in _holders.Where(holder => holder.Value.Equals(session)).Select(holder => holder.Key).ToArray())
            Release(port, session);
        if (_draining && _sessions.Count == 0)
            AnswerDrained();
    }

    private void OnGetStatus()
    {
        _ = StatusAsync(_draining, [.. _sessions]).PipeTo(Sender);

        static async Task<TunnelServerProtocol.ServerStatus> StatusAsync(bool isDraining, IActorRef[] sessions)
        {
            var statuses = await Task.WhenAll(sessions.Select(StatusOfAsync)).ConfigureAwait(false);
            return new TunnelServerProtocol.ServerStatus(
                isDraining, [.. statuses.OfType<SessionProtocol.SessionStatus>().OrderBy(status => status.Name.Length).ThenBy(status => status.Name, StringComparer.Ordinal)]);
        }
    }

    /// <summary>Null from one that has just ended, or is too busy to say.</summary>
    private static async Task<SessionProtocol.SessionStatus?> StatusOfAsync(IActorRef session)
    {
        try
        {
            return await session.Ask<SessionProtocol.SessionStatus>(SessionProtocol.GetStatus.Instance, StatusTimeout).ConfigureAwait(false);
        }
        catch (AskTimeoutException)
        {
            return null;
        }
    }

    private void OnDrain()
    {
        _drainAskers.Add(Sender);
        if (!_draining)
        {
            _draining = true;
            _proxy?.Tell(ProxyProtocol.StopAccepting.Instance);
            _logger.Draining(_sessions.Count, _options.DrainTimeout);
            foreach (var session in _sessions)
                session.Tell(new SessionProtocol.Drain(_options.DrainTimeout));
        }

        if (_sessions.Count == 0)
            AnswerDrained();
    }

    private void AnswerDrained()
    {
        foreach (var asker in _drainAskers)
            asker.Tell(TunnelServerProtocol.Drained.Instance);
        _drainAskers.Clear();
    }
}
