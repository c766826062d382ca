using System.Net;
using System.Net.Http.Headers;
using System.Net.Security;
using System.Net.Sockets;
using System.Net.WebSockets;
using VTunnel.Endpoints;
using VTunnel.Options;
using VTunnel.Tls;

namespace VTunnel.Carriers;

/// <summary>Dials a server's WebSocket endpoint; the system's HTTP proxy settings apply.</summary>
public sealed class WebSocketConnector : ICarrierConnector, IDisposable
{
    private readonly TunnelClientOptions _options;
    private readonly Uri _uri;
    private readonly SocketsHttpHandler _handler;

    /// <summary>Reads what it needs from the options, the CA file included.</summary>
    /// <exception cref="TunnelConnectException">The file of trusted certificates cannot be used.</exception>
    public WebSocketConnector(TunnelClientOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        _options = options;
        _uri = ToWebSocketUri(options.Server ?? throw new ArgumentException("Server is required.", nameof(options)));
        _handler = new SocketsHttpHandler
        {
            ConnectTimeout = options.ConnectTimeout,
            ConnectCallback = SocketSettings.ConnectAsync,
            SslOptions = CreateTlsOptions(options.ServerTls),
            UseCookies = false,
        };
    }

    private static SslClientAuthenticationOptions CreateTlsOptions(TlsTrustOptions trust)
    {
        try
        {
            return new TlsTrust(trust, "--ca FILE", TimeProvider.System).CreateSharedOptions("server");
        }
        catch (CertificateFileException e)
        {
            throw new TunnelConnectException(ConnectError.TlsFailed, e.Message, e);
        }
    }

    private static Uri ToWebSocketUri(Uri server)
    {
        var scheme = server.Scheme switch
        {
            "http" => "ws",
            "https" => "wss",
            _ => server.Scheme,
        };
        return new UriBuilder(server) { Scheme = scheme, Port = server.Port }.Uri;
    }

    /// <inheritdoc />
    public async Task<ICarrier> ConnectAsync(CancellationToken cancellationToken)
    {
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        deadline.CancelAfter(_options.ConnectTimeout);
        var socket = new ClientWebSocket();
        var upgrade = new UpgradeHandler(_handler);
        using var invoker = new HttpMessageInvoker(upgrade, disposeHandler: false);
        try
        {
            socket.Options.KeepAliveInterval = TimeSpan.Zero;
            socket.Options.CollectHttpResponseDetails = true;
            foreach (var (name, value) in _options.Headers)
                socket.Options.SetRequestHeader(name, value);
            if (_options.Protocol == ProtocolPreference.Auto)
                socket.Options.AddSubProtocol(TunnelSubProtocol.V1);
            if (_options.Protocol != ProtocolPreference.V1)
                socket.Options.AddSubProtocol(TunnelSubProtocol.V2);
            if (_options.Token is { } token)
                socket.Options.SetRequestHeader("Authorization", new AuthenticationHeaderValue("Bearer", token.Value).ToString());
            await socket.ConnectAsync(_uri, invoker, deadline.Token).ConfigureAwait(false);
            if (socket.SubProtocol == TunnelSubProtocol.V2 && upgrade.Stream is { } stream)
                return new FramedCarrier(socket, stream, isClient: true, _uri.Authority);
            if (_options.Protocol == ProtocolPreference.V2)
                throw new TunnelConnectException(ConnectError.Refused, "the server does not speak protocol v2, and nothing else is allowed here");
            return new WebSocketCarrier(socket, _uri.Authority);
        }
        catch (Exception e)
        {
            var status = socket.HttpStatusCode;
            socket.Dispose();
            if (e is OperationCanceledException && cancellationToken.IsCancellationRequested)
                throw;
            throw e as TunnelConnectException ?? Explain(e, status);
        }
    }

    private TunnelConnectException Explain(Exception e, HttpStatusCode status)
    {
        if (e is OperationCanceledException)
            return new TunnelConnectException(ConnectError.TimedOut, $"no answer within {DurationText.Format(_options.ConnectTimeout)}", e);
        if (status == HttpStatusCode.Unauthorized)
            return new TunnelConnectException(ConnectError.Unauthorized, _options.Token is null ? "the server asks for a token (401)" : "the server does not accept the token (401)", e);
        if (status == HttpStatusCode.Forbidden)
            return new TunnelConnectException(ConnectError.Forbidden, "the server does not admit this client (403)", e);
        if (status == HttpStatusCode.SwitchingProtocols)
            return new TunnelConnectException(ConnectError.Refused, $"the server's answer is no upgrade to a WebSocket: {Breakage.Why(e)}", e);
        if (status != 0)
            return new TunnelConnectException(ConnectError.Refused, $"the server answered {(int)status} instead of upgrading to a WebSocket", e);

        return DialFailure.Explain(e, "the server", _uri);
    }

    /// <inheritdoc />
    public void Dispose() => _handler.Dispose();

    /// <summary>Keeps the stream of a connection that was upgraded, for which <see cref="ClientWebSocket"/> has no property.</summary>
    private sealed class UpgradeHandler(SocketsHttpHandler inner) : DelegatingHandler(inner)
    {
        public ProbedStream? Stream { get; private set; }

        protected override async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken)
        {
            var response = await base.SendAsync(request, cancellationToken).ConfigureAwait(false);
            if (response.StatusCode != HttpStatusCode.SwitchingProtocols)
                return response;
            Stream = new ProbedStream(await response.Content.ReadAsStreamAsync(cancellationToken).ConfigureAwait(false));
            response.Content = new UpgradedContent(Stream);
            return response;
        }
    }

    /// <summary>What an upgraded connection answers with: not a body, but a stream to go on with.</summary>
    private sealed class UpgradedContent(ProbedStream stream) : HttpContent
    {
        protected override Stream CreateContentReadStream(CancellationToken cancellationToken) => stream;

        protected override Task<Stream> CreateContentReadStreamAsync() => Task.FromResult<Stream>(stream);

        protected override Task SerializeToStreamAsync(Stream target, TransportContext? context) => throw new NotSupportedException();

        protected override bool TryComputeLength(out long length)
        {
            length = 0;
            return false;
        }

        /// <summary>Only where the upgrade fails after all; else whoever goes on with the stream disposes it.</summary>
        protected override void Dispose(bool disposing)
        {
            if (disposing)
                stream.Dispose();
            base.Dispose(disposing);
        }
    }
}
