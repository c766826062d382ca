using System.Text;
using VTunnel.Protocol.Framing;

namespace VTunnel.Protocol.Tests.Framing;

public sealed class WebSocketGoodbyeTests
{
    [Theory]
    [InlineData("", null)]
    [InlineData("03e8", 1000)]
    [InlineData("03e9 627965", 1001)]
    [InlineData("03eb", 1003)]
    [InlineData("03ef", 1007)]
    [InlineData("03f6", 1014)]
    [InlineData("0bb8", 3000)]
    [InlineData("1387", 4999)]
    public void A_status_is_read(string wire, int? status)
    {
        Assert.True(WebSocketGoodbye.TryRead(Hex(wire), out var read, out var error), error);
        Assert.Equal(status, read);
    }

    [Theory]
    [InlineData("03", "a WebSocket close frame of one byte; it is empty or begins with a status of two")]
    [InlineData("03e7", "a WebSocket close frame has status 999; 1000 to 1003, 1007 to 1014 and 3000 to 4999 may be sent")]
    [InlineData("03ec", "a WebSocket close frame has status 1004; 1000 to 1003, 1007 to 1014 and 3000 to 4999 may be sent")]
    [InlineData("03ed", "a WebSocket close frame has status 1005; 1000 to 1003, 1007 to 1014 and 3000 to 4999 may be sent")]
    [InlineData("03ee", "a WebSocket close frame has status 1006; 1000 to 1003, 1007 to 1014 and 3000 to 4999 may be sent")]
    [InlineData("03f7", "a WebSocket close frame has status 1015; 1000 to 1003, 1007 to 1014 and 3000 to 4999 may be sent")]
    [InlineData("0bb7", "a WebSocket close frame has status 2999; 1000 to 1003, 1007 to 1014 and 3000 to 4999 may be sent")]
    [InlineData("1388", "a WebSocket close frame has status 5000; 1000 to 1003, 1007 to 1014 and 3000 to 4999 may be sent")]
    public void What_is_no_status_is_refused(string wire, string message)
    {
        Assert.False(WebSocketGoodbye.TryRead(Hex(wire), out var read, out var error));
        Assert.Equal((null, message), (read, error));
    }

    [Fact]
    public void A_goodbye_has_its_status_and_reason()
    {
        var payload = new byte[WebSocketFrameHeader.MaxControlBytes];
        Assert.Equal("03e9627965", Convert.ToHexStringLower(payload[..WebSocketGoodbye.Write(payload, 1001, "bye")]));
        Assert.Equal(0, WebSocketGoodbye.Write(payload, null, "not said"));
    }

    [Theory]
    [InlineData("a", 123)]
    [InlineData("é", 122)]
    [InlineData("€", 123)]
    [InlineData("😀", 120)]
    public void A_reason_that_is_too_long_is_cut_between_characters(string character, int bytes)
    {
        var payload = new byte[WebSocketFrameHeader.MaxControlBytes];
        var length = WebSocketGoodbye.Write(payload, 1000, string.Concat(Enumerable.Repeat(character, 200)));
        Assert.Equal(2 + bytes, length);
        Assert.Equal("", Encoding.UTF8.GetString(payload, 2, bytes).Replace(character, "", StringComparison.Ordinal));
    }

    private static byte[] Hex(string text) => Convert.FromHexString(text.Replace(" ", "", StringComparison.Ordinal));
}
