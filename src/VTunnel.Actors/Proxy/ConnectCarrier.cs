using System.Net.Sockets;
using System.Security.Authentication;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;
using VTunnel.Diagnostics;
using VTunnel.Endpoints;
using VTunnel.Protocol.Control;
using VTunnel.Sessions;
using VTunnel.Web;

namespace VTunnel.Proxy;

/// <summary>Carries what is inside a CONNECT: bytes as they are, or requests where TLS ends here.</summary>
/// <param name="direct">Connects from here.</param>
/// <param name="tunnels">Connects through tunnels.</param>
/// <param name="routes">Which hosts have a tunnel.</param>
/// <param name="interceptor">Ends the TLS of hosts that have one; null where it stays the visitor's.</param>
/// <param name="logger">Where to log.</param>
internal sealed class ConnectCarrier(DirectConnector direct, TunnelConnector tunnels, CurrentRoutes routes, TlsInterceptor? interceptor, ILogger logger)
{
    private static readonly byte[] Connected = "HTTP/1.1 200 Connection established\r\n\r\n"u8.ToArray();

    /// <summary>Connects a visitor, and stays until his connection has ended or is served by the web server.</summary>
    public async Task ConnectAsync(Exchange exchange)
    {
        var context = exchange.Context;
        if (!routes.Value.Table.TryFind(exchange.Host, exchange.Port, out var route))
        {
            exchange.Route = Exchange.Direct;
            var socket = await direct.ConnectAsync(exchange.Host, exchange.Port, context.RequestAborted).ConfigureAwait(false);
            var target = new SocketEndpoint(socket);
            await RunAsync(exchange, async (endpoint, prefix) =>
            {
                var (there, back) = await DirectRelay.RunAsync(endpoint, prefix, target).ConfigureAwait(false);
                exchange.Moved(there, back);
            }, target.Abort).ConfigureAwait(false);
            return;
        }

        exchange.Route = route.SessionName;
        if (interceptor is not null)
        {
            await RunAsync(exchange, (endpoint, prefix) => InterceptAsync(interceptor, exchange, route, endpoint, prefix), static () => { }).ConfigureAwait(false);
            return;
        }

        if (route.AlwaysAddsTls && exchange.Port == 443)
        {
            throw new LegFailedException(
                StatusCodes.Status502BadGateway,
                $"the client adds TLS to what is sent to {exchange.Host}, so TLS of your own cannot pass: use http://{exchange.Host}/, or let the proxy end TLS (--proxy-mitm-ca)");
        }

        var stream = await OpenAsync(exchange, route, exchange.Port == 443 ? ProxyVisit.Tls : ProxyVisit.Tcp, context.RequestAborted).ConfigureAwait(false);
        await RunAsync(exchange, (endpoint, prefix) => CarryAsync(exchange, stream, endpoint, prefix), stream.Abort).ConfigureAwait(false);
    }

    private async Task<VisitorEndpoint> OpenAsync(Exchange exchange, ProxyRoute route, string speaks, CancellationToken cancellationToken)
    {
        await exchange.Visitor.AdmitAsync(route, exchange.Authority, speaks).ConfigureAwait(false);
        return await tunnels.OpenAsync(route, exchange.Visitor.Remote, new ProxyVisit(exchange.Authority, speaks), cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Ends the visitor's TLS here, if it is TLS that he speaks; anything else goes on as it is.</summary>
    private async Task InterceptAsync(TlsInterceptor interceptor, Exchange exchange, ProxyRoute route, StreamEndpoint endpoint, ReadOnlyMemory<byte> prefix)
    {
        try
        {
            if (await interceptor.TryServeAsync(exchange, endpoint, prefix).ConfigureAwait(false) is not { } other)
                return;
            var stream = await OpenAsync(exchange, route, ProxyVisit.Tcp, CancellationToken.None).ConfigureAwait(false);
            await CarryAsync(exchange, stream, other.Endpoint, other.First).ConfigureAwait(false);
        }
        catch (Exception e) when (e is IOException or AuthenticationException or OperationCanceledException or SocketException or ObjectDisposedException)
        {
            // Nothing can be said to a visitor who expects a TLS server.
            logger.InterceptionFailed(exchange.Authority, ReasonOf(e));
            endpoint.Abort();
        }
    }

    private static string ReasonOf(Exception e)
    {
        while (e.InnerException is { } inner)
            e = inner;
        var reason = e.Message.TrimEnd('.');

        // TLS has alerts for it: unknown ca, bad certificate, certificate unknown.
        return reason.Contains("alert", StringComparison.OrdinalIgnoreCase)
            && (reason.Contains("certificate", StringComparison.OrdinalIgnoreCase) || reason.EndsWith(" ca", StringComparison.OrdinalIgnoreCase))
            ? $"the visitor does not trust the certificate; it has to trust the authority of --proxy-mitm-ca ({reason})"
            : reason;
    }

    /// <summary>The session's pump moves the bytes, as it does for visitors of a port.</summary>
    private static async Task CarryAsync(Exchange exchange, VisitorEndpoint stream, StreamEndpoint endpoint, ReadOnlyMemory<byte> prefix)
    {
        stream.Activate(endpoint, prefix);
        await stream.Closed.ConfigureAwait(false);
        exchange.Moved(stream.ReceivedBytes, stream.SentBytes);
    }

    /// <summary>Says that the visitor is connected, and hands his bytes over.</summary>
    /// <param name="exchange">The CONNECT.</param>
    /// <param name="carry">Owns the visitor's endpoint; what he has sent already comes with it.</param>
    /// <param name="giveUp">Ends the other side if it does not come to that.</param>
    private static async Task RunAsync(Exchange exchange, Func<StreamEndpoint, ReadOnlyMemory<byte>, Task> carry, Action giveUp)
    {
        var context = exchange.Context;
        exchange.Status = StatusCodes.Status200OK;
        if (HttpProtocol.IsHttp2(context.Request.Protocol))
        {
            var body = new BodyEndpoint(context);
            try
            {
                // Starting alone sends nothing yet.
                await context.Response.StartAsync(context.RequestAborted).ConfigureAwait(false);
                await context.Response.Body.FlushAsync(context.RequestAborted).ConfigureAwait(false);
            }
            catch
            {
                giveUp();
                throw;
            }

            try
            {
                await carry(body, ReadOnlyMemory<byte>.Empty).ConfigureAwait(false);
            }
            catch
            {
                giveUp();
                body.Abort();
                throw;
            }

            return;
        }

        var (endpoint, prefix) = exchange.Visitor.Detach();
        try
        {
            await endpoint.SendAsync(Connected).ConfigureAwait(false);
        }
        catch
        {
            giveUp();
            endpoint.Abort();
            throw;
        }

        try
        {
            await carry(endpoint, prefix).ConfigureAwait(false);
        }
        catch
        {
            // The connection is nobody else's any more.
            giveUp();
            endpoint.Abort();
            context.Abort();
            throw;
        }

        // The server has nothing to do with the connection any more and must not answer on it.
        context.Abort();
    }
}
