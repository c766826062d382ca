using System.Collections.Concurrent;
using System.Diagnostics.Tracing;
using Microsoft.Diagnostics.NETCore.Client;
using Microsoft.Diagnostics.Tracing;

namespace VTunnel.Bench.Processes;

/// <summary>
/// What a .NET process allocates on its managed heap: the runtime's own counter, read over its diagnostics socket twice a
/// second, so nothing is added to the process and no variable set for it.
/// </summary>
internal sealed class AllocationMeter : IDisposable
{
    private readonly EventPipeSession _session;
    private readonly EventPipeEventSource _events;
    private readonly Thread _reader;
    private readonly SemaphoreSlim _ticks = new(0);
    private long _total;

    public AllocationMeter(int process)
    {
        var provider = new EventPipeProvider(
            "System.Runtime", EventLevel.Informational, 0, new Dictionary<string, string> { ["EventCounterIntervalSec"] = "0.5" });
        _session = new DiagnosticsClient(process).StartEventPipeSession([provider], requestRundown: false);
        _events = new EventPipeEventSource(_session.EventStream);
        _events.Dynamic.All += OnEvent;
        _reader = new Thread(Read) { IsBackground = true, Name = "allocations" };
        _reader.Start();
    }

    /// <summary>Waits for the counter's next value and gives the bytes allocated up to it, from any origin.</summary>
    public long NextTotal()
    {
        while (_ticks.Wait(0))
        {
            // What lies there is of the past.
        }

        if (!_ticks.Wait(TimeSpan.FromSeconds(10)))
            throw new BenchException("the runtime does not tell what it allocates");
        return Interlocked.Read(ref _total);
    }

    public void Dispose()
    {
        try
        {
            _session.Stop();
        }
        catch (Exception e) when (e is IOException or ServerNotAvailableException or EndOfStreamException or TimeoutException)
        {
            // The process has ended, and the session with it.
        }

        _reader.Join(TimeSpan.FromSeconds(5));
        _events.Dispose();
        _session.Dispose();
        _ticks.Dispose();
    }

    private void Read()
    {
        try
        {
            _events.Process();
        }
        catch (Exception)
        {
            // The process has ended: NextTotal says so to whoever still waits.
        }
    }

    private void OnEvent(TraceEvent happened)
    {
        if (happened.EventName != "EventCounters" || happened.PayloadValue(0) is not IDictionary<string, object> outer ||
            outer["Payload"] is not IDictionary<string, object> counter || !Equals(counter["Name"], "alloc-rate"))
            return;
        Interlocked.Add(ref _total, (long)Convert.ToDouble(counter["Increment"], System.Globalization.CultureInfo.InvariantCulture));
        _ticks.Release();
    }
}
