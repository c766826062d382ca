using System.Net.Security;
using Microsoft.AspNetCore.Http;
using VTunnel.Endpoints;
using VTunnel.Options;
using VTunnel.Web;

namespace VTunnel.Proxy;

/// <summary>Ends a visitor's TLS inside a CONNECT with a certificate that it makes, and has the web server serve the requests inside.</summary>
/// <param name="mint">Makes the certificates.</param>
/// <param name="options">Timeouts.</param>
/// <param name="timeProvider">Their clock.</param>
internal sealed class TlsInterceptor(CertificateMint mint, ProxyOptions options, TimeProvider timeProvider) : IDisposable
{
    /// <summary>How long the first byte of what may become TLS is waited for, on ports where servers may speak first.</summary>
    private static readonly TimeSpan FirstByteTimeout = TimeSpan.FromSeconds(1);

    /// <summary>The web server that serves the requests; set once, before the first of them.</summary>
    public WebServer Server { get; set; } = null!;

    /// <summary>Has a visitor's connection served, if he speaks TLS.</summary>
    /// <param name="exchange">His CONNECT.</param>
    /// <param name="endpoint">His bytes.</param>
    /// <param name="prefix">What he has sent already.</param>
    /// <returns>Null once he is served; else the endpoint to go on with, and what he has sent until now.</returns>
    /// <exception cref="IOException">His connection broke, or there was no handshake.</exception>
    /// <exception cref="System.Security.Authentication.AuthenticationException">The handshake failed.</exception>
    /// <exception cref="OperationCanceledException">The handshake took too long.</exception>
    public async Task<(StreamEndpoint Endpoint, ReadOnlyMemory<byte> First)?> TryServeAsync(Exchange exchange, StreamEndpoint endpoint, ReadOnlyMemory<byte> prefix)
    {
        var first = prefix;
        if (first.IsEmpty)
            (endpoint, first) = await FirstBytesAsync(endpoint, exchange.Port == 443).ConfigureAwait(false);
        if (first.IsEmpty || first.Span[0] != ProxyConnectionActor.TlsHandshake)
            return (endpoint, first);

        // Signing is work, and this may be a thread that polls the sockets.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        var watched = new WatchedEndpoint(endpoint);
        var tls = new SslStream(new EndpointStream(watched, first));
        using var timeout = new CancellationTokenSource(options.HeaderTimeout, timeProvider);
        await tls.AuthenticateAsServerAsync(
            new SslServerAuthenticationOptions
            {
                ServerCertificateContext = mint.For(exchange.Host),
                ApplicationProtocols = [SslApplicationProtocol.Http2, SslApplicationProtocol.Http11],
            },
            timeout.Token).ConfigureAwait(false);
        var connection = new WebConnection(tls, watched.Abort, endpoint.RemoteEndPoint);
        connection.Features.Set(new Visitor(watched, connection, null, exchange.Host, exchange.Port));
        await Server.ServeAsync(connection, tls.NegotiatedApplicationProtocol == SslApplicationProtocol.Http2).ConfigureAwait(false);
        exchange.IsIntercepted = true;

        // A CONNECT of HTTP/2 is a request of the connection below, and what it carries lives no longer than it.
        if (HttpProtocol.IsHttp2(exchange.Context.Request.Protocol))
            await watched.Closed.ConfigureAwait(false);
        return null;
    }

    /// <summary>What the visitor sends first; nothing if he waits for the target to speak. Go on with the endpoint that comes back.</summary>
    private async Task<(StreamEndpoint Endpoint, ReadOnlyMemory<byte> First)> FirstBytesAsync(StreamEndpoint endpoint, bool mustSpeakFirst)
    {
        var waiting = endpoint.ReceiveAsync(Memory<byte>.Empty).AsTask();
        var rest = new WaitingEndpoint(endpoint, waiting);
        try
        {
            await waiting.WaitAsync(mustSpeakFirst ? options.HeaderTimeout : FirstByteTimeout, timeProvider).ConfigureAwait(false);
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

    public void Dispose() => mint.Dispose();
}
