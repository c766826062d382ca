namespace VTunnel.Bridge.Relay;

/// <summary>What a relay allows.</summary>
public sealed record RelayOptions
{
    /// <summary>Relayed connections per publisher at a time. Default 1,000. Costs two sockets and up to 128 KiB each while data flows.</summary>
    public int MaxStreamsPerPublisher { get; set; } = 1000;

    /// <summary>
    /// Of those, connections with the key of one user, waiting or relayed. Default 100. Further ones of that user are refused at
    /// once and leave the places to others.
    /// </summary>
    public int MaxStreamsPerUser { get; set; } = 100;

    /// <summary>Consumers per publisher that wait for its answer. Default 64.</summary>
    public int MaxWaitingPerPublisher { get; set; } = 64;

    /// <summary>
    /// Of those, consumers with the key of one user, who may be one that the publisher does not admit any more. Default 8. Further
    /// ones of that user are refused at once and leave the places to others.
    /// </summary>
    public int MaxWaitingPerUser { get; set; } = 8;

    /// <summary>Bytes per second that one publisher and its users may move, both directions together. Default 0: no limit. At least 65,536.</summary>
    public long MaxBytesPerSecond { get; set; }

    /// <summary>How long a consumer waits for a publisher that is not connected, or does not answer. Default 20 s.</summary>
    public TimeSpan PublisherTimeout { get; set; } = TimeSpan.FromSeconds(20);

    /// <summary>A relayed connection on which nothing at all has moved for so long is cut; both ends show signs of life far more often. Default 120 s.</summary>
    public TimeSpan IdleTimeout { get; set; } = TimeSpan.FromSeconds(120);

    /// <summary>How far the time of an admission may be from the relay's. Default 60 s. Whoever is further away takes the relay's time from its answer.</summary>
    public TimeSpan AdmissionWindow { get; set; } = TimeSpan.FromSeconds(60);

    /// <summary>How often changes by other processes (enrolled, removed) are looked for. Default 250 ms.</summary>
    public TimeSpan RefreshInterval { get; set; } = TimeSpan.FromMilliseconds(250);

    /// <summary>
    /// Admissions that are remembered at a time, so that none is taken twice. Beyond it further ones are refused until the
    /// oldest are forgotten. Other than the default in tests alone.
    /// </summary>
    internal int MaxAdmissions { get; set; } = 200_000;

    /// <summary>Of those, admissions of one publisher and its users. Other than the default in tests alone.</summary>
    internal int MaxAdmissionsPerPublisher { get; set; } = 20_000;

    /// <summary>Of those, admissions with the key of one user. Other than the default in tests alone.</summary>
    internal int MaxAdmissionsPerUser { get; set; } = 1_000;

    /// <summary>For tests of hostile relays: sees every message that is spliced and says what is passed on instead.</summary>
    internal RelayTap? Tap { get; set; }
}

/// <summary>See <see cref="RelayOptions.Tap"/>.</summary>
/// <param name="fromConsumer">The direction.</param>
/// <param name="message">What arrived; valid during the call.</param>
/// <returns>What to send, in order.</returns>
internal delegate IReadOnlyList<ReadOnlyMemory<byte>> RelayTap(bool fromConsumer, ReadOnlyMemory<byte> message);
