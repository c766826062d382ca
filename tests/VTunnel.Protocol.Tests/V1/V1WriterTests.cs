using System.Text;
using System.Text.Json;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.V1;

namespace VTunnel.Protocol.Tests.V1;

public sealed class V1WriterTests
{
    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(32 * 1024)]
    [InlineData(1024 * 1024)]
    public void Data_is_what_a_JSON_parser_of_another_make_reads(int size)
    {
        var bytes = new byte[size];
        new Random(size).NextBytes(bytes);
        using var parsed = JsonDocument.Parse(V1Testing.Write(new V1Message(V1MessageType.Data, uint.MaxValue, Payload: ByteChunk.Copy(bytes))));
        Assert.Equal("data", parsed.RootElement.GetProperty("type").GetString());
        Assert.Equal(uint.MaxValue, parsed.RootElement.GetProperty("stream_id").GetUInt32());
        Assert.Equal(size > 0, parsed.RootElement.TryGetProperty("data", out var data));
        Assert.Equal(bytes, size > 0 ? data.GetBytesFromBase64() : []);
    }

    [Fact]
    public void Writing_does_not_take_the_payload()
    {
        using var ledger = ChunkLedger.Open();
        var message = new V1Message(V1MessageType.Data, 1, Payload: ByteChunk.Copy("abc"u8));
        V1Writer.Write(message).Release();
        Assert.Equal(1, ledger.Outstanding);
        Assert.True(message.Payload.Span.SequenceEqual("abc"u8));
        message.Payload.Release();
        Assert.Equal(0, ledger.Outstanding);
    }

    [Fact]
    public void A_text_that_is_no_proper_unicode_is_still_written_as_JSON()
    {
        var written = V1Testing.Write(new V1Message(V1MessageType.ListenErr, Port: 1, Text: "half \ud800 pair"));
        Assert.Equal("half \uFFFD pair", V1Testing.Read(written).Text);
    }

    [Fact]
    public void A_long_text_is_written_whole()
    {
        var text = string.Concat(Enumerable.Repeat("\"\u0001é\n", 50_000));
        Assert.Equal(text, V1Testing.Read(V1Testing.Write(new V1Message(V1MessageType.Listen, Port: 1, Text: text))).Text);
    }

    [Fact]
    public void Fields_that_the_type_does_not_use_are_not_written()
    {
        var written = V1Testing.Write(new V1Message(V1MessageType.Ping, 5, 6, "x", ByteChunk.Copy("abc"u8)));
        Assert.Equal("{\"type\":\"ping\"}", Encoding.UTF8.GetString(written));
        written = V1Testing.Write(new V1Message(V1MessageType.Close, 5, 6, "x"));
        Assert.Equal("{\"type\":\"close\",\"stream_id\":5}", Encoding.UTF8.GetString(written));
    }

    [Fact]
    public void The_longest_frame_fits()
    {
        var written = V1Testing.Write(new V1Message(V1MessageType.Connect, uint.MaxValue, int.MinValue));
        Assert.Equal("{\"type\":\"connect\",\"stream_id\":4294967295,\"port\":-2147483648}", Encoding.UTF8.GetString(written));
        written = V1Testing.Write(new V1Message(V1MessageType.ListenErr, Port: int.MinValue, Text: "x"));
        Assert.Equal("{\"type\":\"listen_err\",\"port\":-2147483648,\"error\":\"x\"}", Encoding.UTF8.GetString(written));
    }

    [Fact]
    public void A_message_of_unknown_type_cannot_be_written()
    {
        using var ledger = ChunkLedger.Open();
        Assert.Throws<ArgumentException>(() => V1Writer.Write(new V1Message(V1MessageType.Unknown)));
        Assert.Equal(0, ledger.Rented);
    }
}
