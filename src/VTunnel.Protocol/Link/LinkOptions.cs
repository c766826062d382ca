namespace VTunnel.Protocol.Link;

/// <summary>How a link behaves and what it may cost.</summary>
public sealed record LinkOptions
{
    /// <summary>How long a link without a carrier is held. Default 30 s; zero disables: the link ends with its carrier. At most 24 days.</summary>
    public TimeSpan ResumeWindow { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>
    /// Silence after which a sign of life is asked for; after twice as long the carrier is given up. Default 15 s; zero
    /// disables, and then a half-open carrier is never found. At most 24 days. The shorter of both sides' is used.
    /// </summary>
    public TimeSpan KeepAliveInterval { get; init; } = TimeSpan.FromSeconds(15);

    /// <summary>How long a client waits for the server's HELLO on a carrier before it gives the carrier up. Default 10 s.</summary>
    public TimeSpan HandshakeTimeout { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>
    /// What is held for replay at first and at least, in bytes. Default 1 MiB; never more than
    /// <see cref="MaxReplayWindowBytes"/>. It grows with the measured bandwidth-delay product. What is under way is also what
    /// an urgent frame waits behind before the session counts as interactive. On loopback 512 KiB cost up to a fifth of the
    /// rate of 8 and 64 streams, and 2 MiB gained nothing.
    /// </summary>
    public int InitialReplayWindowBytes { get; init; } = 1024 * 1024;

    /// <summary>
    /// The same while <see cref="LinkState.IsInteractive"/> says that somebody waits for small answers. Default 256 KiB; never
    /// more than <see cref="InitialReplayWindowBytes"/>. Less halves what an answer waits behind, and costs bulk up to a fifth of its rate.
    /// </summary>
    public int InteractiveReplayWindowBytes { get; init; } = 256 * 1024;

    /// <summary>
    /// The bound of that growth, and so of the memory of one link's replay buffer (plus one slice written last, plus one
    /// chunk). Default 64 MiB. Limits the rate to this much per round trip.
    /// </summary>
    public int MaxReplayWindowBytes { get; init; } = 64 * 1024 * 1024;

    /// <summary>The most bytes that the peer may send beyond the last ACK; more ends the link. Default 64 MiB.</summary>
    public int ReceiveWindowBytes { get; init; } = 64 * 1024 * 1024;

    /// <summary>
    /// Written bytes that may wait for the carrier. Default 256 KiB. More only makes urgent frames of the layer above
    /// wait behind bulk; it does not make the link faster.
    /// </summary>
    public int MaxUnsentBytes { get; init; } = 256 * 1024;

    /// <summary>Consumed bytes after which an ACK is due at once (or a quarter of the peer's replay window, if that is less). Default 256 KiB.</summary>
    public int AckAfterBytes { get; init; } = 256 * 1024;

    /// <summary>How long consumed bytes may go without an ACK when there are fewer. Default 25 ms.</summary>
    public TimeSpan AckDelay { get; init; } = TimeSpan.FromMilliseconds(25);

    /// <summary>Extensions that this side declares in its HELLO. Default none.</summary>
    public IReadOnlyList<LinkFeature> Features { get; init; } = [];

    /// <summary>Features that this side knows, so that the peer may declare them mandatory. Default none.</summary>
    public IReadOnlyCollection<ushort> KnownFeatures { get; init; } = [];

    /// <summary>Everything that is wrong with these options; empty if nothing is.</summary>
    public IReadOnlyList<string> GetErrors()
    {
        var errors = new List<string>();
        // The wire carries milliseconds in 32 bits; half of that leaves room for sums.
        var longest = TimeSpan.FromMilliseconds(int.MaxValue);
        if (ResumeWindow < TimeSpan.Zero || ResumeWindow > longest)
            errors.Add($"{nameof(ResumeWindow)} is {ResumeWindow}; it is 0 (disabled) to {longest}.");
        if (KeepAliveInterval < TimeSpan.Zero || KeepAliveInterval > longest)
            errors.Add($"{nameof(KeepAliveInterval)} is {KeepAliveInterval}; it is 0 (disabled) to {longest}.");
        if (HandshakeTimeout <= TimeSpan.Zero || HandshakeTimeout > longest)
            errors.Add($"{nameof(HandshakeTimeout)} is {HandshakeTimeout}; it is above 0 and at most {longest}.");
        if (AckDelay < TimeSpan.Zero || AckDelay > TimeSpan.FromSeconds(1))
            errors.Add($"{nameof(AckDelay)} is {AckDelay}; it is 0 to 1 s.");
        if (InitialReplayWindowBytes is < 1 or > 1 << 30)
            errors.Add($"{nameof(InitialReplayWindowBytes)} is {InitialReplayWindowBytes}; it is 1 to {1 << 30}.");
        if (InteractiveReplayWindowBytes is < 1 or > 1 << 30)
            errors.Add($"{nameof(InteractiveReplayWindowBytes)} is {InteractiveReplayWindowBytes}; it is 1 to {1 << 30}.");
        if (MaxReplayWindowBytes is < 1 or > 1 << 30)
            errors.Add($"{nameof(MaxReplayWindowBytes)} is {MaxReplayWindowBytes}; it is 1 to {1 << 30}.");
        if (ReceiveWindowBytes is < 1 or > 1 << 30)
            errors.Add($"{nameof(ReceiveWindowBytes)} is {ReceiveWindowBytes}; it is 1 to {1 << 30}.");
        if (MaxUnsentBytes < 1)
            errors.Add($"{nameof(MaxUnsentBytes)} is {MaxUnsentBytes}; it is at least 1.");
        if (AckAfterBytes < 1)
            errors.Add($"{nameof(AckAfterBytes)} is {AckAfterBytes}; it is at least 1.");
        if (Features.Any(feature => feature.Value.Length > LinkFeature.MaxValueBytes))
            errors.Add($"{nameof(Features)} has a value of more than {LinkFeature.MaxValueBytes} bytes.");
        if (Features.Sum(feature => 4L + feature.Value.Length) > LinkRecord.MaxFeatureBytes)
            errors.Add($"{nameof(Features)} take more than {LinkRecord.MaxFeatureBytes} bytes.");
        return errors;
    }
}
