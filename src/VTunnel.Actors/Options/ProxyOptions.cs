using System.Net;
using System.Net.Security;
using System.Security.Cryptography.X509Certificates;
using VTunnel.Routing;

namespace VTunnel.Options;

/// <summary>The HTTP proxy of a server: where it listens, who may use it, and what goes direct.</summary>
public sealed record ProxyOptions
{
    /// <summary>The port to listen on; 0 takes a free one.</summary>
    public int Port { get; set; }

    /// <summary>
    /// The address to listen on. Default 127.0.0.1. Any other that is not a loopback address needs <see cref="Credentials"/> or
    /// <see cref="Open"/>: whoever reaches the proxy uses the server's network and the clients' networks.
    /// </summary>
    public IPAddress Address { get; set; } = IPAddress.Loopback;

    /// <summary>Users and passwords of <c>Proxy-Authorization: Basic</c>. Empty: nobody is asked.</summary>
    public IReadOnlyList<ProxyCredential> Credentials { get; set; } = [];

    /// <summary>Whether anyone may use a proxy that others can reach. Default off.</summary>
    public bool Open { get; set; }

    /// <summary>Whether hosts that no client forwards are connected to from the server. Default on.</summary>
    public bool AllowDirect { get; set; } = true;

    /// <summary>
    /// Hosts that may be reached from the server although <see cref="AllowDirect"/> is off. One without a wildcard may also be
    /// on the server's own machine or a link-local address, which is refused otherwise.
    /// </summary>
    public IReadOnlyList<HostPattern> Allowed { get; set; } = [];

    /// <summary>Addresses of names, instead of what the system's resolver says; they may be any, the server's own loopback included.</summary>
    public IReadOnlyList<HostAddress> Addresses { get; set; } = [];

    /// <summary>The authority, with its private key, that signs certificates of forwarded domains, so that requests inside TLS can be read. Default none.</summary>
    public X509Certificate2? InterceptionAuthority { get; set; }

    /// <summary>A certificate with its key for clients that speak TLS to the proxy itself. Default none: they are refused.</summary>
    public X509Certificate2? Certificate { get; set; }

    /// <summary>What lies between <see cref="Certificate"/> and its root.</summary>
    public X509Certificate2Collection CertificateChain { get; set; } = [];

    /// <summary>Asked before each handshake, in place of <see cref="Certificate"/>: for a certificate that is renewed. It must not block for long. Default none.</summary>
    public Func<SslStreamCertificateContext>? CertificateSelector { get; set; }

    /// <summary>How long a visitor may take for the head of a request. Default 10 s.</summary>
    public TimeSpan HeaderTimeout { get; set; } = TimeSpan.FromSeconds(10);

    /// <summary>How long a visitor's connection may wait for a further request. Default 2 min.</summary>
    public TimeSpan KeepAliveTimeout { get; set; } = TimeSpan.FromMinutes(2);

    /// <summary>How long connecting to a host may take where no tunnel is involved. Default 10 s.</summary>
    public TimeSpan ConnectTimeout { get; set; } = TimeSpan.FromSeconds(10);

    /// <summary>Connections of visitors at a time. Default 20,000; one more waits until another ends.</summary>
    public int MaxConnections { get; set; } = 20_000;

    /// <summary>The options as they are now.</summary>
    internal ProxyOptions Copy() => this with
    {
        Credentials = [.. Credentials],
        Allowed = [.. Allowed],
        Addresses = [.. Addresses],
        CertificateChain = [.. CertificateChain],
    };
}

/// <summary>A user of the proxy.</summary>
/// <param name="User">Without a colon.</param>
/// <param name="Password">Never printed.</param>
public sealed record ProxyCredential(string User, Secret Password)
{
    /// <inheritdoc />
    public override string ToString() => $"{User}:***";
}

/// <summary>Where a name is.</summary>
/// <param name="Host">A normalised name.</param>
/// <param name="Address">Its address.</param>
public sealed record HostAddress(string Host, IPAddress Address)
{
    /// <inheritdoc />
    public override string ToString() => $"{Host}={Address}";
}
