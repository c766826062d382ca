using System.Text;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.Logging;
using VTunnel.Endpoints;
using VTunnel.Routing;
using VTunnel.Web;

namespace VTunnel.Targets.Http;

/// <summary>
/// Gives each HTTP/1.x request of a visitor's connection the target's Host. Kestrel reads the requests, on connections
/// that exist in memory only; they go to the target as they are read, and what the target answers goes to the visitor
/// untouched, without passing here. One server for all visitors of a client; it starts with the first of them.
/// </summary>
/// <remarks>
/// A reverse proxy (YARP over HttpClient) would do the same at first sight, but over HTTP/1.1 that client reads no
/// answer before it has sent the whole request: a target that answers while it reads, as an echo does, would block
/// for ever, and the early answer of one that refuses an upload would be lost.
/// </remarks>
internal sealed class HostRewriter(ILoggerFactory loggerFactory) : IAsyncDisposable
{
    /// <summary>The head of a request may take 1 MiB: the target has its own, smaller limit, and shall be the one to say so.</summary>
    public const int MaxHeadBytes = 1024 * 1024;

    private const int MaxHeaderCount = 10_000;

    private readonly Lock _gate = new();
    private readonly ILogger _logger = loggerFactory.CreateLogger<HostRewriter>();
    private readonly HashSet<HttpVisitor> _visitors = [];
    private Task<Server>? _server;
    private bool _disposed;

    /// <summary>Whether any visitor has needed the server yet.</summary>
    public bool IsStarted => Volatile.Read(ref _server) is not null;

    /// <summary>Makes the way for requests of one visitor; <paramref name="connection"/> stays the caller's.</summary>
    public HttpVisitor CreateVisitor(ForwardTarget target, DuplexStreamEndpoint connection) =>
        new(target, connection, _logger) { Closed = Forget };

    /// <summary>Begins to read a visitor's requests.</summary>
    /// <exception cref="ObjectDisposedException">The rewriter has ended.</exception>
    public async Task ServeAsync(HttpVisitor visitor)
    {
        Task<Server> starting;
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            // One who has left already will not be forgotten again.
            if (visitor.IsClosed)
                return;
            _visitors.Add(visitor);
            starting = _server ??= Task.Run(() => Server.StartAsync(_logger, loggerFactory));
        }

        var server = await starting.ConfigureAwait(false);
        await server.Listener.ConnectAsync(visitor.ServerSide).ConfigureAwait(false);
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
            visitor.Close(new ObjectDisposedException(nameof(HostRewriter)));
        if (starting is not null)
            await (await starting.ConfigureAwait(false)).DisposeAsync().ConfigureAwait(false);
    }

    private void Forget(HttpVisitor visitor)
    {
        lock (_gate)
            _visitors.Remove(visitor);
    }

    /// <summary>Kestrel without a port.</summary>
    private sealed class Server : IAsyncDisposable
    {
        private readonly KestrelServer _kestrel;

        private Server(ILoggerFactory loggerFactory) =>
            _kestrel = new KestrelServer(
                Microsoft.Extensions.Options.Options.Create(Settings()), Listener, new DebugLoggerFactory(loggerFactory));

        public InMemoryListener Listener { get; } = new();

        public static async Task<Server> StartAsync(ILogger logger, ILoggerFactory loggerFactory)
        {
            var server = new Server(loggerFactory);
            await server._kestrel.StartAsync(new RequestForwarder(logger), CancellationToken.None).ConfigureAwait(false);
            return server;
        }

        /// <summary>Whatever Kestrel limits to protect an application behind it is for the target to limit.</summary>
        private KestrelServerOptions Settings()
        {
            var options = new KestrelServerOptions
            {
                AddServerHeader = false,
                AllowHostHeaderOverride = true,
                RequestHeaderEncodingSelector = static _ => Encoding.Latin1,
            };
            options.Limits.MaxRequestBodySize = null;
            options.Limits.MinRequestBodyDataRate = null;
            options.Limits.MinResponseDataRate = null;
            options.Limits.MaxRequestBufferSize = null;
            options.Limits.MaxRequestLineSize = MaxHeadBytes;
            options.Limits.MaxRequestHeadersTotalSize = MaxHeadBytes;
            options.Limits.MaxRequestHeaderCount = MaxHeaderCount;
            options.Limits.KeepAliveTimeout = WebServer.NoTimeout;
            options.Limits.RequestHeadersTimeout = WebServer.NoTimeout;
            options.Listen(Listener.EndPoint, listen => listen.Protocols = HttpProtocols.Http1);
            return options;
        }

        public async ValueTask DisposeAsync()
        {
            // Cancelled from the start: the visitors are gone, there is nothing to drain.
            await _kestrel.StopAsync(new CancellationToken(canceled: true)).ConfigureAwait(false);
            _kestrel.Dispose();
        }
    }
}
