using Akka.Actor;
using VTunnel.Routing;

namespace VTunnel.Sessions;

/// <summary>What a session offers to a proxy: a listened port, or a domain, and what leads there.</summary>
/// <param name="Session">Told <see cref="SessionProtocol.CarryVisitor"/>.</param>
/// <param name="SessionName">For logs.</param>
/// <param name="Port">The number to carry visitors to.</param>
/// <param name="Target">The client's target, where it could be read.</param>
/// <param name="Answers">Whether the client answers each stream with a line, and takes plain HTTP for any target.</param>
/// <param name="IsGuarded">Whether the session is to be asked about each visitor, by <see cref="SessionProtocol.AuthorizeVisitor"/>.</param>
public sealed record ProxyRoute(IActorRef Session, string SessionName, int Port, ForwardTarget? Target, bool Answers, bool IsGuarded = false)
{
    /// <summary>Whether the client adds TLS to whatever it is sent, without being told more.</summary>
    public bool AlwaysAddsTls => !Answers && Target is { Scheme: TargetScheme.Tls };

    /// <summary>Whether the proxy has to speak TLS to the target itself when the visitor's TLS ends at the proxy.</summary>
    public bool NeedsTlsFromProxy => !Answers && Target is { Scheme: TargetScheme.Tcp, Port: 443 };
}
