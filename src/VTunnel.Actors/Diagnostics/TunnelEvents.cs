namespace VTunnel.Diagnostics;

/// <summary>
/// What happens in a tunnel, published to the event stream of the actor system: any actor may subscribe. Delivery is
/// at most once, in order per publisher; a slow subscriber slows nobody.
/// </summary>
public static class TunnelEvents
{
    /// <summary>Common to all of them.</summary>
    public abstract record TunnelEvent
    {
        /// <summary>Which end tells it. Where both ends are in one process, each of them tells of every session and stream.</summary>
        public TunnelRole Role { get; init; }
    }

    /// <summary>A session began.</summary>
    /// <param name="Session">Its name, unique among those of its server or client, e.g. <c>session-7</c>.</param>
    /// <param name="Remote">The far end's address.</param>
    /// <param name="Identity">The name of its token; null where none was asked for.</param>
    /// <param name="Protocol"><c>v1</c> or <c>v2</c>.</param>
    public sealed record SessionStarted(string Session, string Remote, string? Identity, string Protocol) : TunnelEvent;

    /// <summary>A session ended, with the reason in words.</summary>
    public sealed record SessionEnded(string Session, string Remote, string Reason, TimeSpan Duration) : TunnelEvent;

    /// <summary>A port is open for a session, or the proxy routes a domain to it.</summary>
    /// <param name="Session">The session it belongs to.</param>
    /// <param name="Port">The port; of a domain a number above 65535 that stands for it.</param>
    /// <param name="LocalAddr">What the client calls its target.</param>
    /// <param name="Domain">The domain, such as <c>*.corp</c>; null where it is a port.</param>
    public sealed record ListenerOpened(string Session, int Port, string? LocalAddr, string? Domain = null) : TunnelEvent;

    /// <summary>A port, or a domain, was refused to a session.</summary>
    public sealed record ListenerRefused(string Session, int Port, string Reason, string? Domain = null) : TunnelEvent;

    /// <summary>A port is closed again, or a domain routed no more.</summary>
    public sealed record ListenerClosed(string Session, int Port, string? Domain = null) : TunnelEvent;

    /// <summary>A stream began.</summary>
    /// <param name="Session">The session it belongs to.</param>
    /// <param name="StreamId">Its id within the session.</param>
    /// <param name="Port">The listened port, or the number that stands for a domain; in the bridge the target's.</param>
    /// <param name="Remote">The visitor's address, where there is one: requests of many visitors of the proxy share connections.</param>
    /// <param name="Identity">The name of the session's token, or the bridge's user; null where there is none.</param>
    /// <param name="Host">The bridge: the target's host; null elsewhere.</param>
    /// <param name="Domain">What the proxy was asked for, as <c>host:port</c>; null where nobody asked a proxy.</param>
    public sealed record StreamStarted(
        string Session, uint StreamId, int Port, string? Remote, string? Identity = null, string? Host = null, string? Domain = null) : TunnelEvent;

    /// <summary>A stream ended. Bytes in go from the tunnel to the local endpoint, bytes out the other way.</summary>
    /// <param name="Session">The session it belonged to.</param>
    /// <param name="StreamId">Its id within the session.</param>
    /// <param name="Port">The listened port, or the number that stands for a domain; in the bridge the target's.</param>
    /// <param name="End">How.</param>
    /// <param name="BytesIn">From the tunnel to the local endpoint.</param>
    /// <param name="BytesOut">From the local endpoint to the tunnel.</param>
    /// <param name="Duration">From its first moment to its last.</param>
    /// <param name="Identity">The name of the session's token, or the bridge's user; null where there is none.</param>
    /// <param name="Host">The bridge: the target's host; null elsewhere.</param>
    /// <param name="Domain">What the proxy was asked for, as <c>host:port</c>; null where nobody asked a proxy.</param>
    public sealed record StreamFinished(
        string Session,
        uint StreamId,
        int Port,
        StreamEnd End,
        long BytesIn,
        long BytesOut,
        TimeSpan Duration,
        string? Identity = null,
        string? Host = null,
        string? Domain = null) : TunnelEvent;
}
