using VTunnel.Bench.Load;

namespace VTunnel.Bench.Children;

/// <summary>The load target as a process of its own, for scenarios with more connections than one process may have open.</summary>
internal static class TargetHelper
{
    public static int Run()
    {
        using var target = new LoadTarget();
        Console.WriteLine($"listening on {target.Port}");
        Thread.Sleep(Timeout.Infinite);
        return 0;
    }
}
