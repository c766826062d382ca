using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Bridge;

/// <summary>What breaks between the two ends costs a pause and not a byte.</summary>
[Collection(Heavy.Name)]
public sealed class SurvivalTests(BreakableLab shared) : IClassFixture<BreakableLab>
{
    [Fact]
    public async Task A_transfer_goes_on_when_the_relay_is_killed_and_started_again()
    {
        await using var service = TargetServer.StartEcho();
        var lab = shared.Lab;
        var local = FreePorts.Next();
        lab.CreateUser("killed", (local, service.Port));
        var consumer = await lab.ConnectAsync("killed");
        using var transfer = await OpenTransfer.StartAsync(local);

        for (var kills = 1; kills <= 2; kills++)
        {
            await lab.KillRelayAsync();
            await consumer.Output.WaitForCountAsync("has lost its connection", kills);

            // The port is open all the while, and who comes now is served later.
            using var other = await Payload.ConnectAsync(local);
            var waiting = Payload.EchoAsync(other.GetStream(), 1000);
            await lab.StartRelayAsync();
            await consumer.Output.WaitForCountAsync("goes on over", kills);
            await waiting.WaitAsync(TestTimeouts.Step);
            await transfer.WaitForProgressAsync();
        }

        await transfer.FinishAsync();
        Assert.Equal(1, lab.Publisher.Output.CountOf("killed is connected"));
    }

    [Fact]
    public async Task A_transfer_goes_on_when_connections_are_cut_on_the_way()
    {
        await using var service = TargetServer.StartEcho();
        var lab = shared.Lab;
        var local = FreePorts.Next();
        lab.CreateUser("cut", (local, service.Port));
        var consumer = await lab.ConnectAsync("cut");
        using var transfer = await OpenTransfer.StartAsync(local);

        // Everything breaks: the consumer's connection, the publisher's answer to it, and the publisher's control connection.
        for (var cuts = 1; cuts <= 3; cuts++)
        {
            await Task.WhenAll(lab.ConsumerProxy!.CutAsync(ProxyCut.Reset), lab.PublisherProxy!.CutAsync(cuts == 2 ? ProxyCut.Fin : ProxyCut.Reset));
            await consumer.Output.WaitForCountAsync("goes on over", cuts);
            await transfer.WaitForProgressAsync();
        }

        await transfer.FinishAsync();
    }

    [Theory]
    [InlineData("consumer")]
    [InlineData("publisher")]
    public async Task A_connection_that_falls_silent_is_found_and_its_transfer_goes_on(string side)
    {
        await using var service = TargetServer.StartEcho();
        var lab = shared.Lab;
        var local = FreePorts.Next();
        var user = $"silent-{side}";
        lab.CreateUser(user, (local, service.Port));
        var consumer = await lab.ConnectAsync(user, BreakableLab.SoonNoticed);
        using var transfer = await OpenTransfer.StartAsync(local);

        // Nobody is told: what was sent is gone, and the other end stays as it is for all that either side can see.
        (side == "consumer" ? lab.ConsumerProxy : lab.PublisherProxy)!.Blackhole(newConnectionsToo: false);

        await consumer.Output.WaitForAsync("nothing was heard for twice the keepalive interval");
        await consumer.Output.WaitForAsync("goes on over");
        await transfer.WaitForProgressAsync();
        await transfer.FinishAsync();
        Assert.Equal(1, lab.Publisher.Output.CountOf($"{user} is connected"));
    }

    [Fact]
    public async Task A_publisher_that_is_killed_in_the_middle_of_a_transfer_breaks_it_and_is_found_again_and_visitors_wait_for_it()
    {
        await using var service = TargetServer.StartEcho();
        var lab = shared.Lab;
        var local = FreePorts.Next();
        lab.CreateUser("patient", (local, service.Port));
        var consumer = await lab.ConnectAsync("patient");
        using var transfer = await OpenTransfer.StartAsync(local);

        await lab.KillPublisherAsync();
        await consumer.Output.WaitForAsync("has lost its connection");
        await lab.ServeAsync(BreakableLab.SoonNoticed);

        // What the killed process knew is gone, and so nobody may go on as if nothing had been.
        await transfer.BreaksAsync();
        await consumer.Output.WaitForCountAsync("Connected to ", 2);
        await Payload.EchoOnceAsync(local).WaitAsync(TestTimeouts.Step);

        // In order this time; and one who comes while there is no publisher at all waits for it.
        var losses = consumer.Output.CountOf("No connection to ");
        Assert.Equal(0, await lab.StopAsync(lab.Publisher));
        await consumer.Output.WaitForCountAsync("No connection to ", losses + 1);
        using var early = await Payload.ConnectAsync(local);
        var waiting = Payload.EchoAsync(early.GetStream(), 1000);
        await lab.ServeAsync(BreakableLab.SoonNoticed);
        await waiting.WaitAsync(TestTimeouts.Step);
        Assert.Equal(0, await lab.StopAsync(consumer));
    }
}
