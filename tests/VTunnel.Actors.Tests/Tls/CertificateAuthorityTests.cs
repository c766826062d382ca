using System.Net;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using VTunnel.Routing;
using VTunnel.Tls;

namespace VTunnel.Actors.Tests.Tls;

/// <summary>What an authority with constraints can speak for, as the system's own check of chains sees it.</summary>
public sealed class CertificateAuthorityTests
{
    private static readonly DateTimeOffset Now = TimeProvider.System.GetUtcNow();

    [Theory]
    [InlineData("corp.test", "corp.test", true)]
    [InlineData("corp.test", "a.corp.test", true)]
    [InlineData("corp.test", "www.example.com", false)]
    [InlineData("corp.test", "10.9.8.7", false)]
    [InlineData("corp.test", "fd00::1", false)]
    [InlineData("10.9.8.7", "10.9.8.7", true)]
    [InlineData("10.9.8.7", "10.9.8.8", false)]
    [InlineData("10.9.8.7", "fd00::1", false)]
    [InlineData("10.9.8.7", "www.example.com", false)]
    [InlineData("corp.test 10.9.8.7", "a.corp.test", true)]
    [InlineData("corp.test 10.9.8.7", "10.9.8.7", true)]
    [InlineData("corp.test 10.9.8.7", "www.example.com", false)]
    public void An_authority_with_constraints_speaks_for_what_they_name_and_nothing_else(string constraints, string host, bool expected)
    {
        using var authority = CertificateAuthority.Create("test", [.. constraints.Split(' ').Select(Pattern)], Now, TimeSpan.FromDays(1));
        using var leaf = Sign(authority, host);
        using var chain = new X509Chain();
        chain.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
        chain.ChainPolicy.CustomTrustStore.Add(authority);
        chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
        Assert.Equal(expected, chain.Build(leaf));
    }

    private static HostPattern Pattern(string text) => HostPattern.TryParse(text, out var pattern, out var problem) ? pattern : throw new ArgumentException(problem);

    private static X509Certificate2 Sign(X509Certificate2 authority, string host)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest("CN=leaf", key, HashAlgorithmName.SHA256);
        var names = new SubjectAlternativeNameBuilder();
        if (IPAddress.TryParse(host, out var address))
            names.AddIpAddress(address);
        else
            names.AddDnsName(host);
        request.CertificateExtensions.Add(names.Build());
        return request.Create(authority, Now.AddMinutes(-1), Now.AddHours(1), [1, 2, 3]);
    }
}
