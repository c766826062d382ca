using System.Net;

namespace VTunnel.Endpoints;

/// <summary>
/// The local end of a tunnelled stream: a visitor's socket, a target's socket, or anything that behaves like one.
/// The two directions are independent. At most one receive and one send are under way at a time.
/// </summary>
public abstract class StreamEndpoint : IDisposable
{
    /// <summary>The far address, for logs; null where there is none.</summary>
    public virtual EndPoint? RemoteEndPoint => null;

    /// <summary>
    /// Receives at least one byte, or 0 when the far end has finished sending. With an empty buffer it completes
    /// when a receive would not wait (data, end or error) and holds no memory meanwhile, which is what makes idle
    /// streams cheap; an endpoint that cannot tell completes at once.
    /// </summary>
    /// <exception cref="IOException">The connection broke; <see cref="System.Net.Sockets.SocketException"/> likewise.</exception>
    public abstract ValueTask<int> ReceiveAsync(Memory<byte> buffer);

    /// <summary>Sends all of <paramref name="buffer"/>.</summary>
    public abstract ValueTask SendAsync(ReadOnlyMemory<byte> buffer);

    /// <summary>Tells the far end that no more will be sent (FIN); receiving goes on.</summary>
    public abstract ValueTask FinishSendingAsync();

    /// <summary>Ends both directions at once, as a TCP reset where the transport can. Idempotent; never throws.</summary>
    public abstract void Abort();

    /// <summary>Releases everything. Idempotent; operations under way fail.</summary>
    public void Dispose()
    {
        Dispose(disposing: true);
        GC.SuppressFinalize(this);
    }

    /// <inheritdoc cref="Dispose()"/>
    protected abstract void Dispose(bool disposing);
}
