using System.Net.Sockets;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.Extensions.Logging;
using VTunnel.Options;
using VTunnel.Web;

namespace VTunnel.Proxy;

/// <summary>
/// The application behind the proxy's web server: decides for each request whether it may go on and how, and has it carried. Thread-safe;
/// what it knows of sessions is a snapshot that the proxy's actor replaces.
/// </summary>
internal sealed class ProxyApplication : IHttpApplication<HttpContext>, IDisposable
{
    private readonly ProxyCredentials _credentials;
    private readonly CurrentRoutes _routes = new();
    private readonly RequestCarrier _requests;
    private readonly ConnectCarrier _connects;
    private readonly TlsInterceptor? _interceptor;
    private readonly ILogger _logger;

    public ProxyApplication(ProxyOptions options, TimeSpan resumeWindow, ILoggerFactory loggerFactory, TimeProvider timeProvider)
    {
        _logger = loggerFactory.CreateLogger("VTunnel.Proxy");
        _credentials = new ProxyCredentials(options.Credentials);
        var direct = new DirectConnector(options, timeProvider);
        var tunnels = new TunnelConnector(resumeWindow + TimeSpan.FromSeconds(15), session => _routes.Value.IsWaiting(session), timeProvider);
        if (options.InterceptionAuthority is { } authority)
            _interceptor = new TlsInterceptor(new CertificateMint(authority, timeProvider), options, timeProvider);
        _requests = new RequestCarrier(direct, tunnels, _routes);
        _connects = new ConnectCarrier(direct, tunnels, _routes, _interceptor, _logger);
    }

    /// <summary>Serves connections whose TLS ends here by this server from now on; call it before the first request.</summary>
    public void UseServer(WebServer server) => _interceptor?.Server = server;

    /// <summary>Routes by what sessions offer now.</summary>
    public void Use(ProxyRoutes routes) => _routes.Value = routes;

    /// <inheritdoc />
    public HttpContext CreateContext(IFeatureCollection contextFeatures) => new DefaultHttpContext(contextFeatures);

    /// <inheritdoc />
    public void DisposeContext(HttpContext context, Exception? exception)
    {
        // Everything of a request ends with it.
    }

    /// <inheritdoc />
    public async Task ProcessRequestAsync(HttpContext context)
    {
        var exchange = new Exchange(context, _logger);
        try
        {
            await ServeAsync(exchange).ConfigureAwait(false);
        }
        catch (LegFailedException e)
        {
            await RefuseAsync(exchange, e.Status, e.Message).ConfigureAwait(false);
        }
        catch (Exception e) when (e is IOException or OperationCanceledException or SocketException or ObjectDisposedException or BadHttpRequestException)
        {
            // The visitor left, or broke off.
            context.Abort();
        }
        finally
        {
            exchange.Log();
        }
    }

    public void Dispose()
    {
        _requests.Dispose();
        _interceptor?.Dispose();
    }

    private async Task ServeAsync(Exchange exchange)
    {
        var context = exchange.Context;
        var visitor = exchange.Visitor;
        var isConnect = context.Request.Method == "CONNECT" && context.Features.Get<IHttpExtendedConnectFeature>() is not { IsExtendedConnect: true };
        if (visitor.InterceptedHost is { } intercepted)
        {
            exchange.Target(intercepted, visitor.InterceptedPort);
            if (RequestFraming.ProblemOf(context.Request) is { } ambiguity)
                await RefuseAsync(exchange, StatusCodes.Status400BadRequest, ambiguity).ConfigureAwait(false);
            else if (isConnect || !RequestTarget.Names(context.Request.Host, intercepted, visitor.InterceptedPort))
                await RefuseAsync(exchange, StatusCodes.Status421MisdirectedRequest, $"this connection is to {exchange.Authority} and to no other host").ConfigureAwait(false);
            else
                await _requests.SendAsync(exchange, isSecure: true).ConfigureAwait(false);
            return;
        }

        if ((RequestTarget.Read(context, isConnect, out var host, out var port) ?? RequestFraming.ProblemOf(context.Request)) is { } problem)
        {
            await RefuseAsync(exchange, StatusCodes.Status400BadRequest, problem).ConfigureAwait(false);
            return;
        }

        exchange.Target(host, port);
        if (!_credentials.Accept(context.Request.Headers.ProxyAuthorization))
        {
            context.Response.Headers.ProxyAuthenticate = "Basic realm=\"vtunnel\", charset=\"UTF-8\"";
            await RefuseAsync(exchange, StatusCodes.Status407ProxyAuthenticationRequired, "the proxy asks for a user name and a password").ConfigureAwait(false);
            return;
        }

        if (isConnect)
            await _connects.ConnectAsync(exchange).ConfigureAwait(false);
        else
            await _requests.SendAsync(exchange, isSecure: false).ConfigureAwait(false);
    }

    private static Task RefuseAsync(Exchange exchange, int status, string reason)
    {
        exchange.Problem = reason;
        return exchange.Context.Response.HasStarted ? Task.CompletedTask : RequestRelay.RefuseAsync(exchange.Context, status, reason);
    }
}
