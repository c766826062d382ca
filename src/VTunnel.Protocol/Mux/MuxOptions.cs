using VTunnel.Protocol.Buffers;

namespace VTunnel.Protocol.Mux;

/// <summary>Limits of a mux session. Both ends may differ.</summary>
public sealed record MuxOptions
{
    /// <summary>The window that every stream begins with, fixed by the yamux specification: 256 KiB.</summary>
    public const int InitialWindowBytes = 256 * 1024;

    /// <summary>
    /// How far the receive window of one stream may grow, in bytes. Default 16 MiB; 256 KiB (no growth) to 1 GiB.
    /// Costs that much memory when the stream's reader stalls; on a path of 100 ms round trip it allows about 160 MB/s.
    /// </summary>
    public int MaxStreamWindowBytes { get; init; } = 16 * 1024 * 1024;

    /// <summary>
    /// How far all receive windows of the session together may grow beyond their initial 256 KiB each, in bytes.
    /// Default 64 MiB; 0 (no growth) or more. Costs that much memory when all readers stall.
    /// </summary>
    public long MaxSessionWindowBytes { get; init; } = 64L * 1024 * 1024;

    /// <summary>A stream whose reader took nothing for this long falls back to the initial window. Default 10 s.</summary>
    public TimeSpan IdleWindowTimeout { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>
    /// The largest payload of one data frame, what one stream may have queued, and its share of each round of the
    /// scheduler, in bytes. Default 65,472: a chunk of 64 KiB less its headroom. 4 KiB to 1 MiB. Larger frames cost
    /// less CPU per byte and make every other stream wait longer.
    /// </summary>
    public int SendQuantumBytes { get; init; } = ByteChunk.DefaultSize - ByteChunk.Headroom;

    /// <summary>
    /// The largest payload of a frame while <see cref="MuxSession.IsInteractive"/>, in bytes. Default 131,008: a chunk of 128 KiB
    /// less its headroom; at least 4 KiB, and no more than <see cref="SendQuantumBytes"/> has an effect.
    /// </summary>
    public int InteractiveQuantumBytes { get; init; } = (2 * ByteChunk.DefaultSize) - ByteChunk.Headroom;

    /// <summary>How long a session counts as interactive after the fourth or a later frame of up to 2 KiB in a row on one stream. Default 250 ms; zero turns it off.</summary>
    public TimeSpan InteractiveHold { get; init; } = TimeSpan.FromMilliseconds(250);

    /// <summary>
    /// Payload that all streams together may have queued for sending, in bytes. Default 4 MiB; at least
    /// <see cref="SendQuantumBytes"/>. Reads that were begun before it filled up may exceed it.
    /// </summary>
    public int MaxSendQueueBytes { get; init; } = 4 * 1024 * 1024;

    /// <summary>Streams at a time, whoever opened them. Default 20,000. A further one is reset.</summary>
    public int MaxStreams { get; init; } = 20_000;

    /// <summary>Streams that the peer opened and that are not accepted yet. Default 4,096. A further one is reset.</summary>
    public int MaxUnacceptedStreams { get; init; } = 4096;

    /// <summary>
    /// Received payloads up to this many bytes are copied out of the chunk they arrived in, if that is at least eight
    /// times as large. Default 2,048; 0 never copies. Without it, a stalled reader of small messages holds on to a
    /// whole 64 KiB chunk for each of them.
    /// </summary>
    public int CopyBelowBytes { get; init; } = 2048;

    /// <summary>How often the round trip is measured while streams consume data. Default 2 s.</summary>
    public TimeSpan RoundTripInterval { get; init; } = TimeSpan.FromSeconds(2);

    /// <summary>What is wrong with these options, each naming the key, the value and what would be right; empty when nothing is.</summary>
    public IReadOnlyList<string> Validate()
    {
        var errors = new List<string>();
        Check(MaxStreamWindowBytes is >= InitialWindowBytes and <= 1 << 30, nameof(MaxStreamWindowBytes), MaxStreamWindowBytes, "262144 to 1073741824");
        Check(MaxSessionWindowBytes >= 0, nameof(MaxSessionWindowBytes), MaxSessionWindowBytes, "0 or more");
        Check(IdleWindowTimeout > TimeSpan.Zero, nameof(IdleWindowTimeout), IdleWindowTimeout, "more than zero");
        Check(SendQuantumBytes is >= 4096 and <= 1 << 20, nameof(SendQuantumBytes), SendQuantumBytes, "4096 to 1048576");
        Check(InteractiveQuantumBytes >= 4096, nameof(InteractiveQuantumBytes), InteractiveQuantumBytes, "4096 or more");
        Check(InteractiveHold >= TimeSpan.Zero, nameof(InteractiveHold), InteractiveHold, "zero (off) or more");
        Check(MaxSendQueueBytes >= SendQuantumBytes, nameof(MaxSendQueueBytes), MaxSendQueueBytes, $"at least SendQuantumBytes ({SendQuantumBytes})");
        Check(MaxStreams >= 1, nameof(MaxStreams), MaxStreams, "1 or more");
        Check(MaxUnacceptedStreams >= 1, nameof(MaxUnacceptedStreams), MaxUnacceptedStreams, "1 or more");
        Check(CopyBelowBytes >= 0, nameof(CopyBelowBytes), CopyBelowBytes, "0 or more");
        Check(RoundTripInterval > TimeSpan.Zero, nameof(RoundTripInterval), RoundTripInterval, "more than zero");
        return errors;

        void Check(bool right, string key, object value, string range)
        {
            if (!right)
                errors.Add($"{key} is {value}; it must be {range}.");
        }
    }
}
