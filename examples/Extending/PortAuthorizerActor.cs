using System.Net;
using Akka.Actor;
using VTunnel.Extensions;
using VTunnel.Options;

namespace Extending;

/// <summary>Lets clients listen on some ports only, and visitors come from some networks only.</summary>
public sealed class PortAuthorizerActor(IReadOnlyList<PortRange> ports, IReadOnlyList<IPNetwork> networks) : UntypedActor
{
    public static Props Props(IReadOnlyList<PortRange> ports, IReadOnlyList<IPNetwork> networks) =>
        Akka.Actor.Props.Create(() => new PortAuthorizerActor(ports, networks));

    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case AuthorizationProtocol.AuthorizeListen listen:
                Sender.Tell(ports.Any(range => range.Contains(listen.Port))
                    ? AuthorizationProtocol.Allowed.Instance
                    : new AuthorizationProtocol.Denied($"{listen.Domain ?? $"port {listen.Port}"} is not for tunnels; use {string.Join(", ", ports)}"));
                break;
            case AuthorizationProtocol.AuthorizeConnect connect:
                Sender.Tell(IPEndPoint.TryParse(connect.Stream.Remote ?? "", out var remote) && networks.Any(network => network.Contains(remote.Address))
                    ? AuthorizationProtocol.Allowed.Instance
                    : new AuthorizationProtocol.Denied("visitors of this network are not carried"));
                break;
            default:
                Unhandled(message);
                break;
        }
    }
}
