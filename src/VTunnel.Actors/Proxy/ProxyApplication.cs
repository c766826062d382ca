using System.Diagnostics;
using System.Globalization;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using Akka.Actor;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.Extensions.Logging;
using VTunnel.Diagnostics;
using VTunnel.Endpoints;
using VTunnel.Options;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Routing;
using VTunnel.Sessions;
using VTunnel.Web;

namespace VTunnel.Proxy;

/// <summary>
/// The application behind the proxy's web server: finds out for each request where it goes, and sends it there. Thread-safe;
/// what it knows of sessions is a snapshot that the proxy's actor replaces.
/// </summary>
internal sealed class ProxyApplication : IHttpApplication<HttpContext>, IDisposable
{
    private static readonly byte[] Connected = "HTTP/1.1 200 Connection established\r\n\r\n"u8.ToArray();

    /// <summary>How long the first byte of what may become TLS is waited for, on ports where servers may speak first.</summary>
    private static readonly TimeSpan FirstByteTimeout = TimeSpan.FromSeconds(1);

    private readonly ProxyOptions _options;
    private readonly ProxyCredentials _credentials;
    private readonly DirectConnector _direct;
    private readonly TunnelConnector _tunnels;
    private readonly RequestRelay _relay;
    private readonly HttpMessageInvoker _directClient;
    private readonly TunnelClients _tunnelClients;
    private readonly CertificateMint? _mint;
    private readonly TimeProvider _timeProvider;
    private readonly ILogger _logger;
    private volatile ProxyRoutes _routes = ProxyRoutes.Empty;

    public ProxyApplication(ProxyOptions options, TimeSpan resumeWindow, ILoggerFactory loggerFactory, TimeProvider timeProvider)
    {
        _options = options;
        _timeProvider = timeProvider;
        _credentials = new ProxyCredentials(options.Credentials);
        _direct = new DirectConnector(options, timeProvider);
        _tunnels = new TunnelConnector(resumeWindow + TimeSpan.FromSeconds(15), IsWaiting, timeProvider);
        _relay = new RequestRelay();
        _directClient = RequestRelay.CreateClient(ConnectDirectAsync);
        _tunnelClients = new TunnelClients(_tunnels);
        _mint = options.InterceptionAuthority is { } authority ? new CertificateMint(authority, timeProvider) : null;
        _logger = loggerFactory.CreateLogger("VTunnel.Proxy");
    }

    /// <summary>The web server that serves connections whose TLS ends here; set once, before the first request.</summary>
    public WebServer Server { get; set; } = null!;

    /// <summary>What sessions offer.</summary>
    public ProxyRoutes Routes
    {
        get => _routes;
        set
        {
            _routes = value;
            _tunnelClients.Keep(value.Table.Routes);
        }
    }

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
        _directClient.Dispose();
        _tunnelClients.Dispose();
        _relay.Dispose();
        _mint?.Dispose();
    }

    private bool IsWaiting(string session)
    {
        var routes = _routes;
        return routes.Waiting.Contains(session) || routes.Table.Routes.All(route => route.SessionName != session);
    }

    private async Task ServeAsync(Exchange exchange)
    {
        var context = exchange.Context;
        var visitor = exchange.Visitor;
        var isConnect = context.Request.Method == "CONNECT" && context.Features.Get<IHttpExtendedConnectFeature>() is not { IsExtendedConnect: true };
        if (visitor.InterceptedHost is { } intercepted)
        {
            exchange.Target(intercepted, visitor.InterceptedPort);
            if (isConnect || !NamesSameHost(context.Request.Host, intercepted, visitor.InterceptedPort, 443))
            {
                await RefuseAsync(exchange, StatusCodes.Status421MisdirectedRequest, $"this connection is to {exchange.Authority} and to no other host").ConfigureAwait(false);
                return;
            }

            await ForwardAsync(exchange, isSecure: true).ConfigureAwait(false);
            return;
        }

        if (ReadTarget(context, isConnect, out var host, out var port) is { } problem)
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
            await ConnectAsync(exchange).ConfigureAwait(false);
        else
            await ForwardAsync(exchange, isSecure: false).ConfigureAwait(false);
    }

    /// <summary>Which host a request is for, or what is wrong with it.</summary>
    private static string? ReadTarget(HttpContext context, bool isConnect, out string host, out int port)
    {
        const string usage = "this is an HTTP proxy: set http_proxy and https_proxy to its address";
        var raw = context.Features.GetRequiredFeature<IHttpRequestFeature>().RawTarget;
        port = 0;
        host = "";
        if (isConnect)
        {
            var named = HttpProtocol.IsHttp2(context.Request.Protocol) ? context.Request.Host.Value : raw;
            if (!HostName.TryParseAuthority(named, out var connectHost, out port))
                return "CONNECT needs HOST:PORT";
            host = connectHost;
            return null;
        }

        string authority;
        if (HttpProtocol.IsHttp2(context.Request.Protocol))
        {
            if (context.Request.Scheme != "http")
                return "requests to https URLs go through CONNECT";
            authority = context.Request.Host.Value ?? "";
        }
        else if (raw.StartsWith("http://", StringComparison.OrdinalIgnoreCase))
        {
            authority = raw[7..];
            var end = authority.AsSpan().IndexOfAny("/?#");
            authority = end < 0 ? authority : authority[..end];
        }
        else
        {
            return raw.StartsWith("https://", StringComparison.OrdinalIgnoreCase) ? "requests to https URLs go through CONNECT" : usage;
        }

        if (authority.EndsWith(':'))
            authority = authority[..^1];
        var hasPort = authority.LastIndexOf(':') > authority.LastIndexOf(']');
        if (!HostName.TryParseAuthority(hasPort ? authority : authority + ":80", out var found, out port))
            return authority.Contains('@', StringComparison.Ordinal) ? "the URL must not name a user" : "the URL names no host";
        host = found;
        return null;
    }

    private static bool NamesSameHost(HostString named, string host, int port, int defaultPort) =>
        HostName.TryNormalize(named.Host, out var name) && name == host && (named.Port ?? defaultPort) == port;

    private ValueTask<Stream> ConnectDirectAsync(SocketsHttpConnectionContext context, CancellationToken cancellationToken)
    {
        HostName.TryNormalize(context.DnsEndPoint.Host, out var host);
        return ConnectAsync(host!, context.DnsEndPoint.Port);

        async ValueTask<Stream> ConnectAsync(string name, int port) =>
            new NetworkStream(await _direct.ConnectAsync(name, port, cancellationToken).ConfigureAwait(false), ownsSocket: true);
    }

    private async Task ForwardAsync(Exchange exchange, bool isSecure)
    {
        var context = exchange.Context;
        var isHttp2 = HttpProtocol.IsHttp2(context.Request.Protocol);
        var needsHttp2 = isHttp2 && RequestRelay.IsGrpc(context.Request);
        using var ended = new CancellationTokenSource();
        var watching = !isHttp2 && context.Request.ContentLength is null or 0 && context.Request.Headers.TransferEncoding.Count == 0
            && context.Features.Get<IHttpUpgradeFeature>() is not { IsUpgradableRequest: true }
            ? exchange.Visitor.WatchAsync(context.Abort, ended.Token)
            : Task.CompletedTask;
        exchange.Count();
        try
        {
            if (_routes.Table.TryFind(exchange.Host, exchange.Port, out var route))
            {
                exchange.Route = route.SessionName;
                var speaks = route.Answers && isHttp2 ? ProxyVisit.Http2 : ProxyVisit.Http1;
                var client = _tunnelClients.For(route, speaks);
                var scheme = isSecure && route.NeedsTlsFromProxy ? "https" : "http";
                var (version, policy) = (isHttp2, scheme) switch
                {
                    (true, "https") => (new Version(2, 0), HttpVersionPolicy.RequestVersionOrLower),
                    (true, _) when route.Answers || needsHttp2 => (new Version(2, 0), HttpVersionPolicy.RequestVersionExact),
                    _ => (new Version(1, 1), HttpVersionPolicy.RequestVersionExact),
                };
                await _relay.SendAsync(context, client, $"{scheme}://{exchange.Authority}", version, policy, diagnose: () => IsWaiting(route.SessionName)
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
                await _relay.SendAsync(
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

    private async Task ConnectAsync(Exchange exchange)
    {
        var context = exchange.Context;
        if (!_routes.Table.TryFind(exchange.Host, exchange.Port, out var route))
        {
            exchange.Route = Exchange.Direct;
            var socket = await _direct.ConnectAsync(exchange.Host, exchange.Port, context.RequestAborted).ConfigureAwait(false);
            var target = new SocketEndpoint(socket);
            await RunAsync(exchange, async (endpoint, prefix) =>
            {
                if (!prefix.IsEmpty)
                    await target.SendAsync(prefix).ConfigureAwait(false);
                var (there, back) = await DirectRelay.RunAsync(endpoint, target).ConfigureAwait(false);
                exchange.Moved(there + prefix.Length, back);
            }, target.Abort).ConfigureAwait(false);
            return;
        }

        exchange.Route = route.SessionName;
        if (_mint is not null && !HttpProtocol.IsHttp2(context.Request.Protocol))
        {
            await RunAsync(exchange, (endpoint, prefix) => InterceptAsync(exchange, route, endpoint, prefix), static () => { }).ConfigureAwait(false);
            return;
        }

        if (route.AlwaysAddsTls && exchange.Port == 443)
        {
            throw new LegFailedException(
                StatusCodes.Status502BadGateway,
                $"the client adds TLS to what is sent to {exchange.Host}, so TLS of your own cannot pass: use http://{exchange.Host}/, or let the proxy end TLS (--proxy-mitm-ca)");
        }

        var stream = await _tunnels.OpenAsync(route, exchange.Visitor.Remote, VisitOf(exchange, exchange.Port == 443 ? ProxyVisit.Tls : ProxyVisit.Tcp), context.RequestAborted)
            .ConfigureAwait(false);
        await RunAsync(exchange, (endpoint, prefix) => CarryAsync(exchange, stream, endpoint, prefix), stream.Abort).ConfigureAwait(false);
    }

    private static ProxyVisit VisitOf(Exchange exchange, string speaks) => new(exchange.Authority, speaks);

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

            await carry(body, ReadOnlyMemory<byte>.Empty).ConfigureAwait(false);
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

        await carry(endpoint, prefix).ConfigureAwait(false);

        // The server has nothing to do with the connection any more and must not answer on it.
        context.Abort();
    }

    /// <summary>Ends the visitor's TLS here and serves the requests inside it; what is not TLS goes on as it is.</summary>
    private async Task InterceptAsync(Exchange exchange, ProxyRoute route, StreamEndpoint endpoint, ReadOnlyMemory<byte> prefix)
    {
        try
        {
            var first = prefix;
            if (first.IsEmpty)
                (endpoint, first) = await FirstBytesAsync(endpoint, exchange.Port == 443).ConfigureAwait(false);
            if (first.IsEmpty || first.Span[0] != ProxyConnectionActor.TlsHandshake)
            {
                var stream = await _tunnels.OpenAsync(route, exchange.Visitor.Remote, VisitOf(exchange, ProxyVisit.Tcp), CancellationToken.None).ConfigureAwait(false);
                await CarryAsync(exchange, stream, endpoint, first).ConfigureAwait(false);
                return;
            }

            var watched = new WatchedEndpoint(endpoint);
            var tls = new SslStream(new EndpointStream(watched, first));
            using var timeout = new CancellationTokenSource(_options.HeaderTimeout, _timeProvider);
            await tls.AuthenticateAsServerAsync(
                new SslServerAuthenticationOptions
                {
                    ServerCertificateContext = _mint!.For(exchange.Host),
                    ApplicationProtocols = [SslApplicationProtocol.Http2, SslApplicationProtocol.Http11],
                },
                timeout.Token).ConfigureAwait(false);
            var connection = new WebConnection(tls, watched.Abort, endpoint.RemoteEndPoint);
            connection.Features.Set(new Visitor(watched, connection, null, exchange.Host, exchange.Port));
            await Server.ServeAsync(connection, tls.NegotiatedApplicationProtocol == SslApplicationProtocol.Http2).ConfigureAwait(false);
            exchange.IsIntercepted = true;
        }
        catch (Exception e) when (e is IOException or AuthenticationException or OperationCanceledException or SocketException or ObjectDisposedException)
        {
            // Nothing can be said to a visitor who expects a TLS server.
            _logger.InterceptionFailed(exchange.Authority, e.Message);
            endpoint.Abort();
        }
    }

    /// <summary>What the visitor sends first; nothing if he waits for the target to speak. Go on with the endpoint that comes back.</summary>
    private async Task<(StreamEndpoint Endpoint, ReadOnlyMemory<byte> First)> FirstBytesAsync(StreamEndpoint endpoint, bool mustSpeakFirst)
    {
        var waiting = endpoint.ReceiveAsync(Memory<byte>.Empty).AsTask();
        var rest = new WaitingEndpoint(endpoint, waiting);
        try
        {
            await waiting.WaitAsync(mustSpeakFirst ? _options.HeaderTimeout : FirstByteTimeout, _timeProvider).ConfigureAwait(false);
        }
        catch (TimeoutException) when (!mustSpeakFirst)
        {
            return (rest, ReadOnlyMemory<byte>.Empty);
        }
        catch (TimeoutException e)
        {
            throw new IOException("no TLS handshake came", e);
        }

        var buffer = new byte[4096];
        var count = await endpoint.ReceiveAsync(buffer).ConfigureAwait(false);
        return (endpoint, buffer.AsMemory(0, count));
    }

    private static Task RefuseAsync(Exchange exchange, int status, string reason) =>
        exchange.Context.Response.HasStarted ? Task.CompletedTask : RequestRelay.RefuseAsync(exchange.Context, status, reason);

    /// <summary>One request, and what the access log says of it: never a path, a query or a credential.</summary>
    private sealed class Exchange(HttpContext context, ILogger logger)
    {
        public const string Direct = "direct";

        private readonly long _started = Stopwatch.GetTimestamp();
        private readonly string _remote = context.Features.GetRequiredFeature<Visitor>().Remote?.ToString() ?? "unknown";
        private CountingStream? _request;
        private CountingStream? _response;
        private long _received;
        private long _sent;

        public HttpContext Context => context;

        public Visitor Visitor { get; } = context.Features.GetRequiredFeature<Visitor>();

        public string Host { get; private set; } = "";

        public int Port { get; private set; }

        public string Authority { get; private set; } = "-";

        /// <summary>A session's name, or <see cref="Direct"/>.</summary>
        public string? Route { get; set; }

        /// <summary>The status where the web server does not know it.</summary>
        public int? Status { get; set; }

        /// <summary>Whether the requests inside are logged by themselves.</summary>
        public bool IsIntercepted { get; set; }

        public void Target(string host, int port)
        {
            Host = host;
            Port = port;
            Authority = string.Create(CultureInfo.InvariantCulture, $"{HostName.Bracketed(host)}:{port}");
        }

        /// <summary>Counts the bodies from now on.</summary>
        public void Count()
        {
            context.Request.Body = _request = new CountingStream(context.Request.Body);
            context.Response.Body = _response = new CountingStream(context.Response.Body);
        }

        public void Moved(long received, long sent)
        {
            _received = received;
            _sent = sent;
        }

        public void Log()
        {
            var route = Route is null ? "refused" : Route == Direct ? Direct : $"tunnel {Route}";
            logger.Proxied(
                Printable(context.Request.Method),
                Authority,
                IsIntercepted ? route + " intercepted" : route,
                Status ?? context.Response.StatusCode,
                _received + (_request?.ReadBytes ?? 0),
                _sent + (_response?.WrittenBytes ?? 0),
                (long)Stopwatch.GetElapsedTime(_started).TotalMilliseconds,
                _remote);
        }

        private static string Printable(string method) => method.Length <= 32 ? method : method[..32];
    }
}
