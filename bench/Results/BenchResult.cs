using System.Globalization;
using System.Text.Json.Serialization;

namespace VTunnel.Bench.Results;

/// <summary>A run, as <c>--json</c> writes it. docs/bench.md describes every field; a test holds the two together.</summary>
/// <param name="Schema">The version of this format.</param>
/// <param name="Started">When the run began, UTC, ISO 8601.</param>
/// <param name="Seconds">How long it took.</param>
/// <param name="Arguments">What it was started with.</param>
/// <param name="Machine">Where it ran.</param>
/// <param name="Program">What was measured.</param>
/// <param name="Rounds">How often everything was measured.</param>
/// <param name="WindowSeconds">How long each measurement took.</param>
/// <param name="Series">What was measured.</param>
/// <param name="Targets">What was to be reached.</param>
internal sealed record BenchResult(
    string Schema,
    string Started,
    double Seconds,
    IReadOnlyList<string> Arguments,
    MachineInfo Machine,
    ProgramInfo Program,
    int Rounds,
    double WindowSeconds,
    IReadOnlyList<Series> Series,
    IReadOnlyList<TargetResult> Targets)
{
    public const string CurrentSchema = "vtunnel-bench/1";
}

/// <summary>The machine of a run.</summary>
internal sealed record MachineInfo(string Processor, int Cores, long MemoryBytes, string System, string Kernel, string Runtime, string CongestionControl);

/// <summary>The program of a run.</summary>
/// <param name="File">Its file.</param>
/// <param name="Version">What <c>vtunnel version</c> says.</param>
/// <param name="Compilation">When it was compiled: <see cref="Native"/>, <see cref="ReadyToRun"/> or <see cref="AtRunTime"/>.</param>
internal sealed record ProgramInfo(string File, string Version, string Compilation)
{
    /// <summary>Ahead of time, as a whole; no runtime is beside it.</summary>
    public const string Native = "native";

    /// <summary>Ahead of time, and what is called often once more while it runs.</summary>
    public const string ReadyToRun = "readyToRun";

    public const string AtRunTime = "atRunTime";
}

/// <summary>One figure of one candidate, measured once a round.</summary>
/// <param name="Scenario">Such as <c>throughput</c>.</param>
/// <param name="Case">Such as <c>pull-8</c>: what is measured in this scenario.</param>
/// <param name="Candidate">Such as <c>v2</c>.</param>
/// <param name="Metric">Such as <c>rate</c>.</param>
/// <param name="Unit">Such as <c>MB/s</c>.</param>
/// <param name="Values">One for each round.</param>
/// <param name="Median">Of the values.</param>
/// <param name="Low">The least of them.</param>
/// <param name="High">The greatest of them.</param>
/// <param name="ToDirect">The median of the ratios to direct TCP in the same round; null where there is none.</param>
/// <param name="ToFloor">The same to the plain relay.</param>
internal sealed record Series(
    string Scenario,
    string Case,
    string Candidate,
    string Metric,
    string Unit,
    IReadOnlyList<double> Values,
    double Median,
    double Low,
    double High,
    double? ToDirect,
    double? ToFloor)
{
    /// <summary>The spread around the median, as a fraction of it.</summary>
    [JsonIgnore]
    public double Spread => Median == 0 ? 0 : (High - Low) / 2 / Median;
}

/// <summary>A figure that was to be reached.</summary>
/// <param name="Name">What, in words.</param>
/// <param name="Candidate">By whom.</param>
/// <param name="Value">What was reached.</param>
/// <param name="Limit">What was to be reached.</param>
/// <param name="AtLeast">Whether the limit is a lower bound.</param>
/// <param name="Unit">Of both; <c>× floor</c> where they are ratios.</param>
/// <param name="IsMet">Whether it was.</param>
internal sealed record TargetResult(string Name, string Candidate, double Value, double Limit, bool AtLeast, string Unit, bool IsMet);

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, WriteIndented = true)]
[JsonSerializable(typeof(BenchResult))]
internal sealed partial class BenchJson : JsonSerializerContext;

/// <summary>Figures as they are measured.</summary>
internal sealed class Recorder
{
    private readonly Dictionary<(string Scenario, string Case, string Candidate, string Metric), (string Unit, SortedDictionary<int, double> Values)> _figures = [];
    private readonly List<(string, string, string, string)> _order = [];

    /// <summary>Notes a figure of a round.</summary>
    public void Add(string scenario, string which, string candidate, string metric, string unit, int round, double value)
    {
        var key = (scenario, which, candidate, metric);
        if (!_figures.TryGetValue(key, out var figure))
        {
            _figures[key] = figure = (unit, []);
            _order.Add(key);
        }

        figure.Values[round] = value;
    }

    /// <summary>Everything that was noted, with medians and ratios.</summary>
    public List<Series> ToSeries()
    {
        var series = new List<Series>();
        foreach (var key in _order)
        {
            var (scenario, which, candidate, metric) = key;
            var (unit, values) = _figures[key];
            series.Add(new Series(
                scenario, which, candidate, metric, unit, [.. values.Values.Select(value => Math.Round(value, 4))],
                Math.Round(Median(values.Values), 4), Math.Round(values.Values.Min(), 4), Math.Round(values.Values.Max(), 4),
                candidate == "direct" ? null : Ratio("direct"), candidate is "direct" or "floor" ? null : Ratio("floor")));

            double? Ratio(string other)
            {
                if (!_figures.TryGetValue((scenario, which, other, metric), out var others))
                    return null;
                var ratios = values.Where(value => others.Values.TryGetValue(value.Key, out var theirs) && theirs > 0)
                    .Select(value => value.Value / others.Values[value.Key]).ToList();
                return ratios.Count > 0 ? Math.Round(Median(ratios), 4) : null;
            }
        }

        return series;
    }

    /// <summary>The middle of some values, or the mean of the two that are.</summary>
    public static double Median(IEnumerable<double> values)
    {
        var sorted = values.Order().ToArray();
        var middle = sorted.Length / 2;
        return sorted.Length % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
    }
}

/// <summary>Numbers as people read them.</summary>
internal static class Numbers
{
    /// <summary>Three significant digits, more where the number itself is longer.</summary>
    public static string Short(double value)
    {
        var digits = value == 0 ? 0 : Math.Clamp(2 - (int)Math.Floor(Math.Log10(Math.Abs(value))), 0, 3);
        return Math.Round(value, digits).ToString("N" + digits.ToString(CultureInfo.InvariantCulture), CultureInfo.InvariantCulture);
    }
}
