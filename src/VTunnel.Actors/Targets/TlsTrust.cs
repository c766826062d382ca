using System.Globalization;
using System.Net.Security;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using VTunnel.Options;

namespace VTunnel.Targets;

/// <summary>Turns <see cref="TlsTrustOptions"/> into checks of one handshake, and failed checks into words.</summary>
internal sealed class TlsTrust
{
    private readonly X509Certificate2Collection? _authorities;
    private readonly bool _insecure;

    /// <summary>Reads the file of trusted certificates, if one is named.</summary>
    /// <exception cref="TargetException">The file cannot be read or holds no certificate.</exception>
    public TlsTrust(TlsTrustOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        _insecure = options.Insecure;
        if (options.CertificateAuthorityFile is { } file)
            _authorities = Load(file);
    }

    /// <summary>The options of a handshake with <paramref name="host"/>; <paramref name="check"/> knows afterwards what was wrong.</summary>
    public SslClientAuthenticationOptions CreateOptions(string host, DateTimeOffset now, out CertificateCheck check)
    {
        // The dot that ends an absolute name is for the resolver; certificates are without.
        host = host.TrimEnd('.');
        check = new CertificateCheck(host, now, _insecure);
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

        return new SslClientAuthenticationOptions
        {
            TargetHost = host,
            CertificateChainPolicy = policy,
            RemoteCertificateValidationCallback = check.Accepts,
        };
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
            throw new TargetException(
                TargetError.CertificateAuthorityFileInvalid, $"cannot read trusted certificates from '{file}': {e.Message}", e);
        }

        if (authorities.Count == 0)
        {
            throw new TargetException(
                TargetError.CertificateAuthorityFileInvalid,
                $"'{file}' holds no certificate: expected PEM with at least one BEGIN CERTIFICATE block");
        }

        return authorities;
    }
}

/// <summary>The certificate check of one handshake.</summary>
internal sealed class CertificateCheck(string host, DateTimeOffset now, bool insecure)
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

        Refusal = string.Join("; ", Reasons(certificate as X509Certificate2, chain, errors));
        return false;
    }

    private IEnumerable<string> Reasons(X509Certificate2? certificate, X509Chain? chain, SslPolicyErrors errors)
    {
        if (certificate is null || errors.HasFlag(SslPolicyErrors.RemoteCertificateNotAvailable))
        {
            yield return "the target sent no certificate";
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
                var late = chain.ChainElements
                    .Select(element => element.Certificate)
                    .FirstOrDefault(link => now > link.NotAfter || now < link.NotBefore, certificate);
                var whose = late.Equals(certificate) ? "it" : $"the certificate of its issuer '{late.Subject}'";
                return now < late.NotBefore
                    ? $"{whose} is not valid before {Date(late.NotBefore)}"
                    : $"{whose} expired on {Date(late.NotAfter)}";
            case X509ChainStatusFlags.UntrustedRoot or X509ChainStatusFlags.PartialChain:
                return certificate.Subject == certificate.Issuer
                    ? $"it is self-signed ('{certificate.Subject}') and not trusted"
                    : $"its issuer '{certificate.Issuer}' is not trusted";
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
