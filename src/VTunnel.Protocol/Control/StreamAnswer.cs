using VTunnel.Protocol.Errors;

namespace VTunnel.Protocol.Control;

/// <summary>
/// The line that the client sends first on a stream for a proxy's visitor: <c>{"type":"connected"}</c>, after which comes
/// payload, or <c>{"type":"connect_err","error":"…"}</c>, after which comes the end.
/// </summary>
public sealed class StreamAnswer
{
    /// <summary>Bytes of the longest answer, its newline included: 4 KiB.</summary>
    public const int MaxLineBytes = 4 * 1024;

    private readonly LineBuffer _lines = new(MaxLineBytes, "stream answer");

    /// <summary>Reads an answer that arrives cut anywhere; true once it is complete.</summary>
    /// <param name="input">What is left of it afterwards is payload.</param>
    /// <param name="error">Why the target cannot be reached; null if it is connected. It has no control characters.</param>
    /// <exception cref="SessionProtocolException">The line is too long, or is no answer.</exception>
    public bool TryRead(ref ReadOnlySpan<byte> input, out string? error)
    {
        error = null;
        if (!_lines.TryRead(ref input, out var bytes))
            return false;

        var line = new ControlLine(bytes);
        line.ThrowIfMalformed();
        error = line.Type switch
        {
            "connected" => null,
            "connect_err" => PeerText.Printable(line.Error ?? ""),
            _ => throw new SessionProtocolException(SessionError.ProtocolViolation, $"A stream was answered with a line of type {line.ShownType}."),
        };
        return true;
    }
}
