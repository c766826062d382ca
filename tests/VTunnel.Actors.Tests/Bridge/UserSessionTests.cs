using Microsoft.Extensions.Logging.Abstractions;
using VTunnel.Actors.Tests.Hosting;
using VTunnel.Bridge.State;
using VTunnel.Hosting;
using VTunnel.Protocol.Bridge;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.Actors.Tests.Bridge;

/// <summary>What one user may have at a time, from however many places it connects.</summary>
public sealed class UserSessionTests
{
    [Fact]
    public async Task A_session_that_was_replaced_while_it_had_no_connection_does_not_come_back_in_the_place_of_the_newer_one()
    {
        await using var house = await BridgeHouse.StartAsync();
        var office = await house.JoinAsync("office");
        var alice = house.CreateUser(office, "alice");
        using (var store = office.OpenPublisherStore("publisher"))
            store.EditUser("alice", new UserChange { SingleSession = true }, TimeProvider.System.GetUtcNow());
        var elsewhere = Copy(house, "alice", "elsewhere");
        await using var proxy = FaultProxy.Start(house.Url.Port);
        var context = Path.Combine(alice.FolderOf("user"), "context.json");
        await File.WriteAllTextAsync(context, (await File.ReadAllTextAsync(context)).Replace($":{house.Url.Port}/", $":{proxy.Port}/", StringComparison.Ordinal));
        var publisher = house.Serve(office);
        var first = await house.ConnectAsync(alice);
        await UntilAsync(users => users is [{ IsConnected: true }]);
        var before = (await publisher.GetStateAsync()).Users[0].Session;
        proxy.RefusesConnections = true;
        await proxy.CutAsync(ProxyCut.Reset);
        await UntilAsync(users => users is [{ IsConnected: false }]);

        var second = await house.ConnectAsync(elsewhere);
        await UntilAsync(users => users is [{ IsConnected: true }] && users[0].Session != before);
        var after = (await publisher.GetStateAsync()).Users[0].Session;
        proxy.RefusesConnections = false;

        Assert.Contains("may have one session only", await first.WaitForEndAsync(CancellationToken.None).WaitAsync(TestTimeouts.Step), StringComparison.Ordinal);
        Assert.True((await second.GetStateAsync()).IsConnected);
        Assert.Equal(after, Assert.Single((await publisher.GetStateAsync()).Users).Session);

        Task UntilAsync(Func<IReadOnlyList<VTunnel.Bridge.Publishing.OnlineUser>, bool> isSo) =>
            Ticks.UntilAsync(async () => isSo((await publisher.GetStateAsync()).Users));
    }

    [Fact]
    public async Task All_sessions_of_a_user_together_have_so_many_streams_and_one_that_ends_leaves_its_place()
    {
        await using var service = TargetServer.StartEcho();
        await using var house = await BridgeHouse.StartAsync();
        var ports = FreePorts.Next(3);
        var office = await house.JoinAsync("office");
        var alice = house.CreateUser(office, "alice", new BridgeGrant(ports[0], "127.0.0.1", service.Port));
        var bob = house.CreateUser(office, "bob", new BridgeGrant(ports[2], "127.0.0.1", service.Port));
        var elsewhere = Copy(house, "alice", "elsewhere");
        house.Serve(office, options: BridgeHouse.Quick with { MaxStreamsPerUser = 2 });
        await house.ConnectAsync(alice);
        await using var second = BridgeConsumer.Create(elsewhere, "user", new Dictionary<int, int> { [ports[0]] = ports[1] }, BridgeHouse.Quick, NullLoggerFactory.Instance);
        Assert.All(await second.StartAsync(), port => Assert.True(port.IsOpen, port.Problem));
        await house.ConnectAsync(bob);

        using var one = await OpenAsync(ports[0]);
        var two = await OpenAsync(ports[1]);
        await VisitInVainAsync(ports[0]);
        await house.LoggedAsync("you have 2 streams in all your sessions, which is the limit");
        await Payload.EchoOnceAsync(ports[2]).WaitAsync(TestTimeouts.Step);

        two.Dispose();
        await Ticks.UntilAsync(async () =>
        {
            try
            {
                using var again = await Payload.ConnectAsync(ports[0]);
                await again.GetStream().WriteAsync(new byte[1]);
                return await ReadToTheEndAsync(again, once: true) == 1;
            }
            catch (Exception e) when (e is IOException or System.Net.Sockets.SocketException)
            {
                // Turned away: the place is not free yet.
                return false;
            }
        });
    }

    [Fact]
    public async Task A_publisher_with_as_many_sessions_as_it_takes_refuses_another_and_not_one_that_comes_back()
    {
        await using var service = TargetServer.StartEcho();
        await using var house = await BridgeHouse.StartAsync();
        var ports = FreePorts.Next(2);
        var office = await house.JoinAsync("office");
        var alice = house.CreateUser(office, "alice", new BridgeGrant(ports[0], "127.0.0.1", service.Port));
        var bob = house.CreateUser(office, "bob", new BridgeGrant(ports[1], "127.0.0.1", service.Port));
        await using var proxy = FaultProxy.Start(house.Url.Port);
        var context = Path.Combine(alice.FolderOf("user"), "context.json");
        await File.WriteAllTextAsync(context, (await File.ReadAllTextAsync(context)).Replace($":{house.Url.Port}/", $":{proxy.Port}/", StringComparison.Ordinal));
        house.Serve(office, options: BridgeHouse.Quick with { MaxSessions = 1 });
        await house.ConnectAsync(alice);
        using var held = await OpenAsync(ports[0]);

        await house.ConnectAsync(bob);
        await house.LoggedAsync("the publisher is at its limit of 1 sessions");
        await proxy.CutAsync(ProxyCut.Reset);
        await Payload.EchoAsync(held.GetStream(), 100_000).WaitAsync(TestTimeouts.Step);
    }

    [Fact]
    public async Task A_publisher_does_not_fill_the_log_of_its_consumer()
    {
        await using var service = TargetServer.StartEcho();
        await using var house = await BridgeHouse.StartAsync();
        var port = FreePorts.Next();
        var office = await house.JoinAsync("office");
        var alice = house.CreateUser(office, "alice", new BridgeGrant(port, "127.0.0.1", service.Port));
        house.Serve(office, options: BridgeHouse.Quick with { MaxStreamsPerUser = 1 });
        var consumer = await house.ConnectAsync(alice, options: BridgeHouse.Quick with { ProbeInterval = TimeSpan.FromHours(1) });
        await Ticks.UntilAsync(async () => (await consumer.GetStateAsync()).IsConnected);
        using var held = await OpenAsync(port);
        for (var visits = 0; visits < 30; visits++)
            await VisitInVainAsync(port);

        await house.LoggedAsync("says:", "what it says until the next probe is not logged");
        Assert.Equal(20, house.Log.Lines.Lines.Count(line => line.Contains("office says:", StringComparison.Ordinal)));
    }

    /// <summary>Connects and is turned away, perhaps before it is known here that the connection was there.</summary>
    private static async Task VisitInVainAsync(int port)
    {
        try
        {
            using var visitor = await Payload.ConnectAsync(port);
            Assert.Equal(0, await ReadToTheEndAsync(visitor));
        }
        catch (System.Net.Sockets.SocketException e) when (e.SocketErrorCode == System.Net.Sockets.SocketError.ConnectionReset)
        {
            // Turned away at once.
        }
    }

    private static async Task<System.Net.Sockets.TcpClient> OpenAsync(int port)
    {
        var client = await Payload.ConnectAsync(port);
        await Payload.EchoAsync(client.GetStream(), 1000).WaitAsync(TestTimeouts.Step);
        return client;
    }

    /// <summary>How many bytes come; a reset is an end, too.</summary>
    private static async Task<int> ReadToTheEndAsync(System.Net.Sockets.TcpClient client, bool once = false)
    {
        var count = 0;
        try
        {
            while (await client.GetStream().ReadAsync(new byte[100]).AsTask().WaitAsync(TestTimeouts.Step) is > 0 and var read)
            {
                count += read;
                if (once)
                    break;
            }
        }
        catch (IOException)
        {
            // Reset.
        }

        return count;
    }

    private static StateDirectory Copy(BridgeHouse house, string name, string copy)
    {
        foreach (var file in Directory.GetFiles(house.Folder(name), "*", SearchOption.AllDirectories))
        {
            var target = Path.Combine(house.Folder(copy), Path.GetRelativePath(house.Folder(name), file));
            Directory.CreateDirectory(Path.GetDirectoryName(target)!);
            File.Copy(file, target);
        }

        return house.State(copy);
    }
}
