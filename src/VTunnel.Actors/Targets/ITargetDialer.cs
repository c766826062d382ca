using VTunnel.Endpoints;
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
}
