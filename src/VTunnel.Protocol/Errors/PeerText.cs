namespace VTunnel.Protocol.Errors;

/// <summary>Text that a peer has chosen, for logs and terminals of ours.</summary>
public static class PeerText
{
    /// <summary>The text without characters that could move a cursor or begin a line of their own, and not longer than it may be.</summary>
    /// <param name="text">From the peer.</param>
    /// <param name="maxLength">Characters to keep; what is left out is shown as an ellipsis.</param>
    public static string Printable(string text, int maxLength = 200)
    {
        ArgumentNullException.ThrowIfNull(text);
        if (text.Length > maxLength)
        {
            // Half a character is none.
            var length = maxLength > 0 && char.IsHighSurrogate(text[maxLength - 1]) ? maxLength - 1 : maxLength;
            text = string.Concat(text.AsSpan(0, length), "…");
        }

        return text.Any(MustReplace)
            ? string.Create(text.Length, text, static (span, source) =>
            {
                for (var i = 0; i < span.Length; i++)
                    span[i] = MustReplace(source[i]) ? '?' : source[i];
            })
            : text;
    }

    private static bool MustReplace(char c) => char.IsControl(c) || c is '\u2028' or '\u2029';
}
