using System.Net;
using System.Net.Security;
using System.Security.Authentication;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using VTunnel.Routing;

namespace VTunnel.Proxy;

/// <summary>
/// Makes certificates of hosts on the fly, signed by the operator's authority. One key serves all of them and lives as long as
/// the process. The last 1000 hosts are kept.
/// </summary>
internal sealed class CertificateMint : IDisposable
{
    private const int MaxKept = 1000;
    private static readonly TimeSpan Lifetime = TimeSpan.FromDays(7);
    private static readonly TimeSpan Before = TimeSpan.FromHours(1);

    private readonly Lock _gate = new();
    private readonly X509Certificate2 _authority;
    private readonly TimeProvider _timeProvider;
    private readonly ECDsa _key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
    private readonly Dictionary<string, LinkedListNode<Leaf>> _leaves = new(StringComparer.Ordinal);
    private readonly LinkedList<Leaf> _byUse = new();

    public CertificateMint(X509Certificate2 authority, TimeProvider timeProvider)
    {
        _authority = authority;
        _timeProvider = timeProvider;
    }

    private sealed record Leaf(string Host, SslStreamCertificateContext Context, DateTimeOffset RenewAt);

    /// <summary>How many are kept.</summary>
    public int Count
    {
        get
        {
            lock (_gate)
                return _leaves.Count;
        }
    }

    /// <summary>A certificate for a host.</summary>
    /// <param name="host">A normalised name or address.</param>
    /// <exception cref="AuthenticationException">There is none: the authority is out of its time, or the host cannot stand in a certificate.</exception>
    public SslStreamCertificateContext For(string host)
    {
        var now = _timeProvider.GetUtcNow();
        lock (_gate)
        {
            if (_leaves.TryGetValue(host, out var known) && now < known.Value.RenewAt)
            {
                _byUse.Remove(known);
                _byUse.AddFirst(known);
                return known.Value.Context;
            }

            // Made first: what cannot be made leaves all as it was.
            var made = Make(host, now);
            if (known is not null)
                _byUse.Remove(known);
            var node = _byUse.AddFirst(made);
            _leaves[host] = node;
            if (_leaves.Count > MaxKept)
            {
                // Handshakes under way may still use it: the collector disposes it.
                _leaves.Remove(_byUse.Last!.Value.Host);
                _byUse.RemoveLast();
            }

            return node.Value.Context;
        }
    }

    private Leaf Make(string host, DateTimeOffset now)
    {
        var notBefore = Later(now - Before, _authority.NotBefore);
        var notAfter = Earlier(now + Lifetime, _authority.NotAfter);
        if (notBefore >= notAfter)
        {
            throw new AuthenticationException(
                $"the authority of --proxy-mitm-ca is valid from {_authority.NotBefore.ToUniversalTime():yyyy-MM-dd} to {_authority.NotAfter.ToUniversalTime():yyyy-MM-dd}; make another with 'vtunnel ca create'");
        }

        var names = new SubjectAlternativeNameBuilder();
        var name = new X500DistinguishedNameBuilder();
        var address = HostName.AddressOf(host);
        try
        {
            if (address is not null)
                names.AddIpAddress(address);
            else
                names.AddDnsName(host);
        }
        catch (ArgumentException e)
        {
            throw new AuthenticationException($"'{host}' cannot stand in a certificate", e);
        }


        // The common name is for people and has at most 64 characters; programs look at the alternative names. But OpenSSL holds one
        // that could be a domain, as 10.0.0.5 could, against the domains of a constrained authority.
        name.AddCommonName(address is not null ? $"address {host}" : host.Length <= 64 ? host : "vtunnel");
        var request = new CertificateRequest(name.Build(), _key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(names.Build());
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(false, false, 0, true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.DigitalSignature, true));
        request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension([new Oid("1.3.6.1.5.5.7.3.1")], false));
        request.CertificateExtensions.Add(X509AuthorityKeyIdentifierExtension.CreateFromCertificate(_authority, true, false));
        using var certificate = request.Create(_authority.SubjectName, Signer(), notBefore, notAfter, RandomNumberGenerator.GetBytes(16));
        var withKey = certificate.CopyWithPrivateKey(_key);
        return new Leaf(host, SslStreamCertificateContext.Create(withKey, [_authority], offline: true), now + ((notAfter - now) / 2));
    }

    private X509SignatureGenerator Signer()
    {
        if (_authority.GetECDsaPrivateKey() is { } ecdsa)
            return X509SignatureGenerator.CreateForECDsa(ecdsa);
        return X509SignatureGenerator.CreateForRSA(
            _authority.GetRSAPrivateKey() ?? throw new CryptographicException("The authority's key is neither ECDSA nor RSA."), RSASignaturePadding.Pkcs1);
    }

    private static DateTimeOffset Later(DateTimeOffset a, DateTime b) => a > b ? a : b;

    private static DateTimeOffset Earlier(DateTimeOffset a, DateTime b) => a < b ? a : b;

    public void Dispose() => _key.Dispose();
}
