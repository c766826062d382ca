using System.Net;
using System.Net.Security;
using VTunnel.Endpoints;

namespace VTunnel.Proxy;

/// <summary>TLS to the proxy itself as an endpoint.</summary>
/// <param name="tls">The bytes.</param>
/// <param name="below">What carries them; aborted and disposed with this one.</param>
internal sealed class TlsEndpoint(SslStream tls, StreamEndpoint below) : StreamEndpoint
{
    public override EndPoint? RemoteEndPoint => below.RemoteEndPoint;

    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer) => tls.ReadAsync(buffer);

    public override ValueTask SendAsync(ReadOnlyMemory<byte> buffer) => tls.WriteAsync(buffer);

    public override async ValueTask FinishSendingAsync()
    {
        await tls.ShutdownAsync().ConfigureAwait(false);
        await below.FinishSendingAsync().ConfigureAwait(false);
    }

    public override void Abort() => below.Abort();

    protected override void Dispose(bool disposing)
    {
        if (disposing)
            below.Dispose();
    }
}
