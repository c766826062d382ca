using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using Akka.Actor;
using Microsoft.Extensions.Logging;
using VTunnel.Diagnostics;
using VTunnel.Endpoints;
using VTunnel.Options;
using VTunnel.Web;

namespace VTunnel.Proxy;

/// <summary>
/// One connection to the proxy: owns the socket, finds out what is spoken on it, gives it to the web server, and stays until it
/// is closed, whoever has it by then.
/// </summary>
internal sealed class ProxyConnectionActor : UntypedActor, IWithTimers
{
    /// <summary>The first byte of a TLS connection.</summary>
    public const byte TlsHandshake = 0x16;

    private static ReadOnlySpan<byte> Http2Preface => "PRI"u8;

    private readonly Socket _socket;
    private readonly WatchedEndpoint _endpoint;
    private readonly ProxyOptions _options;
    private readonly Func<SslStreamCertificateContext>? _certificate;
    private readonly WebServer _server;
    private readonly ILogger _logger;

    public ProxyConnectionActor(Socket socket, ProxyOptions options, Func<SslStreamCertificateContext>? certificate, WebServer server, ILogger logger)
    {
        _certificate = certificate;
        _socket = socket;
        _endpoint = new WatchedEndpoint(new SocketEndpoint(socket));
        _options = options;
        _server = server;
        _logger = logger;
    }

    public ITimerScheduler Timers { get; set; } = null!;

    public static Props Props(Socket socket, ProxyOptions options, Func<SslStreamCertificateContext>? certificate, WebServer server, ILogger logger) =>
        Akka.Actor.Props.CreateBy(new Producer(() => new ProxyConnectionActor(socket, options, certificate, server, logger)));

    /// <summary>There is one of these actors per connection: taking an expression apart costs 20 µs and 1.5 KB, this 0.3 µs.</summary>
    private sealed class Producer(Func<ProxyConnectionActor> create) : IIndirectActorProducer
    {
        public Type ActorType => typeof(ProxyConnectionActor);

        public ActorBase Produce() => create();

        public void Release(ActorBase actor)
        {
            // Nothing was taken from a container.
        }
    }

    private sealed record Served
    {
        public static readonly Served Instance = new();
    }

    private sealed record Failed(Exception Cause);

    private sealed record Closed
    {
        public static readonly Closed Instance = new();
    }

    private sealed record TooSlow
    {
        public static readonly TooSlow Instance = new();
    }

    protected override void PreStart()
    {
        Timers.StartSingleTimer("begin", TooSlow.Instance, _options.HeaderTimeout);
        _ = _endpoint.Closed.PipeTo(Self, success: () => Closed.Instance);
        _ = BeginAsync().PipeTo(Self, success: () => Served.Instance, failure: e => new Failed(e));
    }

    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case Served:
                Timers.Cancel("begin");
                break;
            case Failed failed:
                _logger.ProxyConnectionFailed(_endpoint.RemoteEndPoint?.ToString() ?? "unknown", failed.Cause.Message);
                _endpoint.Abort();
                break;
            case TooSlow:
                _endpoint.Abort();
                break;
            case Closed:
                Context.Stop(Self);
                break;
            default:
                Unhandled(message);
                break;
        }
    }

    protected override void PostStop() => _endpoint.Abort();

    private async Task BeginAsync()
    {
        var first = await ReadFirstAsync(_endpoint).ConfigureAwait(false);
        if (first.Length == 0)
        {
            _endpoint.Dispose();
            return;
        }

        if (first[0] != TlsHandshake)
        {
            var connection = new WebConnection(new EndpointStream(_endpoint, first), _endpoint.Abort, _endpoint.RemoteEndPoint);
            connection.Features.Set(new Visitor(_endpoint, connection, _socket));
            await _server.ServeAsync(connection, first.AsSpan().StartsWith(Http2Preface)).ConfigureAwait(false);
            return;
        }

        if (_certificate is null)
            throw new AuthenticationException("it speaks TLS, but the proxy has no certificate; use an http:// proxy URL, or give the server --tls-cert and --tls-key");

        // Signing is work, and this may be a thread that polls the sockets.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        var tls = new SslStream(new EndpointStream(_endpoint, first));
        await tls.AuthenticateAsServerAsync(new SslServerAuthenticationOptions
        {
            ServerCertificateContext = _certificate(),
            ApplicationProtocols = [SslApplicationProtocol.Http2, SslApplicationProtocol.Http11],
        }).ConfigureAwait(false);
        var secured = new WebConnection(tls, _endpoint.Abort, _endpoint.RemoteEndPoint);
        secured.Features.Set(new Visitor(new TlsEndpoint(tls, _endpoint), secured, null));
        await _server.ServeAsync(secured, tls.NegotiatedApplicationProtocol == SslApplicationProtocol.Http2).ConfigureAwait(false);
    }

    /// <summary>Enough to tell TLS, HTTP/2 and HTTP/1.1 apart: three bytes, or the first one that settles it.</summary>
    private static async Task<byte[]> ReadFirstAsync(StreamEndpoint endpoint)
    {
        // Nobody holds a buffer for a connection that says nothing.
        await endpoint.ReceiveAsync(Memory<byte>.Empty).ConfigureAwait(false);
        var buffer = new byte[1024];
        var length = 0;
        do
        {
            var count = await endpoint.ReceiveAsync(buffer.AsMemory(length)).ConfigureAwait(false);
            if (count == 0)
                return buffer[..length];
            length += count;
        }
        while (length < Http2Preface.Length && Http2Preface.StartsWith(buffer.AsSpan(0, length)));

        return buffer[..length];
    }
}
