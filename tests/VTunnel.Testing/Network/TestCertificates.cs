using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace VTunnel.Testing.Network;

/// <summary>A certificate authority of a test, and the certificate that it gave to <c>localhost</c> and <c>127.0.0.1</c>.</summary>
public sealed class TestCertificates : IDisposable
{
    private readonly TempDirectory _directory = new();

    /// <summary>Makes both and writes them down.</summary>
    /// <param name="hosts">Further names for the certificate.</param>
    public TestCertificates(params string[] hosts)
    {
        ArgumentNullException.ThrowIfNull(hosts);
        var now = TimeProvider.System.GetUtcNow();
        using var authorityKey = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var authorityRequest = new CertificateRequest("CN=VTunnel test authority", authorityKey, HashAlgorithmName.SHA256);
        authorityRequest.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, false, 0, true));
        authorityRequest.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.KeyCertSign, true));
        using var authority = authorityRequest.CreateSelfSigned(now.AddHours(-1), now.AddDays(1));

        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest("CN=localhost", key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(false, false, 0, true));
        request.CertificateExtensions.Add(new X509EnhancedKeyUsageExtension([new Oid("1.3.6.1.5.5.7.3.1")], false));
        var names = new SubjectAlternativeNameBuilder();
        names.AddDnsName("localhost");
        names.AddIpAddress(IPAddress.Loopback);
        foreach (var host in hosts)
            names.AddDnsName(host);
        request.CertificateExtensions.Add(names.Build());
        using var certificate = request.Create(authority, now.AddHours(-1), now.AddHours(12), RandomNumberGenerator.GetBytes(8));

        AuthorityFile = _directory.Write("ca.pem", authority.ExportCertificatePem() + "\n");
        CertificateFile = _directory.Write("cert.pem", certificate.ExportCertificatePem() + "\n");
        KeyFile = _directory.Write("key.pem", key.ExportPkcs8PrivateKeyPem() + "\n");
    }

    /// <summary>The server's certificate with its key.</summary>
    public X509Certificate2 Load() => X509Certificate2.CreateFromPemFile(CertificateFile, KeyFile);

    /// <summary>The authority's certificate, PEM.</summary>
    public string AuthorityFile { get; }

    /// <summary>The server's certificate, PEM.</summary>
    public string CertificateFile { get; }

    /// <summary>The server's key, PEM.</summary>
    public string KeyFile { get; }

    /// <inheritdoc />
    public void Dispose() => _directory.Dispose();
}
