using System.Net.Sockets;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using VTunnel.Protocol.Control;
using VTunnel.Routing;
using VTunnel.Web;

namespace VTunnel.Proxy;

/// <summary>Carries requests that the proxy can read: through the tunnel of the host's client, or from here.</summary>
internal sealed class RequestCarrier : IDisposable
{
    private readonly RequestRelay _relay = new();
    private readonly HttpMessageInvoker _directClient;
    private readonly DirectConnector _direct;
    private readonly TunnelClients _tunnelClients;
    private readonly CurrentRoutes _routes;

    public RequestCarrier(DirectConnector direct, TunnelConnector tunnels, CurrentRoutes routes)
    {
        _direct = direct;
        _directClient = RequestRelay.CreateClient(ConnectDirectAsync);
        _tunnelClients = new TunnelClients(tunnels);
        _routes = routes;
        routes.Changed = table => _tunnelClients.Keep(table.Routes);
    }

    /// <summary>Sends a request on, and the answer back.</summary>
    /// <param name="exchange">The request.</param>
    /// <param name="isSecure">Whether it came inside TLS that ends here.</param>
    public async Task SendAsync(Exchange exchange, bool isSecure)
    {
        var context = exchange.Context;
        var isHttp2 = RequestRelay.MayGoAsHttp2(context.Request);
        var needsHttp2 = isHttp2 && RequestRelay.IsGrpc(context.Request);
        using var ended = new CancellationTokenSource();
        var watching = HttpProtocol.IsHttp11(context.Request.Protocol) && context.Request.ContentLength is null or 0 && context.Request.Headers.TransferEncoding.Count == 0
            && context.Features.Get<IHttpUpgradeFeature>() is not { IsUpgradableRequest: true }
            ? exchange.Visitor.WatchAsync(context.Abort, ended.Token)
            : Task.CompletedTask;
        ChunkedAnswer.Install(context);
        exchange.Count();
        try
        {
            if (_routes.Value.Table.TryFind(exchange.Host, exchange.Port, out var route))
            {
                exchange.Route = route.SessionName;
                var speaks = route.Answers && isHttp2 ? ProxyVisit.Http2 : ProxyVisit.Http1;
                await exchange.Visitor.AdmitAsync(route, exchange.Authority, speaks).ConfigureAwait(false);
                var client = _tunnelClients.For(route, speaks);
                var scheme = isSecure && route.NeedsTlsFromProxy ? "https" : "http";
                var (version, policy) = (isHttp2, scheme) switch
                {
                    (true, "https") => (new Version(2, 0), HttpVersionPolicy.RequestVersionOrLower),
                    (true, _) when route.Answers || needsHttp2 => (new Version(2, 0), HttpVersionPolicy.RequestVersionExact),
                    _ => (new Version(1, 1), HttpVersionPolicy.RequestVersionExact),
                };
                exchange.Problem = await _relay.SendAsync(context, client, $"{scheme}://{exchange.Authority}", version, policy, diagnose: () => _routes.Value.IsWaiting(route.SessionName)
                    ? new LegFailedException(StatusCodes.Status504GatewayTimeout, $"{exchange.Authority} cannot be reached: the tunnel to it is down")
                    : null).ConfigureAwait(false);
            }
            else if (isSecure)
            {
                await RequestRelay.RefuseAsync(context, StatusCodes.Status504GatewayTimeout, $"{exchange.Authority} is not forwarded any more: the tunnel to it is down").ConfigureAwait(false);
            }
            else
            {
                exchange.Route = Exchange.Direct;
                exchange.Problem = await _relay.SendAsync(
                    context,
                    _directClient,
                    $"http://{exchange.Authority}",
                    needsHttp2 ? new Version(2, 0) : new Version(1, 1),
                    HttpVersionPolicy.RequestVersionExact).ConfigureAwait(false);
            }
        }
        finally
        {
            await ended.CancelAsync().ConfigureAwait(false);
            await watching.ConfigureAwait(false);
        }
    }

    private ValueTask<Stream> ConnectDirectAsync(SocketsHttpConnectionContext context, CancellationToken cancellationToken)
    {
        HostName.TryNormalize(context.DnsEndPoint.Host, out var host);
        return ConnectAsync(host!, context.DnsEndPoint.Port);

        async ValueTask<Stream> ConnectAsync(string name, int port) =>
            new NetworkStream(await _direct.ConnectAsync(name, port, cancellationToken).ConfigureAwait(false), ownsSocket: true);
    }

    public void Dispose()
    {
        _directClient.Dispose();
        _tunnelClients.Dispose();
        _relay.Dispose();
    }
}
