using System.Net;
using System.Net.Sockets;
using Akka.Actor;
using Microsoft.Extensions.Logging;
using VTunnel.Diagnostics;
using VTunnel.Listeners;
using VTunnel.Options;
using VTunnel.Protocol.Bridge;

namespace VTunnel.Bridge.Consuming;

/// <summary>A local port as it is now.</summary>
/// <param name="Port">The port on 127.0.0.1.</param>
/// <param name="Target">Where it leads, at the publisher.</param>
/// <param name="IsOpen">Whether visitors can connect to it.</param>
/// <param name="Problem">Why not; null if they can.</param>
public sealed record LocalPortState(int Port, string Target, bool IsOpen, string? Problem);

/// <summary>What the actor of a consumer's local ports is told and says.</summary>
internal static class LocalPortsProtocol
{
    /// <summary>From now on open a port for each of these, and no others. The parent is told <see cref="Applied"/>.</summary>
    public sealed record Apply(IReadOnlyList<BridgeGrant> Grants);

    /// <summary>To the parent: ports that are not granted any more are being closed, and new ones opened.</summary>
    public sealed record Applied
    {
        public static readonly Applied Instance = new();
    }

    /// <summary>To the parent, once: of the first grants, every port is open or could not be opened.</summary>
    public sealed record Settled(IReadOnlyList<LocalPortState> Ports);

    /// <summary>From now on hand visitors to this session; null has them wait for the next.</summary>
    public sealed record Serve(IActorRef? Session);

    /// <summary>Close everything; who waits is turned away.</summary>
    public sealed record Close
    {
        public static readonly Close Instance = new();
    }

    /// <summary>Answered with <see cref="State"/>.</summary>
    public sealed record GetState
    {
        public static readonly GetState Instance = new();
    }

    /// <summary>The ports, and how many visitors wait.</summary>
    public sealed record State(IReadOnlyList<LocalPortState> Ports, int Waiting);
}

/// <summary>
/// The local ports of a consumer. They stay open whatever happens to the session; while there is none, visitors wait, so many
/// and for so long as the options say.
/// </summary>
internal sealed class LocalPortsActor : UntypedActor, IWithTimers
{
    private static readonly TimeSpan PortRetry = TimeSpan.FromSeconds(10);

    private readonly BridgeSessionOptions _options;
    private readonly IReadOnlyDictionary<int, int> _overrides;
    private readonly TimeProvider _clock;
    private readonly ILogger _logger;
    private readonly Dictionary<int, LocalPort> _ports = [];
    private readonly Queue<Visitor> _waiting = new();

    /// <summary>Grants whose local port leads to another one.</summary>
    private IReadOnlyList<LocalPortState> _crowdedOut = [];
    private readonly HashSet<int> _idleOverrides = [];
    private IActorRef? _session;
    private bool _isSettled;
    private bool _isClosed;

    public LocalPortsActor(BridgeSessionOptions options, IReadOnlyDictionary<int, int> overrides, TimeProvider clock, ILogger logger)
    {
        _options = options;
        _overrides = overrides;
        _clock = clock;
        _logger = logger;
    }

    public ITimerScheduler Timers { get; set; } = null!;

    /// <param name="options">How many may wait, and for how long.</param>
    /// <param name="overrides">Ports that are opened under another number.</param>
    /// <param name="clock">For the waiting.</param>
    /// <param name="logger">For log lines.</param>
    public static Props Props(BridgeSessionOptions options, IReadOnlyDictionary<int, int> overrides, TimeProvider clock, ILogger logger) =>
        Akka.Actor.Props.Create(() => new LocalPortsActor(options, overrides, clock, logger));

    private sealed class LocalPort(int number, BridgeGrant grant)
    {
        public int Number { get; } = number;
        public BridgeGrant Grant { get; set; } = grant;
        public IActorRef? Listener { get; set; }
        public bool IsOpen { get; set; }
        public string? Problem { get; set; }

        public LocalPortState State => new(Number, Grant.Target, IsOpen, Problem);
    }

    private sealed record Visitor(int Port, Socket Socket, long Arrived);

    private sealed record OpenAgain(int Port);

    private sealed record VisitorLate
    {
        public static readonly VisitorLate Instance = new();
    }

    protected override SupervisorStrategy SupervisorStrategy() => new OneForOneStrategy(e =>
    {
        _logger.ChildFailed(e, "the local ports");
        return Directive.Stop;
    });

    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case LocalPortsProtocol.Apply apply:
                OnApply(apply.Grants);
                Context.Parent.Tell(LocalPortsProtocol.Applied.Instance);
                break;
            case ListenerProtocol.Listening listening:
                OnListening(listening.Port);
                break;
            case ListenerProtocol.ListenFailed failed:
                OnListenFailed(failed);
                break;
            case ListenerProtocol.VisitorAccepted visitor:
                OnVisitor(visitor);
                break;
            case OpenAgain again:
                if (_ports.TryGetValue(again.Port, out var closed) && closed.Listener is null)
                    Open(closed);
                break;
            case LocalPortsProtocol.Serve serve:
                OnServe(serve.Session);
                break;
            case VisitorLate:
                DropLateVisitors();
                break;
            case LocalPortsProtocol.GetState:
                Sender.Tell(new LocalPortsProtocol.State(States(), _waiting.Count));
                break;
            case LocalPortsProtocol.Close:
                Close();
                break;
            default:
                Unhandled(message);
                break;
        }
    }

    private LocalPortState[] States() => [.. _ports.Values.Select(port => port.State).Concat(_crowdedOut).OrderBy(port => port.Port)];

    /// <summary>The numbers that the user wants win over those that the publisher proposes.</summary>
    private int LocalNumber(BridgeGrant grant) => _overrides.GetValueOrDefault(grant.Local, grant.Local);

    private void OnApply(IReadOnlyList<BridgeGrant> grants)
    {
        if (_isClosed)
            return;
        WarnOfIdleOverrides(grants);
        var wanted = Share(grants);
        foreach (var (number, port) in _ports.Where(port => !wanted.ContainsKey(port.Key)).ToArray())
        {
            _ports.Remove(number);
            if (port.Listener is not null)
                Context.Stop(port.Listener);
            Timers.Cancel($"open-{number}");
            if (port.IsOpen)
                _logger.LocalPortClosed(number, $"{port.Grant.Target} is not granted any more");
        }

        foreach (var (number, grant) in wanted)
        {
            if (_ports.TryGetValue(number, out var known))
            {
                PassOn(known, grant);
                continue;
            }

            var port = new LocalPort(number, grant);
            _ports.Add(number, port);
            Open(port);
        }

        Settle();
    }

    /// <summary>Once for each: a number that no grant has may be a slip, or that of a grant to come.</summary>
    private void WarnOfIdleOverrides(IReadOnlyList<BridgeGrant> grants)
    {
        foreach (var (original, number) in _overrides)
        {
            if (grants.Any(grant => grant.Local == original))
                _idleOverrides.Remove(original);
            else if (_idleOverrides.Add(original))
                _logger.MapUnused(number, original, grants.Count == 0 ? "nothing" : string.Join(", ", grants));
        }
    }

    /// <summary>Which grant gets which port. Of two for the same one that wins which the user has mapped; the other one is told of, not dropped.</summary>
    private Dictionary<int, BridgeGrant> Share(IReadOnlyList<BridgeGrant> grants)
    {
        var wanted = new Dictionary<int, BridgeGrant>();
        var losers = grants.Distinct().OrderBy(grant => _overrides.ContainsKey(grant.Local) ? 0 : 1).Where(grant => !wanted.TryAdd(LocalNumber(grant), grant)).ToList();
        var crowdedOut = losers.ConvertAll(grant =>
        {
            var number = LocalNumber(grant);
            return new LocalPortState(number, grant.Target, false, Clash(number, wanted[number], grant, wanted.ContainsKey));
        });
        if (_isSettled)
        {
            foreach (var lost in crowdedOut.Except(_crowdedOut))
                _logger.LocalPortFailed(lost.Port, lost.Target, lost.Problem!);
        }

        _crowdedOut = crowdedOut;
        return wanted;
    }

    private static string Clash(int number, BridgeGrant winner, BridgeGrant loser, Func<int, bool> isWanted)
    {
        var by = winner.Local == number ? "" : $", by --map {number}:{winner.Local}";
        var remedy = winner.Local == loser.Local
            ? "the publisher has to grant one of them with another local port"
            : $"open another one for that: --map {FreeNeighbour(number, isWanted)}:{loser.Local}";
        return $"local port {number} leads to {winner.Target}{by}, and not to {loser.Target}; {remedy}";
    }

    private void PassOn(LocalPort port, BridgeGrant grant)
    {
        var isAnother = port.Grant.Local != grant.Local;
        port.Grant = grant;
        if (!isAnother)
            return;

        // Who waits came for what the port has led to until now.
        for (var left = _waiting.Count; left > 0; left--)
        {
            var visitor = _waiting.Dequeue();
            if (visitor.Port == port.Number)
                visitor.Socket.Dispose();
            else
                _waiting.Enqueue(visitor);
        }

        if (port.IsOpen)
            _logger.LocalPortOpen(port.Number, grant.Target);
    }

    private void Open(LocalPort port)
    {
        port.Problem = null;

        // Unnamed: a port may be wanted again while its last listener is still stopping.
        port.Listener = Context.ActorOf(PortListenerActor.Props(IPAddress.Loopback, port.Number, TimeSpan.Zero, _logger));
    }

    private void OnListening(int number)
    {
        if (!_ports.TryGetValue(number, out var port) || !Sender.Equals(port.Listener))
        {
            Context.Stop(Sender);
            return;
        }

        port.IsOpen = true;
        _logger.LocalPortOpen(number, port.Grant.Target);
        Settle();
    }

    private void OnListenFailed(ListenerProtocol.ListenFailed failed)
    {
        if (!_ports.TryGetValue(failed.Port, out var port) || !Sender.Equals(port.Listener))
            return;
        port.Listener = null;
        var holder = PortHolders.Find(failed.Port);
        port.Problem = failed.Reason.Contains("in use", StringComparison.Ordinal)
            ? $"port {failed.Port} is in use{(holder is null ? "" : $" by {holder}")}; open another one in its place: --map {FreeNeighbour(failed.Port, _ports.ContainsKey)}:{port.Grant.Local}"
            : failed.Reason.Replace("the server", "this program", StringComparison.Ordinal);
        if (_isSettled)
        {
            _logger.LocalPortFailed(failed.Port, port.Grant.Target, port.Problem);
            Timers.StartSingleTimer($"open-{failed.Port}", new OpenAgain(failed.Port), PortRetry);
        }

        Settle();
    }

    /// <summary>A port to suggest: one that looks like this one and that no grant wants, if there is one.</summary>
    private static int FreeNeighbour(int port, Func<int, bool> isWanted)
    {
        var neighbours = Enumerable.Range(1, 5).SelectMany(step => new[] { port + (step * 10_000), port - (step * 10_000) }).Where(each => each is >= 1024 and <= 65_535).ToList();
        return neighbours.Find(each => !isWanted(each)) is var free and not 0 ? free : neighbours[0];
    }

    private void Settle()
    {
        if (_isSettled || _ports.Values.Any(port => !port.IsOpen && port.Problem is null))
            return;
        _isSettled = true;
        Context.Parent.Tell(new LocalPortsProtocol.Settled(States()));
    }

    private void OnVisitor(ListenerProtocol.VisitorAccepted visitor)
    {
        if (_isClosed || !_ports.TryGetValue(visitor.Port, out var port))
        {
            visitor.Dispose();
            return;
        }

        if (_session is not null)
        {
            _session.Tell(new ConsumerSessionProtocol.OpenVisitor(port.Grant, visitor.Socket));
            return;
        }

        if (_waiting.Count >= _options.MaxWaitingVisitors)
        {
            _logger.VisitorTurnedAway(visitor.Port, $"{_waiting.Count} wait already, and there is no connection");
            visitor.Dispose();
            return;
        }

        _waiting.Enqueue(new Visitor(visitor.Port, visitor.Socket, _clock.GetTimestamp()));
        if (_waiting.Count == 1)
            Timers.StartSingleTimer("late", VisitorLate.Instance, _options.VisitorTimeout);
    }

    private void OnServe(IActorRef? session)
    {
        _session = session;
        if (session is null)
            return;
        Timers.Cancel("late");
        while (_waiting.TryDequeue(out var visitor))
        {
            if (_ports.TryGetValue(visitor.Port, out var port))
                session.Tell(new ConsumerSessionProtocol.OpenVisitor(port.Grant, visitor.Socket));
            else
                visitor.Socket.Dispose();
        }
    }

    private void DropLateVisitors()
    {
        while (_waiting.TryPeek(out var oldest))
        {
            var left = _options.VisitorTimeout - _clock.GetElapsedTime(oldest.Arrived);
            if (left > TimeSpan.Zero)
            {
                Timers.StartSingleTimer("late", VisitorLate.Instance, left);
                return;
            }

            _waiting.Dequeue().Socket.Dispose();
            _logger.VisitorTurnedAway(oldest.Port, $"there was no connection for {_options.VisitorTimeout.TotalSeconds:0} s");
        }
    }

    private void Close()
    {
        _isClosed = true;
        Timers.CancelAll();
        foreach (var port in _ports.Values)
        {
            if (port.Listener is not null)
                Context.Stop(port.Listener);
            (port.Listener, port.IsOpen) = (null, false);
        }

        while (_waiting.TryDequeue(out var visitor))
            visitor.Socket.Dispose();
    }

    protected override void PostStop() => Close();
}
