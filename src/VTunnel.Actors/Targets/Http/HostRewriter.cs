using System.Text;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using VTunnel.Routing;
using VTunnel.Streams;
using Yarp.ReverseProxy.Forwarder;

namespace VTunnel.Targets.Http;

/// <summary>
/// Gives each HTTP/1.x request of a visitor's connection the target's Host. HTTP is parsed by Kestrel, on connections
/// that exist in memory only, and written by the HTTP client of .NET; YARP carries the messages from one to the other
/// as they stream. One server for all visitors of a client; it starts with the first of them.
/// </summary>
internal sealed class HostRewriter : IAsyncDisposable
{
    /// <summary>The headers of a message may take 1 MiB: the target has its own, smaller limit, and shall be the one to say so.</summary>
    public const int MaxHeaderBytes = 1024 * 1024;

    private const int MaxHeaderCount = 10_000;

    private readonly Lock _gate = new();
    private readonly Func<ForwardTarget, CancellationToken, Task<DuplexStreamEndpoint>> _dial;
    private readonly ILoggerFactory _loggerFactory;
    private readonly HashSet<HttpVisitor> _visitors = [];
    private Task<Server>? _server;
    private bool _disposed;

    public HostRewriter(Func<ForwardTarget, CancellationToken, Task<DuplexStreamEndpoint>> dial, ILoggerFactory loggerFactory)
    {
        _dial = dial;
        _loggerFactory = loggerFactory;
    }

    /// <summary>Makes the endpoint of an HTTP visitor; takes over the connection to the target that was dialled for him.</summary>
    public HttpVisitor CreateVisitor(ForwardTarget target, DuplexStreamEndpoint connection, Task readable) =>
        new(target, connection, readable, _dial) { Ended = Forget };

    /// <summary>Begins to serve a visitor. On failure he is aborted.</summary>
    public async Task ServeAsync(HttpVisitor visitor)
    {
        try
        {
            Task<Server> starting;
            lock (_gate)
            {
                ObjectDisposedException.ThrowIf(_disposed, this);
                // One who has left already will not be forgotten again.
                if (visitor.HasEnded)
                    return;
                _visitors.Add(visitor);
                starting = _server ??= Task.Run(() => Server.StartAsync(_loggerFactory));
            }

            var server = await starting.ConfigureAwait(false);
            await server.Listener.ConnectAsync(visitor.Connection).ConfigureAwait(false);
        }
        catch
        {
            visitor.Abort();
            throw;
        }
    }

    /// <inheritdoc />
    public async ValueTask DisposeAsync()
    {
        HttpVisitor[] visitors;
        Task<Server>? starting;
        lock (_gate)
        {
            if (_disposed)
                return;
            _disposed = true;
            visitors = [.. _visitors];
            starting = _server;
        }

        foreach (var visitor in visitors)
            visitor.Abort();
        if (starting is not null)
            await (await starting.ConfigureAwait(false)).DisposeAsync().ConfigureAwait(false);
    }

    private void Forget(HttpVisitor visitor)
    {
        lock (_gate)
            _visitors.Remove(visitor);
    }

    /// <summary>Kestrel with one application: forward, or say why not.</summary>
    private sealed class Server : IHttpApplication<HttpContext>, IAsyncDisposable
    {
        private static readonly ForwarderRequestConfig Forwarding = new()
        {
            Version = System.Net.HttpVersion.Version11,
            VersionPolicy = HttpVersionPolicy.RequestVersionExact,
            // A tunnel has no opinion on how long an answer may take.
            ActivityTimeout = Timeout.InfiniteTimeSpan,
        };

        private readonly ILogger _logger;
        private readonly ServiceProvider _services;
        private readonly IHttpForwarder _forwarder;
        private readonly KestrelServer _kestrel;

        private Server(ILoggerFactory loggerFactory)
        {
            _logger = loggerFactory.CreateLogger<HostRewriter>();
            var quiet = new DebugLoggerFactory(loggerFactory);
            _services = new ServiceCollection()
                .AddSingleton<ILoggerFactory>(quiet)
                .AddLogging()
                .AddHttpForwarder()
                .BuildServiceProvider();
            _forwarder = _services.GetRequiredService<IHttpForwarder>();
            _kestrel = new KestrelServer(Microsoft.Extensions.Options.Options.Create(Settings()), Listener, quiet);
        }

        public InMemoryListener Listener { get; } = new();

        public static async Task<Server> StartAsync(ILoggerFactory loggerFactory)
        {
            var server = new Server(loggerFactory);
            await server._kestrel.StartAsync(server, CancellationToken.None).ConfigureAwait(false);
            return server;
        }

        /// <summary>Whatever Kestrel limits to protect an application behind it is for the target to limit.</summary>
        private KestrelServerOptions Settings()
        {
            var options = new KestrelServerOptions
            {
                ApplicationServices = _services,
                AddServerHeader = false,
                AllowHostHeaderOverride = true,
                AllowAlternateSchemes = true,
                RequestHeaderEncodingSelector = static _ => Encoding.Latin1,
                ResponseHeaderEncodingSelector = static _ => Encoding.Latin1,
            };
            options.Limits.MaxRequestBodySize = null;
            options.Limits.MinRequestBodyDataRate = null;
            options.Limits.MinResponseDataRate = null;
            options.Limits.MaxRequestBufferSize = null;
            options.Limits.MaxRequestLineSize = MaxHeaderBytes;
            options.Limits.MaxRequestHeadersTotalSize = MaxHeaderBytes;
            options.Limits.MaxRequestHeaderCount = MaxHeaderCount;
            options.Limits.KeepAliveTimeout = Timeout.InfiniteTimeSpan;
            options.Limits.RequestHeadersTimeout = Timeout.InfiniteTimeSpan;
            options.Listen(Listener.EndPoint, listen => listen.Protocols = HttpProtocols.Http1);
            return options;
        }

        public HttpContext CreateContext(IFeatureCollection contextFeatures) => new DefaultHttpContext(contextFeatures);

        public async Task ProcessRequestAsync(HttpContext context)
        {
            var visitor = context.Features.GetRequiredFeature<HttpVisitor>();
            visitor.BeginRequest();
            try
            {
                if (context.Features.Get<IHttpUpgradeFeature>() is { IsUpgradableRequest: true } upgrade)
                    context.Features.Set<IHttpUpgradeFeature>(new HalfClosingUpgrade(upgrade, visitor.TargetConnections));

                if (HttpMethods.IsConnect(context.Request.Method))
                {
                    await ExplainAsync(
                        context, StatusCodes.Status501NotImplemented, "CONNECT is passed to the target only as the first request of a connection")
                        .ConfigureAwait(false);
                    return;
                }

                var error = await _forwarder.SendAsync(
                    context, HostTransformer.Destination, visitor.TargetConnections.Client, Forwarding, visitor.Transformer)
                    .ConfigureAwait(false);
                if (error != ForwarderError.None)
                    await ReportAsync(context, visitor, error).ConfigureAwait(false);
            }
            finally
            {
                visitor.EndRequest();
            }
        }

        public void DisposeContext(HttpContext context, Exception? exception)
        {
            // Nothing was rented for it.
        }

        public async ValueTask DisposeAsync()
        {
            // Cancelled from the start: the visitors are gone, there is nothing to drain.
            await _kestrel.StopAsync(new CancellationToken(canceled: true)).ConfigureAwait(false);
            _kestrel.Dispose();
            await _services.DisposeAsync().ConfigureAwait(false);
        }

        private async Task ReportAsync(HttpContext context, HttpVisitor visitor, ForwarderError error)
        {
            if (context.RequestAborted.IsCancellationRequested)
                return;

            var leg = ForwarderLegs.Describe(error);
            var cause = ForwarderLegs.Cause(context.GetForwarderErrorFeature()?.Exception);
            TargetsLog.HttpForwardingFailed(_logger, visitor.Target, leg, cause);
            if (context.Response.HasStarted)
                return;

            // What the visitor did wrong stays his (400, 408, 413); everything else is the target's.
            var status = context.Response.StatusCode is >= 400 and < 500 ? context.Response.StatusCode : StatusCodes.Status502BadGateway;
            await ExplainAsync(context, status, $"{visitor.Target}: {leg} failed: {cause}").ConfigureAwait(false);
        }

        private static async Task ExplainAsync(HttpContext context, int status, string explanation)
        {
            context.Response.Clear();
            context.Response.StatusCode = status;
            context.Response.ContentType = "text/plain; charset=utf-8";
            var body = Encoding.UTF8.GetBytes($"vtunnel: {explanation}\n");
            context.Response.ContentLength = body.Length;
            if (!HttpMethods.IsHead(context.Request.Method))
                await context.Response.Body.WriteAsync(body).ConfigureAwait(false);
        }
    }
}
