using VTunnel.Routing;

namespace VTunnel.Actors.Tests.Routing;

public sealed class ForwardRuleParsingTests
{
    [Theory]
    [InlineData("9000=localhost:3000", 9000, TargetScheme.Tcp, "localhost", 3000)]
    [InlineData("1=a:65535", 1, TargetScheme.Tcp, "a", 65535)]
    [InlineData("65535=10.0.0.1:1", 65535, TargetScheme.Tcp, "10.0.0.1", 1)]
    [InlineData("9000=tcp://db.internal:5432", 9000, TargetScheme.Tcp, "db.internal", 5432)]
    [InlineData("8085=tls://www.example.com:443", 8085, TargetScheme.Tls, "www.example.com", 443)]
    [InlineData("8085=tls://www.example.com", 8085, TargetScheme.Tls, "www.example.com", 443)]
    [InlineData("8085=TLS://www.example.com:8443", 8085, TargetScheme.Tls, "www.example.com", 8443)]
    [InlineData("9000=[::1]:3000", 9000, TargetScheme.Tcp, "::1", 3000)]
    [InlineData("9000=tls://[2001:db8::1]", 9000, TargetScheme.Tls, "2001:db8::1", 443)]
    [InlineData("9000=my_service:80", 9000, TargetScheme.Tcp, "my_service", 80)]
    [InlineData("9000=host.example.com.:80", 9000, TargetScheme.Tcp, "host.example.com.", 80)]
    [InlineData(" 9000 = localhost:3000 ", 9000, TargetScheme.Tcp, "localhost", 3000)]
    public void A_well_formed_forward_is_read(string text, int port, TargetScheme scheme, string host, int targetPort)
    {
        Assert.True(ForwardRule.TryParse(text, out var rule, out var problem), problem);
        Assert.Equal(new ForwardRule(port, new ForwardTarget(scheme, host, targetPort)), rule);
    }

    [Theory]
    [InlineData("9000=localhost:3000")]
    [InlineData("8085=tls://www.example.com:443")]
    [InlineData("9000=[2001:db8::1]:3000")]
    public void A_forward_prints_as_it_is_written(string text) => Assert.Equal(text, ForwardRule.Parse(text).ToString());

    [Theory]
    [InlineData(null, "a forward is PORT=HOST:PORT")]
    [InlineData("", "a forward is PORT=HOST:PORT")]
    [InlineData("9000", "a forward is PORT=HOST:PORT, such as 9000=localhost:3000")]
    [InlineData("9000:localhost:3000", "a forward is PORT=HOST:PORT")]
    [InlineData("=localhost:3000", "the server's port is missing before '='")]
    [InlineData("0=localhost:3000", "the server's port is 0; it must be from 1 to 65535")]
    [InlineData("65536=localhost:3000", "the server's port is 65536; it must be from 1 to 65535")]
    [InlineData("-1=localhost:3000", "the server's port is -1; it must be from 1 to 65535")]
    [InlineData("99999999999999999999=localhost:3000", "it must be from 1 to 65535")]
    [InlineData("app example.com=localhost:3000", "'app example.com' is neither a port nor a domain: 'app example.com' is neither a host name nor an address; write PORT=HOST:PORT")]
    [InlineData("*example.com=localhost:3000", "a wildcard stands for whole labels at one end of a name: *.example.test or mail.*")]
    [InlineData("a.*.com=localhost:3000", "a wildcard stands for whole labels at one end of a name")]
    [InlineData("*.a.*=localhost:3000", "a wildcard stands for whole labels at one end of a name")]
    [InlineData("*=localhost:3000", "a wildcard stands for whole labels at one end of a name")]
    [InlineData("*.0.0.1=localhost:3000", "neither")]
    [InlineData("app.example.com:0=localhost:3000", "the port '0' must be from 1 to 65535")]
    [InlineData("9000=", "the target is missing after '='")]
    [InlineData("9000=3000", "the target '3000' names no host; write HOST:PORT, such as localhost:3000")]
    [InlineData("9000=localhost", "the target 'localhost' has no port; write HOST:PORT, such as localhost:3000")]
    [InlineData("9000=tcp://localhost", "the target 'localhost' has no port")]
    [InlineData("9000=[::1]", "the target '[::1]' has no port; write HOST:PORT, such as [::1]:3000")]
    [InlineData("9000=localhost:", "the target's port is ''; it must be from 1 to 65535")]
    [InlineData("9000=localhost:0", "the target's port is '0'; it must be from 1 to 65535")]
    [InlineData("9000=localhost:70000", "the target's port is '70000'; it must be from 1 to 65535")]
    [InlineData("9000=localhost:http", "the target's port is 'http'")]
    [InlineData("9000=localhost:+80", "the target's port is '+80'")]
    [InlineData("9000=http://localhost:3000", "'http' is not a scheme of a target; use tcp://, tls:// or none")]
    [InlineData("9000=://localhost:3000", "'' is not a scheme of a target")]
    [InlineData("9000=tls://www.example.com/path", "has a path; a target is HOST:PORT")]
    [InlineData("9000=tls://www.example.com:443/", "has a path; a target is HOST:PORT")]
    [InlineData("9000=:3000", "the target names no host")]
    [InlineData("9000=tls://", "the target names no host")]
    [InlineData("9000=::1:3000", "an IPv6 address needs brackets; write [::1]:3000, or [::1:3000]:PORT if 3000 is a part of the address")]
    [InlineData("9000=::1:80000", "has too many colons; write HOST:PORT, and an IPv6 address in brackets")]
    [InlineData("9000=2001:db8::5", "an IPv6 address needs brackets; write [2001:db8::5]:PORT")]
    [InlineData("9000=2001:db8::c:ffff", "an IPv6 address needs brackets; write [2001:db8::c:ffff]:PORT")]
    [InlineData("9000=1:2:3:4:5:6:7:8:443", "an IPv6 address needs brackets; write [1:2:3:4:5:6:7:8]:443")]
    [InlineData("9000=::", "an IPv6 address needs brackets; write [::]:PORT")]
    [InlineData("9000=a:b:3000", "has too many colons")]
    [InlineData("9000=[::1:3000", "lacks the closing bracket")]
    [InlineData("9000=[localhost]:3000", "'localhost' in brackets is not an IPv6 address")]
    [InlineData("9000=[127.0.0.1]:3000", "'127.0.0.1' in brackets is not an IPv6 address")]
    [InlineData("9000=[::1]3000", "goes on after the bracket")]
    [InlineData("9000=256.0.0.1:80", "'256.0.0.1' is not an IPv4 address")]
    [InlineData("9000=10.1:80", "'10.1' is not an IPv4 address")]
    [InlineData("9000=010.0.0.1:80", "'010.0.0.1' is not an IPv4 address")]
    [InlineData("9000=local host:80", "'local host' is not a host name")]
    [InlineData("9000=-a.example:80", "'-a.example' is not a host name")]
    [InlineData("9000=a..b:80", "'a..b' is not a host name")]
    [InlineData("9000=b\u00fccher.example:80", "write the name in its xn-- form")]
    public void A_malformed_forward_is_refused_with_the_right_form(string? text, string expected)
    {
        Assert.False(ForwardRule.TryParse(text, out var rule, out var problem));
        Assert.Null(rule);
        Assert.Contains(expected, problem, StringComparison.Ordinal);
    }

    [Fact]
    public void A_password_before_the_host_is_refused_and_not_repeated()
    {
        Assert.False(ForwardRule.TryParse("9000=tcp://user:hunter2@db:5432", out _, out var problem));
        Assert.DoesNotContain("hunter2", problem, StringComparison.Ordinal);
        Assert.Contains("has a user name", problem, StringComparison.Ordinal);
    }

    [Fact]
    public void Names_longer_than_DNS_allows_are_refused()
    {
        var label = new string('a', 63);
        Assert.True(ForwardRule.TryParse($"1={label}:1", out _, out _));
        Assert.False(ForwardRule.TryParse($"1={label}a:1", out _, out _));
        Assert.True(ForwardRule.TryParse($"1={label}.{label}.{label}.{label[..61]}:1", out _, out _));
        Assert.False(ForwardRule.TryParse($"1={label}.{label}.{label}.{label[..62]}:1", out _, out _));
    }

    [Fact]
    public void Parse_throws_with_the_text_and_the_problem()
    {
        var error = Assert.Throws<FormatException>(() => ForwardRule.Parse("9000"));
        Assert.Equal("'9000': a forward is PORT=HOST:PORT, such as 9000=localhost:3000", error.Message);
    }
}
