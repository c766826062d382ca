using System.Net.Sockets;
using VTunnel.Bridge.State;
using VTunnel.Protocol.Bridge;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Bridge;

/// <summary>Every change takes effect at once, live streams included, and the consumer is told why.</summary>
public sealed class ChangeTests(RunningLab shared) : IClassFixture<RunningLab>
{
    /// <summary>A connection that is used, so that it is known to be up.</summary>
    private static async Task<TcpClient> OpenAsync(int port)
    {
        var client = await Payload.ConnectAsync(port);
        await Payload.EchoAsync(client.GetStream(), 1000).WaitAsync(TestTimeouts.Step);
        return client;
    }

    /// <summary>Waits until the connection breaks.</summary>
    private static async Task UntilBrokenAsync(TcpClient client)
    {
        try
        {
            var read = await client.GetStream().ReadAsync(new byte[10]).AsTask().WaitAsync(TestTimeouts.Step);
            Assert.Equal(0, read);
        }
        catch (IOException)
        {
            // A reset, as it should be.
        }
    }

    [Fact]
    public async Task A_withdrawn_grant_resets_its_streams_only_and_a_new_one_opens_its_port()
    {
        await using var first = TargetServer.StartEcho();
        await using var second = TargetServer.StartEcho();
        await using var third = TargetServer.StartEcho();
        var lab = shared.Lab;
        var ports = FreePorts.Next(3);
        lab.CreateUser("wendy", (ports[0], first.Port), (ports[1], second.Port));
        var consumer = await lab.ConnectAsync("wendy");
        using var toFirst = await OpenAsync(ports[0]);
        using var toSecond = await OpenAsync(ports[1]);

        await lab.RunAsync("publisher", "edit", "user", "wendy", "--remove", $"{ports[0]}", "-m", $"{ports[2]}:{third.Port}");

        await UntilBrokenAsync(toFirst);
        await consumer.Output.WaitForAsync($"127.0.0.1:{first.Port} is not granted to you any more; 1 open connections were reset");
        await consumer.Output.WaitForAsync($"Local port {ports[0]} is closed");
        await consumer.Output.WaitForAsync($"Local port {ports[2]} leads to 127.0.0.1:{third.Port}");
        await Payload.EchoAsync(toSecond.GetStream(), 1000).WaitAsync(TestTimeouts.Step);
        await Payload.EchoOnceAsync(ports[2]).WaitAsync(TestTimeouts.Step);
        await Assert.ThrowsAsync<SocketException>(() => Payload.ConnectAsync(ports[0]));
    }

    [Theory]
    [InlineData("revoked")]
    [InlineData("deleted")]
    [InlineData("expired")]
    [InlineData("withdrawn")]
    public async Task Who_is_refused_in_the_middle_of_a_transfer_is_cut_off_and_told_why(string how)
    {
        await using var service = TargetServer.StartEcho();
        var lab = shared.Lab;
        var user = $"was-{how}";
        var local = FreePorts.Next();
        lab.CreateUser(user, (local, service.Port));
        var consumer = await lab.ConnectAsync(user);
        using var transfer = await OpenTransfer.StartAsync(local);
        var now = TimeProvider.System.GetUtcNow();

        // Long enough for some more to be moved before.
        var expires = now + TimeSpan.FromSeconds(5);
        switch (how)
        {
            case "revoked":
                await lab.RunAsync("publisher", "revoke", "user", user);
                break;
            case "deleted":
                lab.Change(store => store.DeleteUser(user, now));
                break;
            case "withdrawn":
                lab.Change(store => store.EditUser(user, new UserChange { Remove = [local] }, now));
                break;
            default:
                lab.Change(store => store.EditUser(user, new UserChange { ChangesExpiry = true, Expires = expires }, now));

                // Not before its time.
                await transfer.WaitForProgressAsync();
                break;
        }

        await transfer.BreaksAsync();

        var early = expires - TimeProvider.System.GetUtcNow();
        Assert.False(how == "expired" && early > TimeSpan.Zero, $"it was cut off {early} before its time");
        if (how == "withdrawn")
        {
            await consumer.Output.WaitForAsync($"127.0.0.1:{service.Port} is not granted to you any more; 1 open connections were reset");
            await consumer.Output.WaitForAsync($"Local port {local} is closed");
            return;
        }

        Assert.Equal(6, await consumer.WaitForExitAsync());
        Assert.Contains(consumer.Output.Lines, line => line.StartsWith("vtunnel: not admitted: ", StringComparison.Ordinal) && line.Contains(how, StringComparison.Ordinal));
        if (how != "revoked")
            return;
        var again = lab.Connect(user);
        Assert.Equal(6, await again.WaitForExitAsync());
        Assert.Contains($"vtunnel: not admitted: user '{user}' was revoked", again.Output.Lines);
    }

    [Fact]
    public async Task A_second_session_of_a_single_session_user_ends_the_first_one()
    {
        await using var service = TargetServer.StartEcho();
        var lab = shared.Lab;
        var ports = FreePorts.Next(2);
        lab.CreateUser("publisher", "sam", new UserChange { Add = [new BridgeGrant(ports[0], "127.0.0.1", service.Port)], SingleSession = true });
        var first = await lab.ConnectAsync("sam");
        using var visitor = await OpenAsync(ports[0]);

        var second = lab.Start(
            "elsewhere", "connect", [lab.File("sam.zip"), "--map", $"{ports[1]}:{ports[0]}", "--log-level", "debug"]);
        await second.Output.WaitForAsync("Connected to ");

        Assert.Equal(6, await first.WaitForExitAsync());
        Assert.Contains(first.Output.Lines, line => line.Contains("may have one session only", StringComparison.Ordinal));
        await Payload.EchoOnceAsync(ports[1]).WaitAsync(TestTimeouts.Step);
    }

    [Fact]
    public async Task An_application_grants_its_targets_and_a_change_of_it_reaches_all_who_have_it()
    {
        await using var first = TargetServer.StartEcho();
        await using var second = TargetServer.StartEcho();
        var lab = shared.Lab;
        var ports = FreePorts.Next(2);
        await lab.RunAsync("publisher", "create", "app", "web", "-m", $"{ports[0]}:{first.Port}");
        await lab.RunAsync("publisher", "create", "user", "amy", "--app", "web");
        await lab.RunAsync("publisher", "create", "user", "ben", "--from", "amy");
        await lab.RunAsync("publisher", "export", "user", "ben", "--out", lab.File("ben.zip"));
        var ben = await lab.ConnectAsync("ben");
        await Payload.EchoOnceAsync(ports[0]).WaitAsync(TestTimeouts.Step);

        await lab.RunAsync("publisher", "edit", "app", "web", "-m", $"{ports[1]}:{second.Port}");

        await ben.Output.WaitForAsync($"Local port {ports[1]} leads to 127.0.0.1:{second.Port}");
        await Payload.EchoOnceAsync(ports[1]).WaitAsync(TestTimeouts.Step);
        var refused = await lab.TryRunAsync("publisher", "delete", "app", "web");
        Assert.Equal(2, refused.ExitCode);
        Assert.Contains("granted to amy, ben", refused.Errors[0], StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_removed_publisher_is_cut_off_from_the_relay_and_its_users_with_it_and_others_notice_nothing()
    {
        await using var service = TargetServer.StartEcho();
        var lab = shared.Lab;
        var ports = FreePorts.Next(2);
        lab.Join("leaving");
        lab.CreateUser("leaving", "lea", new UserChange { Add = [new BridgeGrant(ports[0], "127.0.0.1", service.Port)] });
        lab.CreateUser("staying", (ports[1], service.Port));
        var leaving = lab.Start("leaving", "serve", []);
        await leaving.Output.WaitForAsync("waiting for consumers");
        var lea = await lab.ConnectAsync("lea");
        var staying = await lab.ConnectAsync("staying");
        using var visitor = await OpenAsync(ports[1]);

        await lab.RunAsync("relay", "relay", "remove", "leaving");

        await leaving.Output.WaitForAsync("the relay does not admit this identity (404)");
        await lea.Output.WaitForAsync("has lost its connection");
        await Payload.EchoAsync(visitor.GetStream(), 1000).WaitAsync(TestTimeouts.Step);
        Assert.Equal(0, staying.Output.CountOf("has lost its connection"));

        // What is wrong is told by the step that fails, and what to do about it.
        var tested = await lab.TryRunAsync("lea", "test");
        Assert.Equal(9, tested.ExitCode);
        Assert.Contains("FAILED  relay: the relay does not admit this identity (404)", tested.Output, StringComparison.Ordinal);
        Assert.Contains("Ask the publisher whether it is still enrolled", tested.Output, StringComparison.Ordinal);
    }
}
