using VTunnel.Protocol.Framing;

namespace VTunnel.Protocol.Tests.Framing;

public sealed class WebSocketFrameOrderTests
{
    private static WebSocketFrameHeader Frame(WebSocketOpcode opcode, bool isFinal = true, bool masked = false) => new(opcode, isFinal, 0, masked ? 1u : null);

    [Fact]
    public void A_message_may_come_in_pieces_with_control_frames_between()
    {
        var order = new WebSocketFrameOrder(fromClient: false);
        Assert.Null(order.Accept(Frame(WebSocketOpcode.Text, isFinal: false)));
        Assert.Null(order.Accept(Frame(WebSocketOpcode.Ping)));
        Assert.Null(order.Accept(Frame(WebSocketOpcode.Continuation, isFinal: false)));
        Assert.Null(order.Accept(Frame(WebSocketOpcode.Pong)));
        Assert.Null(order.Accept(Frame(WebSocketOpcode.Continuation)));
        Assert.Equal(WebSocketOpcode.Text, order.Message);
        order.EndMessage();
        Assert.Null(order.Message);
        Assert.Null(order.Accept(Frame(WebSocketOpcode.Binary)));
        Assert.Null(order.Accept(Frame(WebSocketOpcode.Close)));
    }

    [Fact]
    public void Nothing_goes_on_that_was_not_begun()
    {
        var order = new WebSocketFrameOrder(fromClient: false);
        Assert.Equal("a WebSocket frame goes on with a message where none was begun", order.Accept(Frame(WebSocketOpcode.Continuation)));
        Assert.Null(order.Accept(Frame(WebSocketOpcode.Binary)));
        order.EndMessage();
        Assert.NotNull(order.Accept(Frame(WebSocketOpcode.Continuation)));
    }

    [Theory]
    [InlineData(WebSocketOpcode.Text)]
    [InlineData(WebSocketOpcode.Binary)]
    public void Nothing_begins_before_the_last_has_ended(WebSocketOpcode next)
    {
        var order = new WebSocketFrameOrder(fromClient: false);
        Assert.Null(order.Accept(Frame(WebSocketOpcode.Binary, isFinal: false)));
        Assert.Equal("a WebSocket message begins before the last one has ended", order.Accept(Frame(next)));
    }

    [Theory]
    [InlineData(WebSocketOpcode.Binary)]
    [InlineData(WebSocketOpcode.Ping)]
    [InlineData(WebSocketOpcode.Close)]
    public void Clients_mask_and_servers_do_not(WebSocketOpcode opcode)
    {
        Assert.Equal("a WebSocket frame of a client is not masked", new WebSocketFrameOrder(fromClient: true).Accept(Frame(opcode)));
        Assert.Null(new WebSocketFrameOrder(fromClient: true).Accept(Frame(opcode, masked: true)));
        Assert.Equal("a WebSocket frame of a server is masked; only a client's are", new WebSocketFrameOrder(fromClient: false).Accept(Frame(opcode, masked: true)));
        Assert.Null(new WebSocketFrameOrder(fromClient: false).Accept(Frame(opcode)));
    }
}
