using System.Threading.RateLimiting;
using Akka.Actor;
using Microsoft.Extensions.Logging;
using VTunnel.Bridge.State;
using VTunnel.Diagnostics;
using VTunnel.Supervision;

namespace VTunnel.Bridge.Relay;

/// <summary>What a relay's actors are told.</summary>
internal static class RelayProtocol
{
    /// <summary>Common to what is about one publisher.</summary>
    public interface IForPublisher
    {
        string Publisher { get; }
    }

    /// <summary>A publisher's control connection is there; the actors own it from now on.</summary>
    public sealed record PublisherArrived(string Publisher, string Name, RelayControl Control) : IForPublisher, IDisposable
    {
        public void Dispose() => Control.Socket.Dispose();
    }

    /// <summary>A publisher's control connection has ended.</summary>
    public sealed record PublisherLeft(string Publisher, RelayControl Control) : IForPublisher;

    /// <summary>A user wants to be connected with its publisher.</summary>
    public sealed record ConsumerArrived(string Publisher, string Name, string User, RelayedSocket Socket) : IForPublisher, IDisposable
    {
        public void Dispose() => Socket.Dispose();
    }

    /// <summary>A user has hung up; where it still waits, it need not any more.</summary>
    public sealed record ConsumerLeft(string Publisher, RelayedSocket Socket) : IForPublisher;

    /// <summary>A publisher answers a user.</summary>
    public sealed record AnswerArrived(string Publisher, string Stream, RelayedSocket Socket) : IForPublisher, IDisposable
    {
        public void Dispose() => Socket.Dispose();
    }

    /// <summary>Answered with <see cref="RelayStatus"/>.</summary>
    public sealed record GetStatus
    {
        public static readonly GetStatus Instance = new();
    }

    /// <summary>To a publisher's actor; answered with <see cref="PublisherStatus"/>.</summary>
    public sealed record GetPublisherStatus
    {
        public static readonly GetPublisherStatus Instance = new();
    }

    /// <summary>The publisher is not enrolled any more: end everything.</summary>
    public sealed record Removed
    {
        public static readonly Removed Instance = new();
    }
}

/// <summary>A publisher at a relay, as it is now.</summary>
public sealed record PublisherStatus(
    string Fingerprint, string Name, bool IsConnected, string? Remote, int Streams, int Waiting, long BytesFromConsumers, long BytesFromPublisher);

/// <summary>A relay as it is now; publishers without any connection are not in it.</summary>
public sealed record RelayStatus(IReadOnlyList<PublisherStatus> Publishers);

/// <summary>The root of a relay: one child per publisher that is connected or wanted, and nothing that two of them share.</summary>
internal sealed class RelayActor : UntypedActor, IWithTimers
{
    private readonly RelayStore _store;
    private readonly RelayOptions _options;
    private readonly ILogger _logger;
    private long _dataVersion;

    public RelayActor(RelayStore store, RelayOptions options, ILogger logger)
    {
        _store = store;
        _options = options;
        _logger = logger;
    }

    public ITimerScheduler Timers { get; set; } = null!;

    public static Props Props(RelayStore store, RelayOptions options, ILogger logger) =>
        Akka.Actor.Props.Create(() => new RelayActor(store, options, logger));

    private sealed record Refresh
    {
        public static readonly Refresh Instance = new();
    }

    protected override SupervisorStrategy SupervisorStrategy() => new OneForOneStrategy(e =>
    {
        _logger.ChildFailed(e, "the relay");
        return Directive.Stop;
    });

    protected override void PreStart()
    {
        Context.ActorOf(OrphanActor.Props(), "orphans");
        Timers.StartPeriodicTimer("refresh", Refresh.Instance, _options.RefreshInterval);
    }

    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case RelayProtocol.IForPublisher about:
                OnAbout(about);
                break;
            case Refresh:
                OnRefresh();
                break;
            case RelayProtocol.GetStatus:
                _ = StatusAsync([.. Context.GetChildren().Where(child => child.Path.Name != "orphans")]).PipeTo(Sender);
                break;
            default:
                Unhandled(message);
                break;
        }
    }

    private void OnAbout(RelayProtocol.IForPublisher about)
    {
        var child = Context.Child(about.Publisher);
        if (!child.IsNobody() || about is not (RelayProtocol.PublisherArrived or RelayProtocol.ConsumerArrived))
        {
            (child.IsNobody() ? Context.System.DeadLetters : child).Forward(about);
            return;
        }

        var name = about is RelayProtocol.PublisherArrived arrived ? arrived.Name : ((RelayProtocol.ConsumerArrived)about).Name;
        child = Context.ActorOf(RelayedPublisherActor.Props(about.Publisher, name, _options, _logger), about.Publisher);
        child.Forward(about);

        // Whoever was removed after it was admitted, and before it came here, has been missed by the look at all.
        if (IsRemoved(about.Publisher))
            child.Tell(RelayProtocol.Removed.Instance);
    }

    private bool IsRemoved(string publisher)
    {
        try
        {
            return _store.Find(publisher) is null;
        }
        catch (BridgeException e)
        {
            _logger.BridgeStateUnreadable(e.Message);
            return false;
        }
    }

    /// <summary>Others change the state, too: whoever was removed is cut off at once.</summary>
    private void OnRefresh()
    {
        try
        {
            var version = _store.DataVersion;
            if (version == _dataVersion)
                return;
            foreach (var child in Context.GetChildren().Where(child => child.Path.Name != "orphans" && _store.Find(child.Path.Name) is null))
                child.Tell(RelayProtocol.Removed.Instance);

            // Last: what could not be looked up is looked for again.
            _dataVersion = version;
        }
        catch (BridgeException e)
        {
            // Looked for again soon; what is enrolled meanwhile stays.
            _logger.BridgeStateUnreadable(e.Message);
        }
    }

    private static async Task<RelayStatus> StatusAsync(IReadOnlyList<IActorRef> children)
    {
        var answers = await Task.WhenAll(children.Select(async child =>
        {
            try
            {
                return await child.Ask<PublisherStatus>(RelayProtocol.GetPublisherStatus.Instance, TimeSpan.FromSeconds(2)).ConfigureAwait(false);
            }
            catch (AskTimeoutException)
            {
                // It has just stopped: then it is not connected either.
                return null;
            }
        })).ConfigureAwait(false);
        return new RelayStatus([.. answers.OfType<PublisherStatus>()]);
    }
}

/// <summary>One publisher at the relay: its control connection, the users that wait for it, and the pairs that are spliced.</summary>
internal sealed class RelayedPublisherActor : UntypedActor, IWithTimers
{
    private readonly string _fingerprint;
    private readonly string _name;
    private readonly RelayOptions _options;
    private readonly ILogger _logger;
    private readonly RateLimiter? _limiter;
    private readonly TrafficCount _traffic = new();
    private readonly Dictionary<string, RelayProtocol.ConsumerArrived> _waiting = [];

    /// <summary>Whose each relayed connection is.</summary>
    private readonly Dictionary<IActorRef, string> _streams = [];
    private RelayControl? _control;
    private long _nextStream = 1;

    public RelayedPublisherActor(string fingerprint, string name, RelayOptions options, ILogger logger)
    {
        _fingerprint = fingerprint;
        _name = name;
        _options = options;
        _logger = logger;
        if (options.MaxBytesPerSecond > 0)
        {
            var kilobytes = (int)Math.Clamp(options.MaxBytesPerSecond / 1024, 64, int.MaxValue);
            _limiter = new TokenBucketRateLimiter(new TokenBucketRateLimiterOptions
            {
                // A tenth of a second at a time, but no less than one message.
                TokenLimit = Math.Max(64, kilobytes / 5),
                TokensPerPeriod = Math.Max(1, kilobytes / 10),
                ReplenishmentPeriod = TimeSpan.FromMilliseconds(100),
                QueueLimit = int.MaxValue,
                QueueProcessingOrder = QueueProcessingOrder.OldestFirst,
            });
        }
    }

    public ITimerScheduler Timers { get; set; } = null!;

    public static Props Props(string fingerprint, string name, RelayOptions options, ILogger logger) =>
        Akka.Actor.Props.Create(() => new RelayedPublisherActor(fingerprint, name, options, logger));

    private sealed record GiveUp(string Stream);

    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case RelayProtocol.PublisherArrived arrived:
                OnPublisher(arrived.Control);
                break;
            case RelayProtocol.PublisherLeft left:
                if (left.Control == _control)
                {
                    _control = null;
                    _logger.RelayPublisherDown(_name, _fingerprint[..12]);
                    StopIfIdle();
                }

                break;
            case RelayProtocol.ConsumerArrived consumer:
                OnConsumer(consumer);
                break;
            case RelayProtocol.ConsumerLeft left:
                OnConsumerLeft(left.Socket);
                break;
            case RelayProtocol.AnswerArrived answer:
                OnAnswer(answer);
                break;
            case GiveUp late:
                if (_waiting.Remove(late.Stream, out var waiting))
                    Refuse(waiting.Socket, _control is null ? "the publisher is not connected to the relay" : "the publisher did not answer");
                StopIfIdle();
                break;
            case Terminated terminated:
                _streams.Remove(terminated.ActorRef);
                StopIfIdle();
                break;
            case RelayProtocol.GetPublisherStatus:
                Sender.Tell(new PublisherStatus(
                    _fingerprint, _name, _control is not null, _control?.Socket.Remote, _streams.Count, _waiting.Count, _traffic.FromConsumers, _traffic.FromPublisher));
                break;
            case RelayProtocol.Removed:
                _logger.RelayPublisherRemoved(_name, _fingerprint[..12]);
                Context.Stop(Self);
                break;
            default:
                Unhandled(message);
                break;
        }
    }

    private void OnPublisher(RelayControl control)
    {
        // An older connection is the ghost of one that was lost, or the same key twice: the newest is the one that is alive.
        if (_control is { } older)
        {
            _logger.RelayPublisherReplaced(_name, _fingerprint[..12], control.Socket.Remote, older.Socket.Remote);

            // CloseAsync ends the connection whatever happens and does not throw.
            _ = older.CloseAsync("replaced by a newer connection of the same identity");
        }

        _control = control;
        _logger.RelayPublisherUp(_name, _fingerprint[..12], control.Socket.Remote);
        foreach (var (stream, consumer) in _waiting)
            Announce(stream, consumer);
    }

    private void OnConsumer(RelayProtocol.ConsumerArrived consumer)
    {
        // One of the publisher's users, or one that was revoked, of which the relay knows nothing, must not lock out the others.
        var ofUser = _waiting.Values.Count(waiting => waiting.User == consumer.User);
        if (ofUser >= _options.MaxWaitingPerUser)
        {
            _logger.RelayUserLimit(_name, consumer.User[..12], ofUser);
            Refuse(consumer.Socket, "too many connections of this user wait for the publisher");
            return;
        }

        ofUser += _streams.Values.Count(user => user == consumer.User);
        if (ofUser >= _options.MaxStreamsPerUser)
        {
            _logger.RelayUserStreamLimit(_name, consumer.User[..12], ofUser);
            Refuse(consumer.Socket, "this user is at its limit of connections");
            return;
        }

        if (_streams.Count + _waiting.Count >= _options.MaxStreamsPerPublisher || _waiting.Count >= _options.MaxWaitingPerPublisher)
        {
            _logger.RelayLimit(_name, _streams.Count, _waiting.Count);
            Refuse(consumer.Socket, "the publisher is at its limit of connections");
            return;
        }

        var stream = Guid.NewGuid().ToString("N");
        _waiting.Add(stream, consumer);
        Timers.StartSingleTimer(stream, new GiveUp(stream), _options.PublisherTimeout);
        Announce(stream, consumer);
    }

    private void Announce(string stream, RelayProtocol.ConsumerArrived consumer) =>
        _control?.TrySend(RelayMessages.Incoming(stream, consumer.Socket.Remote, consumer.User));

    private void OnConsumerLeft(RelayedSocket socket)
    {
        // Of one that is relayed already the two ends learn by themselves.
        if (_waiting.FirstOrDefault(waiting => waiting.Value.Socket == socket).Key is not { } stream)
            return;
        Timers.Cancel(stream);
        _waiting.Remove(stream);
        socket.Dispose();
        StopIfIdle();
    }

    private void OnAnswer(RelayProtocol.AnswerArrived answer)
    {
        if (!_waiting.Remove(answer.Stream, out var consumer))
        {
            Refuse(answer.Socket, "the consumer waits no more");
            return;
        }

        Timers.Cancel(answer.Stream);
        var splice = new Splice(consumer.Socket, answer.Socket, _traffic, _limiter, _options);
        _streams.Add(Context.Watch(Context.ActorOf(RelayedStreamActor.Props(splice, _options.IdleTimeout), $"stream-{_nextStream++}")), consumer.User);
        _logger.RelayPaired(_name, consumer.User[..12], consumer.Socket.Remote);
    }

    /// <summary>RefuseAsync ends the connection whatever happens and does not throw.</summary>
    private static void Refuse(RelayedSocket socket, string reason) => _ = socket.RefuseAsync(reason);

    private void StopIfIdle()
    {
        if (_control is null && _waiting.Count == 0 && _streams.Count == 0)
            Context.Stop(Self);
    }

    protected override void PostStop()
    {
        _control?.Socket.Dispose();
        foreach (var consumer in _waiting.Values)
            consumer.Dispose();
        _limiter?.Dispose();
    }
}

/// <summary>Two connections that are spliced: sees to it that neither outlives the other, or silence.</summary>
internal sealed class RelayedStreamActor : UntypedActor, IWithTimers
{
    private readonly Splice _splice;
    private readonly TimeSpan _idleTimeout;

    public RelayedStreamActor(Splice splice, TimeSpan idleTimeout)
    {
        _splice = splice;
        _idleTimeout = idleTimeout;
    }

    public ITimerScheduler Timers { get; set; } = null!;

    public static Props Props(Splice splice, TimeSpan idleTimeout) => Akka.Actor.Props.Create(() => new RelayedStreamActor(splice, idleTimeout));

    private sealed record Over
    {
        public static readonly Over Instance = new();
    }

    private sealed record IdleTick
    {
        public static readonly IdleTick Instance = new();
    }

    protected override void PreStart()
    {
        _ = RunAsync().PipeTo(Self);
        Timers.StartPeriodicTimer("idle", IdleTick.Instance, _idleTimeout);
    }

    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case IdleTick:
                if (!_splice.TakeMoved())
                    Context.Stop(Self);
                break;
            case Over or Status.Failure:
                Context.Stop(Self);
                break;
            default:
                Unhandled(message);
                break;
        }
    }

    private async Task<Over> RunAsync()
    {
        // Bytes move outside the actor's thread from the start.
        await Task.Yield();
        await _splice.RunAsync().ConfigureAwait(false);
        return Over.Instance;
    }

    protected override void PostStop() => _splice.Abort();
}
