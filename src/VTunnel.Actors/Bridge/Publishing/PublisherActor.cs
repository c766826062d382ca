using Akka.Actor;
using Microsoft.Extensions.Logging;
using VTunnel.Bridge.Identity;
using VTunnel.Bridge.State;
using VTunnel.Bridge.Wire;
using VTunnel.Carriers;
using VTunnel.Diagnostics;
using VTunnel.Extensions;
using VTunnel.Options;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Link;
using VTunnel.Sessions;
using VTunnel.Supervision;
using VTunnel.Targets;

namespace VTunnel.Bridge.Publishing;

/// <summary>
/// The root of a publisher: answers the consumers that the relay announces, and supervises a session per consumer. It watches its
/// own state for changes by other processes, and applies them to live sessions at once.
/// </summary>
internal sealed class PublisherActor : UntypedActor, IWithTimers
{
    private readonly PublisherParts _parts;
    private readonly string _prefix;
    private readonly TrafficMeter _traffic = new();
    private readonly TunnelExtensions _extensions;
    private readonly CancellationTokenSource _stopping = new();
    private readonly Dictionary<string, BridgeUser> _usersByKey = [];
    private readonly Dictionary<IActorRef, Session> _sessions = [];
    private readonly Dictionary<string, StreamPlaces> _placesByKey = [];
    private readonly ReplacedSessions _replaced = new();
    private readonly List<IActorRef> _stopAskers = [];
    private readonly List<Arrived> _undecided = [];
    private readonly Dictionary<string, int> _handshakesByUser = [];
    private IActorRef _audit = ActorRefs.Nobody;
    private long? _dataVersion;
    private string? _relayProblem = "not connected yet";
    private IActorRef _control = ActorRefs.Nobody;
    private long _nextSession = 1;
    private int _handshakes;
    private bool _isReading;
    private bool _isStopping;
    private bool _isStopped;
    private bool _isAuditClosed;

    public PublisherActor(PublisherParts parts)
    {
        _parts = parts;
        _prefix = $"serve-{parts.Identity.Fingerprint[..8]}-";
        _extensions = new TunnelExtensions(null, [_traffic]);
    }

    public ITimerScheduler Timers { get; set; } = null!;

    private ILogger Logger => _parts.Logger;

    private BridgeSessionOptions Options => _parts.Options;

    public static Props Props(PublisherParts parts) => Akka.Actor.Props.Create(() => new PublisherActor(parts));

    /// <summary>The user's name is kept: when the session ends, the user may have been deleted.</summary>
    private sealed record Session(string Name, string User, string UserKey, LinkId Link)
    {
        public string? ExpelledBecause { get; set; }

        /// <summary>Ended by a newer one of its user.</summary>
        public bool IsReplaced { get; set; }

        public bool IsLoggedOut { get; set; }
    }

    private sealed record Refresh
    {
        public static readonly Refresh Instance = new();
    }

    private sealed record DirectoryRead(long Version, IReadOnlyList<BridgeUser> Users);

    private sealed record DirectoryUnchanged
    {
        public static readonly DirectoryUnchanged Instance = new();
    }

    private sealed record DirectoryFailed(string Reason);

    private sealed record Arrived(ICarrier Carrier, LinkHello Hello, string UserKey, ControlProtocol.Incoming Incoming) : IDisposable
    {
        public string Remote => Incoming.Remote;

        public void Dispose()
        {
            Carrier.Abort();

            // An aborted carrier has nothing to wait for.
            _ = Carrier.DisposeAsync().AsTask();
        }
    }

    private sealed record NotArrived(ControlProtocol.Incoming Incoming, string Reason);

    private sealed record HungUp(ControlProtocol.Incoming Incoming);

    protected override SupervisorStrategy SupervisorStrategy() => new OneForOneStrategy(e =>
    {
        Logger.ChildFailed(e, "the publisher");

        // A session does not come back by itself; what the publisher cannot be without does.
        return Sender.Equals(_control) || Sender.Equals(_audit) ? Directive.Restart : Directive.Stop;
    });

    protected override void PreStart()
    {
        Context.ActorOf(OrphanActor.Props(), "orphans");
        _audit = Context.ActorOf(AuditActor.Props(_parts.Store, _prefix, _parts.Clock, Logger), "audit");
        Audit(new AuditRecord(Now, "started", null, Detail: $"the sessions of this publisher are counted from 1; the relay is {_parts.Dialer.Name}"));
        ReadDirectory();
        Timers.StartPeriodicTimer("refresh", Refresh.Instance, Options.RefreshInterval);
    }

    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case ControlProtocol.Up:
                if (!_isStopping)
                    _relayProblem = null;
                break;
            case ControlProtocol.Down down:
                if (!_isStopping)
                    _relayProblem = down.Reason;
                break;
            case ControlProtocol.Incoming incoming:
                OnIncoming(incoming);
                break;
            case Arrived arrived:
                EndHandshake(arrived.Incoming);
                OnArrived(arrived, isFinal: false);
                break;
            case NotArrived failed:
                EndHandshake(failed.Incoming);
                Logger.ConsumerRejected(failed.Incoming.Remote, failed.Reason);
                Audit(new AuditRecord(Now, "refused", null, Detail: $"{failed.Incoming.Remote}: {failed.Reason}"));
                break;
            case HungUp gone:
                EndHandshake(gone.Incoming);
                Logger.ConsumerHungUp(gone.Incoming.Remote);
                break;
            case Refresh:
                ReadDirectory();
                ApplyExpiry();
                break;
            case DirectoryRead read:
                OnDirectory(read);
                DecideUndecided();
                break;
            case DirectoryUnchanged:
                _isReading = false;
                DecideUndecided();
                break;
            case DirectoryFailed failed:
                _isReading = false;
                Logger.BridgeStateUnreadable(failed.Reason);
                DecideUndecided();
                break;
            case SessionProtocol.SessionEnded ended:
                if (_sessions.TryGetValue(ended.Session, out var over))
                    LogOut(over, ended.Reason);
                break;
            case Terminated terminated:
                OnTerminated(terminated.ActorRef);
                break;
            case PublisherProtocol.GetState:
                OnGetState();
                break;
            case PublisherProtocol.Stop:
                OnStop();
                break;
            default:
                Unhandled(message);
                break;
        }
    }

    private DateTimeOffset Now => _parts.Clock.GetUtcNow();

    private void Audit(AuditRecord record) => _audit.Tell(record);

    private void LogOut(Session session, string reason)
    {
        if (session.IsLoggedOut)
            return;
        session.IsLoggedOut = true;
        Audit(new AuditRecord(Now, "logout", session.User, Detail: $"{session.Name}: {reason}"));
    }

    private void OnIncoming(ControlProtocol.Incoming incoming)
    {
        // The relay is not to be trusted with the publisher's memory.
        if (_isStopping || _handshakes >= Options.MaxHandshakes)
        {
            Logger.ConsumerRejected(incoming.Remote, _isStopping ? "the publisher is stopping" : "there are too many at a time");
            return;
        }

        // Who it is shows in the end only; until then it counts as the user that the relay says, so that none takes all places.
        var ofUser = incoming.User is null ? 0 : _handshakesByUser.GetValueOrDefault(incoming.User);
        if (ofUser >= Options.MaxHandshakesPerUser)
        {
            Logger.ConsumerRejected(incoming.Remote, "there are too many of this user at a time");
            return;
        }

        _handshakes++;
        if (incoming.User is not null)
            _handshakesByUser[incoming.User] = ofUser + 1;
        _ = AnswerAsync(incoming).PipeTo(Self, failure: e => new NotArrived(incoming, e.Message));
    }

    private void EndHandshake(ControlProtocol.Incoming incoming)
    {
        _handshakes--;
        if (incoming.User is not { } user)
            return;
        if (_handshakesByUser[user] == 1)
            _handshakesByUser.Remove(user);
        else
            _handshakesByUser[user]--;
    }

    /// <summary>Dials the relay back for one consumer and lets it show who it is.</summary>
    private async Task<object> AnswerAsync(ControlProtocol.Incoming incoming)
    {
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(_stopping.Token);
        deadline.CancelAfter(Options.HandshakeTimeout);
        var socket = await _parts.Dialer.DialAsync(AdmissionKind.Answer, incoming.Stream, deadline.Token).ConfigureAwait(false);
        if (await EndToEndTls.AcceptAsync(socket, incoming.Remote, _parts.Identity, deadline.Token).ConfigureAwait(false) is not var (carrier, user))
            return new HungUp(incoming);
        var hello = await CarrierHandshake.ReadHelloAsync(carrier, Options.HandshakeTimeout, TimeProvider.System).ConfigureAwait(false);
        return hello is null ? new NotArrived(incoming, "it did not say what it wants") : new Arrived(carrier, hello, user, incoming);
    }

    /// <param name="arrived">Who.</param>
    /// <param name="isFinal">Whether the users are known as they are now: somebody may have been added a moment ago.</param>
    private void OnArrived(Arrived arrived, bool isFinal)
    {
        var user = _usersByKey.GetValueOrDefault(arrived.UserKey);
        if (user is null && !isFinal && !_isStopping && _undecided.Count < Options.MaxHandshakes)
        {
            _undecided.Add(arrived);
            ReadDirectory();
            return;
        }

        var refusal = _isStopping ? "the publisher is stopping"
            : user is null ? "there is no such user (any more)"
            : user.RefusalAt(Now);
        if (refusal is not null)
        {
            Logger.ConsumerRejected(arrived.Remote, refusal);
            Audit(new AuditRecord(Now, "refused", user?.Name, Detail: $"{arrived.Remote}: {refusal}"));
            Refuse(arrived, new LinkRefusal(_isStopping ? LinkRefusalCode.Unavailable : LinkRefusalCode.NotAdmitted, refusal));
            return;
        }

        if (arrived.Hello.IsResume)
        {
            // Whoever resumes a session must be the user that it belongs to, whatever else it knows.
            var known = _sessions.FirstOrDefault(session => session.Value.Link == arrived.Hello.LinkId && session.Value.UserKey == arrived.UserKey);
            if (known.Key is null)
                Refuse(arrived, _replaced.Find(arrived.Hello.LinkId, arrived.UserKey) is { } why ? new LinkRefusal(LinkRefusalCode.NotAdmitted, why) : LinkRefusal.UnknownLink);
            else if (known.Value.ExpelledBecause is { } reason)
                Refuse(arrived, new LinkRefusal(LinkRefusalCode.NotAdmitted, reason));
            else
                known.Key.Tell(new SessionProtocol.AttachCarrier(arrived.Carrier, arrived.Hello));
            return;
        }

        // Only now: who resumes has a session already.
        if (_sessions.Count >= Options.MaxSessions)
        {
            var full = $"the publisher is at its limit of {Options.MaxSessions} sessions";
            Logger.ConsumerRejected(arrived.Remote, full);
            Audit(new AuditRecord(Now, "refused", user!.Name, Detail: $"{arrived.Remote}: {full}"));
            Refuse(arrived, new LinkRefusal(LinkRefusalCode.Unavailable, full));
            return;
        }

        if (user!.SingleSession)
        {
            foreach (var (other, session) in _sessions.Where(session => session.Value.UserKey == arrived.UserKey))
            {
                session.IsReplaced |= session.ExpelledBecause is null;
                Expel(other, session, $"user '{user.Name}' may have one session only, and has connected from {arrived.Remote}");
            }
        }
        else if (_sessions.Values.Count(session => session.UserKey == arrived.UserKey) >= Options.MaxSessionsPerUser)
        {
            var limit = $"user '{user.Name}' is at its limit of {Options.MaxSessionsPerUser} sessions";
            Logger.ConsumerRejected(arrived.Remote, limit);
            Audit(new AuditRecord(Now, "refused", user.Name, Detail: $"{arrived.Remote}: {limit}"));
            Refuse(arrived, new LinkRefusal(LinkRefusalCode.Unavailable, limit));
            return;
        }

        var name = $"{_prefix}{_nextSession++}";
        var wire = SessionWires.ForPublisher(Options, arrived.Carrier, arrived.Hello, out var link);
        var context = new SessionContext(name, wire, user.Name, _extensions, _parts.Metrics.For(TunnelRole.Server), Logger);
        if (!_placesByKey.TryGetValue(arrived.UserKey, out var places))
            _placesByKey.Add(arrived.UserKey, places = new StreamPlaces(Options.MaxStreamsPerUser));
        var actor = Context.Watch(Context.ActorOf(
            PublisherSessionActor.Props(context, user, Options, places, _parts.Targets, _audit, _parts.Clock), name));
        _sessions.Add(actor, new Session(name, user.Name, arrived.UserKey, link));
        Logger.UserConnected(user.Name, name);
        Audit(new AuditRecord(Now, "login", user.Name, Detail: $"{name} from {arrived.Remote}"));
    }

    private void DecideUndecided()
    {
        if (_undecided.Count == 0)
            return;
        var undecided = _undecided.ToArray();
        _undecided.Clear();
        foreach (var arrived in undecided)
            OnArrived(arrived, isFinal: true);
    }

    private static void Refuse(Arrived arrived, LinkRefusal refusal) =>

        // RefuseAsync ends the carrier whatever happens and does not throw.
        _ = CarrierHandshake.RefuseAsync(arrived.Carrier, refusal);

    private static void Expel(IActorRef actor, Session session, string reason)
    {
        if (session.ExpelledBecause is not null)
            return;
        session.ExpelledBecause = reason;
        actor.Tell(new PublisherSessionProtocol.Expel(reason));
    }

    private void ReadDirectory()
    {
        if (_isReading)
            return;
        _isReading = true;
        var (store, known) = (_parts.Store, _dataVersion);
        _ = Task.Run(() => Read(store, known)).PipeTo(Self, failure: e => new DirectoryFailed(e.Message));
    }

    private static object Read(PublisherStore store, long? known)
    {
        // The version before the content: a change in between is seen again.
        var version = store.DataVersion;
        return version == known ? DirectoryUnchanged.Instance : new DirectoryRead(version, store.ListUsers());
    }

    private void OnDirectory(DirectoryRead read)
    {
        _isReading = false;
        var isFirst = _dataVersion is null;
        _dataVersion = read.Version;
        _usersByKey.Clear();
        foreach (var user in read.Users)
            _usersByKey.Add(user.KeyFingerprint, user);
        if (isFirst)
        {
            // Not before it is known who may come in.
            if (!_isStopping)
                _control = Context.ActorOf(ControlActor.Props(_parts.Dialer, Options, _parts.Random, Logger), "control");
            return;
        }

        foreach (var (actor, session) in _sessions)
        {
            if (!_usersByKey.TryGetValue(session.UserKey, out var user))
                Expel(actor, session, "the user was deleted");
            else
                actor.Tell(new PublisherSessionProtocol.UserChanged(user));
        }

        ApplyExpiry();
    }

    private void ApplyExpiry()
    {
        foreach (var (actor, session) in _sessions)
        {
            if (_usersByKey.TryGetValue(session.UserKey, out var user) && user.RefusalAt(Now) is { } refusal)
                Expel(actor, session, refusal);
        }
    }

    private void OnTerminated(IActorRef actor)
    {
        _isAuditClosed |= actor.Equals(_audit);
        if (_sessions.Remove(actor, out var session))
        {
            _traffic.Forget(session.Name);

            // One that is cut off while it has no connection ends without a word of its own.
            LogOut(session, session.ExpelledBecause ?? "stopped");
            if (session.IsReplaced)
                _replaced.Add(session.Link, session.UserKey, session.ExpelledBecause!);
            if (_sessions.Values.All(other => other.UserKey != session.UserKey))
                _placesByKey.Remove(session.UserKey);
        }

        if (_isStopping && _sessions.Count == 0)
            AnswerStopped();
    }

    private void OnGetState()
    {
        var (problem, relay, users, traffic) = (_relayProblem, _parts.Dialer.Name, _usersByKey.Count, _traffic);
        _ = StateAsync([.. _sessions.Keys]).PipeTo(Sender);

        async Task<PublisherState> StateAsync(IActorRef[] sessions)
        {
            var online = await Task.WhenAll(sessions.Select(async session =>
            {
                try
                {
                    var user = await session.Ask<OnlineUser>(PublisherSessionProtocol.GetOnlineUser.Instance, TimeSpan.FromSeconds(2)).ConfigureAwait(false);
                    var (bytesIn, bytesOut) = traffic.Of(user.Session);
                    return user with { BytesIn = bytesIn, BytesOut = bytesOut };
                }
                catch (AskTimeoutException)
                {
                    // It has just ended.
                    return null;
                }
            })).ConfigureAwait(false);
            return new PublisherState(problem is null, problem, relay, [.. online.OfType<OnlineUser>().OrderBy(user => user.User, StringComparer.Ordinal)], users);
        }
    }

    private void OnStop()
    {
        _stopAskers.Add(Sender);
        if (!_isStopping)
        {
            _isStopping = true;
            _relayProblem = "it is stopping; open connections may finish";
            Logger.Draining(_sessions.Count, Options.DrainTimeout);
            Context.Stop(_control);
            _stopping.Cancel();
            foreach (var session in _sessions.Keys)
                session.Tell(new SessionProtocol.Drain(Options.DrainTimeout));
        }

        if (_sessions.Count == 0)
            AnswerStopped();
    }

    private void AnswerStopped()
    {
        if (!_isStopped)
        {
            // Its last records are in the store before anybody goes on, and may end the actor system.
            _isStopped = true;
            Audit(new AuditRecord(Now, "stopped", null));
            Context.Watch(_audit);
            _audit.Tell(PoisonPill.Instance);
        }

        if (!_isAuditClosed)
            return;
        foreach (var asker in _stopAskers)
            asker.Tell(PublisherProtocol.Stopped.Instance);
        _stopAskers.Clear();
    }

    protected override void PostStop()
    {
        _stopping.Cancel();
        _stopping.Dispose();
        foreach (var arrived in _undecided)
            arrived.Dispose();
    }
}
