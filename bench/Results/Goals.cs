namespace VTunnel.Bench.Results;

/// <summary>What the engine is to reach on two cores, everything on loopback. Ratios are to the plain relay of the same run.</summary>
internal static class Goals
{
    private sealed record Goal(string Name, string Scenario, string[] Cases, string Metric, bool AtLeast, double V2, double V1, bool ToFloor);

    private static readonly string[] BulkCases = ["pull-1", "pull-8", "pull-64", "push-1", "push-8", "push-64"];

    private static readonly Goal[] All =
    [
        new("throughput", "throughput", BulkCases, "rate", AtLeast: true, V2: 0.9, V1: 0.5, ToFloor: true),
        new("CPU per GB", "throughput", BulkCases, "cpu", AtLeast: false, V2: 1.15, V1: 2.2, ToFloor: true),
        new("CPU per GB, absolute", "throughput", ["pull-1", "pull-8", "push-1", "push-8"], "cpu", AtLeast: false, V2: 1.5, V1: double.NaN, ToFloor: false),
        new("64-byte echo, p50", "latency", ["idle"], "p50", AtLeast: false, V2: 1.3, V1: 1.6, ToFloor: true),
        new("64-byte echo, p99", "latency", ["idle"], "p99", AtLeast: false, V2: 2, V1: 2.5, ToFloor: true),
        new("connections per second", "connects", [$"at-once-{Scenarios.BenchPlan.StandardConnecting}"], "rate", AtLeast: true, V2: 0.8, V1: 0.6, ToFloor: true),
        new("memory per idle stream", "idle", ["streams"], "resident-per-stream", AtLeast: false, V2: 10, V1: 12, ToFloor: false),
        new("memory per idle stream of ten thousand", "scale", ["streams"], "resident-per-stream", AtLeast: false, V2: 10, V1: 12, ToFloor: false),
        new("memory at start", "idle", ["start"], "resident", AtLeast: false, V2: 130, V1: 130, ToFloor: false),
        new("allocated per GB", "throughput", ["pull-8", "push-8"], "allocated", AtLeast: false, V2: 10, V1: 20, ToFloor: false),
        new("process start to listening", "idle", ["start"], "time-to-listen", AtLeast: false, V2: 400, V1: 400, ToFloor: false),
        new("p99 of an echo beside eight bulk streams, to idle", "fairness", ["bulk-8"], "p99-to-idle", AtLeast: false, V2: 10, V1: double.NaN, ToFloor: false),
        new("what a stalled reader leaves the others", "fairness", ["stalled-reader"], "rate-left", AtLeast: true, V2: 0.95, V1: double.NaN, ToFloor: false),
        new("CONNECT through the proxy to a plain forward", "proxy", ["pull-1", "pull-8", "push-1", "push-8"], "rate-to-forward", AtLeast: true, V2: 0.95, V1: double.NaN, ToFloor: false),
        new("one stream through 100 ms round trip", "wan", ["pull-1"], "rate", AtLeast: true, V2: 150, V1: double.NaN, ToFloor: false),
        new("memory after 20 GB to that after 1 GB", "volume", ["pull-8"], "resident-growth", AtLeast: false, V2: 1.1, V1: 1.1, ToFloor: false),
    ];

    /// <summary>The goals that this run says something about.</summary>
    public static List<TargetResult> Check(IReadOnlyList<Series> series)
    {
        var results = new List<TargetResult>();
        foreach (var goal in All)
        {
            foreach (var (candidate, limit) in ((string, double)[])[("v2", goal.V2), ("v1", goal.V1)])
            {
                if (double.IsNaN(limit))
                    continue;
                foreach (var which in goal.Cases)
                {
                    var figure = series.FirstOrDefault(one =>
                        one.Scenario == goal.Scenario && one.Case == which && one.Candidate == candidate && one.Metric == goal.Metric);
                    if ((goal.ToFloor ? figure?.ToFloor : figure?.Median) is not { } value)
                        continue;
                    results.Add(new TargetResult(
                        goal.Cases.Length > 1 ? $"{goal.Name}, {which}" : goal.Name, candidate, value, limit, goal.AtLeast,
                        goal.ToFloor ? "× floor" : figure!.Unit, goal.AtLeast ? value >= limit : value <= limit));
                }
            }
        }

        return results;
    }
}
