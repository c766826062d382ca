using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using Akka.Actor;
using Microsoft.AspNetCore.Http;
using VTunnel.Endpoints;
using VTunnel.Extensions;
using VTunnel.Protocol.Control;
using VTunnel.Sessions;
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
    /// <summary>A visitor who asks for more hosts than this is asked about again.</summary>
    private const int MaxRemembered = 64;

    private readonly ConcurrentDictionary<(ProxyRoute Route, string Host), Task> _admissions = new();

    /// <summary>Asks the session whether this visitor may be carried; a permission holds for all that he asks of that host on this connection.</summary>
    /// <exception cref="LegFailedException">He may not, or nobody says so.</exception>
    public async Task AdmitAsync(ProxyRoute route, string host, string speaks)
    {
        if (!route.IsGuarded)
            return;
        if (_admissions.Count >= MaxRemembered)
            _admissions.Clear();
        var asked = _admissions.GetOrAdd((route, host), static (about, visitor) => AskAsync(about.Route, about.Host, visitor.Remote, visitor.Speaks), (Remote, Speaks: speaks));
        try
        {
            await asked.ConfigureAwait(false);
        }
        catch (LegFailedException)
        {
            // Whoever was turned away may be let in later.
            _admissions.TryRemove(new KeyValuePair<(ProxyRoute, string), Task>((route, host), asked));
            throw;
        }
    }

    private static async Task AskAsync(ProxyRoute route, string host, EndPoint? remote, string speaks)
    {
        AuthorizationProtocol.Decision decision;
        try
        {
            // An authoriser has less time than this; only a session that has just ended says nothing.
            decision = await route.Session.Ask<AuthorizationProtocol.Decision>(
                new SessionProtocol.AuthorizeVisitor(route.Port, remote?.ToString(), new ProxyVisit(host, speaks)), AuthorizationProtocol.Timeout * 2).ConfigureAwait(false);
        }
        catch (AskTimeoutException e)
        {
            throw new LegFailedException(StatusCodes.Status504GatewayTimeout, $"{host} cannot be reached: the tunnel to it is down", e);
        }

        // Why is for the log: it may say more than a stranger should know.
        if (decision is AuthorizationProtocol.Denied)
            throw new LegFailedException(StatusCodes.Status403Forbidden, $"{host} may not be reached from here");
    }

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
