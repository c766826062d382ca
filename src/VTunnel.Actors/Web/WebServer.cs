using System.Runtime.CompilerServices;
using System.Text;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.Logging;

namespace VTunnel.Web;

/// <summary>Kestrel without a port: serves the connections that it is given.</summary>
internal sealed class WebServer : IAsyncDisposable
{
    /// <summary>
    /// A hundred years, for a timeout of Kestrel that is to be none. It takes an infinite one, adds it to the time that it is, and
    /// the sum overflows into the past: what had no limit ends within a second.
    /// </summary>
    public static readonly TimeSpan NoTimeout = TimeSpan.FromDays(36_500);

    private const int MaxStreams = 1000;

    /// <summary>Half of Kestrel's own. A connection of so many streams holds no more than as many times this.</summary>
    private const int StreamWindowBytes = 384 * 1024;

    private readonly MemoryTransport _transport = new();
    private readonly KestrelServer _kestrel;

    private WebServer(ILoggerFactory loggerFactory, Action<KestrelServerOptions> configure)
    {
        var options = new KestrelServerOptions
        {
            AddServerHeader = false,
            AllowAlternateSchemes = true,
            RequestHeaderEncodingSelector = HeaderEncoding.For,
            ResponseHeaderEncodingSelector = static _ => Encoding.Latin1,
        };
        EndLinesByCarriageReturns(options, true);
        options.Limits.MaxRequestBodySize = null;
        options.Limits.MinRequestBodyDataRate = null;
        options.Limits.MinResponseDataRate = null;
        options.Limits.Http2.MaxStreamsPerConnection = MaxStreams;

        // Uploads of many visitors share a connection inside a tunnel: one that its target does not read holds up itself alone.
        options.Limits.Http2.InitialStreamWindowSize = StreamWindowBytes;
        options.Limits.Http2.InitialConnectionWindowSize = MaxStreams * StreamWindowBytes;
        configure(options);
        options.Listen(_transport.Http1.EndPoint, listen => listen.Protocols = HttpProtocols.Http1);
        options.Listen(_transport.Http2.EndPoint, listen => listen.Protocols = HttpProtocols.Http2);
        _kestrel = new KestrelServer(Microsoft.Extensions.Options.Options.Create(options), _transport, new DebugLoggerFactory(loggerFactory, errorsOnly: true));
    }

    /// <summary>
    /// Whether a line feed alone ends a line no more. The option is not public; the public switch would hold for every Kestrel of the process,
    /// and so for those of whoever embeds this.
    /// </summary>
    [UnsafeAccessor(UnsafeAccessorKind.Method, Name = "set_DisableHttp1LineFeedTerminators")]
    private static extern void EndLinesByCarriageReturns(KestrelServerOptions options, bool value);

    /// <param name="application">What answers.</param>
    /// <param name="loggerFactory">Where the server logs its errors; the rest may repeat what visitors have sent.</param>
    /// <param name="configure">Sets limits.</param>
    public static async Task<WebServer> StartAsync(
        IHttpApplication<HttpContext> application, ILoggerFactory loggerFactory, Action<KestrelServerOptions> configure)
    {
        var server = new WebServer(loggerFactory, configure);
        await server._kestrel.StartAsync(application, CancellationToken.None).ConfigureAwait(false);
        return server;
    }

    /// <summary>Serves a connection, until <see cref="WebConnection.Disposed"/>.</summary>
    /// <exception cref="System.Threading.Channels.ChannelClosedException">The server has stopped.</exception>
    public ValueTask ServeAsync(WebConnection connection, bool isHttp2) =>
        (isHttp2 ? _transport.Http2 : _transport.Http1).ConnectAsync(connection);

    public async ValueTask DisposeAsync()
    {
        // Cancelled from the start: whoever wants to drain has done so.
        await _kestrel.StopAsync(new CancellationToken(canceled: true)).ConfigureAwait(false);
        _kestrel.Dispose();
    }
}
