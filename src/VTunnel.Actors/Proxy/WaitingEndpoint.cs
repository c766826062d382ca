using VTunnel.Endpoints;

namespace VTunnel.Proxy;

/// <summary>An endpoint on which somebody waits for data already: the first receive begins with that wait.</summary>
internal sealed class WaitingEndpoint : DelegatingEndpoint
{
    private Task? _waiting;

    public WaitingEndpoint(StreamEndpoint inner, Task waiting)
        : base(inner)
    {
        _waiting = waiting;

        // If nobody receives any more, its failure is no news to anyone.
        _ = waiting.ContinueWith(static task => _ = task.Exception, default, TaskContinuationOptions.OnlyOnFaulted, TaskScheduler.Default);
    }

    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer) =>
        _waiting is { } waiting ? ReceiveAfterAsync(waiting, buffer) : base.ReceiveAsync(buffer);

    private async ValueTask<int> ReceiveAfterAsync(Task waiting, Memory<byte> buffer)
    {
        await waiting.ConfigureAwait(false);
        _waiting = null;
        return buffer.IsEmpty ? 0 : await base.ReceiveAsync(buffer).ConfigureAwait(false);
    }
}
