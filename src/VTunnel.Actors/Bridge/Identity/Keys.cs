using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;

namespace VTunnel.Bridge.Identity;

/// <summary>Keys and certificates of the bridge: ECDSA on P-256, SHA-256, by the framework alone.</summary>
public static class Keys
{
    /// <summary>Dates in certificates mean nothing here, see <see cref="PublisherIdentity"/>; this one is merely far away.</summary>
    internal static readonly DateTimeOffset NotBefore = new(2020, 1, 1, 0, 0, 0, TimeSpan.Zero);

    internal static readonly DateTimeOffset NotAfter = new(9999, 12, 31, 0, 0, 0, TimeSpan.Zero);

    /// <summary>A new key.</summary>
    public static ECDsa Create() => ECDsa.Create(ECCurve.NamedCurves.nistP256);

    /// <summary>What a key is known by: the SHA-256 of its public part (SubjectPublicKeyInfo), in lower-case hex.</summary>
    public static string Fingerprint(X509Certificate2 certificate)
    {
        ArgumentNullException.ThrowIfNull(certificate);
        return Convert.ToHexStringLower(SHA256.HashData(certificate.PublicKey.ExportSubjectPublicKeyInfo()));
    }

    /// <inheritdoc cref="Fingerprint(X509Certificate2)"/>
    public static string Fingerprint(ECDsa key)
    {
        ArgumentNullException.ThrowIfNull(key);
        return Convert.ToHexStringLower(SHA256.HashData(key.ExportSubjectPublicKeyInfo()));
    }

    /// <summary>Whether a certificate was issued by an authority: its signature and constraints are checked, its dates are not.</summary>
    public static bool IsIssuedBy(X509Certificate2 certificate, X509Certificate2 authority)
    {
        using var chain = new X509Chain();
        chain.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
        chain.ChainPolicy.CustomTrustStore.Add(authority);
        chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
        chain.ChainPolicy.DisableCertificateDownloads = true;
        chain.ChainPolicy.VerificationFlags = X509VerificationFlags.IgnoreNotTimeValid;
        return chain.Build(certificate) && chain.ChainElements.Count == 2;
    }

    /// <summary>The key's private part in PEM (PKCS#8); with a passphrase it is encrypted (AES-256, PBKDF2 with SHA-256).</summary>
    public static string ExportPem(ECDsa key, string? passphrase = null)
    {
        ArgumentNullException.ThrowIfNull(key);
        return passphrase is null
            ? key.ExportPkcs8PrivateKeyPem()
            : key.ExportEncryptedPkcs8PrivateKeyPem(passphrase, new PbeParameters(PbeEncryptionAlgorithm.Aes256Cbc, HashAlgorithmName.SHA256, 600_000));
    }

    /// <summary>Reads what <see cref="ExportPem"/> wrote.</summary>
    /// <exception cref="CryptographicException">It is no key of the right kind, or the passphrase is wrong.</exception>
    public static ECDsa ImportPem(string pem, string? passphrase = null)
    {
        var key = ECDsa.Create();
        try
        {
            if (passphrase is null)
                key.ImportFromPem(pem);
            else
                key.ImportFromEncryptedPem(pem, passphrase);
            return key.KeySize == 256 ? key : throw new CryptographicException("The key is not on P-256.");
        }
        catch (ArgumentException e)
        {
            key.Dispose();
            throw new CryptographicException("There is no private key in this text.", e);
        }
        catch
        {
            key.Dispose();
            throw;
        }
    }

    internal static X500DistinguishedName Name(string commonName)
    {
        var name = new X500DistinguishedNameBuilder();
        name.AddCommonName(commonName);
        return name.Build();
    }

    internal static byte[] SerialNumber()
    {
        var serial = RandomNumberGenerator.GetBytes(16);
        serial[0] &= 0x7f;
        serial[0] |= 0x40;
        return serial;
    }

    /// <summary>Text that is signed or hashed begins with what it is for, so that nothing made for one purpose serves another.</summary>
    internal static byte[] ForPurpose(string purpose, ReadOnlySpan<byte> content) => [.. Encoding.ASCII.GetBytes(purpose), 0, .. content];
}
