using VTunnel.Endpoints;

namespace VTunnel.Web;

/// <summary>An endpoint as a stream, for TLS and web servers. Bytes that were read before come first.</summary>
/// <param name="endpoint">Disposed with the stream.</param>
/// <param name="prefix">What is read before anything of the endpoint.</param>
internal sealed class EndpointStream(StreamEndpoint endpoint, ReadOnlyMemory<byte> prefix) : Stream
{
    private ReadOnlyMemory<byte> _prefix = prefix;

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
            return cancellationToken.CanBeCanceled ? ReadUntilCancelledAsync(buffer, cancellationToken) : endpoint.ReceiveAsync(buffer);
        var taken = Math.Min(_prefix.Length, buffer.Length);
        _prefix[..taken].CopyTo(buffer);
        _prefix = _prefix[taken..];
        return new ValueTask<int>(taken);
    }

    /// <summary>A read cannot be taken back from an endpoint, so cancelling is the end of it.</summary>
    private async ValueTask<int> ReadUntilCancelledAsync(Memory<byte> buffer, CancellationToken cancellationToken)
    {
        await using (cancellationToken.Register(static self => ((StreamEndpoint)self!).Abort(), endpoint).ConfigureAwait(false))
        {
            try
            {
                return await endpoint.ReceiveAsync(buffer).ConfigureAwait(false);
            }
            catch (Exception e) when (cancellationToken.IsCancellationRequested)
            {
                throw new OperationCanceledException(e.Message, e, cancellationToken);
            }
        }
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
            endpoint.Dispose();
        base.Dispose(disposing);
    }
}
