using System.Net;
using VTunnel.Routing;

namespace VTunnel.Actors.Tests.Routing;

public sealed class RouteTableTests
{
    private static RouteTable<string> Table(params string[] patterns) => new(patterns.SelectMany(text =>
    {
        Assert.True(HostPattern.TryParse(text, out var pattern, out var problem), problem);
        return ForwardRule.PortsOf(pattern).Select(port => (pattern, port, text));
    }));

    private static string? Find(RouteTable<string> table, string host, int port = 443)
    {
        Assert.True(HostName.TryNormalize(host, out var normalized), host);
        return table.TryFind(normalized, port, out var route) ? route : null;
    }

    [Theory]
    [InlineData("gitlab.corp", "gitlab.corp")]
    [InlineData("GitLab.CORP.", "gitlab.corp")]
    [InlineData("x.gitlab.corp", "*.corp")]
    [InlineData("a.example.test", "*.example.test")]
    [InlineData("a.b.example.test", "*.example.test")]
    [InlineData("a.deep.example.test", "*.deep.example.test")]
    [InlineData("deep.example.test", "*.example.test")]
    [InlineData("example.test", null)]
    [InlineData("notexample.test", null)]
    [InlineData("mail.anything.org", "mail.*")]
    [InlineData("mail.google.com", "mail.google.*")]
    [InlineData("mail.example.test", "*.example.test")]
    [InlineData("mail", null)]
    [InlineData("hotmail.com", null)]
    [InlineData("bücher.test", "bücher.test")]
    [InlineData("xn--bcher-kva.test", "bücher.test")]
    [InlineData("BÜCHER.test.", "bücher.test")]
    [InlineData("10.0.0.5", "10.0.0.5")]
    [InlineData("[2001:db8:0::1]", "[2001:db8::1]")]
    [InlineData("::ffff:10.0.0.5", "10.0.0.5")]
    [InlineData("other.org", null)]
    public void A_host_takes_the_most_particular_route(string host, string? expected) =>
        Assert.Equal(expected, Find(
            Table("mail.*", "*.test2", "*.corp", "gitlab.corp", "*.example.test", "*.deep.example.test", "mail.google.*", "bücher.test", "10.0.0.5", "[2001:db8::1]"),
            host));

    [Fact]
    public void A_pattern_without_a_port_means_80_and_443_and_one_with_a_port_that_port_alone()
    {
        var table = Table("a.test", "b.test:8080");
        Assert.Equal(3, table.Count);
        Assert.All([80, 443], port => Assert.Equal("a.test", Find(table, "a.test", port)));
        Assert.Null(Find(table, "a.test", 8080));
        Assert.Equal("b.test:8080", Find(table, "b.test", 8080));
        Assert.Null(Find(table, "b.test", 443));
    }

    [Fact]
    public void A_route_for_the_port_beats_a_more_particular_name_for_another_port()
    {
        var table = Table("*.test:8443", "a.test");
        Assert.Equal("*.test:8443", Find(table, "a.test", 8443));
    }

    [Fact]
    public void Of_two_entries_that_mean_the_same_the_later_counts()
    {
        Assert.True(HostPattern.TryParse("a.test", out var pattern, out _));
        var table = new RouteTable<string>([(pattern, 443, "older"), (pattern, 443, "newer")]);
        Assert.Equal("newer", Find(table, "a.test"));
        Assert.Equal(1, table.Count);
    }

    [Theory]
    [InlineData("")]
    [InlineData(".")]
    [InlineData("a..b")]
    [InlineData("-a.test")]
    [InlineData("a b")]
    [InlineData("[1.2.3.4")]
    [InlineData("a:b:c")]
    [InlineData("a/b")]
    [InlineData("a@b")]
    public void What_is_no_host_is_not_taken_for_one(string text) => Assert.False(HostName.TryNormalize(text, out _));

    [Theory]
    [InlineData("127.0.0.1", "this machine itself")]
    [InlineData("127.255.255.254", "this machine itself")]
    [InlineData("0.0.0.0", "this machine itself")]
    [InlineData("0.1.2.3", "this machine itself")]
    [InlineData("::1", "this machine itself")]
    [InlineData("::", "this machine itself")]
    [InlineData("::ffff:127.0.0.1", "this machine itself")]
    [InlineData("::127.0.0.1", "this machine itself")]
    [InlineData("64:ff9b::7f00:1", "this machine itself")]
    [InlineData("2002:7f00:1::", "this machine itself")]
    [InlineData("169.254.169.254", "a link-local address")]
    [InlineData("::ffff:169.254.169.254", "a link-local address")]
    [InlineData("64:ff9b::a9fe:a9fe", "a link-local address")]
    [InlineData("fe80::1", "a link-local address")]
    [InlineData("fe80::1%2", "a link-local address")]
    [InlineData("fd00:ec2::254", "a metadata service")]
    [InlineData("fd00:ec2::23", "a metadata service")]
    [InlineData("64:ff9b:1::a9fe:a9fe", "a link-local address")]
    [InlineData("64:ff9b:1:8:5:7:7f00:1", "this machine itself")]
    [InlineData("64:ff9b:1:a9fe:a9:fe00::", "a link-local address")]
    [InlineData("64:ff9b:1:7f:0:100:505:505", "this machine itself")]
    [InlineData("64:ff9b:1:a9fe:a9:fe00:505:505", "a link-local address")]
    [InlineData("64:ff9b:1::", "this machine itself")]
    [InlineData("64:ff9b:1:5:a9:fea9:fe00:0", "a link-local address")]
    [InlineData("::ffff:0:127.0.0.1", "this machine itself")]
    [InlineData("100.100.100.200", "a metadata service")]
    [InlineData("168.63.129.16", "a metadata service")]
    [InlineData("224.0.0.1", "a multicast address")]
    [InlineData("ff02::1", "a multicast address")]
    [InlineData("10.0.0.1", null)]
    [InlineData("8.8.8.8", null)]
    [InlineData("2001:db8::1", null)]
    [InlineData("64:ff9b::808:808", null)]
    [InlineData("64:ff9b:1::808:808", null)]
    [InlineData("64:ff9b:1:808:8:800::", null)]
    [InlineData("64:ff9b:2::7f00:1", null)]
    [InlineData("::ffff:0:8.8.8.8", null)]
    [InlineData("fd00:ec3::254", null)]
    public void Addresses_of_the_machine_itself_and_of_its_cloud_are_told_apart(string address, string? expected) =>
        Assert.Equal(expected, AddressGuard.Reason(IPAddress.Parse(address)));

    [Theory]
    [InlineData("127.1")]
    [InlineData("2130706433")]
    [InlineData("0x7f000001")]
    [InlineData("0177.0.0.1")]
    public void A_number_that_the_resolver_would_take_is_an_address_and_no_name(string host) =>
        Assert.Equal("this machine itself", AddressGuard.Reason(HostName.AddressOf(host)!));
}
