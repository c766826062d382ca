using System.Net;
using System.Net.WebSockets;
using VTunnel.Protocol.Framing;

namespace VTunnel.Carriers;

/// <summary>A WebSocket of the library as a carrier: for protocol v1, whose far end may be anybody's, and where the stream below cannot be had.</summary>
public sealed class WebSocketCarrier : ICarrier
{
    private readonly WebSocket _socket;
    private readonly ProbedStream? _transport;
    private readonly TaskCompletionSource _disposed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _isDisposed;
    private long _receives;

    /// <summary>How logs name a far end: an IPv4 address as one, also where a socket for both takes it.</summary>
    internal static string RemoteNameOf(IPAddress? address, int port) =>
        address is null ? "unknown" : new IPEndPoint(address.IsIPv4MappedToIPv6 ? address.MapToIPv4() : address, port).ToString();

    /// <summary>Breaks the connection below a WebSocket. Never throws.</summary>
    internal static void Break(WebSocket socket)
    {
        try
        {
            socket.Abort();
        }
        catch (ObjectDisposedException)
        {
            // The request that it came by is over, and the connection with it.
        }
    }

    /// <summary>Takes ownership of an open WebSocket.</summary>
    /// <param name="socket">The WebSocket.</param>
    /// <param name="remoteName">The far end as logs name it.</param>
    /// <param name="transport">The stream below the WebSocket, where pings on demand are wanted.</param>
    public WebSocketCarrier(WebSocket socket, string remoteName, ProbedStream? transport = null)
    {
        _socket = socket;
        _transport = transport;
        RemoteName = remoteName;
    }

    /// <inheritdoc />
    public string RemoteName { get; }

    /// <inheritdoc />
    public bool SpeaksV2 => _socket.SubProtocol == TunnelSubProtocol.V2;

    /// <inheritdoc />
    public long ReceivedCount => _transport?.ReadCount ?? Interlocked.Read(ref _receives);

    /// <inheritdoc />
    public Task Disposed => _disposed.Task;

    /// <inheritdoc />
    public ValueTask<ValueWebSocketReceiveResult> ReceiveAsync(Memory<byte> buffer)
    {
        // Asking for more means that the last receive brought something, which costs nothing to count.
        Interlocked.Increment(ref _receives);
        return _socket.ReceiveAsync(buffer, CancellationToken.None);
    }

    /// <inheritdoc />
    public ValueTask SendAsync(ReadOnlyMemory<byte> message, WebSocketMessageType kind) =>
        _socket.SendAsync(message, kind, endOfMessage: true, CancellationToken.None);

    /// <inheritdoc />
    public async ValueTask<bool> PingAsync()
    {
        if (_transport is null)
            return false;
        await _transport.WritePingAsync().ConfigureAwait(false);
        return true;
    }

    /// <inheritdoc />
    public async ValueTask CloseAsync(WebSocketCloseStatus status, string reason)
    {
        // Who answers a goodbye repeats its status.
        if (_socket.State == WebSocketState.CloseReceived)
            await _socket.CloseOutputAsync(_socket.CloseStatus ?? status, null, CancellationToken.None).ConfigureAwait(false);
        else if (_socket.State == WebSocketState.Open)
            await _socket.CloseOutputAsync(status, WebSocketGoodbye.Shorten(reason), CancellationToken.None).ConfigureAwait(false);
    }

    /// <inheritdoc />
    public void Abort()
    {
        // Where both ends have said goodbye, what is left of the connection closes in order and takes the last frame along.
        if (_socket.State != WebSocketState.Closed)
            Break(_socket);
    }

    /// <inheritdoc />
    public ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _isDisposed, 1) == 0)
        {
            _socket.Dispose();
            _disposed.TrySetResult();
        }

        return ValueTask.CompletedTask;
    }
}
