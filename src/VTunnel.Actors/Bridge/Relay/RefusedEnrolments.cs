using Microsoft.Extensions.Logging;
using VTunnel.Bridge.State;
using VTunnel.Diagnostics;

namespace VTunnel.Bridge.Relay;

/// <summary>
/// Writes down that enrolments were refused, to log and audit: the first few at once, further ones once a second with their
/// number. Whoever has no code may come as often as it likes, and must not fill either, nor keep the disk busy.
/// </summary>
internal sealed class RefusedEnrolments : IDisposable
{
    /// <summary>How many are written down at once after a time of quiet; one more for each second after that.</summary>
    public const int AtOnce = 10;

    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(1);

    private readonly RelayStore _store;
    private readonly TimeProvider _clock;
    private readonly ILogger _logger;
    private readonly Lock _gate = new();
    private readonly ITimer _timer;
    private int _left = AtOnce;
    private Refusal? _newest;
    private long _untold;
    private bool _isTicking;
    private bool _isDisposed;

    public RefusedEnrolments(RelayStore store, TimeProvider clock, ILogger logger)
    {
        _store = store;
        _clock = clock;
        _logger = logger;
        _timer = clock.CreateTimer(_ => OnTick(), null, Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
    }

    private sealed record Refusal(DateTimeOffset Time, string Remote, string Publisher, string Reason);

    /// <summary>One was refused.</summary>
    /// <param name="remote">Who asked.</param>
    /// <param name="publisher">The fingerprint that it showed.</param>
    /// <param name="reason">Why.</param>
    public void Add(string remote, string publisher, string reason)
    {
        var refusal = new Refusal(_clock.GetUtcNow(), remote, publisher, reason);
        lock (_gate)
        {
            if (_isDisposed)
                return;
            if (!_isTicking)
                Tick();
            if (_left == 0)
            {
                (_newest, _untold) = (refusal, _untold + 1);
                return;
            }

            _left--;
        }

        Tell(refusal, 1);
    }

    /// <summary>Writes down those that were not yet.</summary>
    public void Dispose()
    {
        Refusal? newest;
        long untold;
        lock (_gate)
        {
            _isDisposed = true;
            (newest, untold) = Take();
        }

        _timer.Dispose();
        Tell(newest, untold);
    }

    private void OnTick()
    {
        Refusal? newest;
        long untold;
        lock (_gate)
        {
            if (_isDisposed)
                return;
            (newest, untold) = Take();
            if (newest is null)
                _left++;
            _isTicking = false;
            if (_left < AtOnce)
                Tick();
        }

        Tell(newest, untold);
    }

    private void Tick()
    {
        _isTicking = true;
        _timer.Change(Interval, Timeout.InfiniteTimeSpan);
    }

    private (Refusal? Newest, long Untold) Take()
    {
        var taken = (_newest, _untold);
        (_newest, _untold) = (null, 0);
        return taken;
    }

    private void Tell(Refusal? refusal, long count)
    {
        if (refusal is null)
            return;
        var reason = count == 1 ? refusal.Reason : $"{refusal.Reason} (the last of {count} since the record before)";
        _logger.RelayEnrolmentRefused(refusal.Remote, reason);
        try
        {
            _store.Audit([new AuditRecord(refusal.Time, "refused", refusal.Publisher, Detail: $"enrolment: {reason}")]);
        }
        catch (Exception e) when (e is BridgeException or ObjectDisposedException)
        {
            // Whoever was refused stays so on a full disk, too; the log has the record.
            _logger.AuditLost(1, e.Message);
        }
    }
}
