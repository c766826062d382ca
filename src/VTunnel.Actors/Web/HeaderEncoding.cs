using System.Text;

namespace VTunnel.Web;

/// <summary>
/// Latin-1, and a change of the text as it is decoded, of the same length: the only place where one can have a word with
/// Kestrel about a header before it looks at it.
/// </summary>
/// <param name="change">Changes the text in place.</param>
internal sealed class HeaderEncoding(Action<Span<char>> change) : Encoding
{
    /// <summary>
    /// In lower case. Kestrel compares the Host header letter by letter with the host of an absolute URL, which .NET writes in
    /// lower case, although names of hosts are the same in any.
    /// </summary>
    public static readonly HeaderEncoding Host = new(static text =>
    {
        for (var i = 0; i < text.Length; i++)
            text[i] = char.ToLowerInvariant(text[i]);
    });

    /// <summary>
    /// Without <c>keep-alive</c> beside other options. Kestrel forgets those when it sees it, and they name headers that must
    /// not go on; HTTP/1.1 keeps connections anyway.
    /// </summary>
    public static readonly HeaderEncoding Connection = new(static text =>
    {
        const string keepAlive = "keep-alive";
        if (text.Length <= keepAlive.Length)
            return;
        for (var start = 0; ((ReadOnlySpan<char>)text[start..]).IndexOf(keepAlive, StringComparison.OrdinalIgnoreCase) is >= 0 and var at; start += at + keepAlive.Length)
        {
            var from = start + at;
            var to = from + keepAlive.Length;
            if ((from == 0 || text[from - 1] is ' ' or '\t' or ',') && (to == text.Length || text[to] is ' ' or '\t' or ','))
                text[from..to].Fill(' ');
        }
    });

    /// <summary>
    /// Without a sign. Kestrel takes <c>+3</c> for three, which others read in other ways: so it gets what it does not take.
    /// </summary>
    public static readonly HeaderEncoding ContentLength = new(static text => text.Replace('+', '?'));

    /// <summary>How to decode a header of a request.</summary>
    public static Encoding For(string name) => name switch
    {
        "Host" => Host,
        "Connection" => Connection,
        "Content-Length" => ContentLength,
        _ => Latin1,
    };

    public override int GetByteCount(char[] chars, int index, int count) => Latin1.GetByteCount(chars, index, count);

    public override int GetBytes(char[] chars, int charIndex, int charCount, byte[] bytes, int byteIndex) =>
        Latin1.GetBytes(chars, charIndex, charCount, bytes, byteIndex);

    public override int GetCharCount(byte[] bytes, int index, int count) => count;

    public override int GetChars(byte[] bytes, int byteIndex, int byteCount, char[] chars, int charIndex)
    {
        var text = chars.AsSpan(charIndex, byteCount);
        for (var i = 0; i < byteCount; i++)
            text[i] = (char)bytes[byteIndex + i];
        change(text);
        return byteCount;
    }

    public override int GetMaxByteCount(int charCount) => charCount;

    public override int GetMaxCharCount(int byteCount) => byteCount;
}
