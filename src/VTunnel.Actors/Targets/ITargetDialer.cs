using VTunnel.Endpoints;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Routing;

namespace VTunnel.Targets;

/// <summary>Connects to what a forward names. Replace it to reach targets in another way.</summary>
public interface ITargetDialer
{
    /// <summary>
    /// Connects to <paramref name="target"/>, TLS included. The endpoint is the caller's to dispose;
    /// nothing is left behind when this throws.
    /// </summary>
    /// <exception cref="TargetException">The target cannot be reached; the message says which leg failed and why.</exception>
    /// <exception cref="OperationCanceledException"><paramref name="cancellationToken"/> was cancelled.</exception>
    Task<StreamEndpoint> DialAsync(ForwardTarget target, CancellationToken cancellationToken);

    /// <summary>
    /// Connects to a target as its visitor needs it. The default knows nothing of proxies: it connects to the target as for any
    /// other visitor, and adds no headers.
    /// </summary>
    /// <inheritdoc cref="DialAsync(ForwardTarget, CancellationToken)" path="/exception" />
    Task<StreamEndpoint> DialAsync(TargetRequest request, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(request);
        return DialAsync(request.Target, cancellationToken);
    }
}

/// <summary>What a visitor needs of a target.</summary>
/// <param name="Target">Where to connect.</param>
/// <param name="Visit">What he asked the server's proxy for; null for visitors of a port.</param>
/// <param name="Headers">What his HTTP requests get.</param>
public sealed record TargetRequest(ForwardTarget Target, ProxyVisit? Visit, IReadOnlyList<InjectedHeader> Headers)
{
    /// <summary>The port of a domain that he came for over protocol v1, which has no words for a <see cref="Visit"/>; null for everyone else.</summary>
    public int? DomainPort { get; init; }
}
