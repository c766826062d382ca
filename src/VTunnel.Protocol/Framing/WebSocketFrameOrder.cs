namespace VTunnel.Protocol.Framing;

/// <summary>Whether frames come as they may: masked by clients and by nobody else, messages one after the other, whole or in pieces (RFC 6455, 5.1 and 5.4).</summary>
/// <param name="fromClient">Whether the frames are a client's.</param>
public sealed class WebSocketFrameOrder(bool fromClient)
{
    /// <summary>What the message under way is: text or bytes; null between messages.</summary>
    public WebSocketOpcode? Message { get; private set; }

    /// <summary>Takes the next frame.</summary>
    /// <returns>What is wrong with it and what would be right; null where it may come now.</returns>
    public string? Accept(in WebSocketFrameHeader header)
    {
        if (header.MaskKey is null == fromClient)
            return fromClient ? "a WebSocket frame of a client is not masked" : "a WebSocket frame of a server is masked; only a client's are";
        if (header.IsControl)
            return null;
        if (header.Opcode == WebSocketOpcode.Continuation && Message is null)
            return "a WebSocket frame goes on with a message where none was begun";
        if (header.Opcode != WebSocketOpcode.Continuation && Message is not null)
            return "a WebSocket message begins before the last one has ended";
        if (header.Opcode != WebSocketOpcode.Continuation)
            Message = header.Opcode;
        return null;
    }

    /// <summary>The payload of a final frame was read: what comes next begins a message.</summary>
    public void EndMessage() => Message = null;
}
