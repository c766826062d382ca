using System.Buffers.Binary;
using System.Text;
using VTunnel.Protocol.Buffers;

namespace VTunnel.Protocol.Link;

/// <summary>
/// Writes records other than HELLO (for which see <see cref="LinkHello"/>). Each has <see cref="ByteChunk.Headroom"/>
/// before it, so that a carrier can put its own header in front; the caller owns the reference.
/// </summary>
public static class LinkRecordWriter
{
    /// <summary>ACK: everything below <paramref name="offset"/> was received and consumed.</summary>
    public static ByteSlice Ack(long offset) => WithNumber(LinkRecordType.Ack, (ulong)offset);

    /// <summary>END: the stream ends at <paramref name="offset"/>.</summary>
    public static ByteSlice End(long offset) => WithNumber(LinkRecordType.End, (ulong)offset);

    /// <summary>PING with a token of the sender's choice.</summary>
    public static ByteSlice Ping(ulong token) => WithNumber(LinkRecordType.Ping, token);

    /// <summary>PONG with the token of the PING.</summary>
    public static ByteSlice Pong(ulong token) => WithNumber(LinkRecordType.Pong, token);

    /// <summary>REFUSE.</summary>
    public static ByteSlice Refuse(LinkRefusalCode code, string text) => WithText(LinkRecordType.Refuse, (ushort)code, text);

    /// <summary>BYE.</summary>
    public static ByteSlice Bye(Errors.SessionError code, string text) => WithText(LinkRecordType.Bye, (ushort)code, text);

    /// <summary>DATA around a copy of <paramref name="payload"/>. The link itself writes the header in place instead.</summary>
    public static ByteSlice Data(ReadOnlySpan<byte> payload)
    {
        ArgumentOutOfRangeException.ThrowIfZero(payload.Length, nameof(payload));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(payload.Length, LinkRecord.MaxBytes - LinkRecord.DataHeaderBytes, nameof(payload));
        var message = Rent(1 + payload.Length);
        payload.CopyTo(message.Chunk!.Array.AsSpan(message.Offset + 1));
        message.Chunk.Array[message.Offset] = (byte)LinkRecordType.Data;
        return message;
    }

    private static ByteSlice WithNumber(LinkRecordType type, ulong number)
    {
        var message = Rent(9);
        var span = message.Chunk!.Array.AsSpan(message.Offset, 9);
        span[0] = (byte)type;
        BinaryPrimitives.WriteUInt64BigEndian(span[1..], number);
        return message;
    }

    private static ByteSlice WithText(LinkRecordType type, ushort code, string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        Span<byte> utf8 = stackalloc byte[LinkRecord.MaxTextBytes];
        // Stops before a character that does not fit, so the text stays valid UTF-8.
        Encoding.UTF8.GetEncoder().Convert(text, utf8, flush: true, out _, out var length, out _);
        var message = Rent(3 + length);
        var span = message.Chunk!.Array.AsSpan(message.Offset, 3 + length);
        span[0] = (byte)type;
        BinaryPrimitives.WriteUInt16BigEndian(span[1..], code);
        utf8[..length].CopyTo(span[3..]);
        return message;
    }

    internal static ByteSlice Rent(int length) => new(ByteChunk.Rent(ByteChunk.Headroom + length), ByteChunk.Headroom, length);
}
