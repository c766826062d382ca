using System.Globalization;
using System.Text;
using VTunnel.Bench.Results;

namespace VTunnel.Bench.Reports;

/// <summary>
/// Writes what a run says into docs/performance.md, between two marks, and its charts beside it. What stands outside the
/// marks is written by people and stays.
/// </summary>
internal static class PerformancePage
{
    private const string Begin = "<!-- figures: written by 'bench report', do not edit -->";
    private const string End = "<!-- end of figures -->";
    private const string ChartFolder = "performance";

    /// <summary>Brings the page up to date.</summary>
    /// <returns>The files that were written.</returns>
    public static IReadOnlyList<string> Update(BenchResult result, string page)
    {
        var text = File.Exists(page) ? File.ReadAllText(page) : $"# Performance\n\n{Begin}\n{End}\n";
        var begin = text.IndexOf(Begin, StringComparison.Ordinal);
        var end = text.IndexOf(End, StringComparison.Ordinal);
        if (begin < 0 || end < begin)
            throw new BenchException($"{page} has no lines '{Begin}' and '{End}' to write the figures between");

        var written = new List<string> { page };
        var folder = Path.Combine(Path.GetDirectoryName(Path.GetFullPath(page))!, ChartFolder);
        Directory.CreateDirectory(folder);
        var figures = new StringBuilder();
        AppendHead(figures, result);
        foreach (var (name, title, chart) in Charts(result))
        {
            var file = Path.Combine(folder, $"{name}.svg");
            File.WriteAllText(file, chart.ToSvg());
            written.Add(file);
            figures.AppendLine(CultureInfo.InvariantCulture, $"![{title}]({ChartFolder}/{name}.svg)\n");
        }

        AppendTargets(figures, result);
        AppendTables(figures, result);
        File.WriteAllText(page, $"{text[..(begin + Begin.Length)]}\n\n{figures}{text[end..]}");
        return written;
    }

    private static void AppendHead(StringBuilder text, BenchResult result)
    {
        var machine = result.Machine;
        text.AppendLine(CultureInfo.InvariantCulture, $"Measured {result.Started[..10]} on {machine.Cores} cores of {machine.Processor}, {machine.MemoryBytes / (1 << 30)} GiB, {machine.System} ({machine.Kernel}), TCP by {machine.CongestionControl}, {machine.Runtime}.");
        text.AppendLine(CultureInfo.InvariantCulture, $"Program: {result.Program.Version}, {Describe(result.Program)}.");
        text.AppendLine(CultureInfo.InvariantCulture, $"Arguments: `{(result.Arguments.Count == 0 ? "none" : string.Join(' ', result.Arguments))}`. {result.Rounds} rounds, {Numbers.Short(result.WindowSeconds)} s for each measurement, {result.Seconds:0} s in all.\n");
    }

    private static string Describe(ProgramInfo program) => program.Compilation switch
    {
        ProgramInfo.Native => "machine code as published",
        ProgramInfo.ReadyToRun => "published for a runtime, compiled ahead of time (ReadyToRun)",
        _ => "compiled at run time",
    };

    private static void AppendTargets(StringBuilder text, BenchResult result)
    {
        if (result.Targets.Count == 0)
            return;
        var met = result.Targets.Count(target => target.IsMet);
        text.AppendLine(CultureInfo.InvariantCulture, $"### What was to be reached\n\n{met} of {result.Targets.Count} are met in this run. `× floor` is the median of the ratios to the plain relay in the same round.\n");
        text.AppendLine("| | protocol | reached | wanted | |\n|---|---|---|---|---|");
        foreach (var target in result.Targets)
            text.AppendLine(CultureInfo.InvariantCulture, $"| {string.Join(" | ", Tables.TargetRow(target))} |");
        text.AppendLine();
    }

    private static void AppendTables(StringBuilder text, BenchResult result)
    {
        text.AppendLine("### All figures\n\nMedian, half the range between the least and the greatest value in percent of it, and in brackets the ratio to the plain relay.\n");
        var candidates = Tables.Candidates(result);
        foreach (var (scenario, rows) in Tables.Rows(result))
        {
            text.AppendLine(CultureInfo.InvariantCulture, $"| {scenario} | {string.Join(" | ", candidates)} |");
            text.AppendLine(CultureInfo.InvariantCulture, $"|---|{string.Concat(Enumerable.Repeat("---:|", candidates.Count))}");
            foreach (var row in rows)
                text.AppendLine(CultureInfo.InvariantCulture, $"| {string.Join(" | ", row)} |");
            text.AppendLine();
        }
    }

    private static IEnumerable<(string Name, string Title, BarChart Chart)> Charts(BenchResult result)
    {
        var tunnels = Tables.Candidates(result).Where(name => name != "direct").ToList();
        foreach (var (file, title, scenario, metric) in ((string, string, string, string)[])
                 [("throughput", "Throughput", "throughput", "rate"), ("cpu", "CPU of the tunnel's processes", "throughput", "cpu")])
        {
            if (Chart(title, scenario, metric) is { } chart)
                yield return (file, title, chart);
        }

        foreach (var (file, title, which) in ((string, string, string)[])
                 [("echo-idle", "64-byte echo, nothing else under way", "idle"), ("echo-loaded", "64-byte echo beside eight downloads", "loaded")])
        {
            var figures = result.Series.Where(series => series.Scenario == "latency" && series.Case == which).ToList();
            if (figures.Count == 0)
                continue;
            var chart = new BarChart(title, "µs") { Names = tunnels };
            foreach (var metric in (string[])["p50", "p90", "p99"])
                chart.Add(metric, [.. tunnels.Select(name => figures.FirstOrDefault(series => series.Candidate == name && series.Metric == metric)?.Median)]);
            yield return (file, title, chart);
        }

        BarChart? Chart(string title, string scenario, string metric)
        {
            var figures = result.Series.Where(series => series.Scenario == scenario && series.Metric == metric).ToList();
            if (figures.Count == 0)
                return null;
            var chart = new BarChart(title, figures[0].Unit) { Names = tunnels };
            foreach (var group in figures.GroupBy(series => series.Case))
                chart.Add(group.Key, [.. tunnels.Select(name => group.FirstOrDefault(series => series.Candidate == name)?.Median)]);
            return chart;
        }
    }
}
