namespace VTunnel.Diagnostics;

/// <summary>
/// What happens in a tunnel, published to the event stream of the actor system: any actor may subscribe. Delivery is
/// at most once, in order per publisher; a slow subscriber slows nobody.
/// </summary>
public static class TunnelEvents
{
    /// <summary>Common to all of them.</summary>
    public abstract record TunnelEvent;

    /// <summary>A session began.</summary>
    /// <param name="Session">Its name, unique in the process, e.g. <c>session-7</c>.</param>
    /// <param name="Remote">The far end's address.</param>
    /// <param name="Identity">The name of its token; null where none was asked for.</param>
    /// <param name="Protocol"><c>v1</c> or <c>v2</c>.</param>
    public sealed record SessionStarted(string Session, string Remote, string? Identity, string Protocol) : TunnelEvent;

    /// <summary>A session ended, with the reason in words.</summary>
    public sealed record SessionEnded(string Session, string Remote, string Reason, TimeSpan Duration) : TunnelEvent;

    /// <summary>A port is open for a session.</summary>
    public sealed record ListenerOpened(string Session, int Port, string? LocalAddr) : TunnelEvent;

    /// <summary>A port was refused to a session.</summary>
    public sealed record ListenerRefused(string Session, int Port, string Reason) : TunnelEvent;

    /// <summary>A port is closed again.</summary>
    public sealed record ListenerClosed(string Session, int Port) : TunnelEvent;

    /// <summary>A stream began.</summary>
    /// <param name="Session">The session it belongs to.</param>
    /// <param name="StreamId">Its id within the session.</param>
    /// <param name="Port">The listened port.</param>
    /// <param name="Remote">The visitor's address, where known.</param>
    /// <param name="Identity">The name of the session's token, or the bridge's user; null where there is none.</param>
    /// <param name="Host">The bridge: the target's host; null elsewhere.</param>
    public sealed record StreamStarted(string Session, uint StreamId, int Port, string? Remote, string? Identity = null, string? Host = null) : TunnelEvent;

    /// <summary>A stream ended. Bytes in go from the tunnel to the local endpoint, bytes out the other way.</summary>
    /// <param name="Session">The session it belonged to.</param>
    /// <param name="StreamId">Its id within the session.</param>
    /// <param name="Port">The listened port; in the bridge the target's.</param>
    /// <param name="End">How.</param>
    /// <param name="BytesIn">From the tunnel to the local endpoint.</param>
    /// <param name="BytesOut">From the local endpoint to the tunnel.</param>
    /// <param name="Duration">From its first moment to its last.</param>
    /// <param name="Identity">The name of the session's token, or the bridge's user; null where there is none.</param>
    /// <param name="Host">The bridge: the target's host; null elsewhere.</param>
    public sealed record StreamFinished(
        string Session,
        uint StreamId,
        int Port,
        StreamEnd End,
        long BytesIn,
        long BytesOut,
        TimeSpan Duration,
        string? Identity = null,
        string? Host = null) : TunnelEvent;
}
