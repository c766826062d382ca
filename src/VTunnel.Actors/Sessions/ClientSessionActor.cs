using Akka.Actor;
using VTunnel.Diagnostics;
using VTunnel.Extensions;
using VTunnel.Options;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Errors;
using VTunnel.Routing;
using VTunnel.Stages;
using VTunnel.Streams;
using VTunnel.Targets;

namespace VTunnel.Sessions;

/// <summary>What a client's session is told and says besides <see cref="SessionProtocol"/>.</summary>
public static class ClientSessionProtocol
{
    /// <summary>To the session: forward this too.</summary>
    public sealed record AddForward(ForwardRule Rule);

    /// <summary>To the parent: the server's answer to a listen, by the rule's number; a null error is <c>listen_ok</c>.</summary>
    public sealed record ListenAnswered(int Port, string? Error);
}

/// <summary>A session on the client: asks for its ports in order and carries the streams that the server opens to their targets.</summary>
internal sealed class ClientSessionActor : SessionActor
{
    /// <summary>A refused port may be free later (its holder left, an administrator changed something).</summary>
    private static readonly TimeSpan RefusedRetry = TimeSpan.FromSeconds(10);

    /// <summary>Lines that a server can cause at will: about each forward, and about ports that are none.</summary>
    private const int MaxLogged = 20;

    private const int FirstFreePort = 20_000;
    private const int LastFreePort = 32_000;
    private const int MaxFreePortTries = 20;
    private const string NotAnswered = "the server has not answered yet";

    private readonly TunnelClientOptions _options;
    private readonly Random _ports = new();
    private readonly ITargetDialer _dialer;
    private readonly List<ForwardRule> _initial;
    private readonly Dictionary<int, Forward> _forwards = [];
    private readonly Dictionary<int, int> _domainPorts = [];
    private int _loggedUnknown;

    public ClientSessionActor(SessionContext session, TunnelClientOptions options, IReadOnlyList<ForwardRule> forwards, ITargetDialer dialer)
        : base(session)
    {
        _options = options;
        _dialer = dialer;
        _initial = [.. forwards];
    }

    protected override TunnelRole Role => TunnelRole.Client;

    public static Props Props(
        SessionContext session, TunnelClientOptions options, IReadOnlyList<ForwardRule> forwards, ITargetDialer dialer) =>
        Akka.Actor.Props.Create(() => new ClientSessionActor(session, options, forwards, dialer));

    /// <param name="rule">The rule.</param>
    /// <param name="domainPort">Over v1, which port of the rule's domain this stands for; null otherwise.</param>
    private sealed class Forward(ForwardRule rule, int? domainPort = null)
    {
        public ForwardRule Rule { get; } = rule;
        public int? DomainPort { get; } = domainPort;
        public int Tries { get; set; }
        public string? LastError { get; set; }
        public bool IsOpen { get; set; }
        public int LoggedCount { get; set; }
    }

    private sealed record PingTick
    {
        public static readonly PingTick Instance = new();
    }

    private sealed record ListenAgain(int Port);

    protected override void PreStart()
    {
        base.PreStart();
        if (Session.Wire.IdleTimeout > TimeSpan.Zero)
            Timers.StartPeriodicTimer("ping", PingTick.Instance, _options.PingInterval);
        foreach (var rule in _initial)
            Add(rule);
    }

    protected override void OnCarrierUp(LinkEvents.CarrierUp up)
    {
        base.OnCarrierUp(up);
        Context.Parent.Tell(new SessionProtocol.CarrierAttached(up.Gap));
    }

    protected override void OnCarrierLost(LinkEvents.CarrierLost lost)
    {
        base.OnCarrierLost(lost);
        Context.Parent.Tell(new SessionProtocol.NeedsCarrier(lost.Reason));
    }

    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case PingTick:
                Pump.SendPing();
                break;
            case ClientSessionProtocol.AddForward add:
                Add(add.Rule);
                break;
            case ListenAgain again:
                if (_forwards.TryGetValue(again.Port, out var forward))
                    Listen(again.Port, forward);
                break;
            default:
                base.OnReceive(message);
                break;
        }
    }

    private void Add(ForwardRule rule)
    {
        if (rule.Domain is not { } domain || Session.Wire.Protocol != "v1")
        {
            Add(rule.RemotePort, new Forward(rule));
            return;
        }

        // A server that speaks v1 routes by what a port is said to lead to, so each port of the domain takes one of the server's.
        foreach (var known in _domainPorts.Where(known => known.Value == rule.RemotePort).Select(known => known.Key).ToArray())
            _forwards.Remove(known);
        foreach (var port in ForwardRule.PortsOf(domain))
            AddAnywhere(new Forward(rule, port));
    }

    private void Add(int number, Forward forward)
    {
        _forwards[number] = forward;
        Listen(number, forward);
    }

    /// <summary>Takes a port that may be free: which ones are is for the server to know.</summary>
    private void AddAnywhere(Forward forward)
    {
        int number;
        do
            number = _ports.Next(FirstFreePort, LastFreePort + 1);
        while (_forwards.ContainsKey(number));
        _domainPorts[number] = forward.Rule.RemotePort;
        forward.Tries++;
        forward.IsOpen = false;
        Add(number, forward);
    }

    private void Listen(int number, Forward forward) => Pump.SendControl(forward switch
    {
        { DomainPort: { } port, Rule.Domain: { } domain } => new Listen(number, (domain with { Port = port }).ToString()),
        { Rule: { Domain: { } domain } rule } => new Listen(number, rule.Target.ToString(), domain.ToString()),
        _ => new Listen(number, forward.Rule.Target.ToString()),
    });

    protected override void OnControl(ControlMessage message)
    {
        switch (message)
        {
            case ListenOk ok when _forwards.TryGetValue(ok.Port, out var forward):
                if (!forward.IsOpen && ++forward.LoggedCount <= MaxLogged)
                    Logger.ForwardUp(forward.Rule.Source, forward.Rule.Target.ToString());
                (forward.LastError, forward.IsOpen) = (null, true);
                Context.Parent.Tell(new ClientSessionProtocol.ListenAnswered(forward.Rule.RemotePort, null));
                break;
            case ListenErr refused when _forwards.TryGetValue(refused.Port, out var forward):
                OnRefused(forward, refused with { Error = PeerText.Printable(refused.Error) });
                break;
        }
    }

    private void OnRefused(Forward forward, ListenErr refused)
    {
        if (forward.DomainPort is not null && forward.Tries < MaxFreePortTries)
        {
            _forwards.Remove(refused.Port);
            _domainPorts.Remove(refused.Port);
            AddAnywhere(forward);
            return;
        }

        var suffix = _options.AutoReconnect ? $"; asking again every {RefusedRetry.TotalSeconds:0} s" : "";
        if (forward.LastError != refused.Error && ++forward.LoggedCount <= MaxLogged)
        {
            if (forward.LoggedCount == MaxLogged)
                suffix += "; further answers are not logged";
            Logger.ForwardRefused(forward.Rule.Domain?.ToString() ?? $"port {refused.Port}", refused.Error, suffix);
        }

        (forward.LastError, forward.IsOpen) = (refused.Error, false);
        Context.Parent.Tell(new ClientSessionProtocol.ListenAnswered(forward.Rule.RemotePort, refused.Error));
        if (_options.AutoReconnect)
            Timers.StartSingleTimer($"listen-{refused.Port}", new ListenAgain(refused.Port), RefusedRetry);
        else
            _forwards.Remove(refused.Port);
    }

    protected override void OnStreamRequested(PumpEvents.StreamRequested requested)
    {
        if (IsClosing || StreamCount >= _options.MaxStreams)
        {
            Pump.Reset(requested.Key);
            return;
        }

        if (!_forwards.TryGetValue(requested.Request.Port, out var forward))
        {
            if (++_loggedUnknown <= MaxLogged)
                Logger.UnknownForward(requested.Request.Port);
            Pump.Reset(requested.Key);
            return;
        }

        var info = new StreamInfo(
            Session.Name, Session.Identity, requested.Request.Port, requested.Request.Remote, Domain: requested.Request.Visit?.Host) { Role = Role };
        StartStream(
            StreamActor.ForTarget(StreamServices, info, requested.Key, forward.Rule, requested.Request.Visit, _dialer, forward.DomainPort),
            StreamName(requested.Key));
    }

    protected override IEnumerable<SessionProtocol.ForwardStatus> Forwards() => _forwards.Select(each => new SessionProtocol.ForwardStatus(
        each.Value.Rule.Domain is null ? each.Key : null,
        each.Value switch
        {
            { DomainPort: { } port, Rule.Domain: { } domain } => (domain with { Port = port }).ToString(),
            { Rule.Domain: var domain } => domain?.ToString(),
        },
        each.Value.Rule.Target.ToString(),
        each.Value.IsOpen && !IsClosing,
        IsClosing ? "the client is shutting down, or its session is over" : each.Value.IsOpen ? null : each.Value.LastError ?? NotAnswered));

    protected override void OnDraining()
    {
        // The server keeps the ports until the session ends; new streams are refused from now on.
    }
}
