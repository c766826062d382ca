namespace VTunnel.Routing;

/// <summary>How the client speaks to a target.</summary>
public enum TargetScheme
{
    /// <summary>Plain TCP.</summary>
    Tcp,

    /// <summary>TLS to the target, plain to the visitor; HTTP/1.x requests get the target's Host.</summary>
    Tls,
}

/// <summary>What a forward leads to.</summary>
/// <param name="Scheme">Plain TCP or TLS.</param>
/// <param name="Host">A name or an address (IPv6 without brackets).</param>
/// <param name="Port">1 to 65535.</param>
public sealed record ForwardTarget(TargetScheme Scheme, string Host, int Port)
{
    /// <summary>As a user writes it, without the scheme: <c>host:port</c>, IPv6 in brackets.</summary>
    public string Authority => Host.Contains(':', StringComparison.Ordinal) ? $"[{Host}]:{Port}" : $"{Host}:{Port}";

    /// <inheritdoc />
    public override string ToString() => Scheme == TargetScheme.Tls ? $"tls://{Authority}" : Authority;
}

/// <summary>One forward: a port on the server, or a domain of its HTTP proxy, and the target behind the client.</summary>
/// <param name="RemotePort">The port that the server opens, 1 to 65535; 0 where a <see cref="Domain"/> is forwarded.</param>
/// <param name="Target">Where the client carries its connections.</param>
public sealed partial record ForwardRule(int RemotePort, ForwardTarget Target)
{
    /// <summary>The host or hosts whose connections the server's proxy sends here, for ports 80 and 443 unless it has one; null for a port.</summary>
    public HostPattern? Domain { get; init; }

    /// <summary>
    /// Headers that every HTTP request gets on its way to the target, in place of those of the same names that it came with. They
    /// are set on the client; the server never sees them. A forward of a port with headers carries HTTP and nothing else.
    /// </summary>
    public IReadOnlyList<InjectedHeader> Headers { get; init; } = [];

    /// <summary>What is forwarded, for logs: the port or the domain.</summary>
    public string Source => Domain?.ToString() ?? $"{RemotePort}";

    /// <summary>The ports of the <see cref="Domain"/>.</summary>
    internal static IReadOnlyList<int> PortsOf(HostPattern domain) => domain.Port is { } port ? [port] : [80, 443];

    /// <inheritdoc />
    public override string ToString() => $"{Source}={Target}";
}

/// <summary>A header that a forward adds to requests. The value may be a credential and is never printed.</summary>
/// <param name="Name">The name.</param>
/// <param name="Value">The value.</param>
public sealed record InjectedHeader(string Name, string Value)
{
    /// <inheritdoc />
    public override string ToString() => $"{Name}: ***";
}
