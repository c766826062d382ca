using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using System.Text;
using VTunnel.Protocol.Errors;

namespace VTunnel.Protocol.Link;

/// <summary>Reads records other than HELLO (for which see <see cref="LinkHello.TryRead"/>). One record is one message of the carrier.</summary>
public static class LinkRecordReader
{
    /// <summary>Reads one record.</summary>
    /// <param name="message">The whole message as the carrier delivered it.</param>
    /// <param name="record">The fields; of DATA only the type.</param>
    /// <param name="error">What is wrong and what would be right.</param>
    /// <returns>Whether the message is a record by the rules.</returns>
    public static bool TryRead(ReadOnlySpan<byte> message, out LinkRecordFields record, [NotNullWhen(false)] out string? error)
    {
        record = default;
        error = null;
        if (message.IsEmpty)
            return Fail("an empty message; a record has at least its type byte", out error);
        if (message.Length > LinkRecord.MaxBytes)
            return Fail($"a record of {message.Length} bytes; the limit is {LinkRecord.MaxBytes}", out error);

        var type = (LinkRecordType)message[0];
        var body = message[1..];
        switch (type)
        {
            case LinkRecordType.Data:
                if (body.IsEmpty)
                    return Fail("DATA without payload; it carries at least one byte", out error);
                record = new LinkRecordFields(type);
                return true;

            case LinkRecordType.Ack or LinkRecordType.End:
                if (body.Length != 8)
                    return Fail($"{NameOf(type)} with {body.Length} bytes after the type; it has 8", out error);
                var offset = BinaryPrimitives.ReadInt64BigEndian(body);
                if (offset < 0)
                    return Fail($"{NameOf(type)} with an offset beyond 2^63 - 1", out error);
                record = new LinkRecordFields(type, Offset: offset);
                return true;

            case LinkRecordType.Ping or LinkRecordType.Pong:
                if (body.Length != 8)
                    return Fail($"{NameOf(type)} with {body.Length} bytes after the type; it has 8", out error);
                record = new LinkRecordFields(type, Token: BinaryPrimitives.ReadUInt64BigEndian(body));
                return true;

            case LinkRecordType.Refuse or LinkRecordType.Bye:
                if (body.Length is < 2 or > 2 + LinkRecord.MaxTextBytes)
                    return Fail($"{NameOf(type)} with {body.Length} bytes after the type; it has 2 to {2 + LinkRecord.MaxTextBytes}", out error);
                record = new LinkRecordFields(type, Code: BinaryPrimitives.ReadUInt16BigEndian(body), Text: ReadText(body[2..]));
                return true;

            case LinkRecordType.Hello:
                return Fail("HELLO where the carrier had begun already; it is the first record and comes once", out error);

            default:
                if ((byte)type < 0x80)
                    return Fail($"a record of unknown type 0x{(byte)type:x2}; this version knows 0x01 to 0x08 and skips 0x80 and above", out error);
                record = new LinkRecordFields(type);
                return true;
        }
    }

    internal static string NameOf(LinkRecordType type) => type switch
    {
        LinkRecordType.Hello => "HELLO",
        LinkRecordType.Refuse => "REFUSE",
        LinkRecordType.Data => "DATA",
        LinkRecordType.Ack => "ACK",
        LinkRecordType.Ping => "PING",
        LinkRecordType.Pong => "PONG",
        LinkRecordType.End => "END",
        LinkRecordType.Bye => "BYE",
        _ => $"type 0x{(byte)type:x2}",
    };

    /// <summary>Text from the peer ends in logs and terminals: control characters would let it write lines and colours of its own.</summary>
    internal static string ReadText(ReadOnlySpan<byte> utf8) => PeerText.Printable(Encoding.UTF8.GetString(utf8), LinkRecord.MaxTextBytes);

    private static bool Fail(string what, out string? error)
    {
        error = what;
        return false;
    }
}
