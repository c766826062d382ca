using System.Collections.Concurrent;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Threading.Tasks.Sources;

namespace VTunnel.Endpoints;

/// <summary>
/// One send of a socket. Sends mostly complete at once, so a few of these serve all sockets, where a socket of its own accord
/// would keep one for ever after its first: half a kilobyte for each idle stream.
/// </summary>
internal sealed class SocketSend : SocketAsyncEventArgs, IValueTaskSource
{
    private const int MaxSpareCount = 64;
    private static readonly ConcurrentQueue<SocketSend> Spare = new();
    private static int _spareCount;

    /// <summary>The one that this thread used last: what completes at once, which is nearly all, shares nothing.</summary>
    [ThreadStatic]
    private static SocketSend? _own;

    private ManualResetValueTaskSourceCore<bool> _source;
    private Socket? _socket;

    private SocketSend()
        : base(true) // No execution context is taken along: what a stage is woken by has none.
    {
    }

    /// <summary>Sends all of <paramref name="buffer"/>.</summary>
    public static ValueTask SendAsync(Socket socket, ReadOnlyMemory<byte> buffer)
    {
        var send = Rent();
        send._socket = socket;
        send.SetBuffer(MemoryMarshal.AsMemory(buffer));
        bool isPending;
        try
        {
            isPending = !send.TrySendAll();
        }
        catch
        {
            send.Return();
            throw;
        }

        if (isPending)
            return new ValueTask(send, send._source.Version);
        var error = send.SocketError;
        send.Return();
        return error == SocketError.Success ? ValueTask.CompletedTask : ValueTask.FromException(new SocketException((int)error));
    }

    void IValueTaskSource.GetResult(short token)
    {
        try
        {
            _source.GetResult(token);
        }
        finally
        {
            _source.Reset();
            Return();
        }
    }

    ValueTaskSourceStatus IValueTaskSource.GetStatus(short token) => _source.GetStatus(token);

    void IValueTaskSource.OnCompleted(Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
        _source.OnCompleted(continuation, state, token, flags);

    protected override void OnCompleted(SocketAsyncEventArgs e)
    {
        try
        {
            if (SocketError == SocketError.Success && !TrySkipSent() && !TrySendAll())
                return;
        }
        catch (ObjectDisposedException)
        {
            // Closed between two parts of the send.
            SocketError = SocketError.OperationAborted;
        }

        if (SocketError == SocketError.Success)
            _source.SetResult(true);
        else
            _source.SetException(new SocketException((int)SocketError));
    }

    /// <summary>Sends what is in the buffer; false where that is under way.</summary>
    private bool TrySendAll()
    {
        do
        {
            if (_socket!.SendAsync(this))
                return false;
        }
        while (SocketError == SocketError.Success && !TrySkipSent());
        return true;
    }

    /// <summary>True when all is sent; else the rest stays in the buffer. A stream socket's send takes everything, as a rule.</summary>
    private bool TrySkipSent()
    {
        if (BytesTransferred >= Count)
            return true;
        SetBuffer(MemoryBuffer[BytesTransferred..]);
        return false;
    }

    private static SocketSend Rent()
    {
        if (_own is { } own)
        {
            _own = null;
            return own;
        }

        if (!Spare.TryDequeue(out var spare))
            return new SocketSend();
        Interlocked.Decrement(ref _spareCount);
        return spare;
    }

    private void Return()
    {
        _socket = null;
        SetBuffer(null, 0, 0);
        if (_own is null)
        {
            _own = this;
            return;
        }

        if (Interlocked.Increment(ref _spareCount) <= MaxSpareCount)
        {
            Spare.Enqueue(this);
            return;
        }

        Interlocked.Decrement(ref _spareCount);
        Dispose();
    }
}
