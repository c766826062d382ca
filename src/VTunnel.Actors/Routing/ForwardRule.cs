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

/// <summary>One forward: a port on the server and the target behind the client.</summary>
/// <param name="RemotePort">The port that the server opens, 1 to 65535.</param>
/// <param name="Target">Where the client carries its connections.</param>
public sealed partial record ForwardRule(int RemotePort, ForwardTarget Target)
{
    /// <inheritdoc />
    public override string ToString() => $"{RemotePort}={Target}";
}
