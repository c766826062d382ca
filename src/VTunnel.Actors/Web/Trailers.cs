using System.Buffers;
using System.Collections.Frozen;
using System.Text;
using Microsoft.AspNetCore.Http;

namespace VTunnel.Web;

/// <summary>The end of a body in chunks, as HTTP/1.1 writes it.</summary>
internal static class Trailers
{
    /// <summary>The last chunk and no trailers.</summary>
    public static ReadOnlySpan<byte> EmptyEnd => "0\r\n\r\n"u8;

    private static readonly SearchValues<char> NameCharacters =
        SearchValues.Create("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz");

    /// <summary>What says how a message is to be read or who sends it has no business after it: a reader who merges it into the head would believe it.</summary>
    private static readonly FrozenSet<string> Forbidden = new[]
    {
        "Authorization", "Connection", "Content-Encoding", "Content-Length", "Content-Range", "Content-Type", "Cookie", "Expect", "Host", "Keep-Alive", "Max-Forwards",
        "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Set-Cookie", "TE", "Trailer", "Transfer-Encoding", "Upgrade",
    }.ToFrozenSet(StringComparer.OrdinalIgnoreCase);

    /// <summary>Writes the last chunk with those trailers that may go on.</summary>
    /// <param name="output">Where to.</param>
    /// <param name="trailers">What came.</param>
    /// <param name="isKept">Further says of a name whether it goes on.</param>
    /// <exception cref="IOException">A value could be taken for something else than a value.</exception>
    public static void WriteEnd(IBufferWriter<byte> output, IHeaderDictionary trailers, Func<string, bool>? isKept = null)
    {
        output.Write("0\r\n"u8);
        foreach (var (name, values) in trailers)
        {
            if (Forbidden.Contains(name) || isKept?.Invoke(name) == false)
                continue;
            foreach (var value in values)
            {
                if (name.AsSpan().ContainsAnyExcept(NameCharacters) || value.AsSpan().ContainsAny('\r', '\n', '\0'))
                    throw new IOException("A trailer has characters that no header may have.");
                output.Write(Encoding.Latin1.GetBytes($"{name}: {value}\r\n"));
            }
        }

        output.Write("\r\n"u8);
    }
}
