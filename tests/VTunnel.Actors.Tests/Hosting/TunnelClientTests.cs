using System.Collections.Concurrent;
using System.Net.Sockets;
using Akka.Actor;
using Microsoft.Extensions.Logging;
using VTunnel.Carriers;
using VTunnel.Hosting;
using VTunnel.Options;
using VTunnel.Routing;
using VTunnel.Supervision;
using VTunnel.Testing;
using VTunnel.Testing.Diagnostics;
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

    [Fact]
    public async Task The_end_of_the_actor_system_is_the_end_of_the_client()
    {
        await using var server = await TunnelPair.StartServerAsync();
        var system = ActorSystem.Create("application");
        await using var client = TunnelClient.Create(system, new TunnelClientOptions { Server = TunnelPair.AddressOf(server), AutoReconnect = true });
        await client.ConnectAsync().WaitAsync(TestTimeouts.Long);
        client.StateChanged += (_, _) => throw new InvalidOperationException("a handler that throws");
        await system.Terminate();
        await client.Completion.WaitAsync(TestTimeouts.Long);
        Assert.Equal(TunnelClientState.Stopped, client.State);
        var connecting = await Assert.ThrowsAsync<TunnelConnectException>(() => client.ConnectAsync().WaitAsync(TestTimeouts.Long));
        Assert.Equal(ConnectError.Stopped, connecting.Code);
        var listening = await Assert.ThrowsAsync<TunnelConnectException>(() => client.ListenAsync(Rule(9000, 1)).WaitAsync(TestTimeouts.Long));
        Assert.Equal(ConnectError.Stopped, listening.Code);
    }

    [Fact]
    public async Task Whoever_waits_for_a_client_is_told_of_the_end_of_its_actor_system()
    {
        var system = ActorSystem.Create("application");
        await using var client = TunnelClient.Create(system, new TunnelClientOptions { Server = new Uri("ws://127.0.0.1:1/"), AutoReconnect = true });
        var connecting = client.ConnectAsync();
        var listening = client.ListenAsync(Rule(9000, 1));
        await system.Terminate();
        await Assert.ThrowsAsync<TunnelConnectException>(() => connecting.WaitAsync(TestTimeouts.Long));
        await Assert.ThrowsAsync<TunnelConnectException>(() => listening.WaitAsync(TestTimeouts.Long));
    }

    /// <summary>It once ended the actor system before the last change was told, in about every second run.</summary>
    [Fact]
    public async Task After_a_client_was_disposed_of_everybody_knows_that_it_has_stopped()
    {
        for (var run = 0; run < 20; run++)
        {
            var states = new ConcurrentQueue<TunnelClientState>();
            var client = TunnelClient.Create(new TunnelClientOptions { Server = new Uri("ws://127.0.0.1:1/") });
            client.StateChanged += (_, change) => states.Enqueue(change.State);
            await client.DisposeAsync();
            Assert.Equal(TunnelClientState.Stopped, client.State);
            Assert.Equal([TunnelClientState.Stopped], states);
            Assert.True(client.Completion.IsCompletedSuccessfully);
        }
    }

    [Fact]
    public async Task A_client_that_was_disposed_of_can_be_used_no_more()
    {
        var client = TunnelClient.Create(new TunnelClientOptions { Server = new Uri("ws://127.0.0.1:1/") });
        await client.DisposeAsync();
        Assert.Throws<ObjectDisposedException>(client.Start);
        await Assert.ThrowsAsync<ObjectDisposedException>(() => client.ConnectAsync());
        await Assert.ThrowsAsync<ObjectDisposedException>(() => client.ListenAsync(Rule(9000, 1)));
    }

    [Fact]
    public async Task What_Akka_logs_of_a_client_goes_where_its_other_lines_go()
    {
        using var log = new CapturedLog();
        using var loggers = LoggerFactory.Create(builder => builder.AddProvider(log));
        await using var client = TunnelClient.Create(new TunnelClientOptions { Server = new Uri("ws://127.0.0.1:1/") }, loggers);
        client.StateChanged += (_, _) => throw new InvalidOperationException("a handler that throws");
        client.Start();
        await log.Lines.WaitForAsync("a handler that throws");
    }

    [Fact]
    public void Without_a_place_for_its_lines_an_actor_system_of_the_engine_writes_none()
    {
        using var system = EngineConfiguration.CreateSystem("silent", null);
        Assert.Empty(system.Settings.Loggers);
    }

    private static ForwardRule Rule(int port, int targetPort) => new(port, new ForwardTarget(TargetScheme.Tcp, "127.0.0.1", targetPort));
}
