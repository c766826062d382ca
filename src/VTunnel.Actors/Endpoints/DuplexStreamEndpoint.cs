using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Cryptography;

namespace VTunnel.Endpoints;

/// <summary>
/// A <see cref="Stream"/> over a socket as the end of a stream: TLS, mostly. The stream carries the bytes;
/// the socket is what can be half-closed and reset.
/// </summary>
public sealed class DuplexStreamEndpoint : StreamEndpoint
{
    private readonly Stream _stream;
    private readonly Socket _socket;
    private int _disposed;

    /// <summary>Takes ownership of a connected <paramref name="socket"/> and of the <paramref name="stream"/> on top of it.</summary>
    public DuplexStreamEndpoint(Stream stream, Socket socket)
    {
        ArgumentNullException.ThrowIfNull(stream);
        ArgumentNullException.ThrowIfNull(socket);
        _stream = stream;
        _socket = socket;
        SocketSettings.Apply(socket);
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
    /// <remarks><see cref="SslStream"/> answers an empty read when the socket is readable and rents its buffer only then.</remarks>
    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer) => _stream.ReadAsync(buffer);

    /// <inheritdoc />
    public override ValueTask SendAsync(ReadOnlyMemory<byte> buffer)
    {
        var writing = _stream.WriteAsync(buffer);
        if (!writing.IsCompletedSuccessfully)
            return FlushAfterAsync(writing);

        writing.GetAwaiter().GetResult();
        var flushing = _stream.FlushAsync();
        return flushing.IsCompletedSuccessfully ? ValueTask.CompletedTask : new ValueTask(flushing);
    }

    private async ValueTask FlushAfterAsync(ValueTask writing)
    {
        await writing.ConfigureAwait(false);
        await _stream.FlushAsync().ConfigureAwait(false);
    }

    /// <inheritdoc />
    /// <remarks>TLS says close_notify first: without it the far end must take the end for a truncation.</remarks>
    public override async ValueTask FinishSendingAsync()
    {
        await SendCloseNotifyAsync().ConfigureAwait(false);
        _socket.Shutdown(SocketShutdown.Send);
    }

    /// <summary>
    /// Ends the sending direction of TLS and not that of the socket. It says as much, but a web server that sees the
    /// socket's end takes it for a client who has left and may drop the answer that he still waits for.
    /// </summary>
    internal async ValueTask SendCloseNotifyAsync()
    {
        if (_stream is not SslStream tls)
            return;
        try
        {
            await tls.ShutdownAsync().ConfigureAwait(false);
        }
        catch (CryptographicException)
        {
            // OpenSSL makes no close_notify while a session ticket of the far end is being read; the end of the socket,
            // which follows, then has to do.
        }
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

        // The socket first: disposing the stream would close it in order.
        _socket.Dispose();
        _stream.Dispose();
    }

    /// <inheritdoc />
    protected override void Dispose(bool disposing)
    {
        if (!disposing || Interlocked.Exchange(ref _disposed, 1) != 0)
            return;
        _stream.Dispose();
        _socket.Dispose();
    }
}
