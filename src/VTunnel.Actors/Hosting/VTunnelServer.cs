using Akka.Actor;
using Akka.Hosting;
using VTunnel.Supervision;

namespace VTunnel.Hosting;

/// <summary>The tunnel server of a host. Take it from the host's services.</summary>
public sealed class VTunnelServer
{
    private static readonly TimeSpan AskTimeout = TimeSpan.FromSeconds(5);

    private readonly IRequiredActor<TunnelServerActor> _actor;

    /// <summary>Made by the host.</summary>
    public VTunnelServer(IRequiredActor<TunnelServerActor> actor) => _actor = actor;

    /// <summary>Its clients, what they forward, and what they carry.</summary>
    /// <param name="cancellationToken">Ends the waiting.</param>
    /// <exception cref="AskTimeoutException">It did not answer within five seconds: it has ended.</exception>
    public async Task<TunnelServerProtocol.ServerStatus> GetStatusAsync(CancellationToken cancellationToken = default)
    {
        var actor = await _actor.GetAsync(cancellationToken).ConfigureAwait(false);
        return await actor.Ask<TunnelServerProtocol.ServerStatus>(TunnelServerProtocol.GetStatus.Instance, AskTimeout, cancellationToken).ConfigureAwait(false);
    }
}
