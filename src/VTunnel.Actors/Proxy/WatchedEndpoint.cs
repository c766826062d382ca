using VTunnel.Endpoints;

namespace VTunnel.Proxy;

/// <summary>An endpoint that says when it has ended.</summary>
internal sealed class WatchedEndpoint(StreamEndpoint inner) : DelegatingEndpoint(inner)
{
    private readonly TaskCompletionSource _closed = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Completes when it was aborted or disposed.</summary>
    public Task Closed => _closed.Task;

    public override void Abort()
    {
        base.Abort();
        _closed.TrySetResult();
    }

    protected override void Dispose(bool disposing)
    {
        base.Dispose(disposing);
        _closed.TrySetResult();
    }
}
