using System.Net.Http.Headers;
using Akka.Actor;
using Akka.Hosting;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.AspNetCore.Server.Kestrel.Core.Features;
using Microsoft.Extensions.Logging;
using VTunnel.Access;
using VTunnel.Carriers;
using VTunnel.Diagnostics;
using VTunnel.Endpoints;
using VTunnel.Options;
using VTunnel.Supervision;

namespace VTunnel.Hosting;

/// <summary>
/// The HTTP side of a server: admits a WebSocket upgrade or says why not, and stays with the request until its session
/// is over. The token is asked for before anything else happens.
/// </summary>
internal sealed class TunnelEndpoint
{
    private static readonly object TransportKey = new();
    private static readonly object TokenKey = new();

    private readonly TunnelServerOptions _options;
    private readonly IRequiredActor<TunnelServerActor> _server;
    private readonly TokenVerifier _tokens;
    private readonly ILogger _logger;
    private int _v1Sessions;

    public TunnelEndpoint(ServerOptions options, IRequiredActor<TunnelServerActor> server, ILoggerFactory loggerFactory)
    {
        _options = options.Value;
        _server = server;
        _tokens = new TokenVerifier(_options.Tokens);
        _logger = loggerFactory.CreateLogger("VTunnel.Endpoint");
    }

    /// <summary>Before the WebSocket middleware: who may come in at all.</summary>
    public Task GuardAsync(HttpContext context, RequestDelegate next)
    {
        AccessToken? token = null;
        if (_tokens.IsRequired)
        {
            token = Identify(context.Request);
            if (token is null)
            {
                context.Response.Headers.WWWAuthenticate = "Bearer";
                return RefuseAsync(context, StatusCodes.Status401Unauthorized, "a valid bearer token is required");
            }
        }

        var origin = context.Request.Headers.Origin;
        if (origin.Count > 0 && !_options.AllowedOrigins.Contains(origin.ToString(), StringComparer.OrdinalIgnoreCase))
            return RefuseAsync(context, StatusCodes.Status403Forbidden, "web pages of this origin may not open tunnels");

        context.Items[TokenKey] = token;
        WatchTransport(context);
        return next(context);
    }

    /// <summary>After the WebSocket middleware: make a session of it.</summary>
    public async Task AcceptAsync(HttpContext context)
    {
        if (!context.WebSockets.IsWebSocketRequest)
        {
            context.Response.Headers.Upgrade = "websocket";
            await RefuseAsync(context, StatusCodes.Status426UpgradeRequired, "this is a tunnel endpoint: connect with a WebSocket").ConfigureAwait(false);
            return;
        }

        var speaksV2 = _options.Protocol != ProtocolPreference.V1 && context.WebSockets.WebSocketRequestedProtocols.Contains(TunnelSubProtocol.V2);
        if (!speaksV2 && _options.Protocol == ProtocolPreference.V2)
        {
            await RefuseAsync(context, StatusCodes.Status400BadRequest, $"this server speaks protocol v2 only: offer the subprotocol {TunnelSubProtocol.V2}")
                .ConfigureAwait(false);
            return;
        }

        // A v2 connection may be another one of a session that exists, so its limit is the session's to apply.
        if (!speaksV2 && Interlocked.Increment(ref _v1Sessions) > _options.MaxSessions)
        {
            Interlocked.Decrement(ref _v1Sessions);
            await RefuseAsync(context, StatusCodes.Status503ServiceUnavailable, $"the server is at its limit of {_options.MaxSessions} sessions")
                .ConfigureAwait(false);
            return;
        }

        try
        {
            var server = await _server.GetAsync(context.RequestAborted).ConfigureAwait(false);
            DisableRateLimits(context);
            if (context.Features.Get<IConnectionSocketFeature>() is { } connection)
                SocketSettings.Apply(connection.Socket);
            var socket = await context.WebSockets
                .AcceptWebSocketAsync(new WebSocketAcceptContext { SubProtocol = speaksV2 ? TunnelSubProtocol.V2 : null, KeepAliveInterval = TimeSpan.Zero })
                .ConfigureAwait(false);
            var stream = context.Items[TransportKey] as ProbedStream;
            ICarrier carrier = speaksV2 && stream is not null
                ? new FramedCarrier(socket, stream, isClient: false, RemoteName(context))
                : new WebSocketCarrier(socket, RemoteName(context), stream);
            var hello = speaksV2
                ? await CarrierHandshake.ReadHelloAsync(carrier, _options.HandshakeTimeout, TimeProvider.System).ConfigureAwait(false)
                : null;
            if (!speaksV2 || hello is not null)
                server.Tell(new TunnelServerProtocol.StartSession(carrier, context.Items[TokenKey] as AccessToken, hello));
            await carrier.Disposed.ConfigureAwait(false);
        }
        finally
        {
            if (!speaksV2)
                Interlocked.Decrement(ref _v1Sessions);
        }
    }

    private AccessToken? Identify(HttpRequest request)
    {
        if (request.Headers.Authorization.Count == 1 &&
            AuthenticationHeaderValue.TryParse(request.Headers.Authorization, out var header) &&
            header.Scheme.Equals("Bearer", StringComparison.OrdinalIgnoreCase) &&
            header.Parameter is { Length: > 0 } presented)
            return _tokens.Verify(presented);
        return null;
    }

    private Task RefuseAsync(HttpContext context, int status, string reason)
    {
        _logger.UpgradeRefused(RemoteName(context), reason, status);
        context.Response.StatusCode = status;
        context.Response.ContentType = "text/plain; charset=utf-8";
        return context.Response.WriteAsync(reason + "\n", context.RequestAborted);
    }

    /// <summary>
    /// Kestrel drops clients that take or send too little. A session that waits for a slow reader is no such client; whether
    /// its peer lives is for the keepalive to find out.
    /// </summary>
    private static void DisableRateLimits(HttpContext context)
    {
        if (context.Features.Get<IHttpMinRequestBodyDataRateFeature>() is { } receiving)
            receiving.MinDataRate = null;
        if (context.Features.Get<IHttpMinResponseDataRateFeature>() is { } sending)
            sending.MinDataRate = null;
    }

    private static string RemoteName(HttpContext context) => WebSocketCarrier.RemoteNameOf(context.Connection.RemoteIpAddress, context.Connection.RemotePort);

    /// <summary>Lets the session see and use the stream below the WebSocket that the middleware will make.</summary>
    private static void WatchTransport(HttpContext context)
    {
        if (context.Features.Get<IHttpUpgradeFeature>() is { IsUpgradableRequest: true } upgrade)
            context.Features.Set<IHttpUpgradeFeature>(new ProbedUpgrade(upgrade, context));
        if (context.Features.Get<IHttpExtendedConnectFeature>() is { IsExtendedConnect: true } connect)
            context.Features.Set<IHttpExtendedConnectFeature>(new ProbedConnect(connect, context));
    }

    private static ProbedStream Watch(HttpContext context, Stream stream)
    {
        var probed = new ProbedStream(stream);
        context.Items[TransportKey] = probed;
        return probed;
    }

    private sealed class ProbedUpgrade(IHttpUpgradeFeature inner, HttpContext context) : IHttpUpgradeFeature
    {
        public bool IsUpgradableRequest => inner.IsUpgradableRequest;

        public async Task<Stream> UpgradeAsync() => Watch(context, await inner.UpgradeAsync().ConfigureAwait(false));
    }

    private sealed class ProbedConnect(IHttpExtendedConnectFeature inner, HttpContext context) : IHttpExtendedConnectFeature
    {
        public bool IsExtendedConnect => inner.IsExtendedConnect;

        public string? Protocol => inner.Protocol;

        public async ValueTask<Stream> AcceptAsync() => Watch(context, await inner.AcceptAsync().ConfigureAwait(false));
    }
}
