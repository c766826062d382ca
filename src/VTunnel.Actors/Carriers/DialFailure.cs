using System.Net.Http;
using System.Net.Sockets;
using System.Security.Authentication;
using VTunnel.Tls;

namespace VTunnel.Carriers;

/// <summary>Says why a WebSocket could not be dialled, where nothing was answered that could say it better.</summary>
internal static class DialFailure
{
    /// <param name="e">What was thrown.</param>
    /// <param name="peer">The far end, in words: <c>the server</c>.</param>
    /// <param name="url">What was dialled, for the scheme.</param>
    public static TunnelConnectException Explain(Exception e, string peer, Uri url)
    {
        var isTls = url.Scheme is "wss" or "https";
        for (var cause = e; cause is not null; cause = cause.InnerException)
        {
            switch (cause)
            {
                case CertificateRefusedException refused:
                    return new TunnelConnectException(ConnectError.TlsFailed, $"TLS: {refused.Message}", e);
                case AuthenticationException:
                    // What TLS itself refuses has a cause of its own; without one, what came was no TLS.
                    var hint = cause.InnerException is null ? $"; the URL of one without TLS begins with {(url.Scheme == "https" ? "http" : "ws")}://" : "";
                    return new TunnelConnectException(ConnectError.TlsFailed, $"TLS with {peer} failed: {Reason(cause.GetBaseException())}{hint}", e);
                case SocketException socket:
                    return new TunnelConnectException(ConnectError.Unreachable, $"{peer} cannot be reached: {socket.Message}", e);
                case HttpRequestException { HttpRequestError: HttpRequestError.ResponseEnded } when !isTls:
                    return new TunnelConnectException(
                        ConnectError.Unreachable,
                        $"{peer} closed the connection without an answer; the URL of one with TLS begins with {(url.Scheme == "http" ? "https" : "wss")}://",
                        e);
                case HttpRequestException { HttpRequestError: HttpRequestError.InvalidResponse }:
                    return new TunnelConnectException(ConnectError.Refused, $"{peer} does not answer in HTTP: {Reason(cause.GetBaseException())}", e);
            }
        }

        return new TunnelConnectException(ConnectError.Unreachable, $"{peer} cannot be reached: {Reason(e.GetBaseException())}", e);
    }

    private static string Reason(Exception e) => e.Message.TrimEnd('.', ' ', '\n');
}
