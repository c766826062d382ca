using System.Buffers.Binary;
using System.Text;

namespace VTunnel.Protocol.Framing;

/// <summary>The payload of a close frame (RFC 6455, 5.5.1 and 7.4): nothing, or a status (2) and a reason in UTF-8 (0 to 123).</summary>
public static class WebSocketGoodbye
{
    /// <summary>The longest reason: 123 bytes of UTF-8.</summary>
    public const int MaxReasonBytes = WebSocketFrameHeader.MaxControlBytes - 2;

    /// <summary>Reads the status of a close frame.</summary>
    /// <param name="payload">The frame's payload, unmasked.</param>
    /// <param name="status">A status that may be sent: 1000 to 1003, 1007 to 1014, 3000 to 4999; null where the frame has none.</param>
    /// <param name="error">What is wrong and what would be right.</param>
    public static bool TryRead(ReadOnlySpan<byte> payload, out ushort? status, out string? error)
    {
        (status, error) = (null, null);
        if (payload.IsEmpty)
            return true;
        var code = payload.Length == 1 ? 0 : BinaryPrimitives.ReadUInt16BigEndian(payload);
        if (code is not ((>= 1000 and <= 1003) or (>= 1007 and <= 1014) or (>= 3000 and <= 4999)))
        {
            error = payload.Length == 1
                ? "a WebSocket close frame of one byte; it is empty or begins with a status of two"
                : $"a WebSocket close frame has status {code}; 1000 to 1003, 1007 to 1014 and 3000 to 4999 may be sent";
            return false;
        }

        status = (ushort)code;
        return true;
    }

    /// <summary>Writes the payload of a close frame; a reason that is too long is cut.</summary>
    /// <param name="destination">At least <see cref="WebSocketFrameHeader.MaxControlBytes"/> bytes.</param>
    /// <param name="status">1000 to 4999; null for an empty frame.</param>
    /// <param name="reason">For whoever looks into it.</param>
    /// <returns>The bytes written.</returns>
    public static int Write(Span<byte> destination, ushort? status, string reason)
    {
        if (status is not { } code)
            return 0;
        BinaryPrimitives.WriteUInt16BigEndian(destination, code);
        return 2 + Encoding.UTF8.GetBytes(Shorten(reason), destination[2..]);
    }

    /// <summary>What of a reason fits into a close frame, cut between characters.</summary>
    public static string Shorten(string reason)
    {
        Span<byte> bytes = stackalloc byte[MaxReasonBytes];
        Encoding.UTF8.GetEncoder().Convert(reason, bytes, flush: false, out var used, out _, out _);
        return reason[..used];
    }
}
