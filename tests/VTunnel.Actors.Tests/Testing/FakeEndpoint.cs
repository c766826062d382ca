using System.Net;
using System.Threading.Tasks.Sources;
using VTunnel.Endpoints;

namespace VTunnel.Actors.Tests.Testing;

/// <summary>
/// An endpoint in memory that does nothing by itself. What completes, completes on the thread of the test that says so.
/// </summary>
internal sealed class FakeEndpoint : StreamEndpoint
{
    private readonly Queue<byte[]> _fed = new();
    private readonly MemoryStream _sent = new();
    private Memory<byte> _waiting;
    private readonly TaskCompletionSource _sendStarted = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _gone = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private PendingOperation? _receive;
    private PendingOperation? _send;
    private int _pendingSendBytes;
    private Exception? _receiveError;
    private bool _fedEnd;

    public override EndPoint RemoteEndPoint { get; } = new IPEndPoint(IPAddress.Loopback, 4711);

    /// <summary>Everything sent and completed so far.</summary>
    public byte[] Sent => _sent.ToArray();

    /// <summary>Whether sends stay under way until <see cref="CompleteSend"/>.</summary>
    public bool IsStalled { get; set; }

    /// <summary>Where set, every send fails.</summary>
    public Exception? SendError { get; set; }

    /// <summary>Where set, operations throw instead of failing.</summary>
    public bool Throws { get; set; }

    /// <summary>Where set, a receive claims as many bytes, whatever the buffer.</summary>
    public int? ClaimedBytes { get; set; }

    /// <summary>Bytes that a receive finds without end; 0 for none.</summary>
    public int EndlessBytes { get; set; }

    /// <summary>Completes with the first send.</summary>
    public Task SendStarted => _sendStarted.Task;

    /// <summary>Completes when the endpoint is aborted or disposed.</summary>
    public Task Gone => _gone.Task;

    public bool IsFinished { get; private set; }

    public bool IsAborted { get; private set; }

    public bool IsDisposed { get; private set; }

    public bool IsGone => IsAborted || IsDisposed;

    public bool IsSending => _send is not null;

    public bool IsReceiving => _receive is not null;

    /// <summary>The buffer of the receive under way; empty while it only waits for data to come.</summary>
    public int ReceiveBufferBytes => _waiting.Length;

    public int ReceiveCount { get; private set; }

    public long ReceivedBytes { get; private set; }

    /// <summary>Gives the pump something to read.</summary>
    public void Feed(params byte[] bytes)
    {
        _fed.Enqueue(bytes);
        Serve();
    }

    /// <summary>The far side has finished sending.</summary>
    public void FeedEnd()
    {
        _fedEnd = true;
        Serve();
    }

    /// <summary>The far side has reset the connection.</summary>
    public void FeedError()
    {
        _receiveError = new IOException("connection reset");
        Serve();
    }

    /// <summary>Completes the send under way.</summary>
    public void CompleteSend()
    {
        var send = _send ?? throw new InvalidOperationException("No send is under way.");
        _send = null;
        send.Complete(_pendingSendBytes, null);
    }

    /// <summary>Fails the send under way.</summary>
    public void FailSend()
    {
        var send = _send ?? throw new InvalidOperationException("No send is under way.");
        _send = null;
        send.Complete(0, new IOException("broken pipe"));
    }

    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer)
    {
        if (Throws)
            throw new InvalidOperationException("an endpoint that throws");
        if (_receive is not null)
            throw new InvalidOperationException("Two receives at a time.");
        ReceiveCount++;
        if (EndlessBytes > 0 && !IsGone)
        {
            ReceivedBytes += Math.Min(EndlessBytes, buffer.Length);
            return new ValueTask<int>(Math.Min(EndlessBytes, buffer.Length));
        }

        _waiting = buffer;
        _receive = new PendingOperation();
        var result = _receive.Task();
        Serve();
        return result;
    }

    public override ValueTask SendAsync(ReadOnlyMemory<byte> buffer)
    {
        if (Throws)
            throw new InvalidOperationException("an endpoint that throws");
        if (_send is not null)
            throw new InvalidOperationException("Two sends at a time.");
        if (IsFinished)
            throw new InvalidOperationException("A send after the end.");
        if (SendError is not null)
            return ValueTask.FromException(SendError);
        _sent.Write(buffer.Span);
        _sendStarted.TrySetResult();
        if (!IsStalled)
            return ValueTask.CompletedTask;
        _pendingSendBytes = buffer.Length;
        _send = new PendingOperation();
        return _send.VoidTask();
    }

    public override ValueTask FinishSendingAsync()
    {
        if (IsFinished)
            throw new InvalidOperationException("Finished twice.");
        IsFinished = true;
        if (SendError is not null)
            return ValueTask.FromException(SendError);
        return ValueTask.CompletedTask;
    }

    public override void Abort()
    {
        if (IsGone)
            return;
        IsAborted = true;
        FailAll();
    }

    protected override void Dispose(bool disposing)
    {
        if (IsGone)
            return;
        IsDisposed = true;
        FailAll();
    }

    /// <summary>As a socket: what is under way fails when it is closed.</summary>
    private void FailAll()
    {
        _gone.TrySetResult();
        var (receive, send) = (_receive, _send);
        _receive = null;
        _send = null;
        receive?.Complete(0, new ObjectDisposedException("socket"));
        send?.Complete(0, new ObjectDisposedException("socket"));
    }

    private void Serve()
    {
        if (_receive is not { } receive)
            return;
        if (_fed.Count == 0 && !_fedEnd && _receiveError is null)
            return;

        _receive = null;
        var buffer = _waiting;
        _waiting = default;
        if (ClaimedBytes is { } claimed && buffer.Length > 0)
        {
            receive.Complete(claimed, null);
            return;
        }

        if (_fed.TryPeek(out var next))
        {
            var count = Math.Min(next.Length, buffer.Length);
            next.AsSpan(0, count).CopyTo(buffer.Span);
            if (buffer.Length > 0)
            {
                _fed.Dequeue();
                if (count < next.Length)
                    PutBack(next[count..]);
            }

            ReceivedBytes += count;
            receive.Complete(count, null);
            return;
        }

        receive.Complete(0, _receiveError);
    }

    private void PutBack(byte[] rest)
    {
        var others = _fed.ToArray();
        _fed.Clear();
        _fed.Enqueue(rest);
        foreach (var other in others)
            _fed.Enqueue(other);
    }

    /// <summary>Runs its continuation on the thread that completes it, whatever the context.</summary>
    private sealed class PendingOperation : IValueTaskSource<int>, IValueTaskSource
    {
        private Action? _continue;
        private int _result;
        private Exception? _error;
        private bool _completed;

        public ValueTask<int> Task() => new(this, 0);

        public ValueTask VoidTask() => new(this, 0);

        public void Complete(int result, Exception? error)
        {
            (_result, _error, _completed) = (result, error, true);
            var next = _continue;
            _continue = null;
            next?.Invoke();
        }

        public ValueTaskSourceStatus GetStatus(short token) =>
            !_completed ? ValueTaskSourceStatus.Pending
            : _error is null ? ValueTaskSourceStatus.Succeeded : ValueTaskSourceStatus.Faulted;

        public void OnCompleted(Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags)
        {
            if (_completed)
                continuation(state);
            else
                _continue = () => continuation(state);
        }

        public int GetResult(short token) => _error is null ? _result : throw _error;

        void IValueTaskSource.GetResult(short token)
        {
            if (_error is not null)
                throw _error;
        }
    }
}
