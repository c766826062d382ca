using System.Buffers.Text;
using System.Globalization;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using VTunnel.Protocol.Buffers;

namespace VTunnel.Protocol.V1;

/// <summary>Writes the messages of protocol v1: one JSON object per text message.</summary>
public static class V1Writer
{
    // {"type":"listen_err","stream_id":4294967295,"port":-2147483648,"local_addr":"","data":""} is under 100 bytes.
    private const int MaxFrameBytes = 128;

    /// <summary>
    /// Writes a message as UTF-8 into a new chunk with <see cref="ByteChunk.Headroom"/> before it; the reference is the
    /// caller's. Keys come in the order type, stream_id, port, local_addr, error, data; fields that are zero or empty, or
    /// that the type does not use, are left out.
    /// </summary>
    /// <remarks>
    /// The message's own payload is read and not released: whoever took the message from the session releases it when it
    /// has been written, or when it never will be.
    /// </remarks>
    /// <exception cref="ArgumentException">The type is <see cref="V1MessageType.Unknown"/>, which has no name on the wire.</exception>
    public static ByteSlice Write(V1Message message)
    {
        ArgumentNullException.ThrowIfNull(message);
        switch (message.Type)
        {
            case V1MessageType.Listen:
                return Write(message, V1Names.LocalAddr);
            case V1MessageType.ListenErr:
                return Write(message, V1Names.Error);
            case V1MessageType.ListenOk:
                return Write(message.Type, 0, message.Port, default, default, default);
            case V1MessageType.Connect:
                return Write(message.Type, message.StreamId, message.Port, default, default, default);
            case V1MessageType.Data:
                return Write(message.Type, message.StreamId, 0, default, default, message.Payload.Span);
            case V1MessageType.Close:
                return Write(message.Type, message.StreamId, 0, default, default, default);
            case V1MessageType.Ping:
            case V1MessageType.Pong:
                return Write(message.Type, 0, 0, default, default, default);
            default:
                throw new ArgumentException($"A message of type {message.Type} cannot be written.", nameof(message));
        }
    }

    private static ByteSlice Write(V1Message message, ReadOnlySpan<byte> textName)
    {
        if (string.IsNullOrEmpty(message.Text))
            return Write(message.Type, 0, message.Port, default, default, default);

        // By way of UTF-8, because it replaces half a surrogate pair where encoding the string itself would throw.
        // Relaxed: the text goes to a JSON reader, not into a web page, and people read it in captures.
        var text = JsonEncodedText.Encode(Encoding.UTF8.GetBytes(message.Text), JavaScriptEncoder.UnsafeRelaxedJsonEscaping);
        return Write(message.Type, 0, message.Port, textName, text.EncodedUtf8Bytes, default);
    }

    private static ByteSlice Write(
        V1MessageType type,
        uint streamId,
        int port,
        ReadOnlySpan<byte> textName,
        ReadOnlySpan<byte> escapedText,
        ReadOnlySpan<byte> payload)
    {
        var base64Length = Base64.GetMaxEncodedToUtf8Length(payload.Length);
        var chunk = ByteChunk.Rent(ByteChunk.Headroom + MaxFrameBytes + escapedText.Length + base64Length);
        var rest = chunk.Array.AsSpan(ByteChunk.Headroom);
        var whole = rest.Length;

        Append(ref rest, "{\"type\":\""u8);
        Append(ref rest, V1Names.Of(type));
        Append(ref rest, "\""u8);
        if (streamId != 0)
        {
            AppendName(ref rest, V1Names.StreamId);
            streamId.TryFormat(rest, out var digits, default, CultureInfo.InvariantCulture);
            rest = rest[digits..];
        }

        if (port != 0)
        {
            AppendName(ref rest, V1Names.Port);
            port.TryFormat(rest, out var digits, default, CultureInfo.InvariantCulture);
            rest = rest[digits..];
        }

        if (!escapedText.IsEmpty)
        {
            AppendName(ref rest, textName);
            Append(ref rest, "\""u8);
            Append(ref rest, escapedText);
            Append(ref rest, "\""u8);
        }

        if (!payload.IsEmpty)
        {
            AppendName(ref rest, V1Names.Data);
            Append(ref rest, "\""u8);
            Base64.EncodeToUtf8(payload, rest, out _, out var written);
            rest = rest[written..];
            Append(ref rest, "\""u8);
        }

        Append(ref rest, "}"u8);
        return new ByteSlice(chunk, ByteChunk.Headroom, whole - rest.Length);
    }

    private static void AppendName(ref Span<byte> rest, ReadOnlySpan<byte> name)
    {
        Append(ref rest, ",\""u8);
        Append(ref rest, name);
        Append(ref rest, "\":"u8);
    }

    private static void Append(ref Span<byte> rest, ReadOnlySpan<byte> bytes)
    {
        bytes.CopyTo(rest);
        rest = rest[bytes.Length..];
    }
}
