using System.Net.Sockets;
using System.Net.WebSockets;
using System.Text;
using System.Text.Json;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Support;

/// <summary>What a <see cref="HandPeer"/> was told.</summary>
public sealed record PeerMessage(string Type, uint StreamId, int Port, string? Error, byte[] Data);

/// <summary>
/// A client that speaks v1 with nothing of this project's own code, so that it can be right where that is wrong, and wrong
/// where a test wants it to be. It reads only when it is told to.
/// </summary>
public sealed class HandPeer : IAsyncDisposable
{
    private readonly ClientWebSocket _socket;
    private readonly byte[] _buffer = new byte[2 * 1024 * 1024];

    private HandPeer(ClientWebSocket socket) => _socket = socket;

    /// <summary>The status with which the server closed; null while it has not.</summary>
    public WebSocketCloseStatus? CloseStatus => _socket.CloseStatus;

    /// <summary>The reason with which the server closed.</summary>
    public string? CloseReason => _socket.CloseStatusDescription;

    /// <summary>Connects.</summary>
    /// <param name="server">The server.</param>
    /// <param name="configure">Changes the upgrade request.</param>
    /// <param name="receiveBufferBytes">What the system may receive for a peer that does not read; null for its own choice.</param>
    public static async Task<HandPeer> ConnectAsync(
        Uri server, Action<ClientWebSocketOptions>? configure = null, int? receiveBufferBytes = null)
    {
        var socket = new ClientWebSocket();
        var handler = new SocketsHttpHandler
        {
            UseProxy = false,
            ConnectCallback = async (context, cancellationToken) =>
            {
                var connection = new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
                if (receiveBufferBytes is { } bytes)
                    connection.ReceiveBufferSize = bytes;
                await connection.ConnectAsync(context.DnsEndPoint, cancellationToken);
                return new NetworkStream(connection, ownsSocket: true);
            },
        };
        try
        {
            socket.Options.KeepAliveInterval = TimeSpan.Zero;
            configure?.Invoke(socket.Options);
            await socket.ConnectAsync(server, new HttpMessageInvoker(handler), CancellationToken.None).WaitAsync(TestTimeouts.Step);
            return new HandPeer(socket);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <summary>Sends a text message as it is.</summary>
    public Task SendAsync(string text) => SendAsync(Encoding.UTF8.GetBytes(text), WebSocketMessageType.Text, endOfMessage: true);

    /// <summary>Sends a message or a piece of one.</summary>
    public Task SendAsync(ReadOnlyMemory<byte> bytes, WebSocketMessageType kind, bool endOfMessage) =>
        _socket.SendAsync(bytes, kind, endOfMessage, CancellationToken.None).AsTask().WaitAsync(TestTimeouts.Step);

    public Task SendDataAsync(uint streamId, ReadOnlySpan<byte> data) =>
        SendAsync($$"""{"type":"data","stream_id":{{streamId}},"data":"{{Convert.ToBase64String(data)}}"}""");

    /// <summary>Asks for a port; the answer is to be received.</summary>
    public Task SendListenAsync(int port) => SendAsync($$"""{"type":"listen","port":{{port}},"local_addr":"by hand"}""");

    /// <summary>Opens a port, and gives its number.</summary>
    public async Task<int> ListenAsync()
    {
        var port = FreePorts.Next();
        await SendListenAsync(port);
        var answer = await ReceiveAsync();
        Assert.Equal(("listen_ok", port), (answer.Type, answer.Port));
        return port;
    }

    /// <summary>The next message, or null when the server has closed.</summary>
    /// <exception cref="WebSocketException">The connection broke.</exception>
    public async Task<PeerMessage?> TryReceiveAsync()
    {
        var length = 0;
        ValueWebSocketReceiveResult result;
        do
        {
            result = await _socket.ReceiveAsync(_buffer.AsMemory(length), CancellationToken.None).AsTask().WaitAsync(TestTimeouts.Step);
            length += result.Count;
        }
        while (!result.EndOfMessage);

        if (result.MessageType == WebSocketMessageType.Close)
            return null;
        Assert.Equal(WebSocketMessageType.Text, result.MessageType);
        using var json = JsonDocument.Parse(_buffer.AsMemory(0, length));
        var root = json.RootElement;
        return new PeerMessage(
            root.GetProperty("type").GetString()!,
            root.TryGetProperty("stream_id", out var streamId) ? streamId.GetUInt32() : 0,
            root.TryGetProperty("port", out var port) ? port.GetInt32() : 0,
            root.TryGetProperty("error", out var error) ? error.GetString() : null,
            root.TryGetProperty("data", out var data) ? data.GetBytesFromBase64() : []);
    }

    /// <summary>The next message; there must be one.</summary>
    public async Task<PeerMessage> ReceiveAsync() =>
        await TryReceiveAsync() ?? throw new InvalidOperationException($"the server closed: {CloseStatus} {CloseReason}");

    /// <summary>Shows that the session lives and has dealt with everything sent so far: a ping is answered.</summary>
    public async Task ExpectPongAsync()
    {
        await SendAsync("""{"type":"ping"}""");
        Assert.Equal("pong", (await ReceiveAsync()).Type);
    }

    /// <summary>Receives until the server closes, and gives the status.</summary>
    public async Task<WebSocketCloseStatus?> ReceiveCloseAsync()
    {
        while (await TryReceiveAsync() is not null)
        {
            // What came before the close does not matter here.
        }

        return CloseStatus;
    }

    /// <summary>Drops the connection.</summary>
    public void Abort() => _socket.Abort();

    /// <summary>Says goodbye.</summary>
    public Task CloseAsync() => _socket.CloseOutputAsync(WebSocketCloseStatus.NormalClosure, "", CancellationToken.None).WaitAsync(TestTimeouts.Step);

    public ValueTask DisposeAsync()
    {
        _socket.Dispose();
        return ValueTask.CompletedTask;
    }
}
