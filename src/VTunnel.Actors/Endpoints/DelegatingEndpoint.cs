using System.Net;

namespace VTunnel.Endpoints;

/// <summary>
/// An endpoint that passes everything on to another one, as a base for those that change something on the way.
/// </summary>
/// <remarks>
/// What an override should know: a receive with an empty buffer only waits for data to come; <see cref="Abort"/> and
/// dispose may come from any thread at any time, while operations are under way, which then fail.
/// </remarks>
public abstract class DelegatingEndpoint : StreamEndpoint
{
    /// <summary>Takes ownership of <paramref name="inner"/>.</summary>
    protected DelegatingEndpoint(StreamEndpoint inner)
    {
        ArgumentNullException.ThrowIfNull(inner);
        Inner = inner;
    }

    /// <inheritdoc />
    public override EndPoint? RemoteEndPoint => Inner.RemoteEndPoint;

    /// <summary>The endpoint behind this one.</summary>
    protected StreamEndpoint Inner { get; }

    /// <inheritdoc />
    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer) => Inner.ReceiveAsync(buffer);

    /// <inheritdoc />
    public override ValueTask SendAsync(ReadOnlyMemory<byte> buffer) => Inner.SendAsync(buffer);

    /// <inheritdoc />
    public override ValueTask FinishSendingAsync() => Inner.FinishSendingAsync();

    /// <inheritdoc />
    public override void Abort() => Inner.Abort();

    /// <inheritdoc />
    protected override void Dispose(bool disposing)
    {
        if (disposing)
            Inner.Dispose();
    }
}
