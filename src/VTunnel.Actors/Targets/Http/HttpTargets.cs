using System.Net.Sockets;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.Extensions.Logging;
using VTunnel.Endpoints;
using VTunnel.Routing;
using VTunnel.Tls;
using VTunnel.Web;

namespace VTunnel.Targets.Http;

/// <summary>
/// Carries requests that arrive as plain HTTP to targets that speak TLS, or that are to get headers: reads them with Kestrel,
/// without a port, and sends them on over connections of its own. Starts with the first visitor who needs it.
/// </summary>
internal sealed class HttpTargets : IHttpApplication<HttpContext>, IAsyncDisposable
{
    private const int HttpsPort = 443;

    private readonly Lock _gate = new();
    private readonly ILoggerFactory _loggerFactory;
    private readonly ILogger _logger;
    private readonly TlsTrust _trust;
    private readonly Func<ForwardTarget, CancellationToken, Task<Socket>> _connect;
    private readonly RequestRelay _relay = new();
    private readonly Dictionary<ForwardTarget, HttpMessageInvoker> _clients = [];
    private Task<WebServer>? _server;
    private bool _disposed;

    /// <param name="connect">Connects to a target over TCP; throws <see cref="TargetException"/>.</param>
    /// <param name="trust">Whose certificates targets may show.</param>
    /// <param name="loggerFactory">Where to log.</param>
    public HttpTargets(Func<ForwardTarget, CancellationToken, Task<Socket>> connect, TlsTrust trust, ILoggerFactory loggerFactory)
    {
        _connect = connect;
        _trust = trust;
        _loggerFactory = loggerFactory;
        _logger = loggerFactory.CreateLogger("VTunnel.Targets");
    }

    /// <summary>Whether a visitor's stream has to be read as HTTP.</summary>
    public static bool AreNeededFor(TargetRequest request)
    {
        if (request.Visit is null)
            return request.Headers.Count > 0;
        return request.Visit.IsHttp
            && (request.Headers.Count > 0 || SpeaksTls(request) || request.Visit.Speaks == Protocol.Control.ProxyVisit.Http2);
    }

    /// <summary>Whether it depends on what a domain's visitor speaks if his stream has to be read as HTTP. Those of other ports than HTTP's may wait for the target to speak.</summary>
    public static bool MayBeNeededFor(TargetRequest request, int domainPort) =>
        request.Headers.Count > 0 || domainPort is 80 or HttpsPort;

    /// <summary>An endpoint that takes requests for a target. The target is connected when the first of them comes.</summary>
    public async Task<StreamEndpoint> ServeAsync(TargetRequest request)
    {
        Task<WebServer> starting;
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            starting = _server ??= Task.Run(() => WebServer.StartAsync(this, _loggerFactory, static kestrel =>
            {
                kestrel.Limits.MaxRequestLineSize = HostRewriter.MaxHeadBytes;
                kestrel.Limits.MaxRequestHeadersTotalSize = HostRewriter.MaxHeadBytes;
                kestrel.Limits.MaxRequestHeaderCount = 10_000;
                kestrel.Limits.KeepAliveTimeout = WebServer.NoTimeout;
                kestrel.Limits.RequestHeadersTimeout = WebServer.NoTimeout;
            }));
        }

        var server = await starting.ConfigureAwait(false);
        var pair = new DuplexPair();
        var connection = new WebConnection(pair.Stream, pair.Endpoint.Abort, null);
        connection.Features.Set(request);
        await server.ServeAsync(connection, request.Visit?.Speaks == Protocol.Control.ProxyVisit.Http2).ConfigureAwait(false);
        return new RequestsEndpoint(pair.Endpoint, connection);
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
        var request = context.Features.GetRequiredFeature<TargetRequest>();
        if (RequestFraming.ProblemOf(context.Request) is { } problem)
        {
            await RequestRelay.RefuseAsync(context, StatusCodes.Status400BadRequest, problem).ConfigureAwait(false);
            return;
        }

        if (request.Headers.Count > 0 && HttpMethods.IsTrace(context.Request.Method))
        {
            await RequestRelay.RefuseAsync(context, StatusCodes.Status405MethodNotAllowed, "TRACE would show the headers that are added to requests on their way").ConfigureAwait(false);
            return;
        }

        ChunkedAnswer.Install(context);
        var target = request.Target;
        var tls = SpeaksTls(request);
        var isTlsTarget = target.Scheme == TargetScheme.Tls;
        IEnumerable<(string Name, string Value)> headers = request.Headers.Select(header => (header.Name, header.Value));
        if (isTlsTarget)
            headers = headers.Append(("Host", RequestHead.HostOf(target)));

        // Whoever names a host means the one whose certificate he expects, wherever it is; a tls:// target has a name of its own.
        var authority = isTlsTarget || request.Visit is null ? null : request.Visit.Host is { Length: > 0 } named ? named : context.Request.Host.Value;
        if (string.IsNullOrEmpty(authority))
            authority = (target with { Host = target.Host.TrimEnd('.') }).Authority;
        var isHttp2 = RequestRelay.MayGoAsHttp2(context.Request);
        var isGrpc = isHttp2 && RequestRelay.IsGrpc(context.Request);
        var failure = await _relay.SendAsync(
            context,
            ClientFor(target),
            $"{(tls ? "https" : "http")}://{authority}",
            isHttp2 && (tls || isGrpc) ? new Version(2, 0) : new Version(1, 1),
            isHttp2 && tls && !isGrpc ? HttpVersionPolicy.RequestVersionOrLower : HttpVersionPolicy.RequestVersionExact,
            [.. headers],

            // What the visitor asked for is the only name that he knows.
            leg: request.Visit is { Host: { Length: > 0 } asked } ? $"{asked}, behind the tunnel" : "behind the tunnel").ConfigureAwait(false);
        if (failure is not null)
            TargetsLog.RequestFailed(_logger, target, failure);
    }

    public async ValueTask DisposeAsync()
    {
        Task<WebServer>? starting;
        lock (_gate)
        {
            if (_disposed)
                return;
            _disposed = true;
            starting = _server;
        }

        if (starting is not null)
            await (await starting.ConfigureAwait(false)).DisposeAsync().ConfigureAwait(false);
        foreach (var client in _clients.Values)
            client.Dispose();
        _relay.Dispose();
    }

    /// <summary>A domain's target on the port of https speaks TLS, as its visitors mostly do; other ports only if the forward says so.</summary>
    private static bool SpeaksTls(TargetRequest request) =>
        request.Target.Scheme == TargetScheme.Tls || (request.Visit is not null && request.Target.Port == HttpsPort);

    private HttpMessageInvoker ClientFor(ForwardTarget target)
    {
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            if (_clients.TryGetValue(target, out var known))
                return known;
            var client = RequestRelay.CreateClient(
                (_, cancellationToken) => ConnectAsync(target, cancellationToken),
                handler => handler.SslOptions = _trust.CreateSharedOptions("target"));
            _clients.Add(target, client);
            return client;
        }
    }

    private async ValueTask<Stream> ConnectAsync(ForwardTarget target, CancellationToken cancellationToken)
    {
        try
        {
            var socket = await _connect(target, cancellationToken).ConfigureAwait(false);
            SocketSettings.Apply(socket);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch (TargetException e)
        {
            throw new LegFailedException(StatusCodes.Status502BadGateway, e.Message, e);
        }
    }

    /// <summary>The tunnel's end of the connection. Its abort must reach requests that wait for an answer, for nothing is read meanwhile.</summary>
    private sealed class RequestsEndpoint(StreamEndpoint inner, WebConnection connection) : DelegatingEndpoint(inner)
    {
        public override void Abort()
        {
            base.Abort();
            connection.Abort(new ConnectionAbortedException("The stream was aborted."));
        }

        protected override void Dispose(bool disposing)
        {
            base.Dispose(disposing);
            if (disposing)
                connection.Abort(new ConnectionAbortedException("The stream has ended."));
        }
    }
}
