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
    private List<AuditRecord> _pending = [];
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

    private sealed record Written(int Lost, string? Failure);

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
            case Written written:
                _isWriting = false;
                if (written.Failure is not null)
                    _logger.AuditLost(written.Lost, written.Failure);
                if (_pending.Count > 0)
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
        if (_pending.Count >= MaxPending)
        {
            _lost++;
            return;
        }

        _pending.Add(record);
        Schedule();
    }

    private void Schedule()
    {
        if (!_isWriting && !Timers.IsTimerActive("flush"))
            Timers.StartSingleTimer("flush", Flush.Instance, FlushInterval);
    }

    private void OnFlush()
    {
        var (batch, lost) = (_pending, _lost);
        (_pending, _lost, _isWriting) = ([], 0, true);
        _ = Task.Run(() => Write(batch, lost)).PipeTo(Self);
    }

    private Written Write(List<AuditRecord> batch, int lost)
    {
        try
        {
            _store.Audit(batch);
            return new Written(lost, lost > 0 ? "there were too many at a time" : null);
        }
        catch (Exception e) when (e is BridgeException or ObjectDisposedException or InvalidOperationException)
        {
            // A full disk must not stop the streams; the log has the records.
            return new Written(lost + batch.Count, e.Message);
        }
    }

    protected override void PostStop()
    {
        Context.System.EventStream.Unsubscribe(Self);
        if (_pending.Count > 0 && Write(_pending, _lost) is { Failure: { } failure } written)
            _logger.AuditLost(written.Lost, failure);
    }
}
