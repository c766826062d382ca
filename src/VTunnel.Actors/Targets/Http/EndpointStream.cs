using VTunnel.Streams;

namespace VTunnel.Targets.Http;

/// <summary>A <see cref="StreamEndpoint"/> as a <see cref="Stream"/>, for libraries that want one.</summary>
/// <param name="endpoint">Disposed with the stream.</param>
/// <param name="ready">The first read waits for it: somebody else's read is still under way until then.</param>
/// <param name="closed">Called once, after the endpoint is disposed.</param>
internal sealed class EndpointStream(StreamEndpoint endpoint, Task? ready = null, Action<StreamEndpoint>? closed = null) : Stream
{
    private int _disposed;

    public override bool CanRead => true;

    public override bool CanWrite => true;

    public override bool CanSeek => false;

    public override long Length => throw new NotSupportedException();

    public override long Position
    {
        get => throw new NotSupportedException();
        set => throw new NotSupportedException();
    }

    /// <remarks>A cancelled read would lose its place in the stream; whoever cancels disposes, which fails the read.</remarks>
    public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        cancellationToken.ThrowIfCancellationRequested();
        return ready is null or { IsCompletedSuccessfully: true } ? endpoint.ReceiveAsync(buffer) : ReadOnceReadyAsync(buffer);
    }

    private async ValueTask<int> ReadOnceReadyAsync(Memory<byte> buffer)
    {
        await ready!.ConfigureAwait(false);
        return await endpoint.ReceiveAsync(buffer).ConfigureAwait(false);
    }

    public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
    {
        cancellationToken.ThrowIfCancellationRequested();
        return endpoint.SendAsync(buffer);
    }

    public override Task<int> ReadAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
        ReadAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

    public override Task WriteAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
        WriteAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

    public override Task FlushAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public override void Flush()
    {
        // Nothing is buffered here.
    }

    public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException("Read asynchronously.");

    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException("Write asynchronously.");

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    protected override void Dispose(bool disposing)
    {
        if (disposing && Interlocked.Exchange(ref _disposed, 1) == 0)
        {
            endpoint.Dispose();
            closed?.Invoke(endpoint);
        }

        base.Dispose(disposing);
    }
}
