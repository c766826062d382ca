namespace VTunnel.Options;

/// <summary>How the end-to-end session between a consumer and a publisher behaves, on both sides.</summary>
public sealed record BridgeSessionOptions
{
    /// <summary>How long a session without a connection lives on. Default 5 minutes; costs up to <see cref="MaxSessionWindowBytes"/> of memory meanwhile. The shorter of both sides' counts.</summary>
    public TimeSpan ResumeWindow { get; set; } = TimeSpan.FromMinutes(5);

    /// <summary>
    /// Silence after which a sign of life is asked for; after twice as long the connection is given up, the publisher's control
    /// connection with the relay included. Default 10 s.
    /// </summary>
    public TimeSpan KeepAliveInterval { get; set; } = TimeSpan.FromSeconds(10);

    /// <summary>How long a new connection may take until the session is up or goes on. Default 15 s.</summary>
    public TimeSpan HandshakeTimeout { get; set; } = TimeSpan.FromSeconds(15);

    /// <summary>How long one attempt to connect may take, the wait for the publisher at the relay included. Default 45 s.</summary>
    public TimeSpan ConnectTimeout { get; set; } = TimeSpan.FromSeconds(45);

    /// <summary>The first wait before connecting again; it doubles with every failure, and up to half of it is added at random. Default 2 s.</summary>
    public TimeSpan ReconnectMin { get; set; } = TimeSpan.FromSeconds(2);

    /// <summary>The longest wait before connecting again. Default 30 s.</summary>
    public TimeSpan ReconnectMax { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>How long one attempt to connect to a target may take. Default 10 s.</summary>
    public TimeSpan TargetConnectTimeout { get; set; } = TimeSpan.FromSeconds(10);

    /// <summary>Streams of one session at a time. Default 4,096. A further one is refused.</summary>
    public int MaxStreams { get; set; } = 4096;

    /// <summary>
    /// Publisher: streams of one user at a time, in all its sessions together. Default 4,096. A further one is refused. Each may
    /// hold 256 KiB that the user does not read.
    /// </summary>
    public int MaxStreamsPerUser { get; set; } = 4096;

    /// <summary>Consumer: visitors that wait while there is no session. Default 128; further ones are turned away.</summary>
    public int MaxWaitingVisitors { get; set; } = 128;

    /// <summary>Consumer: how long a visitor waits while there is no session. Default 60 s.</summary>
    public TimeSpan VisitorTimeout { get; set; } = TimeSpan.FromSeconds(60);

    /// <summary>Publisher: sessions at a time, of all users together. Default 10,000.</summary>
    public int MaxSessions { get; set; } = 10_000;

    /// <summary>
    /// Publisher: of those, sessions of one user, with those that wait for their connection to come back. Default 128. A further one is
    /// refused, and its consumer goes on trying.
    /// </summary>
    public int MaxSessionsPerUser { get; set; } = 128;

    /// <summary>Publisher: connections that are not yet a session, at a time. Default 256.</summary>
    public int MaxHandshakes { get; set; } = 256;

    /// <summary>
    /// Publisher: of those, connections with the key of one user, as the relay names it. Default 16. A relay that names nobody is
    /// held to <see cref="MaxHandshakes"/> alone.
    /// </summary>
    public int MaxHandshakesPerUser { get; set; } = 16;

    /// <summary>How often changes by other processes (users, grants) are looked for. Default 250 ms.</summary>
    public TimeSpan RefreshInterval { get; set; } = TimeSpan.FromMilliseconds(250);

    /// <summary>How often the far end is asked end to end whether it is there. Default 15 s.</summary>
    public TimeSpan ProbeInterval { get; set; } = TimeSpan.FromSeconds(15);

    /// <summary>How long streams may finish after this side was told to stop. Default 3 s.</summary>
    public TimeSpan DrainTimeout { get; set; } = TimeSpan.FromSeconds(3);

    /// <summary>The most that a peer may send on one stream before it is read, in bytes. Default 16 MiB.</summary>
    public int MaxStreamWindowBytes { get; set; } = 16 * 1024 * 1024;

    /// <summary>The bound of all windows of a session beyond 256 KiB a stream, and of what it holds for replay, in bytes. Default 64 MiB.</summary>
    public int MaxSessionWindowBytes { get; set; } = 64 * 1024 * 1024;

    /// <summary>The wait before attempt <paramref name="failures"/> + 1.</summary>
    /// <param name="failures">How many have failed in a row, from 0 up.</param>
    /// <param name="random">From 0 (included) to 1.</param>
    public TimeSpan ReconnectDelay(int failures, double random)
    {
        var bound = ReconnectMin.TotalMilliseconds * Math.Pow(2, Math.Min(failures, 20)) * (1 + (random / 2));
        return TimeSpan.FromMilliseconds(Math.Min(bound, ReconnectMax.TotalMilliseconds * (0.8 + (random / 5))));
    }
}
