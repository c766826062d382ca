using System.Globalization;
using Spectre.Console;
using VTunnel.Bench.Results;

namespace VTunnel.Bench.Reports;

/// <summary>A run as rows: one for each figure, one column for each candidate.</summary>
internal static class Tables
{
    private static readonly string[] Order = ["direct", "floor", "v2", "v1"];

    /// <summary>The candidates of a run, ours first, peers by name.</summary>
    public static List<string> Candidates(BenchResult result) =>
        [.. result.Series.Select(series => series.Candidate).Distinct().OrderBy(name => Array.IndexOf(Order, name) is >= 0 and var index ? index : 99).ThenBy(name => name, StringComparer.Ordinal)];

    /// <summary>Title and rows; the first cell says what, the others what each candidate did.</summary>
    public static IEnumerable<(string Scenario, List<string[]> Rows)> Rows(BenchResult result)
    {
        var candidates = Candidates(result);
        foreach (var scenario in result.Series.GroupBy(series => series.Scenario))
        {
            var rows = new List<string[]>();
            foreach (var figure in scenario.GroupBy(series => (series.Case, series.Metric, series.Unit)).OrderBy(group => Rank(group.Key.Metric)))
            {
                var cells = candidates.Select(candidate => figure.FirstOrDefault(series => series.Candidate == candidate) is { } series ? Cell(series) : "–");
                rows.Add([$"{figure.Key.Case}: {figure.Key.Metric}, {figure.Key.Unit}", .. cells]);
            }

            yield return (scenario.Key, rows);
        }
    }

    /// <summary>Writes a run to a terminal.</summary>
    public static void Write(BenchResult result, IAnsiConsole console)
    {
        foreach (var (scenario, rows) in Rows(result))
        {
            var table = new Table().Border(TableBorder.Simple).Title(scenario);
            table.AddColumn("");
            foreach (var candidate in Candidates(result))
                table.AddColumn(new TableColumn(candidate).RightAligned());
            foreach (var row in rows)
                table.AddRow(Array.ConvertAll(row, cell => (Spectre.Console.Rendering.IRenderable)new Text(cell)));
            console.Write(table);
        }

        if (result.Targets.Count == 0)
            return;
        var targets = new Table().Border(TableBorder.Simple).Title("what is to be reached on two cores");
        targets.AddColumns("", "", "reached", "wanted", "");
        foreach (var target in result.Targets)
            targets.AddRow(Array.ConvertAll(TargetRow(target), cell => (Spectre.Console.Rendering.IRenderable)new Text(cell)));
        console.Write(targets);
    }

    /// <summary>A target in words.</summary>
    public static string[] TargetRow(TargetResult target) =>
    [
        target.Name, target.Candidate, $"{Numbers.Short(target.Value)} {target.Unit}",
        $"{(target.AtLeast ? "at least" : "at most")} {Numbers.Short(target.Limit)}", target.IsMet ? "met" : "not met",
    ];

    /// <summary>The median, its spread where there is more than one value, and the ratio to the floor.</summary>
    private static string Cell(Series series)
    {
        var text = Numbers.Short(series.Median);
        if (series.Values.Count > 1)
            text += string.Create(CultureInfo.InvariantCulture, $" ±{series.Spread * 100:0}%");
        if (series.ToFloor is { } ratio)
            text += string.Create(CultureInfo.InvariantCulture, $" ({ratio:0.00})");
        return text;
    }

    private static int Rank(string metric) => metric switch
    {
        "rate" => 0,
        "cpu" => 1,
        "allocated" => 2,
        _ => 3,
    };
}
