using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Bridge;

/// <summary>What breaks between the two ends costs a pause and not a byte.</summary>
public sealed class SurvivalTests
{
    private const long Length = 300_000_000;

    [Fact]
    public async Task A_transfer_goes_on_when_the_relay_is_killed_and_started_again()
    {
        await using var service = TargetServer.StartEcho();
        await using var lab = await BridgeLab.StartAsync();
        var local = FreePorts.Next();
        await lab.CreateUserAsync("alice", "-m", $"{local}:{service.Port}");
        await lab.ServeAsync();
        var consumer = await lab.ConnectAsync("alice");
        using var visitor = await Payload.ConnectAsync(local);
        var transfer = Payload.ExchangeAsync(visitor.GetStream(), Length);

        for (var kills = 1; kills <= 2; kills++)
        {
            await lab.KillRelayAsync();
            await consumer.Output.WaitForCountAsync("has lost its connection", kills);
            Assert.False(transfer.IsCompleted, "the transfer was over before the relay was killed: nothing was proven");

            // The port is open all the while, and who comes now is served later.
            using var other = await Payload.ConnectAsync(local);
            var waiting = Payload.EchoAsync(other.GetStream(), 1000);
            await lab.StartRelayAsync();
            await consumer.Output.WaitForCountAsync("goes on over", kills);
            await waiting.WaitAsync(TestTimeouts.Step);
        }

        var (sent, received) = await transfer.WaitAsync(TestTimeouts.Long);
        Assert.Equal(sent, received);
        Assert.Equal(1, lab.Publisher.Output.CountOf("alice is connected"));
    }

    [Fact]
    public async Task A_transfer_goes_on_when_connections_are_cut_on_the_way()
    {
        await using var service = TargetServer.StartEcho();
        await using var lab = await BridgeLab.StartAsync(withProxy: true);
        var local = FreePorts.Next();
        await lab.CreateUserAsync("alice", "-m", $"{local}:{service.Port}");
        await lab.ServeAsync();
        var consumer = await lab.ConnectAsync("alice");
        using var visitor = await Payload.ConnectAsync(local);
        var transfer = Payload.ExchangeAsync(visitor.GetStream(), Length);

        // Everything breaks: the consumer's connection, the publisher's answer to it, and the publisher's control connection.
        for (var cuts = 1; cuts <= 3; cuts++)
        {
            Assert.False(transfer.IsCompleted, "the transfer was over before the cut: nothing was proven");
            await lab.Proxy!.CutAsync(ProxyCut.Reset);
            await consumer.Output.WaitForCountAsync("goes on over", cuts);
        }

        var (sent, received) = await transfer.WaitAsync(TestTimeouts.Long);
        Assert.Equal(sent, received);
    }

    [Fact]
    public async Task A_restarted_publisher_is_found_again_and_visitors_wait_for_it()
    {
        await using var service = TargetServer.StartEcho();
        await using var lab = await BridgeLab.StartAsync();
        var local = FreePorts.Next();
        await lab.CreateUserAsync("alice", "-m", $"{local}:{service.Port}");
        var consumer = lab.Connect("alice");
        await consumer.Output.WaitForAsync($"Local port {local} leads to");

        // There is no publisher yet.
        using var early = await Payload.ConnectAsync(local);
        var waiting = Payload.EchoAsync(early.GetStream(), 1000);
        await lab.ServeAsync();
        await waiting.WaitAsync(TestTimeouts.Step);
        Assert.Equal(0, await lab.StopAsync(lab.Publisher));
        await lab.ServeAsync();
        await consumer.Output.WaitForCountAsync("Connected to ", 2);
        await Payload.EchoOnceAsync(local).WaitAsync(TestTimeouts.Step);
        Assert.Equal(0, await lab.StopAsync(consumer));
    }
}
