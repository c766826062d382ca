using System.Net;
using VTunnel.Access;
using VTunnel.Options;

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
                "TunnelServerOptions.IdleTimeout '0s': must be longer than 0s and at most 24h",
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
}
