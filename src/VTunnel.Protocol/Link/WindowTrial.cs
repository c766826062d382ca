namespace VTunnel.Protocol.Link;

/// <summary>
/// Finds out by trying whether a window limits the rate, where the shortest round trip cannot be trusted to say so: the path may
/// have become longer. For a while there is twice the window, between two spells with the window as it is. Only where more got
/// through than in both of them was it the window; otherwise what is under way lies in a queue, and more would make the queue
/// longer. The other way round a quarter is tried: where as much gets through, the window was not needed.
/// </summary>
internal sealed class WindowTrial
{
    /// <summary>A spell lasts this long at least, so that what else a busy machine does counts little.</summary>
    private static readonly TimeSpan ShortestSpell = TimeSpan.FromMilliseconds(100);

    /// <summary>By how much the rate must differ.</summary>
    private const double Gain = 1.25;

    private Spell _spell;
    private TimeSpan _since;
    private long _acknowledged;
    private bool _wasFull;
    private double _rateBefore;
    private double _rateTried;
    private bool _lowers;

    private enum Spell
    {
        None,
        Before,
        Changing,
        Tried,
        ChangingBack,
        After,
    }

    /// <summary>What a trial says.</summary>
    public enum Verdict
    {
        /// <summary>It goes on, or says nothing.</summary>
        None,

        /// <summary>The window limits the rate.</summary>
        WindowLimits,

        /// <summary>So much is not needed.</summary>
        WindowIsSpare,
    }

    public bool IsRunning => _spell != Spell.None;

    /// <summary>Whether there is to be twice the window now.</summary>
    public bool IsRaised => IsTrying && !_lowers;

    /// <summary>Whether there is to be a quarter of the window now.</summary>
    public bool IsLowered => IsTrying && _lowers;

    /// <summary>The window's bytes over the usual rate: where the window limits, the round trip.</summary>
    public TimeSpan RoundTrip { get; private set; }

    private bool IsTrying => _spell is Spell.Changing or Spell.Tried;

    public void Begin(bool lowers, TimeSpan now)
    {
        _lowers = lowers;
        Enter(Spell.Before, now);
    }

    public void Cancel() => _spell = Spell.None;

    /// <summary>The window was full, and so may be what limits the rate.</summary>
    public void OnFull() => _wasFull = true;

    /// <summary>Says how much of <paramref name="window"/>, as it is now, an ACK freed.</summary>
    public Verdict OnAcknowledged(long bytes, int window, TimeSpan now)
    {
        _acknowledged += bytes;
        var elapsed = now - _since;

        // What was sent before the window changed takes a round trip to be acknowledged; the connection below may need another.
        var ended = _spell;
        var isSettling = ended is Spell.Changing or Spell.ChangingBack;
        if (_acknowledged < (isSettling ? 2L * window : window) || (!isSettling && elapsed < ShortestSpell))
            return Verdict.None;

        var rate = _acknowledged / elapsed.TotalSeconds;
        var wasFull = _wasFull;
        Enter(ended + 1, now);
        switch (ended)
        {
            case Spell.Changing or Spell.ChangingBack:
                return Verdict.None;
            case Spell.Before when wasFull:
                _rateBefore = rate;
                return Verdict.None;
            case Spell.Tried when wasFull:
                _rateTried = rate;
                return Verdict.None;
            default:
                // It is over: judged where the window was full to the end.
                Cancel();
                return ended == Spell.After && wasFull ? Judge(Math.Min(_rateBefore, rate), Math.Max(_rateBefore, rate), window) : Verdict.None;
        }
    }

    private Verdict Judge(double least, double most, int window)
    {
        RoundTrip = TimeSpan.FromSeconds(window / most);
        if (_lowers)
            return _rateTried * Gain >= least ? Verdict.WindowIsSpare : Verdict.None;
        return _rateTried >= most * Gain ? Verdict.WindowLimits : Verdict.None;
    }

    private void Enter(Spell spell, TimeSpan now) => (_spell, _since, _acknowledged, _wasFull) = (spell, now, 0, false);
}
