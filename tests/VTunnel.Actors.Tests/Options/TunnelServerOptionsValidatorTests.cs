using System.Net;
using VTunnel.Access;
using VTunnel.Options;
using VTunnel.Routing;
using VTunnel.Tls;

namespace VTunnel.Actors.Tests.Options;

public sealed class TunnelServerOptionsValidatorTests
{
    [Fact]
    public void The_defaults_are_valid()
    {
        Assert.Empty(TunnelServerOptionsValidator.Check(new TunnelServerOptions()));
        Assert.True(new TunnelServerOptionsValidator().Validate(null, new TunnelServerOptions()).Succeeded);
    }

    [Fact]
    public void Everything_that_is_wrong_is_told_at_once_with_key_and_value()
    {
        var options = new TunnelServerOptions
        {
            ListenAddress = null!,
            Protocol = (ProtocolPreference)7,
            IdleTimeout = TimeSpan.Zero,
            ProbeTimeout = TimeSpan.FromSeconds(-1),
            HandshakeTimeout = TimeSpan.FromDays(2),
            DrainTimeout = TimeSpan.FromSeconds(-5),
            ListenRetryTimeout = TimeSpan.FromSeconds(-5),
            MaxMessageBytes = 1000,
            StreamBufferBytes = 1,
            MaxSessions = 0,
            MaxListenersPerSession = 65536,
            MaxStreamsPerSession = -1,
        };

        var result = new TunnelServerOptionsValidator().Validate(null, options);

        Assert.Equal(
            [
                "TunnelServerOptions.ListenAddress: an IP address is needed, such as 127.0.0.1",
                "TunnelServerOptions.Protocol '7': must be one of Auto, V1, V2",
                "TunnelServerOptions.IdleTimeout '0s': must be longer than 0s and at most 24h, or infinite (0 on the command line)",
                "TunnelServerOptions.ProbeTimeout '-1s': must be longer than 0s and at most 24h",
                "TunnelServerOptions.HandshakeTimeout '48h': must be longer than 0s and at most 24h",
                "TunnelServerOptions.DrainTimeout '-5s': must be from 0s to 24h",
                "TunnelServerOptions.ListenRetryTimeout '-5s': must be from 0s to 24h",
                "TunnelServerOptions.MaxMessageBytes '1000': must be from 65536 to 67108864 bytes",
                "TunnelServerOptions.StreamBufferBytes '1': must be from 65536 to 1073741824 bytes",
                "TunnelServerOptions.MaxSessions '0': must be from 1 to 2147483647",
                "TunnelServerOptions.MaxListenersPerSession '65536': must be from 1 to 65535",
                "TunnelServerOptions.MaxStreamsPerSession '-1': must be from 1 to 2147483647",
            ],
            result.Failures);
    }

    [Fact]
    public void Limits_may_be_at_their_bounds()
    {
        var options = new TunnelServerOptions
        {
            ListenAddress = IPAddress.IPv6Any,
            IdleTimeout = Timeout.InfiniteTimeSpan,
            DrainTimeout = TimeSpan.Zero,
            ListenRetryTimeout = TimeSpan.Zero,
            HandshakeTimeout = TimeSpan.FromHours(24),
            MaxMessageBytes = 64 * 1024 * 1024,
            MaxSessions = 1,
            MaxListenersPerSession = 65535,
            MaxStreamsPerSession = int.MaxValue,
        };
        Assert.Empty(TunnelServerOptionsValidator.Check(options));
    }

    [Fact]
    public void Tokens_need_names_of_their_own_whole_hashes_and_real_ports()
    {
        var alice = AccessTokens.EntryFor("alice", AccessTokens.Generate());
        var options = new TunnelServerOptions
        {
            Tokens =
            [
                alice,
                alice with { Name = "bob" },
                AccessTokens.EntryFor("alice", AccessTokens.Generate()),
                new AccessToken("short", new byte[31], []),
                new AccessToken(" ", new byte[32], []),
                AccessTokens.EntryFor("ranges", AccessTokens.Generate(), [new PortRange(0, 5), new PortRange(9, 8)]),
            ],
        };
        Assert.Equal(
            [
                "Tokens 'bob': the same token as 'alice'; leave one out",
                "Tokens 'alice': this name is given to two tokens; give each a name of its own",
                "Tokens 'short': the hash has 31 bytes; a SHA-256 has 32",
                "Tokens: a token has no name; give each a name of its own for the log",
                "Tokens 'ranges': the ports 0-5 are not a range within 1 to 65535",
                "Tokens 'ranges': the ports 9-8 are not a range within 1 to 65535",
            ],
            TunnelServerOptionsValidator.Check(options).Select(fault => fault.ToString()));
    }

    [Theory]
    [InlineData("https://app.example.com", true)]
    [InlineData("http://localhost:5173", true)]
    [InlineData("chrome-extension://abcdefghijklmnop", true)]
    [InlineData("https://app.example.com/", false)]
    [InlineData("https://app.example.com/path", false)]
    [InlineData("https://user@app.example.com", false)]
    [InlineData("https://app.example.com?x", false)]
    [InlineData("app.example.com", false)]
    [InlineData("localhost:5173", false)]
    [InlineData("*", false)]
    [InlineData("null", false)]
    [InlineData("", false)]
    public void An_origin_is_a_scheme_a_host_and_nothing_more(string origin, bool valid)
    {
        var faults = TunnelServerOptionsValidator.Check(new TunnelServerOptions { AllowedOrigins = [origin] });
        Assert.Equal(
            valid ? [] : [new OptionFault("AllowedOrigins", origin, "an origin is SCHEME://HOST[:PORT] and nothing after it, such as https://app.example.com")],
            faults);
    }

    [Fact]
    public void Lists_that_are_null_are_faults_and_no_crash()
    {
        var options = new TunnelServerOptions { Tokens = null!, AllowedOrigins = null! };
        Assert.Equal(["Tokens", "AllowedOrigins"], TunnelServerOptionsValidator.Check(options).Select(fault => fault.Key));
    }

    [Fact]
    public void What_is_null_in_lists_is_a_fault_and_no_crash()
    {
        var options = new TunnelServerOptions
        {
            Tokens = [null!, new AccessToken("a", new byte[32], null!)],
            AllowedOrigins = [null!],
            Proxy = new ProxyOptions
            {
                Address = null!,
                Credentials = [null!, new ProxyCredential("a", null!), new ProxyCredential(null!, new Secret("x")), new ProxyCredential("b", new Secret(null!))],
                Allowed = [null!, new HostPattern(HostPatternKind.Exact, null!, null)],
                Addresses = [null!, new HostAddress("a.test", null!), new HostAddress(null!, IPAddress.Loopback)],
                CertificateChain = null!,
            },
        };
        Assert.Equal(
            [
                "Tokens: a token is null; leave it out",
                "Tokens 'a': a list of ports is needed; an empty one means every port",
                "AllowedOrigins: an origin is SCHEME://HOST[:PORT] and nothing after it, such as https://app.example.com",
                "Proxy.Address: an IP address is needed, such as 127.0.0.1",
                "Proxy.Credentials: one of the list is null; leave it out",
                "Proxy.Credentials: the user 'a' has no password",
                "Proxy.Credentials: a user of the proxy has no name",
                "Proxy.Credentials: the user 'b' has no password",
                "Proxy.Allowed: one of the list is null; leave it out",
                "Proxy.Allowed: '' is neither a host name nor an address",
                "Proxy.Addresses: one of the list is null; leave it out",
                "Proxy.Addresses 'a.test=': the address is missing; give one, such as 10.0.0.5",
                "Proxy.Addresses '=127.0.0.1': '' is neither a host name nor an address",
                "Proxy.CertificateChain: a list is needed; it may be empty",
            ],
            TunnelServerOptionsValidator.Check(options).Select(fault => fault.ToString()));
    }

    [Fact]
    public void Lists_of_the_proxy_that_are_null_are_faults_and_no_crash()
    {
        var options = new TunnelServerOptions { Proxy = new ProxyOptions { Address = IPAddress.Any, Credentials = null!, Allowed = null!, Addresses = null! } };
        Assert.Equal(
            ["Proxy.Address", "Proxy.Credentials", "Proxy.Allowed", "Proxy.Addresses"],
            TunnelServerOptionsValidator.Check(options).Select(fault => fault.Key));
    }

    /// <summary>The first colon ends the name where it is sent: the user could never come in, and part of the name would be the password.</summary>
    [Fact]
    public void The_name_of_a_user_of_the_proxy_has_no_colon()
    {
        var options = new TunnelServerOptions { Proxy = new ProxyOptions { Credentials = [new ProxyCredential("a:b", new Secret("c"))] } };
        Assert.Equal(
            ["Proxy.Credentials: the user's name 'a:…' has a colon; it ends where the password begins"],
            TunnelServerOptionsValidator.Check(options).Select(fault => fault.ToString()));
    }

    /// <summary>They are compared as they are: in any other form they would never match.</summary>
    [Fact]
    public void Hosts_of_the_proxy_are_in_the_form_in_which_hosts_are_compared()
    {
        var options = new TunnelServerOptions
        {
            Proxy = new ProxyOptions
            {
                Allowed =
                [
                    new HostPattern(HostPatternKind.Exact, "Web.Test", null),
                    new HostPattern(HostPatternKind.Leading, "127.0.0.1", null),
                    new HostPattern(HostPatternKind.Exact, "web.test", 65536),
                    new HostPattern((HostPatternKind)9, "web.test", null),
                    new HostPattern(HostPatternKind.Exact, "::1", 80),
                ],
                Addresses = [new HostAddress("Web.Test", IPAddress.Loopback), new HostAddress("10.0.0.1", IPAddress.Loopback)],
            },
        };
        Assert.Equal(
            [
                "Proxy.Allowed 'Web.Test': 'Web.Test' is not in the form in which hosts are compared; write 'web.test'",
                "Proxy.Allowed '*.127.0.0.1': '127.0.0.1' is an address; a name is needed",
                "Proxy.Allowed 'web.test:65536': the port is 65536; it must be from 1 to 65535",
                "Proxy.Allowed 'web.test': 9 is no kind of a pattern; use HostPattern.TryParse",
                "Proxy.Addresses 'Web.Test=127.0.0.1': 'Web.Test' is not in the form in which hosts are compared; write 'web.test'",
                "Proxy.Addresses '10.0.0.1=127.0.0.1': '10.0.0.1' is an address; a name is needed",
            ],
            TunnelServerOptionsValidator.Check(options).Select(fault => fault.ToString()).Select(fault => fault.Replace("'web.test.*'", "'web.test'", StringComparison.Ordinal)));
    }

    [Fact]
    public void An_authority_that_has_expired_is_refused_with_its_day()
    {
        var made = TimeProvider.System.GetUtcNow() - TimeSpan.FromDays(30);
        using var expired = CertificateAuthority.Create("test", [], made, TimeSpan.FromDays(10));
        var options = new TunnelServerOptions { Proxy = new ProxyOptions { InterceptionAuthority = expired } };
        Assert.Equal(
            [$"Proxy.InterceptionAuthority: the authority expired on {expired.NotAfter.ToUniversalTime():yyyy-MM-dd}; make another with 'vtunnel ca create'"],
            TunnelServerOptionsValidator.Check(options).Select(fault => fault.ToString()));
    }
}
