namespace VTunnel.Protocol.Link;

/// <summary>
/// How much may be held for replay. Grows while the window, not the path, limits the rate: when what was acknowledged in
/// one round trip is more than half of it. At most doubles per round trip; never shrinks, since only bytes under way cost
/// memory.
/// </summary>
internal sealed class ReplayWindow(int initialBytes, int maxBytes)
{
    /// <summary>
    /// Two processes on one machine answer each other in microseconds when idle, but a busy one is off the processor for
    /// milliseconds; a window for the idle time would then stand still.
    /// </summary>
    private static readonly TimeSpan ShortestRoundTrip = TimeSpan.FromMilliseconds(2);

    private TimeSpan _since;
    private long _acknowledged;
    private bool _wasFull;

    /// <summary>The window, in bytes of memory.</summary>
    public int Bytes { get; private set; } = initialBytes;

    /// <summary>Says how much is held, after each write.</summary>
    public void OnHeld(long bytes) => _wasFull |= bytes >= Bytes - (Bytes / 4);

    /// <summary>Measures anew: there is a new carrier.</summary>
    public void Restart(TimeSpan now) => (_since, _acknowledged, _wasFull) = (now, 0, false);

    /// <summary>Says how much memory an ACK freed.</summary>
    public void OnAcknowledged(long bytes, TimeSpan roundTrip, TimeSpan now)
    {
        _acknowledged += bytes;
        var elapsed = now - _since;
        if (roundTrip < ShortestRoundTrip)
            roundTrip = ShortestRoundTrip;
        if (elapsed < roundTrip)
            return;

        var perRoundTrip = _acknowledged * (roundTrip / elapsed);
        if (_wasFull && perRoundTrip * 2 > Bytes)
            Bytes = (int)Math.Min(maxBytes, Math.Min(perRoundTrip, Bytes) * 2);
        Restart(now);
    }
}
