using System.Text;

namespace VTunnel.Actors.Tests.Targets;

/// <summary>Just enough HTTP to see on the wire what a target gets: heads as text, bodies by Content-Length or chunks as they are.</summary>
internal static class RawHttp
{
    /// <summary>Reads to the end of a head; empty at the end of the stream.</summary>
    public static async Task<string> ReadHeadAsync(Stream stream) => await ReadUntilAsync(stream, "\r\n\r\n");

    public static async Task<string> ReadUntilAsync(Stream stream, string end)
    {
        var text = new StringBuilder();
        var one = new byte[1];
        while (text.Length < end.Length || text.ToString(text.Length - end.Length, end.Length) != end)
        {
            if (await stream.ReadAsync(one) == 0)
                break;
            text.Append((char)one[0]);
        }

        return text.ToString();
    }

    public static async Task WriteAsync(Stream stream, string text) => await stream.WriteAsync(Encoding.Latin1.GetBytes(text));

    /// <summary>The values of a header, by its name in any case.</summary>
    public static string[] Header(string head, string name) =>
        [.. head.Split("\r\n").Skip(1)
            .Where(line => line.StartsWith(name + ":", StringComparison.OrdinalIgnoreCase))
            .Select(line => line[(name.Length + 1)..].Trim())];

    /// <summary>The names of all headers, as they came.</summary>
    public static string[] HeaderNames(string head) =>
        [.. head.Split("\r\n").Skip(1).Where(line => line.Contains(':', StringComparison.Ordinal)).Select(line => line[..line.IndexOf(':', StringComparison.Ordinal)])];
}
