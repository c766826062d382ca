using VTunnel.Protocol.Framing;

namespace VTunnel.Protocol.Tests.Framing;

public sealed class WebSocketFrameHeaderTests
{
    /// <summary>Headers as RFC 6455 writes them (5.7), and the lengths where the form changes.</summary>
    [Theory]
    [InlineData("81 05", WebSocketOpcode.Text, true, 5, null)]
    [InlineData("81 85 37fa213d", WebSocketOpcode.Text, true, 5, "37fa213d")]
    [InlineData("01 03", WebSocketOpcode.Text, false, 3, null)]
    [InlineData("80 02", WebSocketOpcode.Continuation, true, 2, null)]
    [InlineData("89 05", WebSocketOpcode.Ping, true, 5, null)]
    [InlineData("8a 85 37fa213d", WebSocketOpcode.Pong, true, 5, "37fa213d")]
    [InlineData("88 00", WebSocketOpcode.Close, true, 0, null)]
    [InlineData("88 7d", WebSocketOpcode.Close, true, 125, null)]
    [InlineData("82 00", WebSocketOpcode.Binary, true, 0, null)]
    [InlineData("82 7d", WebSocketOpcode.Binary, true, 125, null)]
    [InlineData("82 7e 007e", WebSocketOpcode.Binary, true, 126, null)]
    [InlineData("82 7e 0100", WebSocketOpcode.Binary, true, 256, null)]
    [InlineData("82 7e ffff", WebSocketOpcode.Binary, true, 65_535, null)]
    [InlineData("82 7f 0000000000010000", WebSocketOpcode.Binary, true, 65_536, null)]
    [InlineData("82 ff 0000000000010000 01020304", WebSocketOpcode.Binary, true, 65_536, "01020304")]
    [InlineData("82 7f 7fffffffffffffff", WebSocketOpcode.Binary, true, long.MaxValue, null)]
    public void What_is_written_is_what_is_read(string wire, WebSocketOpcode opcode, bool isFinal, long length, string? mask)
    {
        var bytes = Hex(wire);
        var header = new WebSocketFrameHeader(opcode, isFinal, length, mask is null ? null : BitConverter.ToUInt32(Hex(mask)));

        var written = new byte[WebSocketFrameHeader.MaxSize];
        header.Write(written);
        Assert.Equal(bytes, written[..header.Size]);

        Assert.True(WebSocketFrameHeader.TryRead([.. bytes, 0xff], out var read, out var size, out var error), error);
        Assert.Equal((header, bytes.Length), (read, size));
        for (var cut = 0; cut < bytes.Length; cut++)
            Assert.Equal((false, 0, null), (WebSocketFrameHeader.TryRead(bytes.AsSpan(0, cut), out _, out size, out error), size, error));
    }

    [Theory]
    [InlineData("82 7e 0005", 5)]
    [InlineData("82 7f 0000000000000005", 5)]
    [InlineData("82 7f 0000000000000100", 256)]
    public void A_length_that_is_written_longer_than_need_be_is_read(string wire, long length)
    {
        var bytes = Hex(wire);
        Assert.True(WebSocketFrameHeader.TryRead(bytes, out var header, out var size, out _));
        Assert.Equal((length, bytes.Length), (header.Length, size));
    }

    [Theory]
    [InlineData("c1 05", "a WebSocket frame begins with 0xc1; no extension was agreed on that would use its reserved bits")]
    [InlineData("a2 05", "a WebSocket frame begins with 0xa2; no extension was agreed on that would use its reserved bits")]
    [InlineData("92 05", "a WebSocket frame begins with 0x92; no extension was agreed on that would use its reserved bits")]
    [InlineData("83 05", "a WebSocket frame has opcode 0x3; 0x0 to 0x2 and 0x8 to 0xa exist")]
    [InlineData("87 05", "a WebSocket frame has opcode 0x7; 0x0 to 0x2 and 0x8 to 0xa exist")]
    [InlineData("8b 05", "a WebSocket frame has opcode 0xb; 0x0 to 0x2 and 0x8 to 0xa exist")]
    [InlineData("8f 05", "a WebSocket frame has opcode 0xf; 0x0 to 0x2 and 0x8 to 0xa exist")]
    [InlineData("09 05", "a WebSocket control frame (opcode 0x9) is in pieces; it comes whole")]
    [InlineData("88 7e 0003", "a WebSocket control frame (opcode 0x8) has more than 125 bytes")]
    [InlineData("8a ff", "a WebSocket control frame (opcode 0xa) has more than 125 bytes")]
    [InlineData("82 7f 8000000000000000", "a WebSocket frame has a length beyond 2^63 - 1")]
    public void What_breaks_the_rules_is_refused_as_soon_as_it_shows(string wire, string message)
    {
        var bytes = Hex(wire);
        for (var cut = 0; cut <= bytes.Length; cut++)
        {
            Assert.False(WebSocketFrameHeader.TryRead(bytes.AsSpan(0, cut), out _, out _, out var error));
            if (cut < 2)
                Assert.Null(error);
            else if (cut == bytes.Length)
                Assert.Equal(message, error);
        }
    }

    private static byte[] Hex(string text) => Convert.FromHexString(text.Replace(" ", "", StringComparison.Ordinal));
}
