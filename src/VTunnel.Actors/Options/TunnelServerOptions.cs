using System.Net;

namespace VTunnel.Options;

/// <summary>Which protocol to speak.</summary>
public enum ProtocolPreference
{
    /// <summary>v2 where the peer knows it, else v1.</summary>
    Auto,

    /// <summary>v1 only: JSON over text frames.</summary>
    V1,

    /// <summary>v2 only: a peer that does not know it is refused.</summary>
    V2,
}

/// <summary>What a tunnel server does and how much of it it allows.</summary>
/// <remarks>
/// Properties are settable because <c>Configure&lt;TOptions&gt;</c> of .NET hands an instance to a delegate;
/// the engine reads them once, at start, and what is set later counts for nothing.
/// </remarks>
public sealed record TunnelServerOptions
{
    /// <summary>The usual name of the configuration section, <c>VTunnel:Server</c>, for whoever gives it to <c>AddVTunnelServer</c>; nothing reads it by itself.</summary>
    public const string SectionName = "VTunnel:Server";

    /// <summary>The address on which ports are opened for clients. Default 127.0.0.1. Anything else lets others on the network in.</summary>
    public IPAddress ListenAddress { get; set; } = IPAddress.Loopback;

    /// <summary>Which protocols are accepted. Default <see cref="ProtocolPreference.Auto"/>.</summary>
    public ProtocolPreference Protocol { get; set; } = ProtocolPreference.Auto;

    /// <summary>A session from which nothing at all arrived for this long ends. Default 60 s; <see cref="Timeout.InfiniteTimeSpan"/> disables.</summary>
    public TimeSpan IdleTimeout { get; set; } = TimeSpan.FromSeconds(60);

    /// <summary>How long the holder of a port has to answer when another session wants the port. Default 2 s.</summary>
    public TimeSpan ProbeTimeout { get; set; } = TimeSpan.FromSeconds(2);

    /// <summary>How long a WebSocket upgrade may take until the session exists. Default 10 s.</summary>
    public TimeSpan HandshakeTimeout { get; set; } = TimeSpan.FromSeconds(10);

    /// <summary>How long streams may finish after the server was told to stop. Default 5 s.</summary>
    public TimeSpan DrainTimeout { get; set; } = TimeSpan.FromSeconds(5);

    /// <summary>How long a port in use is tried again before the client is told <c>listen_err</c>. Default 2 s.</summary>
    public TimeSpan ListenRetryTimeout { get; set; } = TimeSpan.FromSeconds(2);

    /// <summary>The largest message that a v1 peer may send, in bytes. Default 1 MiB; 64 KiB to 64 MiB. Costs that much memory per session at worst.</summary>
    public int MaxMessageBytes { get; set; } = 1024 * 1024;

    /// <summary>Bytes that a v1 stream may hold for a slow reader before its session is read no further. Default 1 MiB.</summary>
    public int StreamBufferBytes { get; set; } = 1024 * 1024;

    /// <summary>
    /// How long a v2 session without a connection lives on. Default 30 s; zero ends it with its connection. Costs up to
    /// <see cref="MaxSessionWindowBytes"/> of memory meanwhile. The shorter of both sides' counts.
    /// </summary>
    public TimeSpan ResumeWindow { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>The most that a v2 peer may send on one stream before it is read, in bytes; windows grow to it as the path needs. Default 16 MiB; 256 KiB to 1 GiB.</summary>
    public int MaxStreamWindowBytes { get; set; } = 16 * 1024 * 1024;

    /// <summary>The bound of all windows of a v2 session beyond 256 KiB a stream, and of what it holds for replay, in bytes. Default 64 MiB; 1 MiB to 1 GiB.</summary>
    public int MaxSessionWindowBytes { get; set; } = 64 * 1024 * 1024;

    /// <summary>Sessions at a time. Default 10,000. A further client is refused: its upgrade with 503 over v1, its session over v2.</summary>
    public int MaxSessions { get; set; } = 10_000;

    /// <summary>Listened ports per session. Default 256. A further listen is answered <c>listen_err</c>.</summary>
    public int MaxListenersPerSession { get; set; } = 256;

    /// <summary>Streams per session. Default 20,000. A further visitor is reset.</summary>
    public int MaxStreamsPerSession { get; set; } = 20_000;

    /// <summary>Bearer tokens that open a session. Empty: anyone who reaches the endpoint may open ports.</summary>
    public IReadOnlyList<AccessToken> Tokens { get; set; } = [];

    /// <summary>Browser origins that may open a session, e.g. <c>https://app.example.com</c>. Default none: any request with an Origin is refused.</summary>
    public IReadOnlyList<string> AllowedOrigins { get; set; } = [];

    /// <summary>The HTTP proxy beside the tunnel; null for none, which is the default.</summary>
    public ProxyOptions? Proxy { get; set; }

    /// <summary>The options as they are now. A list of tokens that is emptied later would open the server.</summary>
    internal TunnelServerOptions Copy() => this with { Tokens = [.. Tokens], AllowedOrigins = [.. AllowedOrigins], Proxy = Proxy?.Copy() };
}
