using System.Globalization;
using System.Text;
using System.Xml.Linq;

namespace VTunnel.Bench.Reports;

/// <summary>Groups of bars as SVG: readable on light and dark pages, without scripts or fonts of its own.</summary>
internal sealed class BarChart(string title, string unit)
{
    private const int BarHeight = 16;
    private const int GroupGap = 14;
    private const int LabelWidth = 110;
    private const int BarWidth = 460;
    private const int Width = LabelWidth + BarWidth + 130;
    private const int Top = 64;
    private static readonly string[] Colours = ["#8c8c8c", "#4e79a7", "#e15759", "#f28e2b", "#59a14f", "#b07aa1"];

    private readonly List<(string Label, double?[] Values)> _groups = [];

    /// <summary>The names of the bars in each group.</summary>
    public required IReadOnlyList<string> Names { get; init; }

    /// <summary>Adds a group; null where there is no bar.</summary>
    public void Add(string label, params double?[] values) => _groups.Add((label, values));

    public string ToSvg()
    {
        var greatest = _groups.SelectMany(group => group.Values).Max() ?? 1;
        var body = new StringBuilder();
        var y = Top;
        foreach (var (label, values) in _groups)
        {
            var middle = y + (values.Length * BarHeight / 2) + 4;
            body.AppendLine(CultureInfo.InvariantCulture, $"""  <text x="{LabelWidth - 8}" y="{middle}" text-anchor="end">{Text(label)}</text>""");
            for (var i = 0; i < values.Length; i++)
            {
                if (values[i] is { } value)
                {
                    var width = greatest == 0 ? 0 : value / greatest * BarWidth;
                    body.AppendLine(CultureInfo.InvariantCulture,
                        $"""  <rect x="{LabelWidth}" y="{y}" width="{width:0.#}" height="{BarHeight - 2}" fill="{Colours[i % Colours.Length]}"/>""");
                    body.AppendLine(CultureInfo.InvariantCulture,
                        $"""  <text x="{LabelWidth + width + 5:0.#}" y="{y + 11}" font-size="11">{Results.Numbers.Short(value)}</text>""");
                }

                y += BarHeight;
            }

            y += GroupGap;
        }

        var legend = new StringBuilder();
        for (var i = 0; i < Names.Count; i++)
        {
            var x = LabelWidth + (i * 90);
            legend.AppendLine(CultureInfo.InvariantCulture, $"""  <rect x="{x}" y="38" width="11" height="11" fill="{Colours[i % Colours.Length]}"/>""");
            legend.AppendLine(CultureInfo.InvariantCulture, $"""  <text x="{x + 16}" y="48">{Text(Names[i])}</text>""");
        }

        return $"""
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {Width} {y}" width="{Width}" height="{y}" font-family="sans-serif" font-size="13" role="img">
              <title>{Text(title)}</title>
              <rect width="100%" height="100%" fill="#ffffff"/>
              <g fill="#222222">
              <text x="{LabelWidth}" y="22" font-size="15" font-weight="bold">{Text($"{title} ({unit})")}</text>
            {legend}{body}  </g>
            </svg>

            """;
    }

    private static string Text(string text) => new XText(text).ToString();
}
