using System.Net.WebSockets;
using VTunnel.Actors.Tests.Testing;
using VTunnel.Carriers;
using VTunnel.Testing;

namespace VTunnel.Actors.Tests.Carriers;

public sealed class WebSocketCarrierTests
{
    [Fact]
    public async Task A_long_reason_is_cut_between_characters_to_what_a_close_frame_holds()
    {
        var (near, far) = DuplexStream.CreatePair();
        await using var carrier = new WebSocketCarrier(WebSocket.CreateFromStream(near, new WebSocketCreationOptions { IsServer = true }), "far");
        using var socket = WebSocket.CreateFromStream(far, new WebSocketCreationOptions());

        await carrier.CloseAsync(WebSocketCloseStatus.EndpointUnavailable, string.Concat(Enumerable.Repeat("€", 100)));

        Assert.Equal(WebSocketMessageType.Close, (await socket.ReceiveAsync(new byte[1].AsMemory(), default).AsTask().WaitAsync(TestTimeouts.Long)).MessageType);
        Assert.Equal((WebSocketCloseStatus.EndpointUnavailable, string.Concat(Enumerable.Repeat("€", 41))), (socket.CloseStatus, socket.CloseStatusDescription));
    }
}
