using System.Diagnostics.CodeAnalysis;
using VTunnel.Protocol.Errors;

namespace VTunnel.Protocol.Control;

/// <summary>
/// Reads the control stream: JSON objects, one a line, cut anywhere. Unknown types, unknown fields and empty lines are
/// ignored; keys may come in any order.
/// </summary>
public sealed class ControlLineReader
{
    /// <summary>Bytes of the longest line, its newline included: 64 KiB.</summary>
    public const int MaxLineBytes = 64 * 1024;

    private readonly LineBuffer _lines = new(MaxLineBytes, "control line");

    /// <summary>Whether a line has begun and not ended.</summary>
    public bool HasPartialLine => _lines.HasPartial;

    /// <summary>The next message in <paramref name="input"/>; false once all of it is taken.</summary>
    /// <param name="input">What is left of it afterwards comes after the message.</param>
    /// <param name="message">The message.</param>
    /// <exception cref="SessionProtocolException">
    /// A line is too long, is not a JSON object, or lacks a field that its type needs.
    /// </exception>
    public bool TryRead(ref ReadOnlySpan<byte> input, [NotNullWhen(true)] out ControlMessage? message)
    {
        while (!input.IsEmpty && _lines.TryRead(ref input, out var line))
        {
            if (line.IsEmpty || line is [(byte)'\r'])
                continue;

            message = Parse(line);
            if (message is not null)
                return true;
        }

        message = null;
        return false;
    }

    private static ControlMessage? Parse(ReadOnlySpan<byte> bytes)
    {
        var line = new ControlLine(bytes);
        if (line.Type is { } type && type.StartsWith(BridgeLine.TypePrefix, StringComparison.Ordinal))
            return new BridgeLine(bytes.ToArray());
        if (line.Type is not (null or "listen" or "listen_ok" or "listen_err" or "hello"))
            return null;

        line.ThrowIfMalformed();
        return line.Type switch
        {
            "listen" => new Listen(
                line.RequirePort(),
                string.IsNullOrEmpty(line.LocalAddr) ? null : line.LocalAddr,
                string.IsNullOrEmpty(line.Domain) ? null : line.Domain),
            "listen_ok" => new ListenOk(line.RequirePort()),
            "listen_err" => new ListenErr(line.RequirePort(), line.Error ?? ""),
            _ => new Hello(line.Agent ?? "", line.Version ?? "", line.Capabilities ?? []),
        };
    }
}
