using System.Net;
using System.Net.Sockets;
using VTunnel.Options;
using VTunnel.Proxy;
using VTunnel.Routing;
using VTunnel.Web;

namespace VTunnel.Actors.Tests.Proxy;

public sealed class DirectConnectorTests : IDisposable
{
    private readonly TcpListener _target = new(IPAddress.Loopback, 0);

    public DirectConnectorTests() => _target.Start();

    private int Port => ((IPEndPoint)_target.LocalEndpoint).Port;

    public void Dispose() => _target.Dispose();

    private static HostPattern Pattern(string text)
    {
        Assert.True(HostPattern.TryParse(text, out var pattern, out var problem), problem);
        return pattern;
    }

    private static async Task<string?> ProblemAsync(ProxyOptions options, string host, int port, Func<string, CancellationToken, Task<IPAddress[]>>? lookUp = null)
    {
        try
        {
            using var socket = await new DirectConnector(options, TimeProvider.System, lookUp).ConnectAsync(host, port, CancellationToken.None);
            return null;
        }
        catch (LegFailedException e)
        {
            return $"{e.Status}: {e.Message}";
        }
    }

    [Fact]
    public async Task The_machine_itself_is_refused_by_name_and_by_number()
    {
        var options = new ProxyOptions();
        foreach (var host in new[] { "localhost", "127.0.0.1", "127.1", "2130706433", "0x7f.1", "::1", "0.0.0.0", "::ffff:127.0.0.1" })
            Assert.StartsWith("403: ", await ProblemAsync(options, host, Port), StringComparison.Ordinal);
        Assert.StartsWith("403: ", await ProblemAsync(options, "169.254.169.254", 80), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("127.0.0.1", "this machine itself")]
    [InlineData("127.8.8.8", "this machine itself")]
    [InlineData("::1", "this machine itself")]
    [InlineData("::ffff:127.0.0.1", "this machine itself")]
    [InlineData("64:ff9b::7f00:1", "this machine itself")]
    [InlineData("169.254.169.254", "a link-local address")]
    [InlineData("::ffff:169.254.169.254", "a link-local address")]
    [InlineData("fe80::1", "a link-local address")]
    [InlineData("fd00:ec2::254", "a metadata service")]
    [InlineData("100.100.100.200", "a metadata service")]
    public async Task A_name_is_judged_by_its_addresses(string address, string what)
    {
        Task<IPAddress[]> LookUp(string host, CancellationToken cancellationToken) => Task.FromResult<IPAddress[]>([IPAddress.Parse(address)]);
        Assert.Equal($"403: innocent.test:{Port} is {what}, which the proxy does not connect to", await ProblemAsync(new ProxyOptions(), "innocent.test", Port, LookUp));

        // A wildcard lets the name through, and not wherever it may lead.
        Assert.StartsWith("403: ", await ProblemAsync(new ProxyOptions { Allowed = [Pattern("*.test")] }, "innocent.test", Port, LookUp), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_name_is_looked_up_once_and_only_its_harmless_addresses_are_dialled()
    {
        var asked = 0;
        Task<IPAddress[]> LookUp(string host, CancellationToken cancellationToken) =>
            Task.FromResult<IPAddress[]>(++asked == 1 ? [IPAddress.Loopback, IPAddress.Parse("192.0.2.1"), IPAddress.IPv6Loopback] : [IPAddress.Loopback]);

        // Nothing answers at that address; the listener at the others' port would.
        var problem = await ProblemAsync(new ProxyOptions { ConnectTimeout = TimeSpan.FromMilliseconds(200) }, "rebinding.test", Port, LookUp);
        Assert.Matches("^50[24]: ", problem);
        Assert.Equal(1, asked);
        Assert.False(_target.Pending());
    }

    [Fact]
    public async Task A_host_that_is_allowed_by_its_name_may_be_anywhere()
    {
        Assert.Null(await ProblemAsync(new ProxyOptions { Allowed = [Pattern("localhost")] }, "localhost", Port));
        Assert.Null(await ProblemAsync(new ProxyOptions { Allowed = [Pattern($"127.0.0.1:{Port}")] }, "127.0.0.1", Port));
        Assert.StartsWith("403: ", await ProblemAsync(new ProxyOptions { Allowed = [Pattern("localhost:1")] }, "localhost", Port), StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_address_that_the_operator_gives_is_used_as_it_is()
    {
        var options = new ProxyOptions { Addresses = [new HostAddress("site.test", IPAddress.Loopback)] };
        Assert.Null(await ProblemAsync(options, "site.test", Port));

        _target.Stop();
        Assert.Equal($"502: cannot reach site.test:{Port}: connection refused", await ProblemAsync(options, "site.test", Port));
    }

    [Fact]
    public async Task A_policy_of_denial_holds_for_addresses_of_the_operator_too()
    {
        var options = new ProxyOptions { AllowDirect = false, Addresses = [new HostAddress("site.test", IPAddress.Loopback)] };
        Assert.StartsWith("403: ", await ProblemAsync(options, "site.test", Port), StringComparison.Ordinal);
        Assert.Null(await ProblemAsync(options with { Allowed = [Pattern("*.test")] }, "site.test", Port));
    }
}
