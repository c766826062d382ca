using System.Net.WebSockets;
using System.Text;
using VTunnel.Actors.Tests.Hosting;
using VTunnel.Carriers;
using VTunnel.Protocol.Framing;
using VTunnel.Testing;

namespace VTunnel.Actors.Tests.Testing;

/// <summary>
/// Two carriers that are each other's far end, in memory, with faults where the test wants them. Either end may be given
/// to the engine, the other one is the test's.
/// </summary>
internal sealed class MemoryCarrierPair
{
    /// <param name="bufferBytes">What one direction holds before a send waits for the reader, as the buffers of a socket do.</param>
    public MemoryCarrierPair(int bufferBytes = 256 * 1024)
    {
        var toServer = new Direction(bufferBytes);
        var toClient = new Direction(bufferBytes);
        Client = new MemoryCarrier("memory-server", toServer, toClient);
        Server = new MemoryCarrier("memory-client", toClient, toServer);
    }

    public MemoryCarrier Client { get; }

    public MemoryCarrier Server { get; }

    /// <summary>Both ends lose the connection at once.</summary>
    public void Break()
    {
        Client.Incoming.Fail();
        Server.Incoming.Fail();
    }

    /// <summary>One direction: pieces of messages in order, and what is wrong with it.</summary>
    internal sealed class Direction(int bufferBytes)
    {
        private readonly object _gate = new();
        private readonly Queue<Piece> _pieces = new();
        private TaskCompletionSource _changed = NewSignal();
        private int _heldBytes;
        private bool _failed;
        private long _sentBytes;
        private int _sentMessages;

        /// <summary>Largest piece that a receive gives. Default no limit.</summary>
        public int FragmentBytes { get; set; } = int.MaxValue;

        /// <summary>The connection breaks when so many bytes were sent; the last piece arrives cut.</summary>
        public long? BreakAfterBytes { get; set; }

        /// <summary>The connection breaks when so many messages were sent.</summary>
        public int? BreakAfterMessages { get; set; }

        /// <summary>Whatever is sent vanishes without a trace, as in a network that is gone.</summary>
        public bool IsBlackhole { get; set; }

        public async Task WriteAsync(ReadOnlyMemory<byte> bytes, WebSocketMessageType kind, bool endOfMessage, string? closeReason = null, WebSocketCloseStatus? status = null)
        {
            while (true)
            {
                Task changed;
                lock (_gate)
                {
                    if (_failed)
                        throw new WebSocketException(WebSocketError.ConnectionClosedPrematurely);
                    if (IsBlackhole)
                        return;
                    if (_heldBytes == 0 || _heldBytes + bytes.Length <= bufferBytes)
                    {
                        Add(bytes, kind, endOfMessage, closeReason, status);
                        return;
                    }

                    changed = _changed.Task;
                }

                await changed.ConfigureAwait(false);
            }
        }

        private void Add(ReadOnlyMemory<byte> bytes, WebSocketMessageType kind, bool endOfMessage, string? closeReason, WebSocketCloseStatus? status)
        {
            if (BreakAfterBytes is { } limit && _sentBytes + bytes.Length > limit)
            {
                _pieces.Enqueue(new Piece(bytes[..(int)Math.Max(0, limit - _sentBytes)].ToArray(), kind, false, null, null));
                FailLocked();
                return;
            }

            _sentBytes += bytes.Length;
            _heldBytes += bytes.Length;
            _pieces.Enqueue(new Piece(bytes.ToArray(), kind, endOfMessage, closeReason, status));
            if (endOfMessage && ++_sentMessages >= BreakAfterMessages)
                FailLocked();
            else
                Signal();
        }

        public async Task<(ValueWebSocketReceiveResult Result, Piece Piece)> ReadAsync(Memory<byte> buffer)
        {
            while (true)
            {
                Task changed;
                lock (_gate)
                {
                    if (_pieces.TryPeek(out var piece))
                        return Take(piece, buffer);
                    if (_failed)
                        throw new WebSocketException(WebSocketError.ConnectionClosedPrematurely);
                    changed = _changed.Task;
                }

                await changed.ConfigureAwait(false);
            }
        }

        private (ValueWebSocketReceiveResult Result, Piece Piece) Take(Piece piece, Memory<byte> buffer)
        {
            var count = Math.Min(Math.Min(buffer.Length, FragmentBytes), piece.Bytes.Length - piece.Taken);
            piece.Bytes.AsSpan(piece.Taken, count).CopyTo(buffer.Span);
            piece.Taken += count;
            _heldBytes -= count;
            var complete = piece.Taken == piece.Bytes.Length;
            if (complete)
                _pieces.Dequeue();
            Signal();
            return (new ValueWebSocketReceiveResult(count, piece.Kind, complete && piece.EndOfMessage), piece);
        }

        public void Fail()
        {
            lock (_gate)
                FailLocked();
        }

        private void FailLocked()
        {
            _failed = true;
            Signal();
        }

        private void Signal()
        {
            var changed = _changed;
            _changed = NewSignal();
            changed.SetResult();
        }

        private static TaskCompletionSource NewSignal() => new(TaskCreationOptions.RunContinuationsAsynchronously);

        internal sealed record Piece(byte[] Bytes, WebSocketMessageType Kind, bool EndOfMessage, string? CloseReason, WebSocketCloseStatus? CloseStatus)
        {
            public int Taken { get; set; }
        }
    }
}

/// <summary>One end of a <see cref="MemoryCarrierPair"/>.</summary>
internal sealed class MemoryCarrier : ICarrier
{
    private readonly TaskCompletionSource _disposed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _aborted = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _pinged = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private long _received;

    public MemoryCarrier(string remoteName, MemoryCarrierPair.Direction outgoing, MemoryCarrierPair.Direction incoming)
    {
        RemoteName = remoteName;
        Outgoing = outgoing;
        Incoming = incoming;
    }

    public MemoryCarrierPair.Direction Outgoing { get; }

    public MemoryCarrierPair.Direction Incoming { get; }

    public string RemoteName { get; }

    public bool SpeaksV2 => false;

    public long ReceivedCount => Interlocked.Read(ref _received);

    public Task Disposed => _disposed.Task;

    /// <summary>Completes when the carrier has been aborted.</summary>
    public Task Aborted => _aborted.Task;

    /// <summary>Whether pings can be sent. Default true.</summary>
    public bool CanPing { get; set; } = true;

    /// <summary>Whether the far end answers pings. Default true.</summary>
    public bool IsPingAnswered { get; set; } = true;

    /// <summary>Completes with the first ping.</summary>
    public Task Pinged => _pinged.Task;

    /// <summary>How the far end closed, once a close frame was received.</summary>
    public (WebSocketCloseStatus Status, string Reason)? CloseReceived { get; private set; }

    public async ValueTask<ValueWebSocketReceiveResult> ReceiveAsync(Memory<byte> buffer)
    {
        var (result, piece) = await Incoming.ReadAsync(buffer).ConfigureAwait(false);
        Interlocked.Increment(ref _received);
        if (piece.Kind == WebSocketMessageType.Close)
            CloseReceived = (piece.CloseStatus!.Value, piece.CloseReason!);
        return result;
    }

    public ValueTask SendAsync(ReadOnlyMemory<byte> message, WebSocketMessageType kind) =>
        new(Outgoing.WriteAsync(message, kind, endOfMessage: true));

    public ValueTask<bool> PingAsync()
    {
        _pinged.TrySetResult();
        if (CanPing && IsPingAnswered)
            Interlocked.Increment(ref _received);
        return new ValueTask<bool>(CanPing);
    }

    public ValueTask CloseAsync(WebSocketCloseStatus status, string reason) =>
        new(Outgoing.WriteAsync(default, WebSocketMessageType.Close, endOfMessage: true, WebSocketGoodbye.Shorten(reason), status));

    public void Abort()
    {
        Incoming.Fail();
        Outgoing.Fail();
        _aborted.TrySetResult();
    }

    public ValueTask DisposeAsync()
    {
        _disposed.TrySetResult();
        return ValueTask.CompletedTask;
    }

    /// <summary>Sends a message of the peer that the test plays.</summary>
    public Task SendTextAsync(string json) => SendAsync(Encoding.UTF8.GetBytes(json), WebSocketMessageType.Text).AsTask();

    /// <summary>The next whole message; null for a close frame.</summary>
    public async Task<string?> ReceiveTextAsync()
    {
        var message = new MemoryStream();
        var buffer = new byte[64 * 1024];
        while (true)
        {
            var result = await ReceiveAsync(buffer).AsTask().WaitAsync(TestTimeouts.Long);
            if (result.MessageType == WebSocketMessageType.Close)
                return null;
            message.Write(buffer, 0, result.Count);
            if (result.EndOfMessage)
                return Encoding.UTF8.GetString(message.ToArray());
        }
    }
}
