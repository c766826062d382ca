using System.Formats.Asn1;
using System.Net;
using System.Numerics;
using System.Security.Cryptography.X509Certificates;
using Microsoft.Extensions.Time.Testing;
using VTunnel.Actors.Tests.Testing;
using VTunnel.Proxy;
using VTunnel.Routing;
using VTunnel.Testing;
using VTunnel.Testing.Programs;
using VTunnel.Tls;

namespace VTunnel.Actors.Tests.Tls;

/// <summary>What an authority with constraints can speak for, as the system's check of chains sees it, and OpenSSL's.</summary>
public sealed class CertificateAuthorityTests
{
    private readonly FakeTimeProvider _time = new(TimeProvider.System.GetUtcNow());

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
    [InlineData("fd00::1", "fd00::1", true)]
    [InlineData("fd00::1", "10.9.8.7", false)]
    [InlineData("fd00::1", "www.example.com", false)]
    [InlineData("10.9.8.7 fd00::1", "10.9.8.7", true)]
    [InlineData("10.9.8.7 fd00::1", "fd00::1", true)]
    [InlineData("10.9.8.7 fd00::1", "www.example.com", false)]
    [InlineData("corp.test 10.9.8.7", "a.corp.test", true)]
    [InlineData("corp.test 10.9.8.7", "10.9.8.7", true)]
    [InlineData("corp.test 10.9.8.7", "fd00::1", false)]
    [InlineData("corp.test 10.9.8.7", "www.example.com", false)]
    public async Task An_authority_with_constraints_speaks_for_what_they_name_and_nothing_else(string constraints, string host, bool expected)
    {
        using var authority = Create(constraints);
        using var mint = new CertificateMint(authority, _time);
        var leaf = mint.For(host).TargetCertificate;
        using var chain = new X509Chain();
        chain.ChainPolicy.TrustMode = X509ChainTrustMode.CustomRootTrust;
        chain.ChainPolicy.CustomTrustStore.Add(authority);
        chain.ChainPolicy.RevocationMode = X509RevocationMode.NoCheck;
        Assert.Equal(expected, chain.Build(leaf));
        Assert.Equal(expected, await OpenSslTrustsAsync(authority, leaf, host));
    }

    [Theory]
    [InlineData("corp.test", "0.0.0.0/0 ::/0")]
    [InlineData("10.9.8.7", "DNS: ::/0")]
    [InlineData("fd00::1", "DNS: 0.0.0.0/0")]
    [InlineData("10.9.8.7 fd00::1", "DNS:")]
    [InlineData("corp.test 10.9.8.7", "::/0")]
    [InlineData("corp.test 10.9.8.7 fd00::1", "")]
    public void What_has_no_constraint_of_its_type_is_excluded_as_a_whole(string constraints, string excluded)
    {
        using var authority = Create(constraints);
        Assert.Equal(excluded, string.Join(' ', Excluded(authority)));
    }

    private static IEnumerable<string> Excluded(X509Certificate2 authority)
    {
        var extension = authority.Extensions.Single(each => each.Oid?.Value == "2.5.29.30");
        Assert.True(extension.Critical);
        var reader = new AsnReader(extension.RawData, AsnEncodingRules.DER).ReadSequence();
        reader.ReadSequence(new Asn1Tag(TagClass.ContextSpecific, 0));
        if (!reader.HasData)
            yield break;
        for (var subtrees = reader.ReadSequence(new Asn1Tag(TagClass.ContextSpecific, 1)); subtrees.HasData;)
        {
            var subtree = subtrees.ReadSequence();
            if (subtree.PeekTag().TagValue == 2)
            {
                yield return "DNS:" + subtree.ReadCharacterString(UniversalTagNumber.IA5String, new Asn1Tag(TagClass.ContextSpecific, 2));
                continue;
            }

            var bytes = subtree.ReadOctetString(new Asn1Tag(TagClass.ContextSpecific, 7));
            var (address, mask) = (bytes[..(bytes.Length / 2)], bytes[(bytes.Length / 2)..]);
            yield return $"{new IPAddress(address)}/{mask.Sum(each => BitOperations.PopCount(each))}";
        }
    }

    private X509Certificate2 Create(string constraints) =>
        CertificateAuthority.Create("test", [.. constraints.Split(' ').Select(Pattern)], _time.GetUtcNow(), TimeSpan.FromDays(30));

    private static HostPattern Pattern(string text) =>
        HostPattern.TryParse(text, out var pattern, out var problem) ? pattern : throw new ArgumentException(problem);

    /// <summary>The cases run one after the other, so the first one installs it if need be.</summary>
    private static async Task EnsureOpenSslAsync()
    {
        if (Environment.GetEnvironmentVariable("PATH")!.Split(Path.PathSeparator).Any(folder => File.Exists(Path.Combine(folder, "openssl"))))
            return;
        await using var script = RunningProgram.Start("bash", [Path.Combine(RepositoryFiles.Root, "build", "install-test-dependencies.sh")]);
        var exitCode = await script.WaitForExitAsync(TestTimeouts.Long);
        Assert.True(exitCode == 0, script.Output.Text());
    }

    private static async Task<bool> OpenSslTrustsAsync(X509Certificate2 authority, X509Certificate2 leaf, string host)
    {
        await EnsureOpenSslAsync();
        using var folder = new TempDirectory();
        var check = IPAddress.TryParse(host, out _) ? "-verify_ip" : "-verify_hostname";
        string[] arguments =
        [
            "verify", "-CAfile", folder.Write("ca.pem", authority.ExportCertificatePem()), check, host,
            folder.Write("leaf.pem", leaf.ExportCertificatePem()),
        ];
        await using var program = RunningProgram.Start("openssl", arguments);
        return await program.WaitForExitAsync() == 0;
    }
}
