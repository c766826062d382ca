using System.Globalization;
using System.Text;
using System.Text.Json;
using CsCheck;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.V1;

namespace VTunnel.Protocol.Tests.V1;

/// <summary>What holds for every message and every input. A failure prints its seed.</summary>
public sealed class V1PropertyTests
{
    private static readonly Gen<string> Words = Gen.OneOf(
        Gen.String,
        Gen.OneOf("localhost:3000", "é€😀", "\"\\/\b\f\n\r\t\u0001", "<script>&amp;", "\u2028\u2029", "\uFEFF"));

    private static readonly Gen<(V1Message Message, byte[] Payload)> Messages = Gen.Select(
        Gen.Enum<V1MessageType>().Where(type => type != V1MessageType.Unknown),
        Gen.OneOf(Gen.UInt[1, uint.MaxValue], Gen.OneOf(1u, 9u, 10u, uint.MaxValue)),
        Gen.OneOf(Gen.Int, Gen.Int[1, 65535], Gen.OneOf(0, -1, 65536, int.MinValue, int.MaxValue)),
        Gen.OneOf(Words, Gen.Const("")),
        Gen.OneOf(Gen.Byte.Array[0, 100], Gen.Byte.Array[1000, 5000]),
        (type, streamId, port, text, payload) => type switch
        {
            V1MessageType.Listen or V1MessageType.ListenErr => (new V1Message(type, Port: port, Text: Proper(text)), []),
            V1MessageType.ListenOk => (new V1Message(type, Port: port == 0 ? 1 : port), []),
            V1MessageType.Connect => (new V1Message(type, streamId, port == 0 ? 1 : port), []),
            V1MessageType.Data => (new V1Message(type, streamId), payload),
            V1MessageType.Close => (new V1Message(type, streamId), []),
            _ => (new V1Message(type), Array.Empty<byte>()),
        });

    private static readonly Gen<string> Soup = Gen.OneOf(
        "{", "}", "[", "]", ":", ",", "\"", "\\", " ", "\n", "null", "true", "0", "1", "-", "4294967295", "65536", ".5", "e9",
        "\"type\"", "\"stream_id\"", "\"port\"", "\"local_addr\"", "\"error\"", "\"data\"", "\"\\u0064ata\"", "\"\\ud800\"",
        "\"listen\"", "\"listen_ok\"", "\"listen_err\"", "\"connect\"", "\"close\"", "\"ping\"", "\"pong\"", "\"YWJj\"", "\"YQ==\"",
        "{\"type\":\"data\",\"stream_id\":1,\"data\":\"", "YWJj", "=", "\"}", "{\"type\":\"data\",", "\"stream_id\":7,", "\"data\":", "é")
        .Array[0, 20].Select(string.Concat);

    [Fact]
    public void What_is_written_is_read_back() =>
        Messages.Sample(
            sample =>
            {
                using var ledger = ChunkLedger.Open();
                var message = sample.Message with { Payload = ByteChunk.Copy(sample.Payload) };
                var read = V1Testing.Read(V1Testing.Write(message));
                AssertIs(sample, read);
                Assert.Equal(0, ledger.Outstanding);
            },
            iter: 3000);

    [Fact]
    public void What_any_other_writer_makes_of_a_message_is_read_the_same() =>
        Gen.Select(Messages, Gen.Int).Sample(
            (sample, shape) =>
            {
                using var ledger = ChunkLedger.Open();
                AssertIs(sample, V1Testing.Read(new OtherWriter(shape).Write(sample.Message, sample.Payload)));
                Assert.Equal(0, ledger.Outstanding);
            },
            iter: 3000);

    [Fact]
    public void Random_bytes_never_throw_and_never_leak() => Gen.Byte.Array[0, 200].Sample(AssertSound, iter: 5000);

    [Fact]
    public void Words_of_the_protocol_in_any_order_never_throw_and_never_leak() =>
        Soup.Sample(text => AssertSound(Encoding.UTF8.GetBytes(text)), iter: 20_000);

    [Fact]
    public void A_message_with_some_bytes_overwritten_never_throws_and_never_leaks() =>
        Gen.Select(Messages, Gen.Int, Gen.Select(Gen.Int[0, 1000], Gen.Byte).Array[1, 4]).Sample(
            (sample, shape, changes) =>
            {
                var bytes = Encoding.UTF8.GetBytes(new OtherWriter(shape).Write(sample.Message, sample.Payload));
                foreach (var (at, value) in changes)
                    bytes[at % bytes.Length] = value;
                AssertSound(bytes);
            },
            iter: 5000);

    private static void AssertIs((V1Message Message, byte[] Payload) expected, V1Message read)
    {
        Assert.Equal(expected.Message, read with { Payload = default });
        Assert.Equal(expected.Payload, read.Payload.Span.ToArray());
        read.Payload.Release();
    }

    /// <summary>Whatever the input: no exception, no leak, and nothing is a message that a JSON parser would refuse.</summary>
    private static void AssertSound(byte[] input)
    {
        using var ledger = ChunkLedger.Open();
        if (V1Reader.TryRead(input, out var message, out var error))
        {
            using var parsed = JsonDocument.Parse(input);
            Assert.Equal(JsonValueKind.Object, parsed.RootElement.ValueKind);
            if (message.Type != V1MessageType.Unknown)
            {
                var payload = message.Payload.Span.ToArray();
                AssertIs((message with { Payload = default }, payload), V1Testing.Read(V1Testing.Write(message)));
            }
        }
        else
        {
            Assert.Null(message);
            Assert.InRange(error.Length, 1, 160);
            Assert.DoesNotContain(error, char.IsControl);
        }

        Assert.Equal(0, ledger.Outstanding);
    }

    /// <summary>What of <paramref name="text"/> UTF-8 can carry; empty is the same as none.</summary>
    private static string? Proper(string text) =>
        text.Length == 0 ? null : Encoding.UTF8.GetString(Encoding.UTF8.GetBytes(text));

    /// <summary>Writes the same message as others might: any key order, any white space, any escape, more fields.</summary>
    private sealed class OtherWriter(int seed)
    {
        private readonly Random _random = new(seed);

        public string Write(V1Message message, byte[] payload)
        {
            var fields = new List<(string Name, string Value)> { ("type", Quote(TypeName(message.Type))) };
            AddNumber(fields, "stream_id", message.StreamId);
            AddNumber(fields, "port", message.Port);
            if (message.Text is not null)
                fields.Add((message.Type == V1MessageType.Listen ? "local_addr" : "error", Quote(message.Text)));
            if (payload.Length > 0 || _random.Next(2) == 0)
                fields.Add(("data", Quote(Convert.ToBase64String(payload))));

            for (var extra = _random.Next(3); extra > 0; extra--)
                fields.Add(("x" + extra.ToString(CultureInfo.InvariantCulture), AnyValue(depth: 3)));

            // A wrong value under a key that comes again later does not count.
            var wrong = fields[_random.Next(fields.Count)].Name;
            var shuffled = fields.ToArray();
            _random.Shuffle(shuffled);
            IEnumerable<(string Name, string Value)> all = _random.Next(3) == 0 ? [(wrong, AnyValue(depth: 2)), .. shuffled] : shuffled;

            return Space() + "{" + string.Join(",", all.Select(field => Space() + Quote(field.Name) + Space() + ":" + Space() + field.Value + Space())) + "}" + Space();
        }

        private void AddNumber(List<(string Name, string Value)> fields, string name, long value)
        {
            if (value != 0)
                fields.Add((name, value.ToString(CultureInfo.InvariantCulture)));
            else if (_random.Next(3) == 0)
                fields.Add((name, _random.Next(2) == 0 ? "0" : "null"));
        }

        private string Quote(string text)
        {
            var escapes = _random.Next(4);
            var json = new StringBuilder("\"");
            foreach (var c in text)
            {
                var must = c is '"' or '\\' or < ' ';
                if (escapes == 0 && !must)
                    json.Append(c);
                else if (c is '"' or '\\' or '/' && _random.Next(2) == 0)
                    json.Append('\\').Append(c);
                else if (must || _random.Next(escapes * 3) == 0)
                    json.Append("\\u").Append(((int)c).ToString(_random.Next(2) == 0 ? "x4" : "X4", CultureInfo.InvariantCulture));
                else if (char.IsSurrogate(c))
                    json.Append("\\u").Append(((int)c).ToString("x4", CultureInfo.InvariantCulture));
                else
                    json.Append(c);
            }

            return json.Append('"').ToString();
        }

        private string AnyValue(int depth) => _random.Next(depth > 0 ? 8 : 6) switch
        {
            0 => "null",
            1 => "true",
            2 => "false",
            3 => "-1.5e-3",
            4 => Quote("type"),
            5 => Quote("half \"of\" it"),
            6 => "[" + string.Join(",", Enumerable.Range(0, _random.Next(3)).Select(_ => AnyValue(depth - 1))) + "]",
            _ => "{" + string.Join(",", Enumerable.Range(0, _random.Next(3)).Select(_ => Quote("type") + ":" + AnyValue(depth - 1))) + "}",
        };

        private string Space() => _random.Next(6) switch
        {
            0 => " ",
            1 => "\r\n\t ",
            _ => "",
        };

        private static string TypeName(V1MessageType type) => type switch
        {
            V1MessageType.Listen => "listen",
            V1MessageType.ListenOk => "listen_ok",
            V1MessageType.ListenErr => "listen_err",
            V1MessageType.Connect => "connect",
            V1MessageType.Data => "data",
            V1MessageType.Close => "close",
            V1MessageType.Ping => "ping",
            _ => "pong",
        };
    }
}
