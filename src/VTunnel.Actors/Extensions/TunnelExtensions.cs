using Akka.Actor;

namespace VTunnel.Extensions;

/// <summary>What others have added to the engine.</summary>
/// <param name="Authorizer">Decides on listens and connects; null allows what the options allow.</param>
/// <param name="Middleware">Applied to every stream in this order, the first closest to the socket.</param>
public sealed record TunnelExtensions(IActorRef? Authorizer, IReadOnlyList<IStreamMiddleware> Middleware)
{
    /// <summary>Nothing added.</summary>
    public static readonly TunnelExtensions None = new(null, []);
}
