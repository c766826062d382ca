using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using VTunnel.Options;

namespace VTunnel.EndToEnd.Tests.Support;

/// <summary>An authority for a proxy that ends TLS, where a test is not about <c>vtunnel ca create</c>.</summary>
internal sealed class TestAuthority : IDisposable
{
    private readonly X509Certificate2 _certificate;

    public TestAuthority()
    {
        var now = TimeProvider.System.GetUtcNow();
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest("CN=VTunnel test interception", key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, false, 0, true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.KeyCertSign, true));
        request.CertificateExtensions.Add(new X509SubjectKeyIdentifierExtension(request.PublicKey, false));
        _certificate = request.CreateSelfSigned(now.AddDays(-1), now.AddDays(1));
    }

    /// <summary>Has a proxy end the TLS of forwarded domains.</summary>
    public void Use(ProxyOptions options) => options.InterceptionAuthority = _certificate;

    public void Dispose() => _certificate.Dispose();
}
