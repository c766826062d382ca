using VTunnel.Endpoints;

namespace VTunnel.Web;

/// <summary>An endpoint as a stream, for TLS and web servers. Bytes that were read before come first.</summary>
/// <param name="endpoint">Disposed with the stream.</param>
/// <param name="prefix">What is read before anything of the endpoint.</param>
internal sealed class EndpointStream(StreamEndpoint endpoint, ReadOnlyMemory<byte> prefix) : AsyncStream
{
    private ReadOnlyMemory<byte> _prefix = prefix;
    private Task? _waiting;
    private bool _isReady;

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
