namespace VTunnel.Protocol.Mux;

/// <summary>What all streams of a session have grown beyond their initial windows, against its bound.</summary>
internal sealed class WindowBudget(long limit)
{
    public long Limit { get; } = limit;

    public long Used { get; private set; }

    public long Free => Math.Max(0, Limit - Used);

    public void Add(long change) => Used += change;
}

/// <summary>
/// The receiving side's window of one stream: what the peer may still send, what waits for the reader, and how large
/// the window should be. A mutable struct: it lives in one field of the stream and is never copied.
/// </summary>
/// <remarks>
/// Invariant: <see cref="Exposure"/>, the bytes that this side may come to hold, exceeds <see cref="Target"/> only after
/// the window shrank, since credit once granted cannot be taken back; it then falls to the target as the peer sends.
/// What is above the initial window is charged to the session's budget.
/// </remarks>
internal struct ReceiveWindow
{
    /// <summary>The smallest credit worth a frame, except for small windows (half of which is always worth one).</summary>
    private const int MinUpdateBytes = MuxOptions.InitialWindowBytes / 2;

    /// <summary>
    /// The credit that is always worth a frame. Half of a large window would leave the sender with half a window for
    /// much of each round trip, and so with half the rate.
    /// </summary>
    private const int MaxUpdateBytes = 1024 * 1024;

    /// <summary>
    /// What a stream gets that has used half of its first window within <see cref="BulkTime"/>, whatever the round trip: room for two of
    /// the largest frames, so that one can be under way while the other is being taken.
    /// </summary>
    private const int BulkBytes = 2 * MuxOptions.InitialWindowBytes;
    private static readonly TimeSpan BulkTime = TimeSpan.FromMilliseconds(100);

    private long _charged;
    private long _epochConsumed;
    private TimeSpan _epochStart;
    private TimeSpan _lastConsumed;

    public ReceiveWindow(TimeSpan now)
    {
        Target = MuxOptions.InitialWindowBytes;
        Credit = MuxOptions.InitialWindowBytes;
        _epochStart = now;
        _lastConsumed = now;
    }

    /// <summary>The size of the window, in bytes.</summary>
    public int Target { get; private set; }

    /// <summary>Bytes that the peer may still send.</summary>
    public long Credit { get; private set; }

    /// <summary>Bytes that were received and wait for the reader.</summary>
    public long Buffered { get; private set; }

    /// <summary>Bytes that this side holds or may have to hold: <see cref="Buffered"/> and <see cref="Credit"/>.</summary>
    public readonly long Exposure => Buffered + Credit;

    /// <summary>Consumed bytes that are returned to the peer in one update at the latest.</summary>
    public readonly int UpdateThreshold => Math.Min(Target / 2, Math.Clamp(Target / 8, MinUpdateBytes, MaxUpdateBytes));

    /// <summary>Takes <paramref name="bytes"/> from the credit; false if there is less.</summary>
    public bool TryReceive(uint bytes)
    {
        if (bytes > Credit)
            return false;

        Credit -= bytes;
        Buffered += bytes;
        return true;
    }

    /// <summary>The reader took <paramref name="bytes"/>. True if it is time to send the peer what <see cref="TakeCredit"/> gives.</summary>
    /// <param name="bytes">At most <see cref="Buffered"/>.</param>
    /// <param name="now">The session's time.</param>
    /// <param name="roundTrip">The session's round trip; zero while it is unknown.</param>
    /// <param name="budget">The session's budget.</param>
    /// <param name="options">The session's limits.</param>
    public bool Consume(long bytes, TimeSpan now, TimeSpan roundTrip, WindowBudget budget, MuxOptions options)
    {
        Buffered -= bytes;
        if (Target == 0)
        {
            Charge(budget);
            return false;
        }

        if (now - _lastConsumed >= options.IdleWindowTimeout)
            Shrink(now);

        _lastConsumed = now;
        _epochConsumed += bytes;
        if (_epochConsumed >= Target / 2)
        {
            if (IsBulk(now) || (roundTrip > TimeSpan.Zero && LimitsTheRate(now, roundTrip)))
                Grow(budget, options);
            _epochConsumed = 0;
            _epochStart = now;
        }

        Charge(budget);
        return Target - Exposure >= UpdateThreshold;
    }

    /// <summary>Grants the peer what is missing from a full window; 0 if nothing is.</summary>
    public uint TakeCredit()
    {
        var grant = Math.Max(0, Target - Exposure);
        Credit += grant;
        return (uint)grant;
    }

    /// <summary>The peer finished: no more credit is of use. What is buffered may still be consumed.</summary>
    public void Finish(WindowBudget budget)
    {
        Credit = 0;
        Target = 0;
        Charge(budget);
    }

    /// <summary>The stream is gone.</summary>
    public void Release(WindowBudget budget)
    {
        Buffered = 0;
        Finish(budget);
    }

    // The reader took bytes at a rate of at least one window per two round trips: the window limits the rate, or soon
    // will. Rates are compared, not times, so that the rule holds for every size of window.
    private readonly bool LimitsTheRate(TimeSpan now, TimeSpan roundTrip) =>
        (double)_epochConsumed * 2 * roundTrip.Ticks >= (double)Target * (now - _epochStart).Ticks;

    private readonly bool IsBulk(TimeSpan now) => Target < BulkBytes && now - _epochStart < BulkTime;

    private void Shrink(TimeSpan now)
    {
        Target = Math.Min(Target, MuxOptions.InitialWindowBytes);
        _epochConsumed = 0;
        _epochStart = now;
    }

    private void Grow(WindowBudget budget, MuxOptions options)
    {
        // At most half of what is left for one step, so that streams that come later find some, too. Growth into
        // credit that a shrunk window has still outstanding is paid for already.
        var paid = Math.Max(Exposure, Target);
        var largest = Math.Min(options.MaxStreamWindowBytes, paid + budget.Free / 2);
        Target = (int)Math.Max(Target, Math.Min(2L * Target, largest));
    }

    private void Charge(WindowBudget budget)
    {
        var charge = Math.Max(0, Math.Max(Target, Exposure) - MuxOptions.InitialWindowBytes);
        budget.Add(charge - _charged);
        _charged = charge;
    }
}
