namespace VTunnel.Cli.Hosting;

/// <summary>
/// Gives memory back once the program has nothing to do: what connections left behind stays resident until the next
/// collection, and an idle program never comes to one.
/// </summary>
internal sealed class IdleMemory : IDisposable
{
    /// <summary>How often it looks, and so how long the program must have had nothing to do.</summary>
    internal static readonly TimeSpan Interval = TimeSpan.FromSeconds(1);

    /// <summary>A program that used more of a processor than this within an interval is not idle: a collection would hold up somebody.</summary>
    internal static readonly TimeSpan MostUsed = Interval / 100;

    /// <summary>Allocations since the last collection of this kind; fewer are not worth one.</summary>
    internal const long LeastAllocated = 1024 * 1024;

    private readonly Func<TimeSpan> _used;
    private readonly Func<long> _allocated;
    private readonly Action _collect;
    private readonly ITimer _timer;
    private TimeSpan _usedBefore;
    private long _allocatedBefore;

    /// <summary>For this process.</summary>
    public IdleMemory()
        : this(
            TimeProvider.System,
            static () => Environment.CpuUsage.TotalTime,
            static () => GC.GetTotalAllocatedBytes(),
            static () => GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true))
    {
    }

    /// <param name="clock">When to look.</param>
    /// <param name="used">Processor time so far.</param>
    /// <param name="allocated">Bytes allocated so far.</param>
    /// <param name="collect">Collects everything and gives it back.</param>
    internal IdleMemory(TimeProvider clock, Func<TimeSpan> used, Func<long> allocated, Action collect)
    {
        (_used, _allocated, _collect) = (used, allocated, collect);
        _timer = clock.CreateTimer(static self => ((IdleMemory)self!).Look(), this, Interval, Interval);
    }

    public void Dispose() => _timer.Dispose();

    private void Look()
    {
        var used = _used();
        var isIdle = used - _usedBefore <= MostUsed;
        _usedBefore = used;
        if (!isIdle || _allocated() - _allocatedBefore < LeastAllocated)
            return;

        _collect();
        (_usedBefore, _allocatedBefore) = (_used(), _allocated());
    }
}
