using System.Net;
using Akka.Actor;
using Microsoft.AspNetCore.Http;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Sessions;
using VTunnel.Web;

namespace VTunnel.Proxy;

/// <summary>Opens streams to what clients forward.</summary>
/// <param name="patience">How long the client may take to answer. While it has no connection the session's own end comes first, as a rule.</param>
/// <param name="isWaiting">Whether a session, by its name, has no connection or is gone.</param>
/// <param name="timeProvider">The clock of timeouts.</param>
internal sealed class TunnelConnector(TimeSpan patience, Func<string, bool> isWaiting, TimeProvider timeProvider)
{
    /// <summary>Opens a stream and waits for the client's answer; give it a visitor next, or abort it.</summary>
    /// <exception cref="LegFailedException">There will be no stream; says why.</exception>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    public async Task<VisitorEndpoint> OpenAsync(ProxyRoute route, EndPoint? remote, ProxyVisit visit, CancellationToken cancellationToken)
    {
        var endpoint = new VisitorEndpoint(remote, route.Answers);
        route.Session.Tell(new SessionProtocol.CarryVisitor(route.Port, remote?.ToString(), visit, endpoint));
        StreamOutcome outcome;
        try
        {
            outcome = await endpoint.Outcome.WaitAsync(patience, timeProvider, cancellationToken).ConfigureAwait(false);
        }
        catch (TimeoutException e)
        {
            endpoint.Abort();
            var why = isWaiting(route.SessionName) ? "its tunnel has no connection" : "its client did not answer";
            throw new LegFailedException(StatusCodes.Status504GatewayTimeout, $"{visit.Host} cannot be reached: {why} for {patience.TotalSeconds:0.###} s", e);
        }
        catch
        {
            endpoint.Abort();
            throw;
        }

        if (outcome.IsConnected)
            return endpoint;

        endpoint.Abort();
        if (outcome.Reason is { } reason)
            throw new LegFailedException(StatusCodes.Status502BadGateway, $"{visit.Host}, behind the tunnel: {reason}");
        throw isWaiting(route.SessionName)
            ? new LegFailedException(StatusCodes.Status504GatewayTimeout, $"{visit.Host} cannot be reached: the tunnel to it is down")
            : new LegFailedException(StatusCodes.Status502BadGateway, $"{visit.Host} cannot be reached: its client refused the connection, or gave it up");
    }
}
