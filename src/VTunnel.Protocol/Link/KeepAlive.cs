namespace VTunnel.Protocol.Link;

/// <summary>Finds carriers on which nothing arrives any more, and measures the round trip.</summary>
internal sealed class KeepAlive
{
    private static readonly TimeSpan MeasureEvery = TimeSpan.FromSeconds(1);

    /// <summary>
    /// PINGs at the beginning of a carrier, each sent when the one before it was answered. The first finds code that never ran
    /// and takes many times the round trip; later there may be queues, and never a better time to measure.
    /// </summary>
    private const int FirstPings = 8;

    private TimeSpan _interval;
    private TimeSpan _lastHeard;
    private TimeSpan _askedAt;
    private TimeSpan _lastPing;
    private ulong _lastToken;
    private int _firstPingsLeft;
    private bool _isRunning;
    private bool _isAnswerPending;
    private bool _askedSinceHeard;

    /// <summary>Whether a PING is to be sent.</summary>
    public bool IsPingDue { get; private set; }

    /// <summary>The smoothed round trip, over all carriers; null before the first answer.</summary>
    public TimeSpan? RoundTripTime { get; private set; }

    /// <summary>The shortest round trip on this carrier, which queues least hide; null before the first answer.</summary>
    public TimeSpan? ShortestRoundTripTime { get; private set; }

    /// <summary>When a round trip was last about as short as the shortest.</summary>
    public TimeSpan LastShortRoundTrip { get; private set; }

    /// <summary>When to call <see cref="Advance"/>; null for never.</summary>
    public TimeSpan? Deadline =>
        !_isRunning || _interval == TimeSpan.Zero ? null : (_askedSinceHeard ? _askedAt : _lastHeard) + _interval;

    /// <summary>A carrier is up. The first PINGs go out at once, to measure.</summary>
    public void Start(TimeSpan interval, TimeSpan now)
    {
        (_interval, _lastHeard, _lastPing) = (interval, now, now);
        (_isRunning, _isAnswerPending, _askedSinceHeard, IsPingDue) = (true, false, false, true);
        (ShortestRoundTripTime, _firstPingsLeft) = (null, FirstPings - 1);
    }

    /// <summary>There is no carrier.</summary>
    public void Stop() => (_isRunning, IsPingDue) = (false, false);

    /// <summary>Something arrived, anything.</summary>
    public void OnHeard(TimeSpan now) => (_lastHeard, _askedSinceHeard) = (now, false);

    /// <summary>The stream is moving: measures again if the last time is long ago.</summary>
    public void OnActive(TimeSpan now) => IsPingDue |= now - _lastPing >= MeasureEvery && !_isAnswerPending;

    /// <summary>A PING is going out: its token.</summary>
    public ulong TakePing(TimeSpan now)
    {
        (_lastPing, _isAnswerPending, IsPingDue) = (now, true, false);
        return ++_lastToken;
    }

    /// <summary>An answer arrived; one to an older PING measures nothing.</summary>
    public void OnPong(ulong token, TimeSpan now)
    {
        if (!_isAnswerPending || token != _lastToken)
            return;

        _isAnswerPending = false;
        var sample = now - _lastPing;
        // The weights that TCP uses: one sample moves the estimate by an eighth.
        RoundTripTime = RoundTripTime is { } smoothed ? smoothed + ((sample - smoothed) / 8) : sample;
        if (ShortestRoundTripTime is null || sample < ShortestRoundTripTime)
            ShortestRoundTripTime = sample;
        if (sample <= ShortestRoundTripTime * 1.25)
            LastShortRoundTrip = now;
        if (_firstPingsLeft > 0)
            (_firstPingsLeft, IsPingDue) = (_firstPingsLeft - 1, true);
    }

    /// <summary>The path has become longer, or was taken for that and has not.</summary>
    public void OnShortestKnown(TimeSpan roundTrip, TimeSpan now) => (ShortestRoundTripTime, LastShortRoundTrip) = (roundTrip, now);

    /// <summary>Looks at the time. False: nothing was heard for two intervals, and the peer had one of them to answer in.</summary>
    public bool Advance(TimeSpan now)
    {
        if (!_isRunning || _interval == TimeSpan.Zero)
            return true;
        if (_askedSinceHeard)
            return now - _askedAt < _interval;
        if (now - _lastHeard >= _interval)
            (_askedSinceHeard, _askedAt, IsPingDue) = (true, now, true);
        return true;
    }
}
