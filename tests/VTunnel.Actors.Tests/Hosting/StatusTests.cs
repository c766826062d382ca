using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using Microsoft.Extensions.Hosting;
using VTunnel.Access;
using VTunnel.Carriers;
using VTunnel.Hosting;
using VTunnel.Options;
using VTunnel.Routing;
using VTunnel.Supervision;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.Actors.Tests.Hosting;

/// <summary>What servers and clients say of themselves is so.</summary>
public sealed class StatusTests : IAsyncLifetime
{
    private readonly TargetServer _echo = TargetServer.StartEcho();

    public Task InitializeAsync() => Task.CompletedTask;

    public async Task DisposeAsync() => await _echo.DisposeAsync();

    private static Task<TunnelServerProtocol.ServerStatus> StatusOf(WebApplication server) =>
        server.Services.GetRequiredService<VTunnelServer>().GetStatusAsync().WaitAsync(TestTimeouts.Long);

    private static async Task<HealthReportEntry> CheckAsync(IServiceProvider services) =>
        Assert.Single((await services.GetRequiredService<HealthCheckService>().CheckHealthAsync().WaitAsync(TestTimeouts.Long)).Entries).Value;

    [Theory]
    [InlineData(ProtocolPreference.V1, "v1")]
    [InlineData(ProtocolPreference.V2, "v2")]
    public async Task Both_sides_tell_what_is_forwarded_and_how_much_was_carried(ProtocolPreference protocol, string name)
    {
        await using var pair = await TunnelPair.StartAsync(
            server => server.Tokens = [AccessTokens.EntryFor("alice", new Secret("open-sesame-open-sesame"))],
            client =>
            {
                client.Protocol = protocol;
                client.Token = new Secret("open-sesame-open-sesame");
            });
        var port = await pair.ForwardAsync(_echo.Port);
        using var visitor = await Payload.ConnectAsync(port);
        await Payload.EchoAsync(visitor.GetStream(), 100_000).WaitAsync(TestTimeouts.Long);

        var session = Assert.Single((await StatusOf(pair.Server)).Sessions);
        Assert.Equal(("session-1", "alice", name, true, 1), (session.Name, session.Identity, session.Protocol, session.IsConnected, session.Streams));
        Assert.StartsWith("127.0.0.1:", session.Remote, StringComparison.Ordinal);
        Assert.Equal(name == "v2", session.RoundTripTime > TimeSpan.Zero);
        var forward = Assert.Single(session.Forwards);
        Assert.Equal((port, null, $"127.0.0.1:{_echo.Port}", true, null), (forward.Port, forward.Domain, forward.Target, forward.IsOpen, forward.Problem));

        var client = await pair.Client.GetStatusAsync();
        Assert.Equal((TunnelClientState.Connected, true, null, pair.Address.ToString()), (client.State, client.IsConnected, client.Problem, client.Server));
        Assert.Equal(forward, Assert.Single(client.Forwards));
        Assert.Equal((1, null), (client.Session!.Streams, client.Session.Identity));

        // Counted where it was written or read, so the last of it may be a moment later than its echo.
        await Ticks.UntilAsync(async () =>
            Assert.Single((await StatusOf(pair.Server)).Sessions) is { BytesIn: 100_000, BytesOut: 100_000 }
            && (await pair.Client.GetStatusAsync()).Session is { BytesIn: 100_000, BytesOut: 100_000 });

        visitor.Close();
        await Ticks.UntilAsync(async () => Assert.Single((await StatusOf(pair.Server)).Sessions).Streams == 0
            && (await pair.Client.GetStatusAsync()).Session is { Streams: 0 });
        await pair.Client.DisposeAsync();
        await Ticks.UntilAsync(async () => (await StatusOf(pair.Server)).Sessions.Count == 0);
        var stopped = await pair.Client.GetStatusAsync();
        Assert.Equal((TunnelClientState.Stopped, false, "the client was stopped"), (stopped.State, stopped.IsConnected, stopped.Problem));
    }

    [Fact]
    public async Task A_refused_forward_is_closed_with_the_reason_until_it_is_let_in()
    {
        await using var holder = await TunnelPair.StartAsync();
        var port = await holder.ForwardAsync(_echo.Port);
        var rule = ForwardRule.Parse($"{port}=127.0.0.1:{_echo.Port}");
        await using var client = TunnelClient.Create(new TunnelClientOptions { Server = holder.Address, Forwards = [rule], AutoReconnect = true });
        var before = Assert.Single((await client.GetStatusAsync()).Forwards);
        Assert.Equal((port, false, "the client is not connected"), (before.Port, before.IsOpen, before.Problem));

        await client.ConnectAsync().WaitAsync(TestTimeouts.Long);
        await Ticks.UntilAsync(async () => Assert.Single((await client.GetStatusAsync()).Forwards).Problem?.Contains("is held by", StringComparison.Ordinal) == true);
        Assert.True((await client.GetStatusAsync()).IsConnected);
        await holder.Client.DisposeAsync();
        await client.ListenAsync(rule).WaitAsync(TestTimeouts.Long);
        await Ticks.UntilAsync(async () => Assert.Single((await client.GetStatusAsync()).Forwards) is { IsOpen: true, Problem: null });
    }

    [Fact]
    public async Task A_forward_that_was_refused_for_good_is_not_forgotten()
    {
        await using var holder = await TunnelPair.StartAsync();
        var port = await holder.ForwardAsync(_echo.Port);
        await using var client = TunnelClient.Create(new TunnelClientOptions { Server = holder.Address });
        await client.ConnectAsync().WaitAsync(TestTimeouts.Long);
        var rule = ForwardRule.Parse($"{port}=127.0.0.1:{_echo.Port}");
        await Assert.ThrowsAsync<ListenRefusedException>(() => client.ListenAsync(rule).WaitAsync(TestTimeouts.Long));
        var refused = Assert.Single((await client.GetStatusAsync()).Forwards);
        Assert.Equal((port, false, $"port {port} is held by session-1 of the server, which is alive"), (refused.Port, refused.IsOpen, refused.Problem));

        await holder.Client.DisposeAsync();
        await client.ListenAsync(rule).WaitAsync(TestTimeouts.Long);
        Assert.True(Assert.Single((await client.GetStatusAsync()).Forwards).IsOpen);
    }

    [Fact]
    public async Task A_client_that_drains_takes_nothing_new_and_says_so()
    {
        await using var pair = await TunnelPair.StartAsync(client: options => options.DrainTimeout = TestTimeouts.Long);
        var port = await pair.ForwardAsync(_echo.Port);
        using var visitor = await Payload.ConnectAsync(port);
        await Payload.EchoAsync(visitor.GetStream(), 10).WaitAsync(TestTimeouts.Long);
        var stopping = pair.Client.DisposeAsync();
        await Ticks.UntilAsync(async () => (await pair.Client.GetStatusAsync()) is { IsConnected: true, Session.Streams: 1, Forwards: [{ IsOpen: false }] });
        visitor.Close();
        await stopping.AsTask().WaitAsync(TestTimeouts.Long);
        Assert.Equal(TunnelClientState.Stopped, (await pair.Client.GetStatusAsync()).State);
    }

    [Fact]
    public async Task While_the_connection_is_gone_both_sides_say_so_and_the_port_is_open()
    {
        FaultProxy proxy = null!;
        await using var pair = await TunnelPair.StartAsync(
            client: options => (options.AutoReconnect, options.ReconnectMin, options.ReconnectMax) = (true, TimeSpan.FromMilliseconds(20), TimeSpan.FromMilliseconds(100)),
            route: address => new UriBuilder(address) { Port = (proxy = FaultProxy.Start(address.Port)).Port }.Uri);
        await using var line = proxy;
        var port = await pair.ForwardAsync(_echo.Port);
        proxy.RefusesConnections = true;
        await proxy.CutAsync(ProxyCut.Reset);

        await Ticks.UntilAsync(async () => await pair.Client.GetStatusAsync() is { IsConnected: false, Problem: not null, Session.IsConnected: false });
        Assert.True(Assert.Single((await pair.Client.GetStatusAsync()).Forwards).IsOpen);
        await Ticks.UntilAsync(async () => Assert.Single((await StatusOf(pair.Server)).Sessions) is { IsConnected: false });
        var forward = Assert.Single(Assert.Single((await StatusOf(pair.Server)).Sessions).Forwards);
        Assert.Equal((port, true), (forward.Port, forward.IsOpen));

        proxy.RefusesConnections = false;
        await Ticks.UntilAsync(async () => await pair.Client.GetStatusAsync() is { IsConnected: true, Problem: null });
        await Ticks.UntilAsync(async () => Assert.Single((await StatusOf(pair.Server)).Sessions) is { IsConnected: true });
    }

    [Fact]
    public async Task Health_checks_tell_a_client_that_is_connected_from_one_that_is_not_and_one_that_was_refused()
    {
        await using var server = await TunnelPair.StartServerAsync(configure: builder => builder.Services.AddHealthChecks().AddVTunnelServer());
        Assert.Equal(HealthStatus.Healthy, (await CheckAsync(server.Services)).Status);
        var port = FreePorts.Next();
        await using var holder = TunnelClient.Create(new TunnelClientOptions { Server = TunnelPair.AddressOf(server) });
        await holder.ConnectAsync().WaitAsync(TestTimeouts.Long);
        await holder.ListenAsync(ForwardRule.Parse($"{port}=127.0.0.1:1")).WaitAsync(TestTimeouts.Long);

        var rule = ForwardRule.Parse($"{port}=127.0.0.1:{_echo.Port}");
        var builder = Host.CreateEmptyApplicationBuilder(null);
        builder.AddVTunnelClient(options =>
        {
            options.Server = TunnelPair.AddressOf(server);
            options.Forwards = [rule];
            options.AutoReconnect = true;
        });
        builder.Services.AddHealthChecks().AddVTunnelClient();
        using var host = builder.Build();
        var idle = await CheckAsync(host.Services);
        Assert.Equal((HealthStatus.Unhealthy, true), (idle.Status, idle.Description!.StartsWith("not connected with ws://127.0.0.1:", StringComparison.Ordinal)));

        await host.StartAsync();
        await Ticks.UntilAsync(async () => (await CheckAsync(host.Services)) is { Status: HealthStatus.Degraded, Description: { } text }
            && text.StartsWith($"port {port} is not open: port {port} is held by", StringComparison.Ordinal));
        await holder.DisposeAsync();
        await host.Services.GetRequiredService<TunnelClient>().ListenAsync(rule).WaitAsync(TestTimeouts.Long);
        await Ticks.UntilAsync(async () => (await CheckAsync(host.Services)).Status == HealthStatus.Healthy);
        var data = (await CheckAsync(server.Services)).Data;
        Assert.Equal((1, 1, 0), (data["sessions"], data["forwards"], data["streams"]));

        // Not so at the end: the server drains until its client is through.
        using var visitor = await Payload.ConnectAsync(port);
        await Payload.EchoAsync(visitor.GetStream(), 10).WaitAsync(TestTimeouts.Long);
        var stopping = server.StopAsync();
        await Ticks.UntilAsync(async () => (await CheckAsync(server.Services)) is { Status: HealthStatus.Unhealthy, Description: "the server is shutting down" });
        visitor.Close();
        await stopping.WaitAsync(TestTimeouts.Long);
        await host.StopAsync();
    }
}
