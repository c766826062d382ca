using System.Globalization;
using System.Text;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.V1;

namespace VTunnel.Protocol.Tests.V1;

/// <summary>The bytes on the wire, as files: what they mean does not change, whatever the code does.</summary>
public sealed class V1GoldenTests
{
    // A file whose name begins with read_ is a shape that other writers have and ours does not.
    private const string ReadOnlyPrefix = "read_";

    private static readonly Dictionary<string, (V1Message Message, byte[] Payload)> Expected = new()
    {
        ["listen"] = Message(new(V1MessageType.Listen, Port: 9000)),
        ["listen_with_local_addr"] = Message(new(V1MessageType.Listen, Port: 8085, Text: "gitlab.example.com:443")),
        ["listen_port_0"] = Message(new(V1MessageType.Listen)),
        ["listen_port_65536"] = Message(new(V1MessageType.Listen, Port: 65536)),
        ["listen_port_minus_1"] = Message(new(V1MessageType.Listen, Port: -1)),
        ["listen_ok"] = Message(new(V1MessageType.ListenOk, Port: 9000)),
        ["listen_err"] = Message(new(V1MessageType.ListenErr, Port: 80, Text: "port 80 is in use")),
        ["listen_err_port_0"] = Message(new(V1MessageType.ListenErr, Text: "port 0 is not one")),
        ["listen_err_text"] = Message(new(V1MessageType.ListenErr, Port: 81, Text: "a\"b\\c\nd\te\u0001é€😀<&>+/'")),
        ["connect"] = Message(new(V1MessageType.Connect, StreamId: 1, Port: 9000)),
        ["connect_last_stream_id"] = Message(new(V1MessageType.Connect, StreamId: uint.MaxValue, Port: 65535)),
        ["data"] = Message(new(V1MessageType.Data, StreamId: 1), "abc"u8),
        ["data_one_byte"] = Message(new(V1MessageType.Data, StreamId: 2), "a"u8),
        ["data_two_bytes"] = Message(new(V1MessageType.Data, StreamId: 3), "ab"u8),
        ["data_empty"] = Message(new(V1MessageType.Data, StreamId: 4)),
        ["data_every_byte"] = Message(new(V1MessageType.Data, StreamId: 1234567890), [.. Enumerable.Range(0, 256).Select(b => (byte)b)]),
        ["close"] = Message(new(V1MessageType.Close, StreamId: 7)),
        ["ping"] = Message(new(V1MessageType.Ping)),
        ["pong"] = Message(new(V1MessageType.Pong)),

        ["read_data_keys_reversed"] = Message(new(V1MessageType.Data, StreamId: 1), "abc"u8),
        ["read_data_escaped_base64"] = Message(new(V1MessageType.Data, StreamId: 1), [0xfb, 0xff, 0xfe, 0xfb]),
        ["read_data_wrapped_base64"] = Message(new(V1MessageType.Data, StreamId: 1), "abcdef"u8),
        ["read_data_zero_fields"] = Message(new(V1MessageType.Data, StreamId: 1), "abc"u8),
        ["read_data_nulls"] = Message(new(V1MessageType.Data, StreamId: 1)),
        ["read_data_spaces"] = Message(new(V1MessageType.Data, StreamId: 1), "abc"u8),
        ["read_connect_unknown_fields"] = Message(new(V1MessageType.Connect, StreamId: 5, Port: 9001)),
        ["read_close_duplicate_keys"] = Message(new(V1MessageType.Close, StreamId: 8)),
        ["read_listen_escaped_words"] = Message(new(V1MessageType.Listen, Port: 9000, Text: "<a&b> 😀")),
        ["read_unknown_type"] = Message(new(V1MessageType.Unknown)),
    };

    private static string Folder => Path.Combine(AppContext.BaseDirectory, "V1", "Golden");

    public static TheoryData<string> Names() => [.. Expected.Keys];

    [Fact]
    public void Every_golden_file_has_an_expectation()
    {
        var files = Directory.GetFiles(Folder, "*.hex").Select(Path.GetFileNameWithoutExtension);
        Assert.Equal(Expected.Keys.Order(StringComparer.Ordinal), files.Order(StringComparer.Ordinal));
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void A_golden_message_reads_as_what_it_says(string name)
    {
        using var ledger = ChunkLedger.Open();
        var (expected, payload) = Expected[name];
        var message = V1Testing.Read(BytesOf(name));
        V1Testing.AssertSame(expected, message with { Payload = default });
        Assert.Equal(payload, message.Payload.Span.ToArray());
        message.Payload.Release();
        Assert.Equal(0, ledger.Outstanding);
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void A_canonical_golden_message_is_written_byte_for_byte(string name)
    {
        var (expected, payload) = Expected[name];
        if (name.StartsWith(ReadOnlyPrefix, StringComparison.Ordinal))
        {
            // Not canonical: writing what was read must give something else, or the name is wrong.
            if (expected.Type != V1MessageType.Unknown)
                Assert.NotEqual(BytesOf(name), V1Testing.Write(expected with { Payload = ByteChunk.Copy(payload) }));
            return;
        }

        using var ledger = ChunkLedger.Open();
        var written = V1Testing.Write(expected with { Payload = ByteChunk.Copy(payload) });
        Assert.Equal(Encoding.UTF8.GetString(BytesOf(name)), Encoding.UTF8.GetString(written));
        Assert.Equal(0, ledger.Outstanding);
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void A_golden_message_cut_anywhere_is_an_error(string name)
    {
        var whole = BytesOf(name);
        var end = whole.AsSpan().TrimEnd(" \n"u8).Length;
        for (var length = 0; length < end; length++)
            V1Testing.ReadError(whole.AsSpan(0, length));
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void A_golden_message_corrupted_anywhere_neither_throws_nor_leaks(string name)
    {
        using var ledger = ChunkLedger.Open();
        var bytes = BytesOf(name);
        for (var at = 0; at < bytes.Length; at++)
        {
            var right = bytes[at];
            for (var wrong = 0; wrong <= byte.MaxValue; wrong++)
            {
                bytes[at] = (byte)wrong;
                if (V1Reader.TryRead(bytes, out var message, out var error))
                    message.Payload.Release();
                else
                    Assert.DoesNotContain(error, char.IsControl);
                Assert.Equal(0, ledger.Outstanding);
            }

            bytes[at] = right;
        }
    }

    [Theory]
    [MemberData(nameof(Names))]
    public void A_golden_message_with_a_byte_lost_or_doubled_neither_throws_nor_leaks(string name)
    {
        using var ledger = ChunkLedger.Open();
        var bytes = BytesOf(name);
        for (var at = 0; at < bytes.Length; at++)
        {
            foreach (var changed in new[] { [.. bytes[..at], .. bytes[(at + 1)..]], (byte[])[.. bytes[..at], bytes[at], .. bytes[at..]] })
            {
                if (V1Reader.TryRead(changed, out var message, out _))
                    message.Payload.Release();
                Assert.Equal(0, ledger.Outstanding);
            }
        }
    }

    private static (V1Message Message, byte[] Payload) Message(V1Message message, ReadOnlySpan<byte> payload = default) => (message, payload.ToArray());

    private static byte[] BytesOf(string name)
    {
        var bytes = new List<byte>();
        foreach (var line in File.ReadLines(Path.Combine(Folder, name + ".hex")))
        {
            var comment = line.IndexOf('#', StringComparison.Ordinal);
            var hex = comment < 0 ? line : line[..comment];
            foreach (var digits in hex.Split(' ', StringSplitOptions.RemoveEmptyEntries))
                bytes.Add(byte.Parse(digits, NumberStyles.HexNumber, CultureInfo.InvariantCulture));
        }

        return [.. bytes];
    }
}
