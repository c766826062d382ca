using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography.X509Certificates;
using Akka.Actor;
using Microsoft.Extensions.Logging;
using VTunnel.Bridge.Identity;
using VTunnel.Bridge.Publishing;
using VTunnel.Bridge.Wire;
using VTunnel.Carriers;
using VTunnel.Diagnostics;
using VTunnel.Extensions;
using VTunnel.Listeners;
using VTunnel.Options;
using VTunnel.Protocol.Bridge;
using VTunnel.Protocol.Errors;
using VTunnel.Sessions;
using VTunnel.Supervision;

namespace VTunnel.Bridge.Consuming;

/// <summary>A local port as it is now.</summary>
/// <param name="Port">The port on 127.0.0.1.</param>
/// <param name="Target">Where it leads, at the publisher.</param>
/// <param name="IsOpen">Whether visitors can connect to it.</param>
/// <param name="Problem">Why not; null if they can.</param>
public sealed record LocalPortState(int Port, string Target, bool IsOpen, string? Problem);

/// <summary>A consumer as it is now.</summary>
/// <param name="IsConnected">Whether the last end-to-end probe passed, and nothing has been lost since.</param>
/// <param name="Problem">Why not; null if it did.</param>
/// <param name="User">Who it is.</param>
/// <param name="Publisher">Whom it is connected with.</param>
/// <param name="Relay">Through which relay.</param>
/// <param name="ProbedAt">When the publisher last answered a probe; null if it never did.</param>
/// <param name="ProbeTook">How long that took, there and back.</param>
/// <param name="Ports">Local ports.</param>
/// <param name="Streams">Open streams.</param>
/// <param name="Waiting">Visitors that wait for a session.</param>
/// <param name="BytesIn">From the publisher to visitors.</param>
/// <param name="BytesOut">From visitors to the publisher.</param>
public sealed record ConsumerState(
    bool IsConnected,
    string? Problem,
    string User,
    string Publisher,
    string Relay,
    DateTimeOffset? ProbedAt,
    TimeSpan? ProbeTook,
    IReadOnlyList<LocalPortState> Ports,
    int Streams,
    int Waiting,
    long BytesIn,
    long BytesOut);

/// <summary>What a consumer's actor is told and answers.</summary>
internal static class ConsumerProtocol
{
    /// <summary>Open the ports and connect; answered with <see cref="Started"/> or <see cref="PortsInUse"/>.</summary>
    public sealed record Start
    {
        public static readonly Start Instance = new();
    }

    /// <summary>Every port is open.</summary>
    public sealed record Started(IReadOnlyList<LocalPortState> Ports);

    /// <summary>Ports cannot be opened; nothing stays open.</summary>
    public sealed record PortsInUse(IReadOnlyList<LocalPortState> Failed);

    /// <summary>Answered when there is no more to come: with <see cref="Ended"/>.</summary>
    public sealed record WaitForEnd
    {
        public static readonly WaitForEnd Instance = new();
    }

    /// <summary>It is over for good; null means that it was stopped.</summary>
    public sealed record Ended(string? NotAdmitted);

    /// <summary>Answered with <see cref="ConsumerState"/>, after a fresh probe if there is a session.</summary>
    public sealed record GetState(bool Probe);

    /// <summary>Answered with <see cref="ConsumerState"/> when a probe has passed, or something has failed.</summary>
    public sealed record WaitForProbe
    {
        public static readonly WaitForProbe Instance = new();
    }

    /// <summary>Could this target be reached? Answered with <see cref="Checked"/>.</summary>
    public sealed record Check(BridgeGrant Grant);

    /// <summary>Null is yes.</summary>
    public sealed record Checked(string? Problem);

    /// <summary>Let streams finish, end. Answered with <see cref="Ended"/>.</summary>
    public sealed record Stop
    {
        public static readonly Stop Instance = new();
    }
}

/// <summary>What a consumer is made of.</summary>
/// <param name="User">The user's name.</param>
/// <param name="UserCertificate">With its key.</param>
/// <param name="Publisher">The fingerprint to pin.</param>
/// <param name="PublisherName">For logs.</param>
/// <param name="Grants">As far as known before the publisher tells.</param>
/// <param name="PortOverrides">Local ports that are opened under another number.</param>
/// <param name="Dialer">Dials the relay.</param>
/// <param name="Options">How it behaves.</param>
/// <param name="SaveGrants">Keeps what the publisher tells; may block.</param>
/// <param name="Metrics">What counts.</param>
/// <param name="Clock">For the times of probes.</param>
/// <param name="Random">From 0 (included) to 1, for jitter.</param>
/// <param name="Logger">For log lines.</param>
internal sealed record ConsumerParts(
    string User,
    X509Certificate2 UserCertificate,
    string Publisher,
    string PublisherName,
    IReadOnlyList<BridgeGrant> Grants,
    IReadOnlyDictionary<int, int> PortOverrides,
    RelayDialer Dialer,
    BridgeSessionOptions Options,
    Action<IReadOnlyList<BridgeGrant>>? SaveGrants,
    TunnelMetrics Metrics,
    TimeProvider Clock,
    Func<double> Random,
    ILogger Logger)
{
    /// <summary>False to open no ports at all.</summary>
    public bool OpensPorts { get; init; } = true;
}

/// <summary>
/// The root of a consumer: keeps the local ports open, keeps a session with the publisher alive through whatever carriers can
/// be had, and hands visitors to it. While there is no session, visitors wait.
/// </summary>
internal sealed class ConsumerActor : UntypedActor, IWithTimers
{
    private static readonly TimeSpan PortRetry = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan StableAfter = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan ProbeTimeout = TimeSpan.FromSeconds(5);

    private readonly ConsumerParts _parts;
    private readonly TrafficMeter _traffic = new();
    private readonly TunnelExtensions _extensions;
    private readonly CancellationTokenSource _dialing = new();
    private readonly Dictionary<int, LocalPort> _ports = [];
    private readonly Queue<Visitor> _waiting = new();
    private readonly List<IActorRef> _endAskers = [];
    private readonly Dictionary<long, IActorRef> _checks = [];
    private readonly List<IActorRef> _stateAskers = [];
    private readonly string _prefix;
    private IActorRef? _startAsker;
    private IActorRef? _session;
    private SessionProtocol.SessionEnded? _lastEnd;
    private ConsumerProtocol.Ended? _ended;
    private string? _problem = "not connected yet";
    private DateTimeOffset? _probedAt;
    private TimeSpan? _probeTook;
    private long _probeStarted;
    private long _nextId = 1;
    private long _probeId;
    private long _nextSession = 1;
    private int _failures;
    private bool _isDialling;
    private bool _isProbed;
    private bool _isUp;
    private bool _isStopping;
    private bool _resumes;

    public ConsumerActor(ConsumerParts parts)
    {
        _parts = parts;
        _prefix = $"connect-{parts.Publisher[..8]}-";
        _extensions = new TunnelExtensions(null, [_traffic]);
    }

    public ITimerScheduler Timers { get; set; } = null!;

    private BridgeSessionOptions Options => _parts.Options;

    private ILogger Logger => _parts.Logger;

    public static Props Props(ConsumerParts parts) => Akka.Actor.Props.Create(() => new ConsumerActor(parts));

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

    private sealed record ProbeTick
    {
        public static readonly ProbeTick Instance = new();
    }

    private sealed record ProbeLate(long Id);

    private sealed record WaitingTick
    {
        public static readonly WaitingTick Instance = new();
    }

    private sealed record OpenAgain(int Port);

    private sealed record CheckLate(long Id);

    private sealed record Saved(string? Problem);

    protected override SupervisorStrategy SupervisorStrategy() => new OneForOneStrategy(e =>
    {
        Logger.ChildFailed(e, "the consumer");
        return Directive.Stop;
    });

    protected override void PreStart() => Context.ActorOf(OrphanActor.Props(), "orphans");

    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case ConsumerProtocol.Start:
                OnStart();
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
            case Dialled dialled:
                OnDialled(dialled);
                break;
            case DialFailed failed:
                _isDialling = false;
                if (!_isStopping)
                    Retry(failed.Cause.Message);
                break;
            case DialAgain:
                Dial();
                break;
            case Stable:
                _failures = 0;
                break;
            case SessionProtocol.CarrierAttached when Sender.Equals(_session):
                OnConnected();
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
            case ConsumerSessionProtocol.Heard heard when Sender.Equals(_session):
                OnHeard(heard.Message);
                break;
            case ProbeTick:
                Probe();
                break;
            case ProbeLate late when late.Id == _probeId:
                OnProbeLate();
                break;
            case WaitingTick:
                DropLateVisitors();
                break;
            case ConsumerProtocol.GetState ask:
                OnGetState(ask);
                break;
            case ConsumerProtocol.WaitForProbe:
                _stateAskers.Add(Sender);
                if (_isProbed || _failures > 0 || _ended is not null)
                    AnswerState();
                break;
            case ConsumerProtocol.Check check:
                OnCheck(check);
                break;
            case CheckLate late:
                if (_checks.Remove(late.Id, out var asker))
                    asker.Tell(new ConsumerProtocol.Checked("the publisher did not answer in time"));
                break;
            case ConsumerProtocol.WaitForEnd:
                if (_ended is { } over)
                    Sender.Tell(over);
                else
                    _endAskers.Add(Sender);
                break;
            case ConsumerProtocol.Stop:
                OnStop();
                break;
            case Saved saved:
                if (saved.Problem is not null)
                    Logger.BridgeStateUnreadable(saved.Problem);
                break;
            case SessionProtocol.SessionEnded or SessionProtocol.NeedsCarrier or SessionProtocol.CarrierAttached
                or ConsumerSessionProtocol.Heard or Terminated or ProbeLate:
                // From a session that has been replaced, or answered meanwhile.
                break;
            default:
                Unhandled(message);
                break;
        }
    }

    private void OnStart()
    {
        _startAsker = Sender;
        Timers.StartPeriodicTimer("waiting", WaitingTick.Instance, TimeSpan.FromSeconds(1));
        ApplyGrants(_parts.Grants);
        AnswerStart();
    }

    /// <summary>The numbers that the user wants win over those that the publisher proposes.</summary>
    private int LocalNumber(BridgeGrant grant) => _parts.PortOverrides.GetValueOrDefault(grant.Local, grant.Local);

    private void ApplyGrants(IReadOnlyList<BridgeGrant> grants)
    {
        var wanted = (_parts.OpensPorts ? grants : []).DistinctBy(LocalNumber).ToDictionary(LocalNumber);
        foreach (var (number, port) in _ports.Where(port => !wanted.ContainsKey(port.Key)).ToArray())
        {
            _ports.Remove(number);
            if (port.Listener is not null)
                Context.Stop(port.Listener);
            Timers.Cancel($"open-{number}");
            if (port.IsOpen)
                Logger.LocalPortClosed(number, $"{port.Grant.Target} is not granted any more");
        }

        foreach (var (number, grant) in wanted)
        {
            if (_ports.TryGetValue(number, out var known))
            {
                known.Grant = grant;
                continue;
            }

            var port = new LocalPort(number, grant);
            _ports.Add(number, port);
            Open(port);
        }
    }

    private void Open(LocalPort port)
    {
        port.Problem = null;

        // Unnamed: a port may be wanted again while its last listener is still stopping.
        port.Listener = Context.ActorOf(PortListenerActor.Props(IPAddress.Loopback, port.Number, TimeSpan.Zero, Logger));
    }

    private void OnListening(int number)
    {
        if (!_ports.TryGetValue(number, out var port) || !Sender.Equals(port.Listener))
        {
            Context.Stop(Sender);
            return;
        }

        port.IsOpen = true;
        Logger.LocalPortOpen(number, port.Grant.Target);
        AnswerStart();
    }

    private void OnListenFailed(ListenerProtocol.ListenFailed failed)
    {
        if (!_ports.TryGetValue(failed.Port, out var port) || !Sender.Equals(port.Listener))
            return;
        port.Listener = null;
        var holder = PortHolders.Find(failed.Port);
        port.Problem = failed.Reason.Contains("in use", StringComparison.Ordinal)
            ? $"port {failed.Port} is in use{(holder is null ? "" : $" by {holder}")}; open another one in its place: --map {FreeNeighbour(failed.Port)}:{port.Grant.Local}"
            : failed.Reason.Replace("the server", "this program", StringComparison.Ordinal);
        if (_startAsker is null)
        {
            Logger.LocalPortFailed(failed.Port, port.Grant.Target, port.Problem);
            Timers.StartSingleTimer($"open-{failed.Port}", new OpenAgain(failed.Port), PortRetry);
        }

        AnswerStart();
    }

    private static int FreeNeighbour(int port) => port + 10_000 <= 65_535 ? port + 10_000 : port - 10_000;

    /// <summary>At start all ports are opened or none.</summary>
    private void AnswerStart()
    {
        if (_startAsker is not { } asker || _ports.Values.Any(port => !port.IsOpen && port.Problem is null))
            return;
        _startAsker = null;
        var failed = _ports.Values.Where(port => !port.IsOpen).Select(port => port.State).OrderBy(port => port.Port).ToList();
        if (failed.Count > 0)
        {
            asker.Tell(new ConsumerProtocol.PortsInUse(failed));
            Finish(new ConsumerProtocol.Ended(null));
            return;
        }

        asker.Tell(new ConsumerProtocol.Started([.. _ports.Values.Select(port => port.State).OrderBy(port => port.Port)]));
        Dial();
    }

    private void OnVisitor(ListenerProtocol.VisitorAccepted visitor)
    {
        if (!_ports.TryGetValue(visitor.Port, out var port) || _isStopping)
        {
            visitor.Dispose();
            return;
        }

        if (_session is not null)
        {
            _session.Tell(new ConsumerSessionProtocol.OpenVisitor(port.Grant, visitor.Socket));
            return;
        }

        if (_waiting.Count >= Options.MaxWaitingVisitors)
        {
            Logger.VisitorTurnedAway(visitor.Port, $"{_waiting.Count} wait already, and there is no connection");
            visitor.Dispose();
            return;
        }

        _waiting.Enqueue(new Visitor(visitor.Port, visitor.Socket, _parts.Clock.GetTimestamp()));
    }

    private void ServeWaiting()
    {
        while (_waiting.TryDequeue(out var visitor))
        {
            if (_ports.TryGetValue(visitor.Port, out var port))
                _session!.Tell(new ConsumerSessionProtocol.OpenVisitor(port.Grant, visitor.Socket));
            else
                visitor.Socket.Dispose();
        }
    }

    private void DropLateVisitors()
    {
        while (_waiting.TryPeek(out var oldest) && _parts.Clock.GetElapsedTime(oldest.Arrived) > Options.VisitorTimeout)
        {
            _waiting.Dequeue().Socket.Dispose();
            Logger.VisitorTurnedAway(oldest.Port, $"there was no connection for {Options.VisitorTimeout.TotalSeconds:0} s");
        }
    }

    private void Dial()
    {
        if (_isStopping || _isDialling)
            return;
        _isDialling = true;
        _ = DialAsync(_parts, _dialing.Token).PipeTo(Self, success: carrier => new Dialled(carrier), failure: e => new DialFailed(e));
    }

    private static async Task<ICarrier> DialAsync(ConsumerParts parts, CancellationToken cancellationToken)
    {
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        deadline.CancelAfter(parts.Options.ConnectTimeout);
        var socket = await parts.Dialer.DialAsync(AdmissionKind.Consume, null, deadline.Token).ConfigureAwait(false);
        return await EndToEndTls.ConnectAsync(socket, parts.Dialer.Name, parts.UserCertificate, parts.Publisher, deadline.Token).ConfigureAwait(false);
    }

    private void OnDialled(Dialled dialled)
    {
        _isDialling = false;
        if (_isStopping)
        {
            dialled.Dispose();
            return;
        }

        if (_session is not null)
        {
            _resumes = true;
            _session.Tell(new SessionProtocol.AttachCarrier(dialled.Carrier, null));
            return;
        }

        var name = $"{_prefix}{_nextSession++}";
        _lastEnd = null;
        _resumes = false;
        var session = new SessionContext(
            name, SessionWires.ForConsumer(Options, dialled.Carrier), null, _extensions, _parts.Metrics.For(TunnelRole.Client), Logger);
        _session = Context.Watch(Context.ActorOf(ConsumerSessionActor.Props(session, Options, _traffic), name));
    }

    private void OnConnected()
    {
        _resumes = false;
        _isUp = true;
        Timers.StartSingleTimer("stable", Stable.Instance, StableAfter);
        Logger.ConsumerConnected(_parts.PublisherName, _parts.User, _parts.Dialer.Name);
        ServeWaiting();
        Timers.StartPeriodicTimer("probe", ProbeTick.Instance, TimeSpan.Zero, Options.ProbeInterval);
    }

    private void OnCarrierLost(string reason)
    {
        Lose(reason);
        if (!_isStopping)
            Retry(reason);
    }

    private void Lose(string reason)
    {
        _isUp = false;
        _isProbed = false;
        _problem = reason;
        _probeId = 0;
        Timers.Cancel("stable");
        Timers.Cancel("probe");
        Timers.Cancel("probe-late");
        AnswerState();
    }

    private void OnSessionEnded(SessionProtocol.SessionEnded ended)
    {
        _lastEnd = ended;
        if (_isStopping)
            return;

        // A slow visitor that still takes its last bytes must not hold up the next session.
        Context.Unwatch(_session);
        OnSessionGone();
    }

    private void OnSessionGone()
    {
        var reason = _lastEnd?.Reason ?? "the session failed";
        Lose(reason);
        _session = null;
        if (_isStopping)
        {
            Finish(new ConsumerProtocol.Ended(null));
            return;
        }

        if (_lastEnd?.Cause is SessionProtocolException { Code: SessionError.NotAdmitted })
        {
            Logger.ConsumerNotAdmitted(_parts.PublisherName, _parts.User, reason);
            Finish(new ConsumerProtocol.Ended(reason));
            return;
        }

        if (_isDialling || Timers.IsTimerActive("dial"))
            return;
        if (_resumes)
        {
            // The publisher answers, but has started anew: nothing to wait for.
            _resumes = false;
            Dial();
            return;
        }

        Retry(reason);
    }

    private void Retry(string reason)
    {
        _problem = reason;
        var delay = Options.ReconnectDelay(_failures++, _parts.Random());
        Logger.ConsumerRetry(_parts.PublisherName, reason, delay);
        Timers.StartSingleTimer("dial", DialAgain.Instance, delay);
        AnswerState();
    }

    private void OnHeard(BridgeMessage message)
    {
        switch (message)
        {
            case BridgeGrants grants:
                ApplyGrants(grants.Grants);
                Save(grants.Grants);
                break;
            case BridgeNotice notice:
                Logger.PublisherSays(_parts.PublisherName, Printable(notice.Text));
                break;
            case BridgeProbe probe:
                _session!.Tell(new ConsumerSessionProtocol.Ask(new BridgeProbeAnswer(probe.Id)));
                break;
            case BridgeProbeAnswer answer when answer.Id == _probeId:
                OnProbed();
                break;
            case BridgeCheckResult result when _checks.Remove(result.Id, out var asker):
                Timers.Cancel($"check-{result.Id}");
                asker.Tell(new ConsumerProtocol.Checked(result.Error));
                break;
        }
    }

    private static string Printable(string text) => string.Concat(text.Take(500).Select(c => char.IsControl(c) ? '?' : c));

    private void Save(IReadOnlyList<BridgeGrant> grants)
    {
        if (_parts.SaveGrants is not { } save)
            return;
        _ = Task.Run(() =>
        {
            try
            {
                save(grants);
                return new Saved(null);
            }
            catch (BridgeException e)
            {
                return new Saved(e.Message);
            }
        }).PipeTo(Self);
    }

    private void Probe()
    {
        if (!_isUp || _probeId != 0)
            return;
        _probeId = _nextId++;
        _probeStarted = _parts.Clock.GetTimestamp();
        _session!.Tell(new ConsumerSessionProtocol.Ask(new BridgeProbe(_probeId)));
        Timers.StartSingleTimer("probe-late", new ProbeLate(_probeId), ProbeTimeout);
    }

    private void OnProbed()
    {
        Timers.Cancel("probe-late");
        _probeId = 0;
        _isProbed = true;
        _problem = null;
        _probedAt = _parts.Clock.GetUtcNow();
        _probeTook = _parts.Clock.GetElapsedTime(_probeStarted);
        AnswerState();
    }

    private void OnProbeLate()
    {
        _probeId = 0;
        _isProbed = false;
        _problem = $"the publisher did not answer a probe within {ProbeTimeout.TotalSeconds:0} s";
        AnswerState();
    }

    private void OnGetState(ConsumerProtocol.GetState ask)
    {
        _stateAskers.Add(Sender);
        if (ask.Probe && _isUp)
            Probe();
        else
            AnswerState();
    }

    private void AnswerState()
    {
        if (_stateAskers.Count == 0)
            return;
        var state = new ConsumerState(
            _isProbed,
            _isProbed ? null : _problem ?? "no probe has passed yet",
            _parts.User,
            _parts.PublisherName,
            _parts.Dialer.Name,
            _probedAt,
            _probeTook,
            [.. _ports.Values.Select(port => port.State).OrderBy(port => port.Port)],
            0,
            _waiting.Count,
            0,
            0);
        foreach (var asker in _stateAskers)
        {
            if (_session is null)
                asker.Tell(state);
            else
                _ = CompleteAsync(_session, state).PipeTo(asker);
        }

        _stateAskers.Clear();
    }

    private static async Task<ConsumerState> CompleteAsync(IActorRef session, ConsumerState state)
    {
        try
        {
            var now = await session.Ask<ConsumerSessionProtocol.SessionState>(ConsumerSessionProtocol.GetState.Instance, TimeSpan.FromSeconds(2)).ConfigureAwait(false);
            return state with { Streams = now.Streams, BytesIn = now.BytesIn, BytesOut = now.BytesOut };
        }
        catch (AskTimeoutException)
        {
            // It has just ended; the rest is as it was a moment ago.
            return state;
        }
    }

    private void OnCheck(ConsumerProtocol.Check check)
    {
        if (!_isUp)
        {
            Sender.Tell(new ConsumerProtocol.Checked($"there is no session: {_problem}"));
            return;
        }

        var id = _nextId++;
        _checks.Add(id, Sender);
        Timers.StartSingleTimer($"check-{id}", new CheckLate(id), Options.TargetConnectTimeout + ProbeTimeout);
        _session!.Tell(new ConsumerSessionProtocol.Ask(new BridgeCheck(id, check.Grant.Host, check.Grant.Port)));
    }

    private void OnStop()
    {
        if (_ended is { } over)
        {
            Sender.Tell(over);
            return;
        }

        _endAskers.Add(Sender);
        if (_isStopping)
            return;
        _isStopping = true;
        _dialing.Cancel();
        Timers.Cancel("dial");
        ClosePorts();
        if (_session is null)
            Finish(new ConsumerProtocol.Ended(null));
        else
            _session.Tell(new SessionProtocol.Drain(Options.DrainTimeout));
    }

    private void Finish(ConsumerProtocol.Ended ended)
    {
        _ended = ended;
        _isStopping = true;
        AnswerState();
        _dialing.Cancel();
        Timers.CancelAll();
        ClosePorts();
        foreach (var asker in _endAskers)
            asker.Tell(ended);
        _endAskers.Clear();
        foreach (var asker in _checks.Values)
            asker.Tell(new ConsumerProtocol.Checked("the session has ended"));
        _checks.Clear();
    }

    private void ClosePorts()
    {
        foreach (var port in _ports.Values.Where(port => port.Listener is not null))
        {
            Context.Stop(port.Listener);
            port.IsOpen = false;
        }

        while (_waiting.TryDequeue(out var visitor))
            visitor.Socket.Dispose();
    }

    protected override void PostStop()
    {
        _dialing.Cancel();
        _dialing.Dispose();
        ClosePorts();
    }
}
