namespace VTunnel.Protocol.Link;

/// <summary>
/// Finds out whether a window limits the rate although the shortest round trip says that it does not: the path may have become
/// longer. For a while there is twice the window, between two spells with the window as it is. Only where more got through than
/// in both of them was it the window; otherwise what is under way lies in a queue, and more would make the queue longer.
/// </summary>
internal sealed class WindowTrial
{
    /// <summary>A spell lasts this long at least, so that what else a busy machine does counts little.</summary>
    private static readonly TimeSpan ShortestSpell = TimeSpan.FromMilliseconds(100);

    /// <summary>By how much the rate must be greater with twice the window.</summary>
    private const double Gain = 1.25;

    private Spell _spell;
    private TimeSpan _since;
    private long _acknowledged;
    private bool _wasFull;
    private double _rateBefore;
    private double _rateRaised;

    private enum Spell
    {
        None,
        Before,
        Rising,
        Raised,
        Falling,
        After,
    }

    public bool IsRunning => _spell != Spell.None;

    /// <summary>Whether there is to be twice the window now.</summary>
    public bool IsRaised => _spell is Spell.Rising or Spell.Raised;

    public void Begin(TimeSpan now) => Enter(Spell.Before, now);

    public void Cancel() => _spell = Spell.None;

    /// <summary>The window was full, and so may be what limits the rate.</summary>
    public void OnFull() => _wasFull = true;

    /// <summary>Says how much of <paramref name="window"/>, raised or not, an ACK freed.</summary>
    /// <returns>When the trial ends and it was the window: the round trip that the path has now. Else null.</returns>
    public TimeSpan? OnAcknowledged(long bytes, int window, TimeSpan now)
    {
        _acknowledged += bytes;
        var elapsed = now - _since;

        // What was sent before the window changed takes a round trip to be acknowledged; the connection below may need another.
        var isSettling = _spell is Spell.Rising or Spell.Falling;
        if (_acknowledged < (isSettling ? 2L * window : window) || (!isSettling && elapsed < ShortestSpell))
            return null;
        if (isSettling)
        {
            Enter(_spell + 1, now);
            return null;
        }

        var rate = _acknowledged / elapsed.TotalSeconds;
        if (!_wasFull)
        {
            Cancel();
        }
        else if (_spell == Spell.Before)
        {
            _rateBefore = rate;
            Enter(Spell.Rising, now);
        }
        else if (_spell == Spell.Raised)
        {
            _rateRaised = rate;
            Enter(Spell.Falling, now);
        }
        else
        {
            Cancel();
            var usual = Math.Max(_rateBefore, rate);
            if (_rateRaised >= usual * Gain)
                return TimeSpan.FromSeconds(window / usual);
        }

        return null;
    }

    private void Enter(Spell spell, TimeSpan now) => (_spell, _since, _acknowledged, _wasFull) = (spell, now, 0, false);
}
