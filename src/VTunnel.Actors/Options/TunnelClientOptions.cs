using VTunnel.Routing;

namespace VTunnel.Options;

/// <summary>Where a client dials and what it forwards.</summary>
public sealed record TunnelClientOptions
{
    /// <summary>The usual name of the configuration section, <c>VTunnel:Client</c>, for whoever gives it to <c>AddVTunnelClient</c>; nothing reads it by itself.</summary>
    public const string SectionName = "VTunnel:Client";

    /// <summary>The server: <c>ws://</c> or <c>wss://</c> (<c>http</c> and <c>https</c> mean the same). Required.</summary>
    public Uri? Server { get; set; }

    /// <summary>What to forward from the start; more can be added while running.</summary>
    public IReadOnlyList<ForwardRule> Forwards { get; set; } = [];

    /// <summary>Headers of the upgrade request, e.g. for a proxy in front of the server.</summary>
    public IReadOnlyList<KeyValuePair<string, string>> Headers { get; set; } = [];

    /// <summary>Sent as <c>Authorization: Bearer</c>. Never logged.</summary>
    public Secret? Token { get; set; }

    /// <summary>Which protocol to offer. Default <see cref="ProtocolPreference.Auto"/>.</summary>
    public ProtocolPreference Protocol { get; set; } = ProtocolPreference.Auto;

    /// <summary>How often to ask the server for a sign of life; nothing for twice as long ends the connection. Default 30 s; negative or zero disables.</summary>
    public TimeSpan PingInterval { get; set; } = TimeSpan.FromSeconds(30);

    /// <summary>Whether to dial again after a loss or a failed first attempt. Default off in the library, on in the program.</summary>
    public bool AutoReconnect { get; set; }

    /// <summary>The upper bound of the first wait before dialling again. Default 1 s.</summary>
    public TimeSpan ReconnectMin { get; set; } = TimeSpan.FromSeconds(1);

    /// <summary>The upper bound that doubling waits grow to. Default 5 s.</summary>
    public TimeSpan ReconnectMax { get; set; } = TimeSpan.FromSeconds(5);

    /// <summary>A connection that lasted this long counts as stable: the next wait starts from <see cref="ReconnectMin"/> again. Default 10 s.</summary>
    public TimeSpan StableAfter { get; set; } = TimeSpan.FromSeconds(10);

    /// <summary>How long one attempt to connect to the server may take. Default 15 s.</summary>
    public TimeSpan ConnectTimeout { get; set; } = TimeSpan.FromSeconds(15);

    /// <summary>How long one attempt to connect to a target may take. Default 10 s.</summary>
    public TimeSpan TargetConnectTimeout { get; set; } = TimeSpan.FromSeconds(10);

    /// <summary>How long streams may finish after the client was told to stop. Default 5 s.</summary>
    public TimeSpan DrainTimeout { get; set; } = TimeSpan.FromSeconds(5);

    /// <summary>The largest message that a v1 peer may send, in bytes. Default 1 MiB.</summary>
    public int MaxMessageBytes { get; set; } = 1024 * 1024;

    /// <summary>Bytes that a v1 stream may hold for a slow target before the session is read no further. Default 1 MiB.</summary>
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

    /// <summary>Streams at a time. Default 20,000. A further one is refused.</summary>
    public int MaxStreams { get; set; } = 20_000;

    /// <summary>How the server's certificate is checked (<c>wss://</c>).</summary>
    public TlsTrustOptions ServerTls { get; set; } = new();

    /// <summary>How certificates of <c>tls://</c> targets are checked.</summary>
    public TlsTrustOptions TargetTls { get; set; } = new();

    /// <summary>The options as they are now.</summary>
    internal TunnelClientOptions Copy() => this with
    {
        Forwards = [.. Forwards],
        Headers = [.. Headers],
        ServerTls = ServerTls with { },
        TargetTls = TargetTls with { },
    };
}

/// <summary>Whom a TLS connection trusts.</summary>
public sealed record TlsTrustOptions
{
    /// <summary>A PEM file with the certificates to trust instead of the system's. Default none.</summary>
    public string? CertificateAuthorityFile { get; set; }

    /// <summary>Accept any certificate. Danger: whoever is on the path can read and change everything.</summary>
    public bool Insecure { get; set; }
}

/// <summary>A value that does not print itself.</summary>
public sealed record Secret(string Value)
{
    /// <inheritdoc />
    public override string ToString() => "***";
}
