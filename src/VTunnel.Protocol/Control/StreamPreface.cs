using VTunnel.Protocol.Errors;

namespace VTunnel.Protocol.Control;

/// <summary>
/// The line that begins every stream but the control stream and says what it is for:
/// <c>{"type":"connect","port":9000,"remote":"127.0.0.1:53211"}</c>. After it comes only payload.
/// </summary>
public sealed class StreamPreface
{
    /// <summary>Bytes of the longest preface, its newline included: 4 KiB.</summary>
    public const int MaxLineBytes = 4 * 1024;

    private readonly LineBuffer _lines = new(MaxLineBytes, "stream preface");

    /// <summary>Reads a preface that arrives cut anywhere; true once it is complete.</summary>
    /// <param name="input">What is left of it afterwards is payload.</param>
    /// <param name="request">What the stream is for; null if it is for something that this version does not know.</param>
    /// <exception cref="SessionProtocolException">The line is too long, is not a JSON object, or has no usable port.</exception>
    public bool TryRead(ref ReadOnlySpan<byte> input, out StreamRequest? request)
    {
        request = null;
        if (!_lines.TryRead(ref input, out var bytes))
            return false;

        var line = new ControlLine(bytes);
        if (line.Type is not (null or "connect"))
            return true;

        line.ThrowIfMalformed();
        var port = line.RequirePort();
        var visit = string.IsNullOrEmpty(line.Host) ? null : new ProxyVisit(line.Host, line.Speaks ?? ProxyVisit.Tcp);
        request = new StreamRequest(port, string.IsNullOrEmpty(line.Remote) ? null : line.Remote, visit, string.IsNullOrEmpty(line.Target) ? null : line.Target);
        if (!request.Value.HasValidPort)
            throw new SessionProtocolException(SessionError.ProtocolViolation, $"A stream was opened for port {port}; ports are 1 to {StreamRequest.MaxTcpPort}.");

        return true;
    }
}
