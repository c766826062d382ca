using VTunnel.Diagnostics;
using VTunnel.Endpoints;

namespace VTunnel.Extensions;

/// <summary>
/// Puts something into the path of every stream, e.g. a limit or a recorder: it is given each endpoint before the pump
/// is, and gives back the endpoint to use instead (or the same). <see cref="DelegatingEndpoint"/> is where to begin.
/// </summary>
public interface IStreamMiddleware
{
    /// <summary>
    /// Wraps an endpoint. Called once per stream, on the stream's actor, from many of them at a time; must not block. An
    /// exception is logged and refuses the stream.
    /// </summary>
    StreamEndpoint Wrap(StreamEndpoint endpoint, StreamInfo stream);
}

/// <summary>What a stream is for.</summary>
/// <param name="Session">The name of its session.</param>
/// <param name="Identity">The name of the session's token; null where none was asked for.</param>
/// <param name="Port">The listened port; of a domain a number above 65535 that stands for it.</param>
/// <param name="Remote">The visitor's address, where there is one: a stream that carries requests of the proxy's visitors has none.</param>
/// <param name="Host">The bridge: the host of the target, whose port is <paramref name="Port"/>; null elsewhere.</param>
/// <param name="Domain">What the server's proxy was asked for, as <c>host:port</c>; null where nobody asked a proxy.</param>
public sealed record StreamInfo(string Session, string? Identity, int Port, string? Remote, string? Host = null, string? Domain = null)
{
    /// <summary>At which end of the tunnel.</summary>
    public TunnelRole Role { get; init; }

    /// <summary>Where its visitors come to, for people.</summary>
    internal string Place => Domain ?? $"port {Port}";
}
