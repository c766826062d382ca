using System.Net;
using System.Net.Sockets;

namespace VTunnel.Endpoints;

/// <summary>A TCP socket as the end of a stream.</summary>
public sealed class SocketEndpoint : StreamEndpoint
{
    /// <summary>Who sends this much at once sends bulk.</summary>
    private const int BulkBytes = 32 * 1024;

    private readonly Socket _socket;
    private bool _sendsBulk;
    private int _disposed;

    /// <summary>Takes ownership of a connected socket.</summary>
    public SocketEndpoint(Socket socket)
    {
        ArgumentNullException.ThrowIfNull(socket);
        _socket = socket;
        SocketSettings.SendAtOnce(socket);
    }

    /// <inheritdoc />
    public override EndPoint? RemoteEndPoint
    {
        get
        {
            try
            {
                return _socket.RemoteEndPoint;
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                return null;
            }
        }
    }

    /// <inheritdoc />
    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer) => _socket.ReceiveAsync(buffer, SocketFlags.None);

    /// <inheritdoc />
    public override ValueTask SendAsync(ReadOnlyMemory<byte> buffer)
    {
        if (!_sendsBulk && buffer.Length >= BulkBytes)
        {
            _sendsBulk = true;
            SocketSettings.StopPacingLocally(_socket);
        }

        return SocketSend.SendAsync(_socket, buffer);
    }

    /// <inheritdoc />
    public override ValueTask FinishSendingAsync()
    {
        _socket.Shutdown(SocketShutdown.Send);
        return ValueTask.CompletedTask;
    }

    /// <inheritdoc />
    public override void Abort()
    {
        if (Interlocked.Exchange(ref _disposed, 1) != 0)
            return;
        try
        {
            // Linger zero turns close into RST: the far end learns that the stream broke, not that it ended.
            _socket.LingerState = new LingerOption(true, 0);
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // Already gone: there is nobody left to tell.
        }

        _socket.Dispose();
    }

    /// <inheritdoc />
    protected override void Dispose(bool disposing)
    {
        if (disposing && Interlocked.Exchange(ref _disposed, 1) == 0)
            _socket.Dispose();
    }
}
