namespace VTunnel.Protocol.Link;

/// <summary>
/// How much may be held for replay, and so how much may be under way: what the path needs, and little more, because
/// everything that is sent later waits behind it. Grows while the window limits the rate: when what was acknowledged in
/// one round trip is more than half of it; at most doubles per round trip. Shrinks when the window is full of bytes that
/// wait somewhere.
/// </summary>
/// <remarks>
/// The round trip is the shortest that was measured, so it is that of the path without queues; a <see cref="WindowTrial"/> finds
/// out where the path has become longer. What a busy machine needs beyond it, since a process may be off the processor for
/// longer than a round trip on loopback takes, is in the initial window, which is never fallen below; a quarter of it while somebody
/// waits for small answers, who waits behind all of it, and for whose sake nothing is tried.
/// </remarks>
internal sealed class ReplayWindow
{
    /// <summary>A rate is measured over this long at least: in less, a pause or the burst after it would be taken for the rate.</summary>
    private static readonly TimeSpan ShortestSample = TimeSpan.FromMilliseconds(10);

    /// <summary>For so long no round trip as short as the shortest, and the window is tried.</summary>
    private static readonly TimeSpan TryAfter = TimeSpan.FromSeconds(10);

    /// <summary>How often it is verified that a path is as long as a trial found it: a rate that varies can look like one.</summary>
    private static readonly TimeSpan VerifyAfter = TimeSpan.FromSeconds(20);

    private readonly WindowTrial _trial = new();
    private readonly int _leastBytes;
    private readonly int _leastInteractiveBytes;
    private readonly int _maxBytes;
    private int _neededBytes;
    private TimeSpan _since;
    private long _acknowledged;
    private bool _wasFull;
    private TimeSpan _lastTrial;
    private TimeSpan? _measuredRoundTrip;
    private bool _wasLimiting;
    private bool _wasLowered;

    public ReplayWindow(int initialBytes, int interactiveBytes, int maxBytes)
    {
        _maxBytes = maxBytes;
        _leastBytes = Math.Min(initialBytes, maxBytes);
        _neededBytes = _leastInteractiveBytes = Math.Min(interactiveBytes, _leastBytes);
    }

    /// <summary>Whether somebody waits for small answers: then the window never falls below a lower bound.</summary>
    public bool IsInteractive { get; set; }

    /// <summary>The window, in bytes of memory.</summary>
    public int Bytes
    {
        get
        {
            var least = IsInteractive ? _leastInteractiveBytes : _leastBytes;
            if (_trial.IsLowered)
                return Math.Max(_neededBytes / 4, least);
            var bytes = Math.Max(_neededBytes, least);
            return _trial.IsRaised ? (int)Math.Min(_maxBytes, 2L * bytes) : bytes;
        }
    }

    /// <summary>The least that <see cref="Bytes"/> ever is: a peer that acknowledges often enough for this does for all.</summary>
    public int LeastBytes => _leastInteractiveBytes;

    /// <summary>Says how much is held, after each write.</summary>
    public void OnHeld(long bytes)
    {
        if (bytes < Bytes - (Bytes / 4))
            return;
        _wasFull = true;
        _trial.OnFull();
    }

    /// <summary>Measures anew: there is a new carrier.</summary>
    public void Restart(TimeSpan now)
    {
        EndTrial(now);
        (_measuredRoundTrip, _wasLimiting, _wasLowered) = (null, false, false);
    }

    /// <summary>Says how much memory an ACK freed.</summary>
    /// <param name="bytes">How much.</param>
    /// <param name="roundTrip">The shortest round trip.</param>
    /// <param name="lastShort">When a round trip was last about as short.</param>
    /// <param name="now">The time.</param>
    /// <returns>Null, or what the shortest round trip has turned out to be, where the path has become longer, or was taken for that.</returns>
    public TimeSpan? OnAcknowledged(long bytes, TimeSpan roundTrip, TimeSpan lastShort, TimeSpan now)
    {
        if (_trial.IsRunning)
            return Try(bytes, roundTrip, now);

        _acknowledged += bytes;
        var elapsed = now - _since;
        if (elapsed < roundTrip || elapsed < ShortestSample)
            return null;

        var perRoundTrip = _acknowledged * (roundTrip / elapsed);
        var window = Bytes;
        if (_wasFull && perRoundTrip * 2 > window)
            _neededBytes = (int)Math.Min(_maxBytes, Math.Min(perRoundTrip, window) * 2);
        else if (_wasFull && BeginTrialIfDue(lastShort, now))
            return null;
        else if (_wasFull && perRoundTrip * 8 < window)
            _neededBytes = Math.Max(_leastInteractiveBytes, window / 2);
        RestartSample(now);
        return null;
    }

    private bool BeginTrialIfDue(TimeSpan lastShort, TimeSpan now)
    {
        var mayBeLonger = now - lastShort >= TryAfter && Bytes < _maxBytes;
        var wasFoundLonger = _measuredRoundTrip is not null;
        if (IsInteractive || now - _lastTrial < (wasFoundLonger ? VerifyAfter : TryAfter) || !(mayBeLonger || wasFoundLonger))
            return false;

        // A path that was found to be longer is verified, in turn with whether it has become longer still.
        _wasLowered = wasFoundLonger && !(_wasLowered && mayBeLonger);
        _trial.Begin(_wasLowered, now);
        return true;
    }

    private TimeSpan? Try(long bytes, TimeSpan roundTrip, TimeSpan now)
    {
        if (IsInteractive)
        {
            EndTrial(now);
            _wasLimiting = false;
            return null;
        }

        var verdict = _trial.OnAcknowledged(bytes, Bytes, now);
        if (_trial.IsRunning)
            return null;

        // A rate that varies may grow just when there is more window: once is chance.
        var isFirst = !_wasLimiting;
        _wasLimiting = verdict == WindowTrial.Verdict.WindowLimits && isFirst;
        EndTrial(now);
        switch (verdict)
        {
            case WindowTrial.Verdict.WindowLimits when isFirst:
                _trial.Begin(lowers: false, now);
                return null;
            case WindowTrial.Verdict.WindowLimits:
                _measuredRoundTrip ??= roundTrip;
                _wasLowered = false;
                return _trial.RoundTrip;
            case WindowTrial.Verdict.WindowIsSpare:
                roundTrip = _measuredRoundTrip!.Value;
                _measuredRoundTrip = null;
                return roundTrip;
            default:
                return null;
        }
    }

    private void EndTrial(TimeSpan now)
    {
        _trial.Cancel();
        RestartSample(now);
        _lastTrial = now;
    }

    private void RestartSample(TimeSpan now) => (_since, _acknowledged, _wasFull) = (now, 0, false);
}
