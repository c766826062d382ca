using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace VTunnel.Bridge.Identity;

/// <summary>
/// A publisher's key and its self-signed certificate. The key is everything the publisher is: relays know it, consumers pin
/// it, and it issues the certificates of users.
/// </summary>
/// <remarks>
/// The dates in all these certificates are wide open: who may connect until when is in the publisher's own state, where it
/// can be changed at any time, and no machine's wrong clock can lock anyone in or out.
/// </remarks>
public sealed class PublisherIdentity : IDisposable
{
    private PublisherIdentity(X509Certificate2 certificate)
    {
        Certificate = certificate;
        Fingerprint = Keys.Fingerprint(certificate);
    }

    /// <summary>The certificate with its private key.</summary>
    public X509Certificate2 Certificate { get; }

    /// <summary>What consumers pin: see <see cref="Keys.Fingerprint(X509Certificate2)"/>.</summary>
    public string Fingerprint { get; }

    /// <summary>Makes a new one.</summary>
    public static PublisherIdentity Create()
    {
        using var key = Keys.Create();
        var request = new CertificateRequest(Keys.Name("vtunnel publisher"), key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, true, 0, true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.KeyCertSign | X509KeyUsageFlags.DigitalSignature, true));
        request.CertificateExtensions.Add(new X509SubjectKeyIdentifierExtension(request.PublicKey, false));
        using var signed = request.Create(
            request.SubjectName, X509SignatureGenerator.CreateForECDsa(key), Keys.NotBefore, Keys.NotAfter, Keys.SerialNumber());
        return new PublisherIdentity(signed.CopyWithPrivateKey(key));
    }

    /// <summary>Certificate and key in PEM, for a file that nobody else may read.</summary>
    public string ToPem()
    {
        using var key = Certificate.GetECDsaPrivateKey()!;
        return $"{Certificate.ExportCertificatePem()}\n{Keys.ExportPem(key)}\n";
    }

    /// <summary>Reads what <see cref="ToPem"/> wrote.</summary>
    /// <exception cref="CryptographicException">It is something else, or damaged.</exception>
    public static PublisherIdentity FromPem(string pem)
    {
        try
        {
            return new PublisherIdentity(X509Certificate2.CreateFromPem(pem, pem));
        }
        catch (ArgumentException e)
        {
            throw new CryptographicException("The key does not belong to the certificate.", e);
        }
    }

    /// <summary>A certificate for a user's public key.</summary>
    public X509Certificate2 Issue(string user, PublicKey key)
    {
        var request = new CertificateRequest(Keys.Name(user), key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(false, false, 0, true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.DigitalSignature, true));
        request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension([new Oid("1.3.6.1.5.5.7.3.2")], true));
        request.CertificateExtensions.Add(new X509SubjectKeyIdentifierExtension(request.PublicKey, false));
        using var issuer = Certificate.GetECDsaPrivateKey()!;
        return request.Create(
            Certificate.SubjectName, X509SignatureGenerator.CreateForECDsa(issuer), Keys.NotBefore, Keys.NotAfter, Keys.SerialNumber());
    }

    /// <summary>Signs for a purpose.</summary>
    public byte[] Sign(string purpose, ReadOnlySpan<byte> content)
    {
        using var key = Certificate.GetECDsaPrivateKey()!;
        return key.SignData(Keys.ForPurpose(purpose, content), HashAlgorithmName.SHA256);
    }

    /// <inheritdoc />
    public void Dispose() => Certificate.Dispose();
}
