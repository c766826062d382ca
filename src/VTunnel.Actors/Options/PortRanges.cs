using System.Diagnostics.CodeAnalysis;
using System.Globalization;

namespace VTunnel.Options;

/// <summary>Reads lists of ports as users write them.</summary>
public static class PortRanges
{
    /// <summary>The right form, for messages.</summary>
    internal const string Form = "ports are numbers from 1 to 65535 or ranges of them, such as 9000,9100-9199";

    /// <summary>Reads <c>9000,9100-9199</c>; blanks around the parts are ignored.</summary>
    /// <param name="text">As the user wrote it.</param>
    /// <param name="ranges">The ranges in the order of the text, or null.</param>
    /// <param name="problem">What is wrong and what would be right, or null.</param>
    public static bool TryParse(
        string? text,
        [NotNullWhen(true)] out IReadOnlyList<PortRange>? ranges,
        [NotNullWhen(false)] out string? problem)
    {
        var found = new List<PortRange>();
        foreach (var part in (text ?? "").Split(',', StringSplitOptions.TrimEntries))
        {
            var dash = part.IndexOf('-', StringComparison.Ordinal);
            var first = dash < 0 ? part : part[..dash].TrimEnd();
            var last = dash < 0 ? part : part[(dash + 1)..].TrimStart();
            if (!TryParsePort(first, out var from) || !TryParsePort(last, out var to))
                problem = Form;
            else if (from > to)
                problem = $"the range {part} runs backwards; write {to}-{from}";
            else
            {
                found.Add(new PortRange(from, to));
                continue;
            }

            ranges = null;
            return false;
        }

        ranges = found;
        problem = null;
        return true;
    }

    private static bool TryParsePort(string text, out int port) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out port) && port is >= 1 and <= 65535;
}
