namespace VTunnel.Protocol.V1;

/// <summary>Which end of a v1 session this is.</summary>
public enum V1Role
{
    /// <summary>Accepts tunnels, listens on ports, opens streams.</summary>
    Server,

    /// <summary>Dials the server, asks for ports, is asked to connect.</summary>
    Client,
}

/// <summary>How much a v1 session holds and for whom.</summary>
public sealed record V1SessionOptions
{
    /// <summary>Payload bytes per data message sent, before base64. Default 32 KiB, the most that every peer is known to take; 1 or more.</summary>
    public int MaxPayloadBytes { get; init; } = 32 * 1024;

    /// <summary>
    /// Bytes that one stream may hold for a slow reader before the session is read no further. Default 1 MiB; 1 or more.
    /// One message goes beyond it: its length is known only when it is there.
    /// </summary>
    public int StreamBufferBytes { get; init; } = 1024 * 1024;

    /// <summary>
    /// Memory that received payload may take over all streams before the session is read no further. Counted as the pooled
    /// arrays that hold it, so that a flood of one-byte messages counts for what it costs. Default 64 MiB; 1 or more.
    /// </summary>
    public int SessionBufferBytes { get; init; } = 64 * 1024 * 1024;

    /// <summary>Streams at a time. Default 20,000; 1 or more. The peer's further ones are answered <c>close</c>.</summary>
    public int MaxStreams { get; init; } = 20_000;

    /// <summary>Answers that may wait to be sent before the session is read no further. Default 4,096; 1 or more. About 150 bytes each.</summary>
    public int MaxControlFrames { get; init; } = 4096;

    /// <summary>Throws for the first value out of range.</summary>
    internal void Validate()
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(MaxPayloadBytes, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(StreamBufferBytes, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(SessionBufferBytes, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(MaxStreams, 1);
        ArgumentOutOfRangeException.ThrowIfLessThan(MaxControlFrames, 1);
    }
}
