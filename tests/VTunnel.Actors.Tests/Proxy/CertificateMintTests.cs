using System.Net;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using Microsoft.Extensions.Time.Testing;
using VTunnel.Proxy;
using VTunnel.Routing;
using VTunnel.Tls;

namespace VTunnel.Actors.Tests.Proxy;

public sealed class CertificateMintTests : IDisposable
{
    private readonly FakeTimeProvider _time = new(TimeProvider.System.GetUtcNow());
    private readonly X509Certificate2 _authority;
    private readonly CertificateMint _mint;

    public CertificateMintTests()
    {
        Assert.True(HostPattern.TryParse("example.test", out var domain, out _));
        _authority = CertificateAuthority.Create("test", [domain], _time.GetUtcNow(), TimeSpan.FromDays(30));
        _mint = new CertificateMint(_authority, _time);
    }

    public void Dispose()
    {
        _mint.Dispose();
        _authority.Dispose();
    }

    private X509Certificate2 For(string host) => _mint.For(host).TargetCertificate;

    private bool IsTrusted(X509Certificate2 leaf)
    {
        using var chain = new X509Chain();
        chain.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
        chain.ChainPolicy.CustomTrustStore.Add(_authority);
        chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
        chain.ChainPolicy.VerificationTime = _time.GetUtcNow().LocalDateTime;
        return chain.Build(leaf);
    }

    [Fact]
    public void An_authority_that_has_expired_is_told_each_time()
    {
        For("a.example.test");
        _time.Advance(TimeSpan.FromDays(31));
        for (var i = 0; i < 2; i++)
        {
            foreach (var host in new[] { "a.example.test", "b.example.test" })
            {
                var e = Assert.Throws<AuthenticationException>(() => For(host));
                Assert.Contains("make another with 'vtunnel ca create'", e.Message, StringComparison.Ordinal);
            }
        }

        Assert.Equal(1, _mint.Count);
    }

    [Fact]
    public void A_host_gets_a_certificate_of_the_authority_for_its_name_alone()
    {
        var leaf = For("a.example.test");
        Assert.True(IsTrusted(leaf));
        Assert.True(leaf.MatchesHostname("a.example.test"));
        Assert.False(leaf.MatchesHostname("b.example.test"));
        Assert.True(leaf.HasPrivateKey);
    }

    [Theory]
    [InlineData("10.0.0.5")]
    [InlineData("2001:db8::1")]
    public void An_address_stands_in_the_certificate_as_an_address(string host)
    {
        var names = For(host).Extensions.OfType<X509SubjectAlternativeNameExtension>().Single();
        Assert.Equal([IPAddress.Parse(host)], names.EnumerateIPAddresses());
        Assert.Empty(names.EnumerateDnsNames());
    }

    [Theory]
    [InlineData("example.org")]
    [InlineData("10.0.0.5")]
    public void What_the_authority_is_constrained_from_is_not_trusted(string host) => Assert.False(IsTrusted(For(host)));

    [Fact]
    public void A_certificate_is_kept_until_half_of_its_life_is_over()
    {
        var first = For("a.example.test");
        Assert.Same(first, For("a.example.test"));
        _time.Advance(TimeSpan.FromDays(4));
        var second = For("a.example.test");
        Assert.NotSame(first, second);
        Assert.True(IsTrusted(second));
    }

    [Fact]
    public void The_longest_unused_hosts_are_forgotten_beyond_a_thousand()
    {
        var used = For("used.example.test");
        var unused = For("unused.example.test");
        for (var i = 0; i < 998; i++)
            For($"h{i}.example.test");
        Assert.Same(used, For("used.example.test"));
        For("one-more.example.test");
        Assert.Equal(1000, _mint.Count);
        Assert.Same(used, For("used.example.test"));
        Assert.NotSame(unused, For("unused.example.test"));
    }
}
