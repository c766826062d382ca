using System.Net.Security;
using System.Net.WebSockets;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using VTunnel.Bridge.Identity;
using VTunnel.Carriers;

namespace VTunnel.Bridge.Wire;

/// <summary>
/// TLS 1.3 between consumer and publisher over a WebSocket that a relay splices: nobody between them can read, change,
/// replay or reorder anything, or be one of the two.
/// </summary>
internal static class EndToEndTls
{
    private static readonly SslApplicationProtocol Protocol = new("vtunnel-bridge/1");

    /// <summary>The consumer's side: the publisher must hold the pinned key.</summary>
    /// <param name="socket">An open connection; owned from now on.</param>
    /// <param name="remoteName">The far end as logs name it.</param>
    /// <param name="user">The user's certificate with its key.</param>
    /// <param name="publisherFingerprint">What is pinned.</param>
    /// <param name="cancellationToken">Ends the attempt.</param>
    /// <exception cref="TunnelConnectException">No session, with the leg that failed.</exception>
    public static async Task<ICarrier> ConnectAsync(
        WebSocket socket, string remoteName, X509Certificate2 user, string publisherFingerprint, CancellationToken cancellationToken)
    {
        string? problem = null;
        var tls = new SslStream(WebSocketStream.Create(socket, WebSocketMessageType.Binary, ownsWebSocket: false));
        try
        {
            await tls.AuthenticateAsClientAsync(
                new SslClientAuthenticationOptions
                {
                    TargetHost = "publisher",
                    ApplicationProtocols = [Protocol],
                    EnabledSslProtocols = SslProtocols.Tls13,
                    ClientCertificateContext = SslStreamCertificateContext.Create(user, null, offline: true),
                    CertificateRevocationCheckMode = X509RevocationMode.NoCheck,
                    CertificateChainPolicy = NoDownloads(),
                    AllowTlsResume = false,
                    AllowRenegotiation = false,
                    RemoteCertificateValidationCallback = (_, certificate, _, _) =>
                    {
                        problem = certificate is X509Certificate2 shown && Keys.Fingerprint(shown) == publisherFingerprint
                            ? null
                            : $"the far end is not the publisher {publisherFingerprint[..12]}: somebody on the way, or the relay, shows another key";
                        return problem is null;
                    },
                },
                cancellationToken).ConfigureAwait(false);
            Require(tls);
            return new StreamCarrier(tls, remoteName, () => Break(socket));
        }
        catch (Exception e)
        {
            Break(socket);
            await tls.DisposeAsync().ConfigureAwait(false);
            if (problem is not null)
                throw new TunnelConnectException(ConnectError.TlsFailed, problem, e);
            throw Explain(e, socket, "publisher");
        }
    }

    /// <summary>The publisher's side: the consumer must hold a key that this publisher certified. Whether it is admitted is not asked here.</summary>
    /// <returns>The carrier and the fingerprint of the user's key; null if the consumer hung up before it said anything.</returns>
    /// <exception cref="TunnelConnectException">No session, with the leg that failed.</exception>
    public static async Task<(ICarrier Carrier, string User)?> AcceptAsync(
        WebSocket socket, string remoteName, PublisherIdentity publisher, CancellationToken cancellationToken)
    {
        var user = "";
        string? problem = null;
        var hasBegun = false;
        var tls = new SslStream(WebSocketStream.Create(socket, WebSocketMessageType.Binary, ownsWebSocket: false));
        try
        {
            var options = new SslServerAuthenticationOptions
            {
                ApplicationProtocols = [Protocol],
                EnabledSslProtocols = SslProtocols.Tls13,
                ServerCertificateContext = SslStreamCertificateContext.Create(publisher.Certificate, null, offline: true),
                ClientCertificateRequired = true,
                CertificateRevocationCheckMode = X509RevocationMode.NoCheck,
                CertificateChainPolicy = NoDownloads(),
                AllowTlsResume = false,
                AllowRenegotiation = false,
                RemoteCertificateValidationCallback = (_, certificate, _, _) =>
                {
                    if (certificate is X509Certificate2 shown && Keys.IsIssuedBy(shown, publisher.Certificate))
                        user = Keys.Fingerprint(shown);
                    else
                        problem = "the consumer's certificate is not one of this publisher's";
                    return problem is null;
                },
            };
            await tls.AuthenticateAsServerAsync(
                (_, _, _, _) =>
                {
                    hasBegun = true;
                    return ValueTask.FromResult(options);
                },
                null,
                cancellationToken).ConfigureAwait(false);
            Require(tls);
            return (new StreamCarrier(tls, remoteName, () => Break(socket)), user);
        }
        catch (Exception e)
        {
            Break(socket);
            await tls.DisposeAsync().ConfigureAwait(false);
            if (problem is not null)
                throw new TunnelConnectException(ConnectError.TlsFailed, problem, e);

            // Whoever only asked the relay whether it is admitted has nothing to say to the publisher.
            if (!hasBegun && e is not (OperationCanceledException or AuthenticationException))
                return null;
            throw Explain(e, socket, "consumer");
        }
    }

    /// <summary>Certificates here stand alone: nothing is to be fetched for them, from wherever they say.</summary>
    private static X509ChainPolicy NoDownloads() => new()
    {
        DisableCertificateDownloads = true,
        RevocationMode = X509RevocationMode.NoCheck,
    };

    /// <summary>What the options ask for, seen to once more: nothing else may ever carry a session.</summary>
    private static void Require(SslStream tls)
    {
        if (tls.SslProtocol != SslProtocols.Tls13 || !tls.IsMutuallyAuthenticated || tls.NegotiatedApplicationProtocol != Protocol)
            throw new AuthenticationException("the far end did not agree on TLS 1.3, on both certificates and on the protocol");
    }

    private static void Break(WebSocket socket)
    {
        socket.Abort();
        socket.Dispose();
    }

    private static TunnelConnectException Explain(Exception e, WebSocket socket, string peer)
    {
        if (e is OperationCanceledException)
            return new TunnelConnectException(ConnectError.TimedOut, $"the {peer} did not answer in time", e);
        if (socket.CloseStatusDescription is { Length: > 0 } reason)
            return new TunnelConnectException(ConnectError.Unreachable, $"the relay says: {reason}", e);
        return e is AuthenticationException
            ? new TunnelConnectException(ConnectError.TlsFailed, $"TLS with the {peer} failed: {Breakage.Why(e)}", e)
            : new TunnelConnectException(ConnectError.ConnectionLost, $"the connection to the {peer} was lost before it was up: {Breakage.Why(e)}", e);
    }
}
