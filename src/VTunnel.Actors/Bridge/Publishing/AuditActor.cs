using Akka.Actor;
using Microsoft.Extensions.Logging;
using VTunnel.Bridge.State;
using VTunnel.Diagnostics;

namespace VTunnel.Bridge.Publishing;

/// <summary>
/// Writes down what happens: to the log at once, to the store in batches, so that no stream waits for a disk. What cannot be
/// written is counted and told.
/// </summary>
internal sealed class AuditActor : UntypedActor, IWithTimers
{
    private const int MaxPending = 20_000;
    private static readonly TimeSpan FlushInterval = TimeSpan.FromMilliseconds(100);

    private readonly PublisherStore _store;
    private readonly string _sessionPrefix;
    private readonly TimeProvider _clock;
    private readonly ILogger _logger;

    /// <summary>Held while the store is written, so that the end of the actor comes after the end of that.</summary>
    private readonly Lock _writing = new();

    /// <summary>Held for a moment, for the three below.</summary>
    private readonly Lock _gate = new();
    private List<AuditRecord> _pending = [];
    private Dictionary<string, int> _pendingRefusals = [];
    private int _lost;
    private bool _isWriting;

    public AuditActor(PublisherStore store, string sessionPrefix, TimeProvider clock, ILogger logger)
    {
        _store = store;
        _sessionPrefix = sessionPrefix;
        _clock = clock;
        _logger = logger;
    }

    public ITimerScheduler Timers { get; set; } = null!;

    /// <param name="store">Where to.</param>
    /// <param name="sessionPrefix">How the names of the publisher's sessions begin; there may be others in the actor system.</param>
    /// <param name="clock">For the times of streams.</param>
    /// <param name="logger">For the log.</param>
    public static Props Props(PublisherStore store, string sessionPrefix, TimeProvider clock, ILogger logger) =>
        Akka.Actor.Props.Create(() => new AuditActor(store, sessionPrefix, clock, logger));

    private sealed record Flush
    {
        public static readonly Flush Instance = new();
    }

    private sealed record Written
    {
        public static readonly Written Instance = new();
    }

    protected override void PreStart()
    {
        Context.System.EventStream.Subscribe(Self, typeof(TunnelEvents.StreamStarted));
        Context.System.EventStream.Subscribe(Self, typeof(TunnelEvents.StreamFinished));
    }

    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case AuditRecord record:
                Add(record);
                break;
            case TunnelEvents.StreamStarted started when started.Session.StartsWith(_sessionPrefix, StringComparison.Ordinal):
                Add(new AuditRecord(_clock.GetUtcNow(), "stream-open", started.Identity, $"{started.Host}:{started.Port}", $"{started.Session}/{started.StreamId}"));
                break;
            case TunnelEvents.StreamFinished ended when ended.Session.StartsWith(_sessionPrefix, StringComparison.Ordinal):
                Add(new AuditRecord(
                    _clock.GetUtcNow(),
                    "stream-end",
                    ended.Identity,
                    $"{ended.Host}:{ended.Port}",
                    $"{ended.Session}/{ended.StreamId} {RoleMetrics.Name(ended.End)}",
                    ended.Duration,
                    ended.BytesIn,
                    ended.BytesOut));
                break;
            case TunnelEvents.TunnelEvent:
                break;
            case Flush:
                OnFlush();
                break;
            case Written:
                _isWriting = false;
                if (HasPending)
                    Schedule();
                break;
            default:
                Unhandled(message);
                break;
        }
    }

    private void Add(AuditRecord record)
    {
        var (user, target, detail) = (record.User ?? "none", record.Target ?? "none", record.Detail ?? "");
        if (record.Duration is { } duration)
            _logger.AuditStream(record.Kind, user, target, detail, duration, record.BytesIn ?? 0, record.BytesOut ?? 0);
        else
            _logger.Audit(record.Kind, user, target, detail);
        lock (_gate)
        {
            if (_pending.Count >= MaxPending || !HasPlace(record.Kind))
                _lost++;
            else
                _pending.Add(record);
        }

        Schedule();
    }

    /// <summary>Refusals, which anybody can cause, leave room for the rest; the store would not keep more of them anyway.</summary>
    private bool HasPlace(string kind)
    {
        if (!AuditTable.IsRefusal(kind))
            return true;
        var count = _pendingRefusals.GetValueOrDefault(kind);
        _pendingRefusals[kind] = Math.Min(count + 1, AuditTable.MaxRefusals);
        return count < AuditTable.MaxRefusals;
    }

    private bool HasPending
    {
        get
        {
            lock (_gate)
                return _pending.Count > 0;
        }
    }

    private void Schedule()
    {
        if (!_isWriting && !Timers.IsTimerActive("flush"))
            Timers.StartSingleTimer("flush", Flush.Instance, FlushInterval);
    }

    private void OnFlush()
    {
        _isWriting = true;
        _ = Task.Run(() =>
        {
            Write();
            return Written.Instance;
        }).PipeTo(Self);
    }

    /// <summary>Writes what is pending when its turn comes. Tells the log what is lost, whether the actor still lives or not.</summary>
    private void Write()
    {
        lock (_writing)
        {
            List<AuditRecord> batch;
            int lost;
            lock (_gate)
            {
                (batch, lost) = (_pending, _lost);
                (_pending, _pendingRefusals, _lost) = ([], [], 0);
            }

            if (lost > 0)
                _logger.AuditLost(lost, "there were too many at a time");
            if (batch.Count == 0)
                return;
            try
            {
                _store.Audit(batch);
            }
            catch (Exception e) when (e is BridgeException or ObjectDisposedException)
            {
                // A full disk must not stop the streams; the log has the records.
                _logger.AuditLost(batch.Count, e.Message);
            }
        }
    }

    protected override void PostStop()
    {
        Context.System.EventStream.Unsubscribe(Self);
        Write();
    }
}
