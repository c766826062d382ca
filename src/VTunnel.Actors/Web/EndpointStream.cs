using VTunnel.Endpoints;

namespace VTunnel.Web;

/// <summary>An endpoint as a stream, for TLS and web servers. Bytes that were read before come first.</summary>
/// <param name="endpoint">Disposed with the stream.</param>
/// <param name="prefix">What is read before anything of the endpoint.</param>
internal sealed class EndpointStream(StreamEndpoint endpoint, ReadOnlyMemory<byte> prefix) : Stream
{
    private ReadOnlyMemory<byte> _prefix = prefix;
    private Task? _waiting;
    private bool _isReady;

    public override bool CanRead => true;

    public override bool CanWrite => true;

    public override bool CanSeek => false;

    public override long Length => throw new NotSupportedException();

    public override long Position
    {
        get => throw new NotSupportedException();
        set => throw new NotSupportedException();
    }

    public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        if (_prefix.IsEmpty)
        {
            if (!buffer.IsEmpty && (_isReady || (_waiting is null && !cancellationToken.CanBeCanceled)))
            {
                _isReady = false;
                return endpoint.ReceiveAsync(buffer);
            }

            return WaitAndReadAsync(buffer, cancellationToken);
        }

        var taken = Math.Min(_prefix.Length, buffer.Length);
        _prefix[..taken].CopyTo(buffer);
        _prefix = _prefix[taken..];
        return new ValueTask<int>(taken);
    }

    /// <summary>
    /// A read cannot be taken back from an endpoint, but waiting can: a wait that is cancelled goes on, and the next read
    /// begins with it.
    /// </summary>
    private async ValueTask<int> WaitAndReadAsync(Memory<byte> buffer, CancellationToken cancellationToken)
    {
        _waiting ??= endpoint.ReceiveAsync(Memory<byte>.Empty).AsTask();
        await _waiting.WaitAsync(cancellationToken).ConfigureAwait(false);
        _waiting = null;
        if (!buffer.IsEmpty)
            return await endpoint.ReceiveAsync(buffer).ConfigureAwait(false);
        _isReady = true;
        return 0;
    }

    public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default) =>
        endpoint.SendAsync(buffer);

    public override Task FlushAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public override Task<int> ReadAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
        ReadAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

    public override Task WriteAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
        WriteAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

    public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException("Read asynchronously.");

    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException("Write asynchronously.");

    public override void Flush()
    {
        // Nothing is buffered here.
    }

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            endpoint.Dispose();

            // A wait that nobody comes back to fails with the endpoint, which is no news to anyone.
            _ = _waiting?.ContinueWith(static task => _ = task.Exception, default, TaskContinuationOptions.OnlyOnFaulted, TaskScheduler.Default);
        }

        base.Dispose(disposing);
    }
}
