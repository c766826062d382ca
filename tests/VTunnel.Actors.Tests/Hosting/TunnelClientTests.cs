using System.Collections.Concurrent;
using System.Net.Sockets;
using Akka.Actor;
using VTunnel.Carriers;
using VTunnel.Hosting;
using VTunnel.Options;
using VTunnel.Routing;
using VTunnel.Supervision;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.Actors.Tests.Hosting;

public sealed class TunnelClientTests
{
    private static readonly CancellationToken Cancelled = new(canceled: true);

    [Fact]
    public async Task A_rule_that_makes_no_sense_is_refused_and_does_no_harm()
    {
        await using var target = TargetServer.StartEcho();
        await using var pair = await TunnelPair.StartAsync();
        var port = FreePorts.Next();
        foreach (var (rule, problem) in new[]
        {
            (new ForwardRule(port, null!), "the target is missing"),
            (new ForwardRule(port, new ForwardTarget(TargetScheme.Tcp, null!, 1)), "the target is missing"),
            (new ForwardRule(port, new ForwardTarget((TargetScheme)77, "a.test", 1)), "the scheme is 77"),
            (Rule(0, 1), "the server's port is 0"),
            (Rule(port, 0), "the target's port is 0"),
            (Rule(port, 1) with { Headers = null! }, "a list of headers is needed"),
            (Rule(port, 1) with { Headers = [null!] }, "a header is null"),
        })
        {
            var fault = await Assert.ThrowsAsync<ArgumentException>(() => pair.Client.ListenAsync(rule));
            Assert.Contains(problem, fault.Message, StringComparison.Ordinal);
        }

        await pair.Client.ListenAsync(Rule(port, target.Port)).WaitAsync(TestTimeouts.Long);
        Assert.Equal(TunnelClientState.Connected, pair.Client.State);
    }

    [Fact]
    public async Task What_is_cancelled_already_does_not_dial()
    {
        var states = new ConcurrentQueue<TunnelClientState>();
        var client = TunnelClient.Create(new TunnelClientOptions { Server = new Uri("ws://127.0.0.1:1/"), AutoReconnect = true });
        client.StateChanged += (_, change) => states.Enqueue(change.State);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => client.ConnectAsync(Cancelled));
        await client.DisposeAsync();
        Assert.DoesNotContain(TunnelClientState.Connecting, states);
    }

    [Fact]
    public async Task What_is_cancelled_already_opens_no_port()
    {
        await using var pair = await TunnelPair.StartAsync();
        var cancelled = FreePorts.Next();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => pair.Client.ListenAsync(Rule(cancelled, 1), Cancelled));

        // The server is asked in the order of the calls.
        await pair.Client.ListenAsync(Rule(FreePorts.Next(), 1)).WaitAsync(TestTimeouts.Long);
        using var visitor = new TcpClient();
        await Assert.ThrowsAsync<SocketException>(() => visitor.ConnectAsync("127.0.0.1", cancelled));
    }

    private static ForwardRule Rule(int port, int targetPort) => new(port, new ForwardTarget(TargetScheme.Tcp, "127.0.0.1", targetPort));
}
