using System.Net;
using Microsoft.AspNetCore.Http;
using VTunnel.Endpoints;

namespace VTunnel.Proxy;

/// <summary>The two bodies of a CONNECT request of HTTP/2 as an endpoint.</summary>
internal sealed class BodyEndpoint(HttpContext context) : StreamEndpoint
{
    private readonly EndPoint? _remote = context.Connection.RemoteIpAddress is { } address ? new IPEndPoint(address, context.Connection.RemotePort) : null;
    private int _ended;

    public override EndPoint? RemoteEndPoint => _remote;

    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer) => context.Request.Body.ReadAsync(buffer);

    public override async ValueTask SendAsync(ReadOnlyMemory<byte> buffer)
    {
        await context.Response.Body.WriteAsync(buffer).ConfigureAwait(false);
        await context.Response.Body.FlushAsync().ConfigureAwait(false);
    }

    public override ValueTask FinishSendingAsync() => new(context.Response.CompleteAsync());

    public override void Abort()
    {
        if (Interlocked.Exchange(ref _ended, 1) == 0)
            context.Abort();
    }

    protected override void Dispose(bool disposing) => Interlocked.Exchange(ref _ended, 1);
}
