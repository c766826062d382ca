namespace VTunnel.Diagnostics;

/// <summary>How a stream ended.</summary>
public enum StreamEnd
{
    /// <summary>Both directions finished.</summary>
    Completed,

    /// <summary>The local endpoint broke.</summary>
    EndpointReset,

    /// <summary>The peer broke it, or refused it.</summary>
    PeerReset,

    /// <summary>This side broke it on purpose.</summary>
    Cancelled,

    /// <summary>The session ended under it.</summary>
    SessionEnded,
}
