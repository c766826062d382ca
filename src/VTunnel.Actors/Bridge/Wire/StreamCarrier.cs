using System.Buffers;
using System.Buffers.Binary;
using System.Net.WebSockets;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using VTunnel.Carriers;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Link;

namespace VTunnel.Bridge.Wire;

/// <summary>
/// A byte stream as a carrier: each message goes behind its length, 4 bytes big-endian, and a length of zero is the goodbye.
/// In the bridge the stream is TLS between consumer and publisher, whatever lies below.
/// </summary>
public sealed class StreamCarrier : ICarrier
{
    private const int HeaderBytes = 4;

    private readonly Stream _stream;
    private readonly Action _abort;
    private readonly TaskCompletionSource _disposed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly byte[] _header = new byte[HeaderBytes];
    private int _messageLeft;
    private int _isAborted;

    /// <summary>Operations under way, and one for the carrier itself: the stream is disposed when the last is over.</summary>
    private int _users = 1;
    private int _isDisposed;
    private long _reads;

    /// <summary>Takes ownership of the stream.</summary>
    /// <param name="stream">Reads and writes may go on at the same time.</param>
    /// <param name="remoteName">The far end as logs name it.</param>
    /// <param name="abort">Breaks what lies below at once; may be called from any thread, and once only.</param>
    public StreamCarrier(Stream stream, string remoteName, Action abort)
    {
        _stream = stream;
        _abort = abort;
        RemoteName = remoteName;
    }

    /// <inheritdoc />
    public string RemoteName { get; }

    /// <inheritdoc />
    public bool SpeaksV2 => true;

    /// <inheritdoc />
    public long ReceivedCount => Interlocked.Read(ref _reads);

    /// <inheritdoc />
    public Task Disposed => _disposed.Task;

    /// <inheritdoc />
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    public async ValueTask<ValueWebSocketReceiveResult> ReceiveAsync(Memory<byte> buffer)
    {
        Enter();
        try
        {
            if (_messageLeft == 0)
            {
                if (await _stream.ReadAtLeastAsync(_header, HeaderBytes, throwOnEndOfStream: false).ConfigureAwait(false) < HeaderBytes)
                    throw new EndOfStreamException("the far end closed it without a goodbye");
                var length = BinaryPrimitives.ReadUInt32BigEndian(_header);
                if (length == 0)
                    return new ValueWebSocketReceiveResult(0, WebSocketMessageType.Close, true);
                if (length > LinkRecord.MaxBytes)
                    throw new SessionProtocolException(SessionError.MessageTooLarge, $"the peer announced a message of {length} bytes; {LinkRecord.MaxBytes} is the limit");
                _messageLeft = (int)length;
            }

            var read = await _stream.ReadAsync(buffer[..Math.Min(buffer.Length, _messageLeft)]).ConfigureAwait(false);
            if (read == 0 && buffer.Length > 0)
                throw new EndOfStreamException("the connection ended in the middle of a message");
            Interlocked.Increment(ref _reads);
            _messageLeft -= read;
            return new ValueWebSocketReceiveResult(read, WebSocketMessageType.Binary, _messageLeft == 0);
        }
        catch (Exception e) when (SaysNothing(e))
        {
            throw new IOException(Breakage.Why(e), e);
        }
        finally
        {
            Leave();
        }
    }

    /// <inheritdoc />
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    public async ValueTask SendAsync(ReadOnlyMemory<byte> message, WebSocketMessageType kind)
    {
        byte[]? copy = null;
        Enter();
        try
        {
            // A link leaves room before its messages for this very header.
            var length = HeaderBytes + message.Length;
            if (MemoryMarshal.TryGetArray(message, out var whole) && whole.Offset >= LinkRecord.CarrierHeadroomBytes)
            {
                BinaryPrimitives.WriteInt32BigEndian(whole.Array.AsSpan(whole.Offset - HeaderBytes), message.Length);
                await _stream.WriteAsync(whole.Array.AsMemory(whole.Offset - HeaderBytes, length)).ConfigureAwait(false);
                return;
            }

            copy = ArrayPool<byte>.Shared.Rent(length);
            BinaryPrimitives.WriteInt32BigEndian(copy, message.Length);
            message.CopyTo(copy.AsMemory(HeaderBytes));
            await _stream.WriteAsync(copy.AsMemory(0, length)).ConfigureAwait(false);
        }
        catch (Exception e) when (SaysNothing(e))
        {
            throw new IOException(Breakage.Why(e), e);
        }
        finally
        {
            if (copy is not null)
                ArrayPool<byte>.Shared.Return(copy);
            Leave();
        }
    }

    /// <inheritdoc />
    public ValueTask<bool> PingAsync() => ValueTask.FromResult(false);

    /// <inheritdoc />
    public async ValueTask CloseAsync(WebSocketCloseStatus status, string reason)
    {
        Enter();
        try
        {
            await _stream.WriteAsync(new byte[HeaderBytes]).ConfigureAwait(false);
        }
        finally
        {
            Leave();
        }
    }

    /// <inheritdoc />
    public void Abort()
    {
        if (Interlocked.Exchange(ref _isAborted, 1) == 0)
            _abort();
    }

    /// <inheritdoc />
    public ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _isDisposed, 1) == 0)
        {
            Abort();
            Leave();
            _disposed.TrySetResult();
        }

        return ValueTask.CompletedTask;
    }

    /// <summary>The message is about the stream, or says that there is an inner one; the reason reaches logs and users.</summary>
    private static bool SaysNothing(Exception e) => e is IOException { InnerException: not null } or NotSupportedException;

    private void Enter()
    {
        ObjectDisposedException.ThrowIf(Volatile.Read(ref _isDisposed) != 0, this);
        Interlocked.Increment(ref _users);
    }

    private void Leave()
    {
        if (Interlocked.Decrement(ref _users) == 0)
            _stream.Dispose();
    }
}
