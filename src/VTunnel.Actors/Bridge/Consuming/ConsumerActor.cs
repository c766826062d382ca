using Akka.Actor;
using Microsoft.Extensions.Logging;
using VTunnel.Bridge.Identity;
using VTunnel.Bridge.Publishing;
using VTunnel.Bridge.Wire;
using VTunnel.Carriers;
using VTunnel.Diagnostics;
using VTunnel.Extensions;
using VTunnel.Options;
using VTunnel.Protocol.Bridge;
using VTunnel.Protocol.Errors;
using VTunnel.Sessions;
using VTunnel.Supervision;

namespace VTunnel.Bridge.Consuming;

/// <summary>
/// The root of a consumer: keeps a session with the publisher alive through whatever connections can be had, has the local ports
/// lead to it, and knows by probes whether the publisher is there.
/// </summary>
internal sealed class ConsumerActor : ReconnectingActor
{
    private static readonly TimeSpan ProbeTimeout = TimeSpan.FromSeconds(5);

    /// <summary>What a publisher may have logged here from one probe to the next.</summary>
    private const int MaxNotices = 20;

    private readonly ConsumerParts _parts;
    private readonly Conflated<IReadOnlyList<BridgeGrant>> _applied;
    private readonly Conflated<IReadOnlyList<BridgeGrant>> _saved;
    private readonly TrafficMeter _traffic = new();
    private readonly TunnelExtensions _extensions;
    private readonly List<IActorRef> _endAskers = [];
    private readonly Dictionary<long, IActorRef> _checks = [];
    private readonly List<IActorRef> _stateAskers = [];
    private IActorRef _ports = ActorRefs.Nobody;
    private IActorRef _startAsker = ActorRefs.Nobody;
    private ConsumerProtocol.Ended? _ended;
    private string? _problem = "not connected yet";
    private DateTimeOffset? _probedAt;
    private TimeSpan? _probeTook;
    private long _probeStarted;
    private long _nextId = 1;
    private long _probeId;
    private bool _isProbed;
    private int _notices;
    private bool _isUp;

    public ConsumerActor(ConsumerParts parts)
    {
        _parts = parts;
        SessionPrefix = $"connect-{parts.Publisher[..8]}-";
        _extensions = new TunnelExtensions(null, [_traffic]);
        _applied = new Conflated<IReadOnlyList<BridgeGrant>>(grants => _ports.Tell(new LocalPortsProtocol.Apply(grants)));
        _saved = new Conflated<IReadOnlyList<BridgeGrant>>(Save);
    }

    private protected override ILogger Logger => _parts.Logger;

    private protected override string Role => "the consumer";

    private protected override string SessionPrefix { get; }

    private protected override TimeSpan StableAfter => TimeSpan.FromSeconds(10);

    private BridgeSessionOptions Options => _parts.Options;

    public static Props Props(ConsumerParts parts) => Akka.Actor.Props.Create(() => new ConsumerActor(parts));

    private sealed record ProbeTick
    {
        public static readonly ProbeTick Instance = new();
    }

    private sealed record ProbeLate(long Id);

    private sealed record CheckLate(long Id);

    private sealed record Saved(string? Problem);

    protected override void PreStart()
    {
        base.PreStart();
        _ports = Context.ActorOf(LocalPortsActor.Props(Options, _parts.PortOverrides, _parts.Clock, Logger), "ports");
    }

    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case ConsumerProtocol.Start:
                _startAsker = Sender;
                _applied.Offer(_parts.OpensPorts ? _parts.Grants : []);
                break;
            case LocalPortsProtocol.Applied:
                _applied.Done();
                break;
            case LocalPortsProtocol.Settled settled:
                OnSettled(settled.Ports);
                break;
            case ConsumerSessionProtocol.Heard heard when Sender.Equals(Session):
                OnHeard(heard.Message);
                break;
            case ProbeTick:
                _notices = 0;
                Probe();
                break;
            case ProbeLate late when late.Id == _probeId:
                OnProbeLate();
                break;
            case ConsumerProtocol.GetState ask:
                OnGetState(ask);
                break;
            case ConsumerProtocol.WaitForProbe:
                _stateAskers.Add(Sender);
                if (_isProbed || HasFailed || _ended is not null)
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
                _saved.Done();
                break;
            case ConsumerSessionProtocol.Heard or ProbeLate:
                // From a session that has been replaced, or answered meanwhile.
                break;
            default:
                base.OnReceive(message);
                break;
        }
    }

    /// <summary>At start all ports are opened or none.</summary>
    private void OnSettled(IReadOnlyList<LocalPortState> ports)
    {
        var failed = ports.Where(port => !port.IsOpen).ToList();
        if (failed.Count > 0)
        {
            _startAsker.Tell(new ConsumerProtocol.PortsInUse(failed));
            Finish(new ConsumerProtocol.Ended(null));
            return;
        }

        _startAsker.Tell(new ConsumerProtocol.Started(ports));
        Dial();
    }

    private protected override async Task<ICarrier> ConnectAsync(CancellationToken cancellationToken)
    {
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        deadline.CancelAfter(Options.ConnectTimeout);
        var socket = await _parts.Dialer.DialAsync(AdmissionKind.Consume, null, deadline.Token).ConfigureAwait(false);
        return await EndToEndTls.ConnectAsync(socket, _parts.Dialer.Name, _parts.UserCertificate, _parts.Publisher, deadline.Token).ConfigureAwait(false);
    }

    private protected override Props CreateSession(string name, ICarrier carrier)
    {
        var session = new SessionContext(
            name, SessionWires.ForConsumer(Options, carrier), null, _extensions, _parts.Metrics.For(TunnelRole.Client), Logger);
        return ConsumerSessionActor.Props(session, Options, _traffic);
    }

    private protected override TimeSpan RetryDelay(int failures) => Options.ReconnectDelay(failures, _parts.Random());

    private protected override void OnUp(string protocol)
    {
        _isUp = true;
        Logger.ConsumerConnected(_parts.PublisherName, _parts.User, _parts.Dialer.Name);
        _ports.Tell(new LocalPortsProtocol.Serve(Session));
        Timers.StartPeriodicTimer("probe", ProbeTick.Instance, TimeSpan.Zero, Options.ProbeInterval);
    }

    private protected override void OnDown(string reason)
    {
        _isUp = false;
        _isProbed = false;
        _problem = reason;
        _probeId = 0;
        Timers.Cancel("probe");
        Timers.Cancel("probe-late");

        // While the session waits for another connection it takes visitors all the same.
        if (Session is null)
            _ports.Tell(new LocalPortsProtocol.Serve(null));
        AnswerState();
    }

    private protected override bool IsFinal(Exception? cause)
    {
        if (cause is not SessionProtocolException { Code: SessionError.NotAdmitted })
            return false;
        Logger.ConsumerNotAdmitted(_parts.PublisherName, _parts.User, cause.Message);
        Finish(new ConsumerProtocol.Ended(cause.Message));
        return true;
    }

    private protected override void OnRetry(TunnelConnectException cause, TimeSpan delay)
    {
        _problem = cause.Message;
        Logger.ConsumerRetry(_parts.PublisherName, cause.Message, delay);
        AnswerState();
    }

    private protected override void OnStopped() => Finish(new ConsumerProtocol.Ended(null));

    private void OnHeard(BridgeMessage message)
    {
        switch (message)
        {
            case BridgeGrants grants:
                if (_parts.OpensPorts)
                    _applied.Offer(grants.Grants);
                if (_parts.SaveGrants is not null)
                    _saved.Offer(grants.Grants);
                break;
            case BridgeNotice notice:
                OnNotice(notice.Text);
                break;
            case BridgeProbe probe:
                Session!.Tell(new ConsumerSessionProtocol.Ask(new BridgeProbeAnswer(probe.Id)));
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

    private void OnNotice(string text)
    {
        if (++_notices <= MaxNotices)
            Logger.PublisherSays(_parts.PublisherName, Printable(text) + (_notices == MaxNotices ? " (what it says until the next probe is not logged)" : ""));
    }

    private void Save(IReadOnlyList<BridgeGrant> grants)
    {
        var save = _parts.SaveGrants!;
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
        }).PipeTo(Self, failure: e => new Saved(e.Message));
    }

    private void Probe()
    {
        if (!_isUp || _probeId != 0)
            return;
        _probeId = _nextId++;
        _probeStarted = _parts.Clock.GetTimestamp();
        Session!.Tell(new ConsumerSessionProtocol.Ask(new BridgeProbe(_probeId)));
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
            [],
            0,
            0,
            0,
            0);
        foreach (var asker in _stateAskers)
            _ = CompleteAsync(_ports, Session, state).PipeTo(asker);
        _stateAskers.Clear();
    }

    private static async Task<ConsumerState> CompleteAsync(IActorRef ports, IActorRef? session, ConsumerState state)
    {
        var local = await ports.Ask<LocalPortsProtocol.State>(LocalPortsProtocol.GetState.Instance, TimeSpan.FromSeconds(2)).ConfigureAwait(false);
        state = state with { Ports = local.Ports, Waiting = local.Waiting };
        if (session is null)
            return state;
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
        Session!.Tell(new ConsumerSessionProtocol.Ask(new BridgeCheck(id, check.Grant.Host, check.Grant.Port)));
    }

    private void OnStop()
    {
        if (_ended is { } over)
        {
            Sender.Tell(over);
            return;
        }

        _endAskers.Add(Sender);
        if (IsStopping)
            return;
        _ports.Tell(LocalPortsProtocol.Close.Instance);
        Stop(Options.DrainTimeout);
    }

    private void Finish(ConsumerProtocol.Ended ended)
    {
        _ended = ended;
        StopDialling();
        Timers.CancelAll();
        _ports.Tell(LocalPortsProtocol.Close.Instance);
        AnswerState();
        foreach (var asker in _endAskers)
            asker.Tell(ended);
        _endAskers.Clear();
        foreach (var asker in _checks.Values)
            asker.Tell(new ConsumerProtocol.Checked("the session has ended"));
        _checks.Clear();
    }
}
