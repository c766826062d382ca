using System.Net;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using VTunnel.Endpoints;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Errors;

namespace VTunnel.Proxy;

/// <summary>How the client answered.</summary>
/// <param name="IsConnected">Whether the target is connected.</param>
/// <param name="Reason">Else why not, in words; null if the stream broke without an answer.</param>
internal sealed record StreamOutcome(bool IsConnected, string? Reason);

/// <summary>
/// A visitor of the proxy as the end of a tunnelled stream. The stream begins before the visitor is told anything: nothing is
/// read from him until the client has answered and <see cref="Activate"/> is called, and the answer is not passed to him.
/// </summary>
internal sealed class VisitorEndpoint : StreamEndpoint
{
    private readonly TaskCompletionSource<StreamOutcome> _outcome = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource<bool> _activated = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _closed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Lock _gate = new();
    private StreamAnswer? _answer;
    private volatile StreamEndpoint? _inner;
    private ReadOnlyMemory<byte> _prefix;
    private bool _ended;
    private long _received;
    private long _sent;

    /// <param name="remote">The visitor's address.</param>
    /// <param name="answers">Whether the first line that comes is an answer.</param>
    public VisitorEndpoint(EndPoint? remote, bool answers)
    {
        RemoteEndPoint = remote;
        if (answers)
            _answer = new StreamAnswer();
        else
            _outcome.SetResult(new StreamOutcome(true, null));
    }

    /// <inheritdoc />
    public override EndPoint? RemoteEndPoint { get; }

    /// <summary>The client's answer; at once where it gives none.</summary>
    public Task<StreamOutcome> Outcome => _outcome.Task;

    /// <summary>Completes when the stream has ended.</summary>
    public Task Closed => _closed.Task;

    /// <summary>Bytes from the visitor.</summary>
    public long ReceivedBytes => Interlocked.Read(ref _received);

    /// <summary>Bytes to the visitor.</summary>
    public long SentBytes => Interlocked.Read(ref _sent);

    /// <summary>Gives the stream its visitor.</summary>
    /// <param name="inner">Owned by this endpoint from now on.</param>
    /// <param name="prefix">What he has sent already.</param>
    /// <returns>False if the stream has ended meanwhile; the visitor is aborted then.</returns>
    public bool Activate(StreamEndpoint inner, ReadOnlyMemory<byte> prefix)
    {
        lock (_gate)
        {
            if (!_ended)
            {
                _prefix = prefix;
                _inner = inner;
                _activated.SetResult(true);
                return true;
            }
        }

        inner.Abort();
        return false;
    }

    /// <inheritdoc />
    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer)
    {
        if (_inner is not { } inner)
            return ReceiveOnceActiveAsync(buffer);
        if (!_prefix.IsEmpty)
        {
            var taken = Math.Min(_prefix.Length, buffer.Length);
            _prefix[..taken].CopyTo(buffer);
            _prefix = _prefix[taken..];
            _received += taken;
            return new ValueTask<int>(taken);
        }

        var receiving = inner.ReceiveAsync(buffer);
        if (!receiving.IsCompletedSuccessfully)
            return buffer.IsEmpty ? receiving : CountAsync(receiving);
        var count = receiving.GetAwaiter().GetResult();
        _received += count;
        return new ValueTask<int>(count);
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    private async ValueTask<int> CountAsync(ValueTask<int> receiving)
    {
        var count = await receiving.ConfigureAwait(false);
        _received += count;
        return count;
    }

    private async ValueTask<int> ReceiveOnceActiveAsync(Memory<byte> buffer)
    {
        await ActivatedAsync().ConfigureAwait(false);
        return await ReceiveAsync(buffer).ConfigureAwait(false);
    }

    /// <inheritdoc />
    public override ValueTask SendAsync(ReadOnlyMemory<byte> buffer)
    {
        if (_answer is not null || _inner is not { } inner)
            return SendFirstAsync(buffer);
        _sent += buffer.Length;
        return inner.SendAsync(buffer);
    }

    private async ValueTask SendFirstAsync(ReadOnlyMemory<byte> buffer)
    {
        if (_answer is not null && !TakeAnswer(ref buffer))
            return;
        if (buffer.IsEmpty)
            return;
        await ActivatedAsync().ConfigureAwait(false);
        await SendAsync(buffer).ConfigureAwait(false);
    }

    /// <summary>True once the answer is complete.</summary>
    private bool TakeAnswer(ref ReadOnlyMemory<byte> buffer)
    {
        var rest = buffer.Span;
        string? error;
        try
        {
            if (!_answer!.TryRead(ref rest, out error))
                return false;
        }
        catch (SessionProtocolException e)
        {
            throw new IOException(e.Message, e);
        }

        buffer = buffer[^rest.Length..];
        _answer = null;
        _outcome.TrySetResult(new StreamOutcome(error is null, error));
        return true;
    }

    /// <inheritdoc />
    public override async ValueTask FinishSendingAsync()
    {
        // An end without an answer, or after a refusal: there is nobody to tell.
        if (_answer is not null || await Outcome.ConfigureAwait(false) is { IsConnected: false })
        {
            Abort();
            return;
        }

        await ActivatedAsync().ConfigureAwait(false);
        await _inner!.FinishSendingAsync().ConfigureAwait(false);
    }

    private async ValueTask ActivatedAsync()
    {
        if (!await _activated.Task.ConfigureAwait(false))
            throw new IOException("The visitor is gone.");
    }

    /// <inheritdoc />
    public override void Abort()
    {
        if (End())
            _inner?.Abort();
        _closed.TrySetResult();
    }

    /// <inheritdoc />
    protected override void Dispose(bool disposing)
    {
        if (!disposing)
            return;
        if (End())
            _inner?.Dispose();
        _closed.TrySetResult();
    }

    private bool End()
    {
        lock (_gate)
        {
            if (_ended)
                return false;
            _ended = true;
            if (_inner is null)
                _activated.TrySetResult(false);
        }

        _outcome.TrySetResult(new StreamOutcome(false, null));
        return true;
    }
}
