using System.Net;
using System.Net.Sockets;
using VTunnel.Endpoints;
using VTunnel.Web;

namespace VTunnel.Proxy;

/// <summary>A connection to the proxy as requests see it: a feature of their connection.</summary>
/// <param name="endpoint">The bytes.</param>
/// <param name="connection">The web server's view of it.</param>
/// <param name="socket">The socket below, where nothing stands between it and the requests.</param>
/// <param name="interceptedHost">The host that a CONNECT named whose TLS ends here; null on the proxy's own port.</param>
/// <param name="interceptedPort">Its port.</param>
internal sealed class Visitor(StreamEndpoint endpoint, WebConnection connection, Socket? socket, string? interceptedHost = null, int interceptedPort = 0)
{
    public EndPoint? Remote => endpoint.RemoteEndPoint;

    public string? InterceptedHost => interceptedHost;

    public int InterceptedPort => interceptedPort;

    /// <summary>Takes the connection from the web server; see <see cref="WebConnection.Detach"/>.</summary>
    public (StreamEndpoint Endpoint, ReadOnlyMemory<byte> Prefix) Detach() => (endpoint, connection.Detach());

    /// <summary>
    /// Aborts a request without a body when its visitor leaves before the answer. The server reads nothing while it waits for an
    /// application, so it cannot know.
    /// </summary>
    public async Task WatchAsync(Action gone, CancellationToken requestEnded)
    {
        if (socket is null)
            return;
        try
        {
            await socket.ReceiveAsync(Memory<byte>.Empty, SocketFlags.None, requestEnded).ConfigureAwait(false);
            if (!requestEnded.IsCancellationRequested && socket.Available == 0)
                gone();
        }
        catch (Exception e) when (e is OperationCanceledException or SocketException or ObjectDisposedException)
        {
            // The request has ended, or the connection broke, which whoever writes next finds out.
            if (e is SocketException && !requestEnded.IsCancellationRequested)
                gone();
        }
    }
}
