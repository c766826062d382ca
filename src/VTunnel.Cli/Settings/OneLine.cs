using System.Globalization;
using System.Text;

namespace VTunnel.Cli.Settings;

/// <summary>Keeps text from outside on one line of a terminal or a log: whoever wrote it can neither forge lines nor send escape codes.</summary>
internal static class OneLine
{
    public static string Of(string text)
    {
        if (!text.Any(MustEscape))
            return text;
        var escaped = new StringBuilder(text.Length + 16);
        foreach (var c in text)
        {
            if (!MustEscape(c))
                escaped.Append(c);
            else if (c == '\n')
                escaped.Append("\\n");
            else if (c != '\r')
                escaped.Append(CultureInfo.InvariantCulture, $"\\u{(int)c:x4}");
        }

        return escaped.ToString();
    }

    private static bool MustEscape(char c) => char.IsControl(c) || c is '\u2028' or '\u2029';
}
