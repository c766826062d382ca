using System.Net.Sockets;
using Akka.Actor;
using Microsoft.Extensions.Logging;
using VTunnel.Carriers;
using VTunnel.Diagnostics;
using VTunnel.Endpoints;
using VTunnel.Extensions;
using VTunnel.Listeners;
using VTunnel.Options;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Routing;
using VTunnel.Stages;
using VTunnel.Streams;

namespace VTunnel.Sessions;

/// <summary>A session on the server: opens ports for the client and carries visitors to it.</summary>
internal sealed class ServerSessionActor : SessionActor
{
    private const int MaxLoggedRefusals = 20;
    private const int MaxLoggedRetargets = 20;
    private const int ProbePolls = 20;
    private const int MaxLocalAddrLength = 300;
    private const int MaxUnreported = 100;

    private readonly TunnelServerOptions _options;
    private readonly AccessToken? _token;
    private readonly Dictionary<int, Port> _ports = [];
    private readonly List<IActorRef> _probeAskers = [];
    private int _refusals;
    private int _retargets;
    private bool _areRoutesUntaken;
    private bool _haveRoutesChanged;
    private bool _streamLimitLogged;
    private bool _answers;
    private ICarrier? _probed;
    private long _probeStart;
    private int _probePollsLeft;

    public ServerSessionActor(SessionContext session, TunnelServerOptions options, AccessToken? token)
        : base(session)
    {
        _options = options;
        _token = token;
    }

    public static Props Props(SessionContext session, TunnelServerOptions options, AccessToken? token) =>
        Akka.Actor.Props.Create(() => new ServerSessionActor(session, options, token));

    private sealed class Port(string? localAddr, HostPattern? domain)
    {
        public string? LocalAddr { get; set; } = localAddr;

        /// <summary>Another target that the client has named while the one before was being decided on; valid if <see cref="IsRenamed"/>.</summary>
        public string? NextLocalAddr { get; set; }

        public bool IsRenamed { get; set; }
        public bool IsDecidedOn { get; set; }

        /// <summary>Answers that wait until the proxy routes to what they confirm: first for a report of the routes, then for it to be taken in.</summary>
        public int Unreported { get; set; }
        public int Reported { get; set; }
        public HostPattern? Domain { get; } = domain;
        public bool IsOpen { get; set; }
        public IActorRef? Listener { get; set; }
    }

    private sealed record ListenDecided(int Port, AuthorizationProtocol.Decision Decision);

    private sealed record RetargetDecided(int Port, string? LocalAddr, AuthorizationProtocol.Decision Decision);

    private sealed record PingSent(bool Sent);

    private sealed record ProbePoll
    {
        public static readonly ProbePoll Instance = new();
    }

    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case ListenDecided { Decision: AuthorizationProtocol.Denied denied } decided:
                Refuse(decided.Port, denied.Reason);
                break;
            case ListenDecided decided:
                Open(decided.Port);
                break;
            case RetargetDecided decided:
                OnRetargetDecided(decided);
                break;
            case SessionProtocol.RoutesTaken:
                OnRoutesTaken();
                break;
            case SessionProtocol.AuthorizeVisitor asked:
                OnAuthorize(asked);
                break;
            case SessionProtocol.CarryVisitor carry:
                OnCarry(carry);
                break;
            case SessionProtocol.PortGranted granted:
                OnPortGranted(granted.Port);
                break;
            case SessionProtocol.PortRefused refused:
                Refuse(refused.Port, refused.Reason);
                break;
            case ListenerProtocol.Listening listening:
                OnListening(listening.Port);
                break;
            case ListenerProtocol.ListenFailed failed:
                Context.Parent.Tell(new SessionProtocol.ReleasePort(failed.Port));
                Refuse(failed.Port, failed.Reason);
                break;
            case ListenerProtocol.VisitorAccepted visitor:
                OnVisitor(visitor.Port, visitor.Socket);
                break;
            case Terminated terminated:
                OnListenerGone(terminated.ActorRef);
                break;
            case SessionProtocol.Probe probe:
                OnProbe(probe);
                break;
            case PingSent { Sent: false }:
                // This carrier cannot ask, so silence proves nothing.
                AnswerProbe(alive: true);
                break;
            case PingSent:
                break;
            case ProbePoll:
                OnProbePoll();
                break;
            default:
                base.OnReceive(message);
                break;
        }
    }

    protected override void OnControl(ControlMessage message)
    {
        // Everything else is for clients; a peer that sends it is told nothing, as v1 ignores what it does not expect.
        if (message is Listen listen)
            OnListen(listen);
        else if (message is Hello hello)
            _answers = hello.Capabilities.Contains(SessionWires.ProxyCapability);
    }

    private void OnListen(Listen asked)
    {
        // What a client calls its target goes into logs and tables: no line breaks, no megabytes.
        var listen = asked with
        {
            LocalAddr = asked.LocalAddr is { } target ? PeerText.Printable(target, MaxLocalAddrLength) : null,
            Domain = asked.Domain is { } domain ? PeerText.Printable(domain, MaxLocalAddrLength) : null,
        };
        if (_ports.TryGetValue(listen.Port, out var port))
        {
            Retarget(listen.Port, port, listen.LocalAddr);
            return;
        }

        if (IsClosing)
            Refuse(listen.Port, "the server is shutting down", listen.Domain);
        else if (listen.Domain is not null)
            ClaimDomain(listen);
        else if (listen.Port is < 1 or > 65535)
            Refuse(listen.Port, $"port {listen.Port} is out of range: 1 to 65535");
        else if (_token is not null && !_token.Allows(listen.Port))
            Refuse(listen.Port, $"token '{_token.Name}' may not listen on port {listen.Port}");
        else if (_ports.Count >= _options.MaxListenersPerSession)
            Refuse(listen.Port, $"the session is at its limit of {_options.MaxListenersPerSession} listened ports");
        else
            Claim(listen);
    }

    /// <summary>A port that is the client's already is asked for again: mostly the same, maybe with another target.</summary>
    private void Retarget(int number, Port port, string? localAddr)
    {
        if (!port.IsOpen || port.IsDecidedOn)
        {
            // Answered when what is under way is decided.
            (port.NextLocalAddr, port.IsRenamed) = (localAddr, true);
        }
        else if (localAddr == port.LocalAddr)
        {
            if (port is { Unreported: 0, Reported: 0 })
                Pump.SendControl(new ListenOk(number));
            else
                Confirm(number, port);
        }
        else if (Session.Extensions.Authorizer is null)
        {
            SetTarget(number, port, localAddr);
        }
        else
        {
            port.IsDecidedOn = true;
            Decide(number, port, localAddr, decision => new RetargetDecided(number, localAddr, decision));
        }
    }

    private void OnRetargetDecided(RetargetDecided decided)
    {
        if (!_ports.TryGetValue(decided.Port, out var port))
            return;
        port.IsDecidedOn = false;
        if (decided.Decision is AuthorizationProtocol.Denied denied)
            Deny(decided.Port, denied.Reason, port.Domain?.ToString());
        else
            SetTarget(decided.Port, port, decided.LocalAddr);
        TakeRename(decided.Port, port);
    }

    private void SetTarget(int number, Port port, string? localAddr)
    {
        port.LocalAddr = localAddr;
        if (++_retargets <= MaxLoggedRetargets)
            Logger.Retargeted(Session.Name, number, localAddr ?? "an unnamed target", _retargets == MaxLoggedRetargets ? " (further changes are not logged)" : "");
        Confirm(number, port);
    }

    private void TakeRename(int number, Port port)
    {
        if (!port.IsRenamed)
            return;
        port.IsRenamed = false;
        Retarget(number, port, port.NextLocalAddr);
    }

    private void ClaimDomain(Listen listen)
    {
        if (_options.Proxy is null)
            Refuse(listen.Port, "this server has no proxy that could route a domain; start it with --proxy PORT", listen.Domain);
        else if (listen.Port <= StreamRequest.MaxTcpPort)
            Refuse(listen.Port, $"the number of a domain must be above {StreamRequest.MaxTcpPort}, not {listen.Port}", listen.Domain);
        else if (!HostPattern.TryParse(listen.Domain, out var domain, out var problem))
            Refuse(listen.Port, problem, listen.Domain);
        else if (!_answers)
            Refuse(listen.Port, $"a client that forwards domains must announce '{SessionWires.ProxyCapability}' first", listen.Domain);
        else if (_token is { Ports.Count: > 0 })
            Refuse(listen.Port, $"token '{_token.Name}' may open certain ports only, and no domains", listen.Domain);
        else if (_ports.Count >= _options.MaxListenersPerSession)
            Refuse(listen.Port, $"the session is at its limit of {_options.MaxListenersPerSession} listened ports", listen.Domain);
        else
            Claim(listen, domain);
    }

    /// <summary>It is allowed: a port is claimed and listened on, a domain is simply routed here.</summary>
    private void Open(int number)
    {
        if (_ports.TryGetValue(number, out var port) && port.Domain is not null)
            OnListening(number);
        else
            Context.Parent.Tell(new SessionProtocol.ClaimPort(number));
    }

    private void Claim(Listen listen, HostPattern? domain = null)
    {
        _ports.Add(listen.Port, new Port(listen.LocalAddr, domain));
        if (Session.Extensions.Authorizer is null)
            Open(listen.Port);
        else
            Decide(listen.Port, _ports[listen.Port], listen.LocalAddr, decision => new ListenDecided(listen.Port, decision));
    }

    private void Decide(int number, Port port, string? localAddr, Func<AuthorizationProtocol.Decision, object> answer)
    {
        var question = new AuthorizationProtocol.AuthorizeListen(
            Session.Name, Session.Identity, Session.Wire.RemoteName, number, localAddr) { Domain = port.Domain?.ToString() };
        _ = AuthorizationProtocol.DecideAsync(Session.Extensions.Authorizer!, question).PipeTo(Self, success: answer);
    }

    private void OnPortGranted(int number)
    {
        if (!_ports.TryGetValue(number, out var port))
        {
            Context.Parent.Tell(new SessionProtocol.ReleasePort(number));
            return;
        }

        // Unnamed: a port may be asked for again while its last listener is still stopping.
        port.Listener = Context.Watch(Context.ActorOf(
            PortListenerActor.Props(_options.ListenAddress, number, _options.ListenRetryTimeout, Logger)));
    }

    private void OnListenerGone(IActorRef listener)
    {
        foreach (var (number, port) in _ports)
        {
            if (!listener.Equals(port.Listener))
                continue;

            // It failed; one that could not listen has said so and is no longer here.
            Logger.ListenerFailed(Session.Name, number);
            CloseListener(number, port);
            Refuse(number, $"the listener on port {number} failed");
            ReportRoutes();
            return;
        }
    }

    private void OnListening(int number)
    {
        if (!_ports.TryGetValue(number, out var port))
            return;
        port.IsOpen = true;
        Session.Metrics.ListenerOpened();
        if (port.Domain is { } domain)
            Logger.DomainUp(Session.Name, domain.ToString(), port.LocalAddr ?? "an unnamed target");
        else
            Logger.ListenerUp(Session.Name, _options.ListenAddress.ToString(), number, port.LocalAddr ?? "an unnamed target");
        Confirm(number, port);
        Context.System.EventStream.Publish(new TunnelEvents.ListenerOpened(Session.Name, number, port.LocalAddr, port.Domain?.ToString()));
        TakeRename(number, port);
    }

    /// <summary>A client that is told its port is open may tell others, who then use the proxy: it routes to the port by then.</summary>
    private void Confirm(int number, Port port)
    {
        if (_options.Proxy is null)
        {
            Pump.SendControl(new ListenOk(number));
            return;
        }

        // A client that asks more often than it can be answered is told once for many times.
        if (port.Unreported < MaxUnreported)
            port.Unreported++;
        ReportRoutes();
    }

    private void SendConfirmations(int number, Port port)
    {
        for (; port.Reported > 0; port.Reported--)
            Pump.SendControl(new ListenOk(number));
    }

    private void Refuse(int port, string reason, string? domain = null)
    {
        if (_ports.Remove(port, out var known))
            domain = known.Domain?.ToString();
        Deny(port, reason, domain);
    }

    private void Deny(int port, string reason, string? domain)
    {
        if (_ports.TryGetValue(port, out var open))
        {
            // In the order in which they were asked for.
            (open.Reported, open.Unreported) = (open.Reported + open.Unreported, 0);
            SendConfirmations(port, open);
        }

        Pump.SendControl(new ListenErr(port, reason));
        Context.System.EventStream.Publish(new TunnelEvents.ListenerRefused(Session.Name, port, reason, domain));
        if (++_refusals <= MaxLoggedRefusals)
            Logger.ListenRefused(Session.Name, domain is null ? $"listen on port {port}" : $"have the domain {domain}", reason, _refusals == MaxLoggedRefusals ? " (further refusals are not logged)" : "");
    }

    /// <summary>Tells what a proxy may send here; nothing where there is no proxy.</summary>
    private void ReportRoutes()
    {
        if (_options.Proxy is null)
            return;

        // One at a time: a client may change what it offers far more often than the parent, whom all sessions share, can take it in.
        _haveRoutesChanged = _areRoutesUntaken;
        if (_areRoutesUntaken)
            return;
        _areRoutesUntaken = true;
        var routes = new List<(HostPattern, int, ProxyRoute)>();
        foreach (var (number, port) in IsClosing ? [] : _ports.Where(port => port.Value.IsOpen))
        {
            AddRoutes(routes, number, port);
            (port.Reported, port.Unreported) = (port.Unreported, 0);
        }

        Context.Parent.Tell(new SessionProtocol.RoutesChanged(routes, Session.Wire.Carrier is not null));
    }

    private void OnRoutesTaken()
    {
        _areRoutesUntaken = false;
        foreach (var (number, port) in _ports)
            SendConfirmations(number, port);
        if (_haveRoutesChanged)
            ReportRoutes();
    }

    private void AddRoutes(List<(HostPattern, int, ProxyRoute)> routes, int number, Port port)
    {
        var isTls = port.LocalAddr?.StartsWith("tls://", StringComparison.OrdinalIgnoreCase) == true;
        var isTarget = ForwardParser.TryParseTarget(port.LocalAddr, out var target, out _);
        var route = new ProxyRoute(Self, Session.Name, number, target, _answers, Session.Extensions.Authorizer is not null);
        if (port.Domain is { } domain)
        {
            foreach (var each in ForwardRule.PortsOf(domain))
                routes.Add((domain, each, route));
            return;
        }

        // What a client calls its target is its own word, and a token for certain ports is none for domains.
        if (_token is { Ports.Count: > 0 })
            return;
        if (isTarget && !HostName.IsLoopback(target!.Host.ToLowerInvariant()) && HostPattern.TryParse(target.Authority, out var host, out _))
        {
            routes.Add((host, target.Port, route));

            // The client adds TLS, so a visitor may leave it out.
            if (isTls && target.Port == 443)
                routes.Add((host, 80, route));
        }
        else if (!isTarget && HostPattern.TryParse(port.LocalAddr, out var wildcard, out _) && wildcard.Kind != HostPatternKind.Exact)
        {
            foreach (var each in ForwardRule.PortsOf(wildcard))
                routes.Add((wildcard, each, route));
        }
    }

    private void OnAuthorize(SessionProtocol.AuthorizeVisitor asked)
    {
        if (Session.Extensions.Authorizer is { } authorizer)
            _ = DecideAsync(authorizer, InfoOf(asked.Port, asked.Remote, asked.Visit), Logger).PipeTo(Sender);
        else
            Sender.Tell(AuthorizationProtocol.Allowed.Instance);

        static async Task<AuthorizationProtocol.Decision> DecideAsync(IActorRef authorizer, StreamInfo info, ILogger logger)
        {
            var decision = await AuthorizationProtocol.DecideAsync(authorizer, new AuthorizationProtocol.AuthorizeConnect(info)).ConfigureAwait(false);
            if (decision is AuthorizationProtocol.Denied denied)
                logger.StreamDenied(info.Session, info.Place, info.Remote ?? "unknown", denied.Reason);
            return decision;
        }
    }

    private StreamInfo InfoOf(int port, string? remote, ProxyVisit visit) => new(Session.Name, Session.Identity, port, remote, Domain: visit.Host);

    private void OnCarry(SessionProtocol.CarryVisitor carry)
    {
        if (IsClosing || StreamCount >= _options.MaxStreamsPerSession || !_ports.TryGetValue(carry.Port, out var port) || !port.IsOpen)
        {
            carry.Dispose();
            return;
        }

        var info = InfoOf(carry.Port, carry.Remote, carry.Visit);
        StartStream(StreamActor.ForProxied(StreamServices, info, carry.Endpoint, _answers ? carry.Visit : null));
    }

    protected override void OnCarrierUp(LinkEvents.CarrierUp up)
    {
        base.OnCarrierUp(up);
        ReportRoutes();
    }

    protected override void OnCarrierLost(LinkEvents.CarrierLost lost)
    {
        base.OnCarrierLost(lost);
        ReportRoutes();
    }

    private void OnVisitor(int port, Socket socket)
    {
        if (IsClosing || !_ports.ContainsKey(port))
        {
            socket.Dispose();
            return;
        }

        var visitor = new SocketEndpoint(socket);
        if (StreamCount >= _options.MaxStreamsPerSession)
        {
            visitor.Abort();
            if (!_streamLimitLogged)
                Logger.StreamLimit(Session.Name, _options.MaxStreamsPerSession, port);
            _streamLimitLogged = true;
            return;
        }

        _streamLimitLogged = false;
        var info = new StreamInfo(Session.Name, Session.Identity, port, visitor.RemoteEndPoint?.ToString());
        StartStream(StreamActor.ForVisitor(StreamServices, info, visitor));
    }

    protected override void OnStreamRequested(PumpEvents.StreamRequested requested) => Pump.Reset(requested.Key);

    protected override IEnumerable<SessionProtocol.ForwardStatus> Forwards() => _ports.Select(port => new SessionProtocol.ForwardStatus(
        port.Value.Domain is null ? port.Key : null,
        port.Value.Domain?.ToString(),
        port.Value.LocalAddr,
        port.Value.IsOpen,
        port.Value.IsOpen ? null : "it is being opened"));

    protected override void OnDraining()
    {
        foreach (var (number, port) in _ports)
        {
            if (port.Listener is not null)
                Context.Stop(port.Listener);
            CloseListener(number, port);
        }

        _ports.Clear();
        ReportRoutes();
    }

    private protected override void OnEnding()
    {
        foreach (var (number, port) in _ports.Where(port => port.Value.IsOpen))
        {
            if (port.Listener is not null)
                Context.Stop(port.Listener);
            port.Listener = null;
            TellClosed(number, port);
        }
    }

    private void CloseListener(int number, Port port)
    {
        if (port.Domain is null)
            Context.Parent.Tell(new SessionProtocol.ReleasePort(number));
        TellClosed(number, port);
    }

    private void TellClosed(int number, Port port)
    {
        if (!port.IsOpen)
            return;
        port.IsOpen = false;
        Session.Metrics.ListenerClosed();
        if (port.Domain is { } domain)
            Logger.DomainDown(Session.Name, domain.ToString());
        else
            Logger.ListenerDown(Session.Name, number);
        Context.System.EventStream.Publish(new TunnelEvents.ListenerClosed(Session.Name, number, port.Domain?.ToString()));
    }

    protected override void PostStop()
    {
        foreach (var (number, port) in _ports)
            CloseListener(number, port);
        base.PostStop();
    }

    /// <summary>Asks the far end for a sign of life and answers as soon as there is one, or at the timeout.</summary>
    private void OnProbe(SessionProtocol.Probe probe)
    {
        _probeAskers.Add(Sender);
        if (_probeAskers.Count > 1)
            return;

        _probed = null;
        _probePollsLeft = ProbePolls;
        Ping();
        Timers.StartPeriodicTimer("probe", ProbePoll.Instance, probe.Timeout / ProbePolls);
    }

    /// <summary>Pings the connection of the moment; during a gap there is none, until the client comes back or the probe fails.</summary>
    private void Ping()
    {
        var carrier = Session.Wire.Carrier;
        if (carrier is null || carrier == _probed)
            return;
        _probed = carrier;
        _probeStart = carrier.ReceivedCount;
        _ = carrier.PingAsync().AsTask().PipeTo(Self, success: sent => new PingSent(sent), failure: _ => new PingSent(true));
    }

    private void OnProbePoll()
    {
        Ping();
        var alive = _probed is not null && (_probed.ReceivedCount != _probeStart || Pump.IsReceivePaused);
        if (!alive && --_probePollsLeft > 0)
            return;
        AnswerProbe(alive);
    }

    private void AnswerProbe(bool alive)
    {
        Timers.Cancel("probe");
        foreach (var asker in _probeAskers)
            asker.Tell(new SessionProtocol.ProbeResult(alive));
        _probeAskers.Clear();
    }
}
