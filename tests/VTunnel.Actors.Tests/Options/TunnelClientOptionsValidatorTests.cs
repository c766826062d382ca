using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using VTunnel.Options;
using VTunnel.Routing;

namespace VTunnel.Actors.Tests.Options;

public sealed class TunnelClientOptionsValidatorTests
{
    private static readonly TunnelClientOptions Valid = new()
    {
        Server = new Uri("wss://tunnel.example.com/"),
        Forwards = [ForwardRule.Parse("9000=localhost:3000")],
    };

    private static IEnumerable<string> Check(TunnelClientOptions options) =>
        TunnelClientOptionsValidator.Check(options).Select(fault => fault.ToString());

    [Fact]
    public void A_server_is_all_that_is_needed()
    {
        Assert.Empty(Check(new TunnelClientOptions { Server = new Uri("ws://host/") }));
        Assert.Equal(["Server: the URL of the server is needed, such as wss://tunnel.example.com/"], Check(new TunnelClientOptions()));
    }

    [Fact]
    public void Everything_that_is_wrong_is_told_at_once_with_key_and_value()
    {
        var options = Valid with
        {
            Protocol = (ProtocolPreference)9,
            PingInterval = TimeSpan.FromHours(25),
            ReconnectMin = TimeSpan.Zero,
            ReconnectMax = TimeSpan.FromSeconds(-1),
            StableAfter = TimeSpan.FromSeconds(-1),
            ConnectTimeout = TimeSpan.Zero,
            TargetConnectTimeout = TimeSpan.Zero,
            DrainTimeout = TimeSpan.FromSeconds(-1),
            MaxMessageBytes = 5,
            StreamBufferBytes = 5,
            MaxStreams = 0,
            ServerTls = null!,
        };

        var result = new TunnelClientOptionsValidator().Validate(null, options);

        Assert.Equal(
            [
                "TunnelClientOptions.Protocol '9': must be one of Auto, V1, V2",
                "TunnelClientOptions.PingInterval '25h': must be at most 24h; a negative one disables the ping",
                "TunnelClientOptions.ReconnectMin '0s': must be longer than 0s and at most 24h",
                "TunnelClientOptions.ReconnectMax '-1s': must be longer than 0s and at most 24h",
                "TunnelClientOptions.StableAfter '-1s': must be from 0s to 24h",
                "TunnelClientOptions.ConnectTimeout '0s': must be longer than 0s and at most 24h",
                "TunnelClientOptions.TargetConnectTimeout '0s': must be longer than 0s and at most 24h",
                "TunnelClientOptions.DrainTimeout '-1s': must be from 0s to 24h",
                "TunnelClientOptions.MaxMessageBytes '5': must be from 65536 to 67108864 bytes",
                "TunnelClientOptions.StreamBufferBytes '5': must be from 65536 to 1073741824 bytes",
                "TunnelClientOptions.MaxStreams '0': must be from 1 to 2147483647",
                "TunnelClientOptions.ServerTls: must not be null",
            ],
            result.Failures);
    }

    [Theory]
    [InlineData("ftp://host/", "Server 'ftp://host/': 'ftp' is not a scheme of a server; use ws:// or wss://, such as wss://tunnel.example.com/")]
    [InlineData("ws://user:hunter2@host/x", "Server 'ws://host/x': a user name in the URL is not sent; use a token, or a header of your own")]
    [InlineData("ws://host/?key=hunter2#part", "Server 'ws://host/': the part from '#' on is not sent; leave it out")]
    [InlineData("ws://host:0/", "Server 'ws://host:0/': the port must be from 1 to 65535")]
    [InlineData("/relative", "Server '/relative': a URL begins with ws:// or wss://, such as wss://tunnel.example.com/")]
    public void A_server_that_cannot_be_dialled_is_refused_and_secrets_in_it_are_not_repeated(string url, string expected) =>
        Assert.Equal([expected], Check(Valid with { Server = new Uri(url, UriKind.RelativeOrAbsolute) }));

    [Theory]
    [InlineData("ws://host")]
    [InlineData("wss://host:8443/tunnel?room=1")]
    [InlineData("http://127.0.0.1:3001")]
    [InlineData("https://[::1]/")]
    public void A_server_may_be_given_by_any_of_the_four_schemes(string url) => Assert.Empty(Check(Valid with { Server = new Uri(url) }));

    [Fact]
    public void Each_remote_port_has_one_target()
    {
        var options = Valid with
        {
            Forwards =
            [
                ForwardRule.Parse("9000=localhost:3000"),
                ForwardRule.Parse("9001=localhost:3000"),
                ForwardRule.Parse("9000=tls://other.example"),
                new ForwardRule(0, new ForwardTarget(TargetScheme.Tcp, "a b", 70000)),
            ],
        };
        Assert.Equal(
            [
                "Forwards '9000=tls://other.example:443': port 9000 already leads to localhost:3000; give each port one target",
                "Forwards '0=a b:70000': the server's port is 0; it must be from 1 to 65535",
                "Forwards '0=a b:70000': the target's port is 70000; it must be from 1 to 65535",
                "Forwards '0=a b:70000': 'a b' is not a host name; use letters, digits, hyphens and dots, such as app.internal",
            ],
            Check(options));
    }

    [Theory]
    [InlineData("Bad Name", "x", "the name of a header")]
    [InlineData("", "x", "the name of a header")]
    [InlineData("X-Split", "hunter2\r\nEvil: 1", "the value of a header consists of visible ASCII")]
    [InlineData("Upgrade", "x", "the WebSocket handshake sets this header itself")]
    [InlineData("connection", "x", "the WebSocket handshake sets this header itself")]
    [InlineData("Sec-WebSocket-Key", "x", "the WebSocket handshake sets this header itself")]
    public void A_header_that_would_break_the_handshake_is_refused_and_its_value_not_repeated(string name, string value, string expected)
    {
        var fault = Assert.Single(TunnelClientOptionsValidator.Check(Valid with { Headers = [new(name, value)] }));
        Assert.Equal(("Headers", name), (fault.Key, fault.Value));
        Assert.Contains(expected, fault.Problem, StringComparison.Ordinal);
        Assert.DoesNotContain("hunter2", fault.Problem, StringComparison.Ordinal);
    }

    [Fact]
    public void A_token_and_an_authorization_header_exclude_each_other()
    {
        var header = Valid with { Headers = [new("authorization", "Basic eA==")] };
        Assert.Empty(Check(header));
        Assert.Equal(
            ["Headers 'authorization': the token is sent in this header; give the token or the header, not both"],
            Check(header with { Token = new Secret("abc") }));
    }

    [Theory]
    [InlineData("")]
    [InlineData("two words")]
    [InlineData("line\nbreak")]
    [InlineData("p\u00e4ss")]
    public void A_token_that_a_header_cannot_carry_is_refused_and_not_repeated(string token) =>
        Assert.Equal(["Token: a token consists of letters, digits and -._~+/= only"], Check(Valid with { Token = new Secret(token) }));

    [Fact]
    public void The_shortest_wait_is_at_most_the_longest() =>
        Assert.Equal(
            ["ReconnectMin '10s': the shortest wait before reconnecting must be at most the longest, which is 5s"],
            Check(Valid with { ReconnectMin = TimeSpan.FromSeconds(10) }));

    [Theory]
    [InlineData(-1)]
    [InlineData(0)]
    public void A_ping_interval_that_is_not_positive_disables(int seconds) =>
        Assert.Empty(Check(Valid with { PingInterval = TimeSpan.FromSeconds(seconds) }));

    [Fact]
    public void A_file_of_authorities_must_exist_and_hold_certificates()
    {
        var folder = Directory.CreateTempSubdirectory("vtunnel-");
        try
        {
            string Write(string name, string text)
            {
                var path = Path.Combine(folder.FullName, name);
                File.WriteAllText(path, text);
                return path;
            }

            using var key = ECDsa.Create();
            using var certificate = new CertificateRequest("CN=test", key, HashAlgorithmName.SHA256)
                .CreateSelfSigned(DateTimeOffset.UnixEpoch, DateTimeOffset.UnixEpoch.AddYears(100));
            var good = Write("good.pem", certificate.ExportCertificatePem());
            var empty = Write("empty.pem", "nothing");
            var broken = Write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
            var missing = Path.Combine(folder.FullName, "missing.pem");

            IEnumerable<string> Trust(string file, bool insecure = false) =>
                Check(Valid with { TargetTls = new TlsTrustOptions { CertificateAuthorityFile = file, Insecure = insecure } });
            const string key2 = "TargetTls.CertificateAuthorityFile";

            Assert.Empty(Trust(good));
            Assert.Equal([$"{key2} '{good}': certificates are checked against this file or not at all; give one of the two options"], Trust(good, insecure: true));
            Assert.Equal([$"{key2} '{empty}': no certificate in this file; it must be PEM, with '-----BEGIN CERTIFICATE-----'"], Trust(empty));
            Assert.Equal([$"{key2} '{broken}': not a certificate that can be read; the file must be PEM, with '-----BEGIN CERTIFICATE-----'"], Trust(broken));
            Assert.Equal([$"{key2} '{missing}': there is no such file"], Trust(missing));
            Assert.Equal([$"{key2} '{folder.FullName}': this is a folder; a file is needed"], Trust(folder.FullName));
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    [Fact]
    public void What_is_null_in_options_is_a_fault_and_no_crash()
    {
        var target = new ForwardTarget(TargetScheme.Tcp, "a.test", 1);
        Assert.Equal(
            [
                "Forwards: a forward is null; leave it out",
                "Forwards: a domain has no name; read one with HostPattern.TryParse",
                "Forwards '1': the target is missing; give a host and a port, such as localhost:3000",
                "Forwards '2': the target is missing; give a host and a port, such as localhost:3000",
                "Forwards '3=a.test:1': a list of headers is needed; it may be empty",
                "Forwards '4=a.test:1': a header is null; leave it out",
                "Forwards '5=a.test:1 -H ': the name of a header consists of letters, digits and hyphens; write 'Name: value'",
                "Forwards '6=a.test:1 -H X': the value of a header consists of visible ASCII characters and blanks",
                "Headers: the name of a header consists of letters, digits and hyphens; write 'Name: value'",
                "Headers 'X': the value of a header consists of visible ASCII characters and blanks",
                "Token: a token consists of letters, digits and -._~+/= only",
            ],
            Check(Valid with
            {
                Forwards =
                [
                    null!,
                    new ForwardRule(0, target) { Domain = new HostPattern(HostPatternKind.Exact, null!, null) },
                    new ForwardRule(1, null!),
                    new ForwardRule(2, target with { Host = null! }),
                    new ForwardRule(3, target) { Headers = null! },
                    new ForwardRule(4, target) { Headers = [null!] },
                    new ForwardRule(5, target) { Headers = [new InjectedHeader(null!, "x")] },
                    new ForwardRule(6, target) { Headers = [new InjectedHeader("X", null!)] },
                ],
                Headers = [KeyValuePair.Create<string, string>(null!, "x"), KeyValuePair.Create<string, string>("X", null!)],
                Token = new Secret(null!),
            }));
    }

    [Fact]
    public void A_forward_has_a_scheme_that_there_is_and_a_domain_in_the_form_in_which_hosts_are_compared() =>
        Assert.Equal(
            [
                "Forwards '1=a.test:1': the scheme is 77; it must be one of Tcp, Tls",
                "Forwards 'Web.Test=a.test:1': 'Web.Test' is not in the form in which hosts are compared; write 'web.test'",
            ],
            Check(Valid with
            {
                Forwards =
                [
                    new ForwardRule(1, new ForwardTarget((TargetScheme)77, "a.test", 1)),
                    new ForwardRule(0, new ForwardTarget(TargetScheme.Tcp, "a.test", 1)) { Domain = new HostPattern(HostPatternKind.Exact, "Web.Test", null) },
                ],
            }));
}
