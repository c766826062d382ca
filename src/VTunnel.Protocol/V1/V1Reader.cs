using System.Buffers;
using System.Buffers.Text;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Unicode;
using VTunnel.Protocol.Buffers;

namespace VTunnel.Protocol.V1;

/// <summary>Reads the messages of protocol v1: one JSON object per text message.</summary>
/// <remarks>
/// A message as every known writer makes it (<c>{"type":"data","stream_id":1,"data":"…"}</c>) is recognised by its
/// first and last bytes and decoded straight into a pooled chunk; any other shape takes a JSON reader, which costs
/// twice as much and means the same. Neither allocates anything but the message for <c>data</c>.
/// </remarks>
public static class V1Reader
{
    // Values are remembered by position and looked at when the type is known: keys come in any order, the last of
    // several equal keys counts, and a field that the type does not use may hold anything.
    private const int TypeField = 0;
    private const int StreamIdField = 1;
    private const int PortField = 2;
    private const int LocalAddrField = 3;
    private const int ErrorField = 4;
    private const int DataField = 5;
    private const int FieldCount = 6;

    // Any character may be written as six: \u0064 is d. Longer than that and it is none of our words.
    private const int MaxEscapedWordLength = 6 * 10;

    private const int MaxExcerptLength = 40;

    private static readonly V1Message Unknown = new(V1MessageType.Unknown);
    private static readonly V1Message Ping = new(V1MessageType.Ping);
    private static readonly V1Message Pong = new(V1MessageType.Pong);

    private static ReadOnlySpan<byte> UsualStart => "{\"type\":\"data\",\"stream_id\":"u8;

    private static ReadOnlySpan<byte> UsualMiddle => ",\"data\":\""u8;

    private static ReadOnlySpan<byte> UsualEnd => "\"}"u8;

    /// <summary>Reads one complete message.</summary>
    /// <param name="utf8Message">The whole text message, UTF-8.</param>
    /// <param name="message">
    /// The message; its payload, if any, is a new chunk with <see cref="ByteChunk.Headroom"/> before it, whose reference
    /// is the caller's. A type that this version does not know is <see cref="V1MessageType.Unknown"/> without fields.
    /// Null, empty and zero values are the same as absent ones.
    /// </param>
    /// <param name="error">
    /// What is wrong, for a log: one line, without control characters, quoting at most 40 characters of the input.
    /// </param>
    /// <returns>Whether it is a message; never throws for what a peer can send.</returns>
    public static bool TryRead(
        ReadOnlySpan<byte> utf8Message,
        [NotNullWhen(true)] out V1Message? message,
        [NotNullWhen(false)] out string? error)
    {
        if (TryReadUsualData(utf8Message, out message))
        {
            error = null;
            return true;
        }

        error = ReadAny(utf8Message, out message);
        return message is not null;
    }

    private static bool TryReadUsualData(ReadOnlySpan<byte> utf8, [NotNullWhen(true)] out V1Message? message)
    {
        message = null;
        if (!utf8.StartsWith(UsualStart) || !utf8.EndsWith(UsualEnd))
            return false;

        var rest = utf8[UsualStart.Length..^UsualEnd.Length];

        // 0 and numbers that begin with 0 are errors, which the other path explains.
        if (rest.IsEmpty || rest[0] is < (byte)'1' or > (byte)'9' || !Utf8Parser.TryParse(rest, out uint streamId, out var digits))
            return false;

        rest = rest[digits..];
        if (!rest.StartsWith(UsualMiddle))
            return false;

        // White space is all that the decoder skips. Where every four characters gave three bytes there was none, so
        // the text held no quote, no escape and no line break: a JSON string without anybody having parsed it.
        var base64 = rest[UsualMiddle.Length..];
        if (base64.Length % 4 != 0 || !TryDecode(base64, out var payload))
            return false;
        if (payload.Length != ExactDecodedLength(base64))
        {
            payload.Release();
            return false;
        }

        message = new V1Message(V1MessageType.Data, streamId, Payload: payload);
        return true;
    }

    private static string? ReadAny(ReadOnlySpan<byte> utf8, out V1Message? message)
    {
        message = null;
        if (utf8.IsEmpty)
            return "the message is empty; a JSON object was expected";
        if (!Utf8.IsValid(utf8))
            return "the message is not UTF-8";

        Span<Field> fields = stackalloc Field[FieldCount];
        fields.Clear();
        return Scan(utf8, fields) ?? Interpret(utf8, fields, out message);
    }

    private static string? Scan(ReadOnlySpan<byte> utf8, Span<Field> fields)
    {
        var reader = new Utf8JsonReader(utf8);
        var complete = false;
        try
        {
            reader.Read();
            if (reader.TokenType != JsonTokenType.StartObject)
                return $"the message is not a JSON object: {Excerpt(utf8)}";

            while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
            {
                var index = FieldOf(reader.ValueSpan, reader.ValueIsEscaped);
                reader.Read();
                if (index >= 0)
                {
                    var start = (int)reader.TokenStartIndex;
                    fields[index] = new Field(reader.TokenType, start, (int)reader.BytesConsumed - start);
                }

                reader.Skip();
            }

            complete = true;

            // Throws when anything but white space follows.
            reader.Read();
            return null;
        }
        catch (JsonException)
        {
            // The exception's own text quotes the input without a limit.
            var at = reader.BytesConsumed.ToString(CultureInfo.InvariantCulture);
            return complete
                ? $"something follows the JSON object, which ends at byte {at}"
                : $"the message is not JSON (after byte {at}): {Excerpt(utf8)}";
        }
    }

    private static string? Interpret(ReadOnlySpan<byte> utf8, ReadOnlySpan<Field> fields, out V1Message? message)
    {
        message = null;
        var typeField = fields[TypeField];
        if (typeField.IsAbsent || typeField.IsEmptyString)
            return "\"type\" is missing";
        if (typeField.Kind != JsonTokenType.String)
            return $"\"type\" must be a string, not {Describe(utf8, typeField)}";

        var type = TypeOf(typeField.Text(utf8));
        switch (type)
        {
            case V1MessageType.Ping:
                message = Ping;
                return null;

            case V1MessageType.Pong:
                message = Pong;
                return null;

            case V1MessageType.Listen:
            case V1MessageType.ListenOk:
            case V1MessageType.ListenErr:
                return InterpretListen(type, utf8, fields, out message);

            case V1MessageType.Connect:
            case V1MessageType.Data:
            case V1MessageType.Close:
                return InterpretStream(type, utf8, fields, out message);

            default:
                message = Unknown;
                return null;
        }
    }

    private static string? InterpretListen(V1MessageType type, ReadOnlySpan<byte> utf8, ReadOnlySpan<Field> fields, out V1Message? message)
    {
        message = null;
        string? text = null;
        var error = ReadPort(type, utf8, fields[PortField], out var port);

        // A peer may ask for port 0, which is written by leaving it out, and has to be told no under that number.
        if (error is null && port == 0 && type == V1MessageType.ListenOk)
            error = "listen_ok: \"port\" is missing or 0; it must be 1 to 65535";
        if (error is null && type == V1MessageType.Listen)
            error = ReadText(type, V1Names.LocalAddr, utf8, fields[LocalAddrField], out text);
        if (error is null && type == V1MessageType.ListenErr)
            error = ReadText(type, V1Names.Error, utf8, fields[ErrorField], out text);
        if (error is null)
            message = new V1Message(type, Port: port, Text: text);
        return error;
    }

    private static string? InterpretStream(V1MessageType type, ReadOnlySpan<byte> utf8, ReadOnlySpan<Field> fields, out V1Message? message)
    {
        message = null;
        var port = 0;
        var payload = ByteSlice.Empty;
        var error = ReadStreamId(type, utf8, fields[StreamIdField], out var streamId);
        if (error is null && type == V1MessageType.Connect)
        {
            error = ReadPort(type, utf8, fields[PortField], out port);
            if (error is null && port == 0)
                error = "connect: \"port\" is missing or 0; it must be 1 to 65535";
        }

        // Last, so that nothing can go wrong after a chunk was rented.
        if (error is null && type == V1MessageType.Data)
            error = ReadPayload(utf8, fields[DataField], out payload);
        if (error is null)
            message = new V1Message(type, streamId, port, Payload: payload);
        return error;
    }

    private static string? ReadStreamId(V1MessageType type, ReadOnlySpan<byte> utf8, Field field, out uint streamId)
    {
        streamId = 0;
        if (field.Kind == JsonTokenType.Number)
        {
            var digits = field.Token(utf8);
            if (!Utf8Parser.TryParse(digits, out streamId, out var used) || used != digits.Length)
                return $"{NameOf(type)}: \"stream_id\" must be a whole number from 1 to 4294967295, not {Excerpt(digits)}";
        }
        else if (!field.IsAbsent)
        {
            return $"{NameOf(type)}: \"stream_id\" must be a whole number from 1 to 4294967295, not {Describe(utf8, field)}";
        }

        return streamId == 0 ? $"{NameOf(type)}: \"stream_id\" is missing or 0; it must be 1 to 4294967295" : null;
    }

    private static string? ReadPort(V1MessageType type, ReadOnlySpan<byte> utf8, Field field, out int port)
    {
        port = 0;
        if (field.IsAbsent)
            return null;
        if (field.Kind != JsonTokenType.Number)
            return $"{NameOf(type)}: \"port\" must be a whole number from 1 to 65535, not {Describe(utf8, field)}";

        var digits = field.Token(utf8);
        return Utf8Parser.TryParse(digits, out port, out var used) && used == digits.Length
            ? null
            : $"{NameOf(type)}: \"port\" must be a whole number from 1 to 65535, not {Excerpt(digits)}";
    }

    private static string? ReadText(V1MessageType type, ReadOnlySpan<byte> name, ReadOnlySpan<byte> utf8, Field field, out string? text)
    {
        text = null;
        if (field.IsAbsent || field.IsEmptyString)
            return null;
        if (field.Kind != JsonTokenType.String)
            return $"{NameOf(type)}: \"{Encoding.UTF8.GetString(name)}\" must be a string, not {Describe(utf8, field)}";

        var reader = new Utf8JsonReader(field.Token(utf8));
        reader.Read();
        try
        {
            text = reader.GetString();
            return null;
        }
        catch (InvalidOperationException)
        {
            // The one thing left that JSON allows and a string cannot hold: half of a surrogate pair, as in "\ud800".
            return $"{NameOf(type)}: \"{Encoding.UTF8.GetString(name)}\" holds half of a surrogate pair";
        }
    }

    private static string? ReadPayload(ReadOnlySpan<byte> utf8, Field field, out ByteSlice payload)
    {
        payload = ByteSlice.Empty;
        if (field.IsAbsent)
            return null;
        if (field.Kind != JsonTokenType.String)
            return $"data: \"data\" must be a string of base64, not {Describe(utf8, field)}";

        var text = field.Text(utf8);
        if (!text.Contains((byte)'\\'))
            return TryDecode(text, out payload) ? null : NotBase64(text.Length);

        var scratch = ArrayPool<byte>.Shared.Rent(text.Length);
        try
        {
            return TryUnescapeAscii(text, scratch, out var length) && TryDecode(scratch.AsSpan(0, length), out payload)
                ? null
                : NotBase64(text.Length);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(scratch);
        }
    }

    // What a peer carries is not ours to put into logs: the length has to do.
    private static string NotBase64(int length) =>
        string.Create(CultureInfo.InvariantCulture, $"data: \"data\" is not base64 with padding ({length} characters)");

    /// <summary>Decodes into a new chunk. White space between the digits is allowed: some encoders wrap their lines.</summary>
    private static bool TryDecode(ReadOnlySpan<byte> base64, out ByteSlice payload)
    {
        payload = ByteSlice.Empty;
        if (base64.IsEmpty)
            return true;

        var chunk = ByteChunk.Rent(ByteChunk.Headroom + Base64.GetMaxDecodedFromUtf8Length(base64.Length));
        var status = Base64.DecodeFromUtf8(base64, chunk.Array.AsSpan(ByteChunk.Headroom), out _, out var written);
        if (status == OperationStatus.Done && written > 0)
        {
            payload = new ByteSlice(chunk, ByteChunk.Headroom, written);
            return true;
        }

        chunk.Release();
        return status == OperationStatus.Done;
    }

    private static int ExactDecodedLength(ReadOnlySpan<byte> base64)
    {
        var padding = base64 switch
        {
            [.., (byte)'=', (byte)'='] => 2,
            [.., (byte)'='] => 1,
            _ => 0,
        };
        return (base64.Length / 4 * 3) - padding;
    }

    private static int FieldOf(ReadOnlySpan<byte> name, bool escaped)
    {
        if (escaped)
        {
            Span<byte> plain = stackalloc byte[MaxEscapedWordLength];
            return name.Length <= MaxEscapedWordLength && TryUnescapeAscii(name, plain, out var length)
                ? FieldOf(plain[..length], escaped: false)
                : -1;
        }

        if (name.SequenceEqual(V1Names.Type))
            return TypeField;
        if (name.SequenceEqual(V1Names.StreamId))
            return StreamIdField;
        if (name.SequenceEqual(V1Names.Data))
            return DataField;
        if (name.SequenceEqual(V1Names.Port))
            return PortField;
        if (name.SequenceEqual(V1Names.LocalAddr))
            return LocalAddrField;
        return name.SequenceEqual(V1Names.Error) ? ErrorField : -1;
    }

    private static V1MessageType TypeOf(ReadOnlySpan<byte> text)
    {
        if (!text.Contains((byte)'\\'))
            return V1Names.TypeOf(text);

        Span<byte> plain = stackalloc byte[MaxEscapedWordLength];
        return text.Length <= MaxEscapedWordLength && TryUnescapeAscii(text, plain, out var length)
            ? V1Names.TypeOf(plain[..length])
            : V1MessageType.Unknown;
    }

    /// <summary>
    /// Undoes the escapes of a JSON string that has been found well formed. False when it stands for anything that is
    /// not ASCII, which none of our words and no base64 is; so half a surrogate pair needs no treatment of its own.
    /// </summary>
    private static bool TryUnescapeAscii(ReadOnlySpan<byte> text, Span<byte> destination, out int length)
    {
        length = 0;
        for (var i = 0; i < text.Length; i++)
        {
            int value = text[i];
            if (value == '\\')
            {
                i++;
                if (text[i] == 'u')
                {
                    if (!Utf8Parser.TryParse(text.Slice(i + 1, 4), out value, out _, 'x'))
                        return false;
                    i += 4;
                }
                else
                {
                    value = text[i] switch
                    {
                        (byte)'b' => '\b',
                        (byte)'f' => '\f',
                        (byte)'n' => '\n',
                        (byte)'r' => '\r',
                        (byte)'t' => '\t',
                        var itself => itself,
                    };
                }
            }

            if (value > 0x7f)
                return false;
            destination[length++] = (byte)value;
        }

        return true;
    }

    private static string NameOf(V1MessageType type) => Encoding.UTF8.GetString(V1Names.Of(type));

    private static string Describe(ReadOnlySpan<byte> utf8, Field field) => field.Kind switch
    {
        JsonTokenType.String => "a string",
        JsonTokenType.StartObject => "an object",
        JsonTokenType.StartArray => "an array",
        _ => Excerpt(field.Token(utf8)),
    };

    /// <summary>The beginning of something a peer sent, made harmless for a log.</summary>
    private static string Excerpt(ReadOnlySpan<byte> utf8)
    {
        var text = new StringBuilder();
        for (var count = 0; !utf8.IsEmpty && count < MaxExcerptLength; count++)
        {
            Rune.DecodeFromUtf8(utf8, out var rune, out var used);
            utf8 = utf8[used..];
            var harmless = Rune.GetUnicodeCategory(rune) is not (UnicodeCategory.Control or UnicodeCategory.Format
                or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator
                or UnicodeCategory.PrivateUse or UnicodeCategory.OtherNotAssigned);
            text.Append(harmless ? rune.ToString() : "?");
        }

        return utf8.IsEmpty ? text.ToString() : text.Append('…').ToString();
    }

    /// <summary>Where the value of a field is. A string's token includes its quotes.</summary>
    private readonly record struct Field(JsonTokenType Kind, int Start, int Length)
    {
        public bool IsAbsent => Kind is JsonTokenType.None or JsonTokenType.Null;

        public bool IsEmptyString => Kind == JsonTokenType.String && Length == 2;

        public ReadOnlySpan<byte> Token(ReadOnlySpan<byte> utf8) => utf8.Slice(Start, Length);

        /// <summary>A string without its quotes, escapes and all.</summary>
        public ReadOnlySpan<byte> Text(ReadOnlySpan<byte> utf8) => utf8.Slice(Start + 1, Length - 2);
    }
}
