using System.Net.WebSockets;

namespace VTunnel.Carriers;

/// <summary>
/// One connection that moves messages, in order and in both directions, until it breaks. At most one receive and one
/// send are under way at a time; a ping may go beside them.
/// </summary>
public interface ICarrier : IAsyncDisposable
{
    /// <summary>The far end as logs name it, e.g. <c>203.0.113.7:51234</c>.</summary>
    string RemoteName { get; }

    /// <summary>Whether both ends agreed on protocol v2.</summary>
    bool SpeaksV2 { get; }

    /// <summary>
    /// Grows whenever anything at all arrives from the far end while it is received from: a piece of a message, and control
    /// frames where the carrier sees them.
    /// </summary>
    long ReceivedCount { get; }

    /// <summary>Completes when the carrier has been disposed.</summary>
    Task Disposed { get; }

    /// <summary>Receives the next piece of a message. A close frame comes as <see cref="WebSocketMessageType.Close"/>.</summary>
    ValueTask<ValueWebSocketReceiveResult> ReceiveAsync(Memory<byte> buffer);

    /// <summary>
    /// Sends one whole message. Where it lies 16 bytes or more into an array, the 16 before it are the carrier's while it sends,
    /// for a header of its own.
    /// </summary>
    ValueTask SendAsync(ReadOnlyMemory<byte> message, WebSocketMessageType kind);

    /// <summary>Asks the far end for a sign of life that shows in <see cref="ReceivedCount"/>, ahead of queued messages.</summary>
    /// <returns>False where the carrier cannot ask; then silence means nothing.</returns>
    ValueTask<bool> PingAsync();

    /// <summary>Says goodbye with a close frame; a reason that does not fit into one is cut. Call it after the last send completed.</summary>
    ValueTask CloseAsync(WebSocketCloseStatus status, string reason);

    /// <summary>Drops the connection at once, unless both ends have said goodbye. Idempotent; never throws.</summary>
    void Abort();
}
