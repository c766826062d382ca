using System.Buffers;
using System.Net.WebSockets;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using VTunnel.Protocol.Framing;
using VTunnel.Protocol.Link;

namespace VTunnel.Carriers;

/// <summary>
/// A WebSocket as a carrier that reads and writes the frames itself, on the stream below: the library has shaken hands, and is
/// not asked again but to break the connection. A header goes into the room that a link leaves before its messages, a client
/// copies and masks in one pass, and the frame that follows is read along with the one before it.
/// </summary>
internal sealed class FramedCarrier : ICarrier
{
    /// <summary>Room for a control frame and more: what is read beyond a frame is at most this.</summary>
    private const int AheadBytes = 160;

    private const int MaskBytes = 4;
    private const int FramesInARow = 64;

    private readonly WebSocket _socket;
    private readonly ProbedStream _stream;
    private readonly bool _isClient;
    private readonly WebSocketFrameOrder _order;
    private readonly TaskCompletionSource _disposed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _isDisposed;

    // Of the receive under way.
    private readonly byte[] _ahead = new byte[AheadBytes];
    private int _aheadStart;
    private int _aheadEnd;
    private WebSocketFrameHeader _frame;
    private long _frameLeft;
    private bool _inFrame;

    // Of the send under way.
    private readonly byte[] _masks;
    private int _masksUsed;

    /// <summary>The ping that is being answered; another one takes its place.</summary>
    private Ping? _ping;

    /// <summary>What was wrong with the far end's frames, once something was.</summary>
    private volatile string? _fault;

    private int _closeStarted;
    private ushort? _closeStatus;
    private volatile bool _closeSent;
    private volatile bool _closeReceived;

    /// <summary>Takes ownership of a WebSocket that has just been opened.</summary>
    /// <param name="socket">The WebSocket; nothing was read or written by it.</param>
    /// <param name="stream">The stream below it.</param>
    /// <param name="isClient">Whether this is the end that dialled, which masks what it sends.</param>
    /// <param name="remoteName">The far end as logs name it.</param>
    public FramedCarrier(WebSocket socket, ProbedStream stream, bool isClient, string remoteName)
    {
        _socket = socket;
        _stream = stream;
        _isClient = isClient;
        _order = new WebSocketFrameOrder(fromClient: !isClient);
        _masks = new byte[isClient ? 64 * MaskBytes : 0];
        _masksUsed = _masks.Length;
        RemoteName = remoteName;
    }

    /// <inheritdoc />
    public string RemoteName { get; }

    /// <inheritdoc />
    public bool SpeaksV2 => _socket.SubProtocol == TunnelSubProtocol.V2;

    /// <inheritdoc />
    public long ReceivedCount => _stream.ReadCount;

    /// <inheritdoc />
    public Task Disposed => _disposed.Task;

    /// <inheritdoc />
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    public async ValueTask<ValueWebSocketReceiveResult> ReceiveAsync(Memory<byte> buffer)
    {
        ObjectDisposedException.ThrowIf(Volatile.Read(ref _isDisposed) != 0, this);
        try
        {
            var count = 0;
            for (var frames = 1; ; frames++)
            {
                // Pings and frames without payload give whoever asks nothing, and would keep the thread as long as they come.
                if (frames % FramesInARow == 0)
                    await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
                if (!_inFrame)
                {
                    while (!TryReadHeader(out var error))
                    {
                        if (error is not null)
                            throw await FaultAsync(error).ConfigureAwait(false);
                        await ReadAheadAsync().ConfigureAwait(false);
                    }

                    if (_order.Accept(_frame) is { } misplaced)
                        throw await FaultAsync(misplaced).ConfigureAwait(false);
                    if (_frame.IsControl)
                    {
                        while (_aheadEnd - _aheadStart < _frame.Length)
                            await ReadAheadAsync().ConfigureAwait(false);
                        if (TakeControlFrame(out var unfit))
                            return new ValueWebSocketReceiveResult(0, WebSocketMessageType.Close, true);
                        if (unfit is not null)
                            throw await FaultAsync(unfit).ConfigureAwait(false);
                        continue;
                    }

                    _inFrame = true;
                    _frameLeft = _frame.Length;
                }

                count += TakeAhead(buffer.Span[count..]);
                if (_frameLeft > 0 && count < buffer.Length)
                {
                    // A length may be anything up to 2^63 - 1, so nothing is added to it.
                    var room = buffer.Length - count;
                    var wanted = _frameLeft < room ? (int)_frameLeft + Math.Min(room - (int)_frameLeft, AheadBytes) : room;
                    var read = await _stream.ReadAsync(buffer.Slice(count, wanted)).ConfigureAwait(false);
                    count += TakePayload(buffer.Span.Slice(count, RequireSome(read)));
                }

                if (_frameLeft == 0)
                {
                    _inFrame = false;
                    if (_frame.IsFinal)
                    {
                        var kind = KindOf(_order.Message);
                        _order.EndMessage();
                        return new ValueWebSocketReceiveResult(count, kind, true);
                    }
                }

                // The rest of a message is left to the next receive: whoever asks has something to send meanwhile.
                if (count > 0)
                    return new ValueWebSocketReceiveResult(count, KindOf(_order.Message), false);
            }
        }
        catch (Exception e) when (SaysNothing(e))
        {
            throw new IOException(Breakage.Why(e), e);
        }
    }

    /// <inheritdoc />
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    public async ValueTask SendAsync(ReadOnlyMemory<byte> message, WebSocketMessageType kind)
    {
        ObjectDisposedException.ThrowIf(Volatile.Read(ref _isDisposed) != 0, this);
        if (Volatile.Read(ref _closeStarted) != 0)
            throw new WebSocketException(WebSocketError.InvalidState, _fault ?? "goodbye was said already");
        var opcode = kind == WebSocketMessageType.Text ? WebSocketOpcode.Text : WebSocketOpcode.Binary;
        byte[]? copy = null;
        try
        {
            var header = new WebSocketFrameHeader(opcode, true, message.Length, _isClient ? NextMask() : null);
            var length = header.Size + message.Length;

            // A link leaves room before its messages for this very header; what is to be masked must be copied anyway.
            if (!_isClient && MemoryMarshal.TryGetArray(message, out var whole) && whole.Offset >= LinkRecord.CarrierHeadroomBytes)
            {
                var start = whole.Offset - header.Size;
                header.Write(whole.Array.AsSpan(start));
                await _stream.WriteAsync(whole.Array.AsMemory(start, length)).ConfigureAwait(false);
                return;
            }

            copy = ArrayPool<byte>.Shared.Rent(length);
            Write(header, message.Span, copy);
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
        }
    }

    /// <inheritdoc />
    public async ValueTask<bool> PingAsync()
    {
        await WriteControlAsync(WebSocketOpcode.Ping, ReadOnlyMemory<byte>.Empty).ConfigureAwait(false);
        return true;
    }

    /// <inheritdoc />
    public async ValueTask CloseAsync(WebSocketCloseStatus status, string reason)
    {
        if (Interlocked.Exchange(ref _closeStarted, 1) != 0)
            return;

        // Who answers a goodbye repeats its status.
        var payload = new byte[WebSocketFrameHeader.MaxControlBytes];
        var length = _closeReceived ? WebSocketGoodbye.Write(payload, _closeStatus, "") : WebSocketGoodbye.Write(payload, (ushort)status, reason);
        await WriteControlAsync(WebSocketOpcode.Close, payload.AsMemory(0, length)).ConfigureAwait(false);
        _closeSent = true;
    }

    /// <inheritdoc />
    public void Abort()
    {
        // Where both ends have said goodbye, what is left of the connection closes in order and takes the last frame along.
        if (!(_closeSent && _closeReceived) && Volatile.Read(ref _isDisposed) == 0)
            WebSocketCarrier.Break(_socket);
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

    /// <summary>The message is about the stream, or says that there is an inner one; the reason reaches logs and users.</summary>
    private static bool SaysNothing(Exception e) => e is IOException { InnerException: not null } or NotSupportedException;

    private static WebSocketMessageType KindOf(WebSocketOpcode? message) =>
        message == WebSocketOpcode.Text ? WebSocketMessageType.Text : WebSocketMessageType.Binary;

    private bool TryReadHeader(out string? error)
    {
        if (!WebSocketFrameHeader.TryRead(_ahead.AsSpan(_aheadStart, _aheadEnd - _aheadStart), out _frame, out var size, out error))
            return false;
        _aheadStart += size;
        return true;
    }

    /// <summary>Takes what was read ahead of the frame's payload; gives how much.</summary>
    private int TakeAhead(Span<byte> destination)
    {
        var length = (int)Math.Min(Math.Min(_aheadEnd - _aheadStart, destination.Length), _frameLeft);
        if (length == 0)
            return 0;
        var payload = _ahead.AsSpan(_aheadStart, length);
        if (_frame.MaskKey is { } key)
            WebSocketMask.Copy(payload, destination, key, _frame.Length - _frameLeft);
        else
            payload.CopyTo(destination);
        _aheadStart += length;
        _frameLeft -= length;
        return length;
    }

    /// <summary>Takes what was read to where the payload belongs; what follows the frame is kept. Gives how much is payload.</summary>
    private int TakePayload(Span<byte> read)
    {
        var length = (int)Math.Min(read.Length, _frameLeft);
        if (_frame.MaskKey is { } key)
            WebSocketMask.Apply(read[..length], key, _frame.Length - _frameLeft);
        _frameLeft -= length;

        // All that was ahead was taken before.
        read[length..].CopyTo(_ahead);
        _aheadStart = 0;
        _aheadEnd = read.Length - length;
        return length;
    }

    /// <summary>Reads what is there, one byte at least, behind what is ahead already.</summary>
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask ReadAheadAsync()
    {
        _ahead.AsSpan(_aheadStart, _aheadEnd - _aheadStart).CopyTo(_ahead);
        _aheadEnd -= _aheadStart;
        _aheadStart = 0;
        var read = await _stream.ReadAsync(_ahead.AsMemory(_aheadEnd)).ConfigureAwait(false);
        _aheadEnd += RequireSome(read);
    }

    private static int RequireSome(int read) => read > 0 ? read : throw new EndOfStreamException("the far end closed it without a goodbye");

    /// <summary>Takes a control frame, which is ahead as a whole; true for a goodbye.</summary>
    private bool TakeControlFrame(out string? error)
    {
        error = null;
        var payload = _ahead.AsSpan(_aheadStart, (int)_frame.Length);
        _aheadStart += payload.Length;
        if (_frame.MaskKey is { } key)
            WebSocketMask.Apply(payload, key, 0);
        switch (_frame.Opcode)
        {
            case WebSocketOpcode.Close:
                if (!WebSocketGoodbye.TryRead(payload, out _closeStatus, out error))
                    return false;
                _closeReceived = true;
                return true;
            case WebSocketOpcode.Ping:
                if (Interlocked.Exchange(ref _ping, new Ping(payload.ToArray())) is null)
                    _ = AnswerPingsAsync();
                return false;
            default:
                return false;
        }
    }

    /// <summary>
    /// Answers the last ping until there is no newer one. Beside the receive, which would else wait for a far end that does
    /// not read. Never throws.
    /// </summary>
    private async Task AnswerPingsAsync()
    {
        try
        {
            Ping answered;
            do
            {
                answered = Volatile.Read(ref _ping)!;
                await WriteControlAsync(WebSocketOpcode.Pong, answered.Payload).ConfigureAwait(false);
            }
            while (Interlocked.CompareExchange(ref _ping, null, answered) != answered);
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException or InvalidOperationException or OperationCanceledException or NotSupportedException)
        {
            // The connection is broken, which the receive or the next send finds, too.
        }
    }

    private ValueTask WriteControlAsync(WebSocketOpcode opcode, ReadOnlyMemory<byte> payload)
    {
        ObjectDisposedException.ThrowIf(Volatile.Read(ref _isDisposed) != 0, this);
        var header = new WebSocketFrameHeader(
            opcode, true, payload.Length, _isClient ? MemoryMarshal.Read<uint>(RandomNumberGenerator.GetBytes(MaskBytes)) : null);
        var frame = new byte[header.Size + payload.Length];
        Write(header, payload.Span, frame);
        return _stream.WriteAsync(frame);
    }

    private static void Write(in WebSocketFrameHeader header, ReadOnlySpan<byte> payload, Span<byte> destination)
    {
        header.Write(destination);
        if (header.MaskKey is { } key)
            WebSocketMask.Copy(payload, destination[header.Size..], key, 0);
        else
            payload.CopyTo(destination[header.Size..]);
    }

    /// <summary>A mask that nobody can foresee; drawn many at a time.</summary>
    private uint NextMask()
    {
        if (_masksUsed == _masks.Length)
        {
            RandomNumberGenerator.Fill(_masks);
            _masksUsed = 0;
        }

        var mask = MemoryMarshal.Read<uint>(_masks.AsSpan(_masksUsed));
        _masksUsed += MaskBytes;
        return mask;
    }

    /// <summary>Tells the far end what was wrong with its frames; gives what to throw.</summary>
    private async ValueTask<WebSocketException> FaultAsync(string error)
    {
        _fault = error;
        await CloseAsync(WebSocketCloseStatus.ProtocolError, error).ConfigureAwait(false);
        return new WebSocketException(WebSocketError.Faulted, error);
    }

    /// <summary>An object for each, so that two that say the same are two.</summary>
    private sealed class Ping(byte[] payload)
    {
        public byte[] Payload { get; } = payload;
    }
}
