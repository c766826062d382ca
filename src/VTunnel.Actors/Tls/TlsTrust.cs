using System.Globalization;
using System.Net.Security;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using VTunnel.Options;

namespace VTunnel.Tls;

/// <summary>Turns <see cref="TlsTrustOptions"/> into checks of handshakes, and failed checks into words.</summary>
internal sealed class TlsTrust
{
    private readonly X509Certificate2Collection? _authorities;
    private readonly bool _insecure;
    private readonly string _remedy;
    private readonly TimeProvider _timeProvider;

    /// <summary>Reads the file of trusted certificates, if one is named.</summary>
    /// <param name="options">Whom to trust.</param>
    /// <param name="remedy">How an operator says whom to trust, for those whose authority is not known: <c>--ca FILE</c>.</param>
    /// <param name="timeProvider">Tells expired certificates from those not yet valid.</param>
    /// <exception cref="CertificateFileException">The file cannot be read or holds no certificate.</exception>
    public TlsTrust(TlsTrustOptions options, string remedy, TimeProvider timeProvider)
    {
        ArgumentNullException.ThrowIfNull(options);
        ArgumentNullException.ThrowIfNull(timeProvider);
        _insecure = options.Insecure;
        _remedy = remedy;
        _timeProvider = timeProvider;
        if (options.CertificateAuthorityFile is { } file)
            _authorities = Load(file);
    }

    /// <summary>The options of one handshake with <paramref name="host"/>; <paramref name="check"/> knows afterwards what was wrong.</summary>
    /// <param name="host">For SNI and as the name that the certificate must be for.</param>
    /// <param name="peer">What the far end is, in words: <c>target</c>.</param>
    /// <param name="check">What was found.</param>
    public SslClientAuthenticationOptions CreateOptions(string host, string peer, out CertificateCheck check)
    {
        check = new CertificateCheck(peer, _remedy, _timeProvider, _insecure);
        return new SslClientAuthenticationOptions
        {
            // The dot that ends an absolute name is for the resolver; certificates are without.
            TargetHost = host.TrimEnd('.'),
            CertificateChainPolicy = CreatePolicy(),
            RemoteCertificateValidationCallback = check.Accepts,
        };
    }

    /// <summary>
    /// The options of many handshakes, whose hosts are known only then: a refused certificate ends its handshake with an
    /// <see cref="CertificateRefusedException"/> that says why.
    /// </summary>
    /// <param name="peer">What the far end is, in words: <c>server</c>.</param>
    public SslClientAuthenticationOptions CreateSharedOptions(string peer) => new()
    {
        CertificateChainPolicy = CreatePolicy(),
        RemoteCertificateValidationCallback = (sender, certificate, chain, errors) =>
        {
            var check = new CertificateCheck(peer, _remedy, _timeProvider, _insecure);
            return check.Accepts(sender, certificate, chain, errors)
                ? true
                : throw new CertificateRefusedException($"the {peer}'s certificate was refused: {check.Refusal}");
        },
    };

    private X509ChainPolicy CreatePolicy()
    {
        var policy = new X509ChainPolicy
        {
            RevocationMode = X509RevocationMode.NoCheck,
            // Fetching missing intermediates would block a pool thread on somebody else's web server.
            DisableCertificateDownloads = true,
        };
        if (_authorities is not null)
        {
            policy.TrustMode = X509ChainTrustMode.CustomRootTrust;
            policy.CustomTrustStore.AddRange(_authorities);
        }

        return policy;
    }

    private static X509Certificate2Collection Load(string file)
    {
        var authorities = new X509Certificate2Collection();
        try
        {
            authorities.ImportFromPemFile(file);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or CryptographicException)
        {
            throw new CertificateFileException($"cannot read trusted certificates from '{file}': {e.Message}", e);
        }

        if (authorities.Count == 0)
            throw new CertificateFileException($"'{file}' holds no certificate: expected PEM with at least one BEGIN CERTIFICATE block", null);
        return authorities;
    }
}

/// <summary>A file of trusted certificates cannot be used.</summary>
internal sealed class CertificateFileException(string message, Exception? inner) : Exception(message, inner);

/// <summary>The certificate check of one handshake.</summary>
internal sealed class CertificateCheck(string peer, string remedy, TimeProvider timeProvider, bool insecure)
{
    /// <summary>Whether the handshake came as far as a certificate.</summary>
    public bool Reached { get; private set; }

    /// <summary>Why the certificate was refused; null if it was not.</summary>
    public string? Refusal { get; private set; }

    /// <summary>Decides, and remembers why.</summary>
    public bool Accepts(object sender, X509Certificate? certificate, X509Chain? chain, SslPolicyErrors errors)
    {
        Reached = true;
        if (errors == SslPolicyErrors.None || insecure)
            return true;

        var host = (sender as SslStream)?.TargetHostName ?? "";
        Refusal = string.Join("; ", Reasons(host, certificate as X509Certificate2, chain, errors));
        return false;
    }

    private IEnumerable<string> Reasons(string host, X509Certificate2? certificate, X509Chain? chain, SslPolicyErrors errors)
    {
        if (certificate is null || errors.HasFlag(SslPolicyErrors.RemoteCertificateNotAvailable))
        {
            yield return $"the {peer} sent no certificate";
            yield break;
        }

        if (errors.HasFlag(SslPolicyErrors.RemoteCertificateNameMismatch))
            yield return $"it is for {Names(certificate)}, not for '{host}'";
        if (!errors.HasFlag(SslPolicyErrors.RemoteCertificateChainErrors) || chain is null)
            yield break;

        foreach (var status in chain.ChainStatus)
            yield return Describe(status, certificate, chain);
    }

    private string Describe(X509ChainStatus status, X509Certificate2 certificate, X509Chain chain)
    {
        switch (status.Status)
        {
            case X509ChainStatusFlags.NotTimeValid:
                var now = timeProvider.GetUtcNow();
                var late = chain.ChainElements
                    .Select(element => element.Certificate)
                    .FirstOrDefault(link => now > link.NotAfter || now < link.NotBefore, certificate);
                var whose = late.Equals(certificate) ? "it" : $"the certificate of its issuer '{late.Subject}'";
                return now < late.NotBefore
                    ? $"{whose} is not valid before {Date(late.NotBefore)}"
                    : $"{whose} expired on {Date(late.NotAfter)}";
            case X509ChainStatusFlags.UntrustedRoot or X509ChainStatusFlags.PartialChain:
                var what = certificate.Subject == certificate.Issuer
                    ? $"it is self-signed ('{certificate.Subject}') and not trusted"
                    : $"its issuer '{certificate.Issuer}' is not trusted";
                return $"{what} (to trust it: {remedy})";
            default:
                return $"{status.Status}: {status.StatusInformation.Trim()}";
        }
    }

    private static string Date(DateTime time) =>
        time.ToUniversalTime().ToString("yyyy-MM-dd HH:mm:ss'Z'", CultureInfo.InvariantCulture);

    private static string Names(X509Certificate2 certificate)
    {
        var names = certificate.Extensions.OfType<X509SubjectAlternativeNameExtension>()
            .SelectMany(extension => extension.EnumerateDnsNames()
                .Concat(extension.EnumerateIPAddresses().Select(address => address.ToString())))
            .Select(name => $"'{name}'")
            .ToList();
        return names.Count == 0 ? $"'{certificate.Subject}' without any host name" : string.Join(", ", names);
    }
}
