using System.Globalization;

namespace VTunnel.Testing;

/// <summary>Bytes as people write them: two digits each, separated by white space, comments from <c>#</c> to the end of the line.</summary>
public static class HexText
{
    /// <summary>Reads such a text.</summary>
    /// <exception cref="FormatException">Something in it is neither a byte nor a comment.</exception>
    public static byte[] Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        var bytes = new List<byte>();
        foreach (var line in text.Split('\n'))
        {
            var comment = line.IndexOf('#', StringComparison.Ordinal);
            var content = comment < 0 ? line : line[..comment];
            foreach (var word in content.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries))
            {
                if (word.Length != 2 || !byte.TryParse(word, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var value))
                    throw new FormatException($"'{word}' is not a byte; a byte is two hexadecimal digits.");
                bytes.Add(value);
            }
        }

        return [.. bytes];
    }
}
