namespace VTunnel.Protocol.Control;

/// <summary>What a stream is opened for.</summary>
/// <param name="Port">The listened port that the visitor came to, 1 to 65535, or the number of a domain above that.</param>
/// <param name="Remote">The visitor's address, for the far side's logs; v1 does not carry it.</param>
/// <param name="Visit">What a proxy's visitor asked for; null for visitors of a port. v1 does not carry it.</param>
/// <param name="TargetHost">The bridge: the host of the target that is asked for, whose port is <paramref name="Port"/>; null elsewhere. v1 does not carry it.</param>
public readonly record struct StreamRequest(int Port, string? Remote = null, ProxyVisit? Visit = null, string? TargetHost = null)
{
    /// <summary>Greater numbers stand for domains, for which no port is opened.</summary>
    public const int MaxTcpPort = 65535;

    /// <summary>Whether a stream can be opened for it: numbers of domains are for visitors of a proxy only.</summary>
    public bool HasValidPort => Port >= 1 && (Port <= MaxTcpPort || Visit is not null);
}

/// <summary>What a visitor of the server's HTTP proxy asked for.</summary>
/// <param name="Host">The host and port as <c>host:port</c>, an IPv6 address in brackets.</param>
/// <param name="Speaks">What comes on the stream: <see cref="Tcp"/>, <see cref="Tls"/>, <see cref="Http1"/> or <see cref="Http2"/>.</param>
public sealed record ProxyVisit(string Host, string Speaks)
{
    /// <summary>Anything.</summary>
    public const string Tcp = "tcp";

    /// <summary>TLS, from the visitor himself.</summary>
    public const string Tls = "tls";

    /// <summary>Requests of HTTP/1.1 without TLS, from the proxy.</summary>
    public const string Http1 = "http/1.1";

    /// <summary>A connection of HTTP/2 without TLS, from the proxy.</summary>
    public const string Http2 = "h2";

    /// <summary>Whether a proxy has read the requests and writes them anew.</summary>
    public bool IsHttp => Speaks is Http1 or Http2;
}
