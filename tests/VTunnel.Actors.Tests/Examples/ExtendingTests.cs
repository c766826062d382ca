using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using Akka.Actor;
using Extending;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using VTunnel.Actors.Tests.Hosting;
using VTunnel.Actors.Tests.Testing;
using VTunnel.Extensions;
using VTunnel.Hosting;
using VTunnel.Options;
using VTunnel.Routing;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.Actors.Tests.Examples;

/// <summary>The extensions of <c>examples/Extending</c> in a real tunnel.</summary>
public sealed class ExtendingTests
{
    [Fact]
    public async Task The_audit_log_tells_the_whole_story_of_a_visit()
    {
        var log = new LineLogger();
        await using var target = TargetServer.StartEcho();
        await using var pair = await TunnelPair.StartAsync(configure: builder => builder.AddVTunnelActor("audit-log", _ => AuditLogActor.Props(log)));
        var port = await pair.ForwardAsync(target.Port);
        await log.Lines.WaitForAsync($"session-1: port {port} leads to 127.0.0.1:{target.Port}");
        Assert.Contains("session-1: anyone from 127.0.0.1:", log.Lines.Text(), StringComparison.Ordinal);
        await ExchangeAsync(port, 1000);
        await log.Lines.WaitForAsync($"session-1: a visitor of port {port} sent 1000 bytes and got 1000");
        await pair.Client.DisposeAsync();
        await log.Lines.WaitForAsync("session-1: over after");
    }

    [Fact]
    public async Task The_bandwidth_limit_lets_everything_pass_unchanged()
    {
        await using var target = TargetServer.StartEcho();
        await using var pair = await TunnelPair.StartAsync(configure: builder => builder.AddVTunnelMiddleware(
            provider => new BandwidthLimit(provider.GetRequiredService<ActorSystem>(), bytesPerSecond: 1_000_000_000)));
        var port = await pair.ForwardAsync(target.Port);
        await ExchangeAsync(port, 1_000_000);
    }

    [Fact]
    public async Task The_authoriser_keeps_clients_to_their_ports()
    {
        await using var target = TargetServer.StartEcho();
        var allowed = FreePorts.Next();
        var other = FreePorts.Next();
        await using var pair = await TunnelPair.StartAsync(configure: builder => builder.AddVTunnelAuthorizer(
            _ => PortAuthorizerActor.Props([new PortRange(allowed, allowed)], [IPNetwork.Parse("127.0.0.0/8")])));
        var refusal = await Assert.ThrowsAsync<ListenRefusedException>(() => pair.Client.ListenAsync(Rule(other, target.Port)).WaitAsync(TestTimeouts.Long));
        Assert.Equal($"port {other} is not for tunnels; use {allowed}", refusal.Message);
        await pair.Client.ListenAsync(Rule(allowed, target.Port)).WaitAsync(TestTimeouts.Long);
        await ExchangeAsync(allowed, 1000);
    }

    [Fact]
    public async Task The_authoriser_keeps_visitors_of_other_networks_out()
    {
        await using var target = TargetServer.StartEcho();
        await using var pair = await TunnelPair.StartAsync(configure: builder => builder.AddVTunnelAuthorizer(
            _ => PortAuthorizerActor.Props([new PortRange(1, 65535)], [IPNetwork.Parse("10.0.0.0/8")])));
        var port = await pair.ForwardAsync(target.Port);
        await Assert.ThrowsAnyAsync<Exception>(() => ExchangeAsync(port, 1));
    }

    /// <summary>An authoriser counts wherever the call stands; it once did only before the server's.</summary>
    [Fact]
    public async Task An_authoriser_that_is_added_last_is_asked_all_the_same()
    {
        await using var app = await TunnelPair.StartServerAsync(configure: builder => builder.AddVTunnelAuthorizer(
            _ => PortAuthorizerActor.Props([], [])));
        await using var client = TunnelClient.Create(new TunnelClientOptions { Server = TunnelPair.AddressOf(app) });
        await client.ConnectAsync().WaitAsync(TestTimeouts.Long);
        await Assert.ThrowsAsync<ListenRefusedException>(() => client.ListenAsync(Rule(FreePorts.Next(), 1)).WaitAsync(TestTimeouts.Long));
    }

    private static ForwardRule Rule(int port, int targetPort) => new(port, new ForwardTarget(TargetScheme.Tcp, "127.0.0.1", targetPort));

    private static async Task ExchangeAsync(int port, int length)
    {
        using var visitor = new TcpClient();
        await visitor.ConnectAsync(IPAddress.Loopback, port);
        var stream = visitor.GetStream();
        var sent = RandomNumberGenerator.GetBytes(length);
        var received = new byte[length];
        var writing = stream.WriteAsync(sent).AsTask();
        await stream.ReadExactlyAsync(received).AsTask().WaitAsync(TestTimeouts.Long);
        await writing;
        Assert.Equal(sent, received);
    }

    private sealed class LineLogger : ILogger<AuditLogActor>
    {
        public VTunnel.Testing.Diagnostics.LineLog Lines { get; } = new();

        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) =>
            Lines.Add(formatter(state, exception));
    }
}

/// <summary>The bandwidth limit's clock is the test's.</summary>
public sealed class TokenBucketTests : VirtualTimeKit
{
    private static readonly TimeSpan Tick = TimeSpan.FromMilliseconds(50);

    [Fact]
    public void Bytes_pass_in_order_as_fast_as_tokens_come_in()
    {
        var bucket = Sys.ActorOf(Props.Create(() => new TokenBucketActor(1000)));
        foreach (var count in new[] { 30, 25, 20 })
            bucket.Tell(new TokenBucketActor.Bytes(count), TestActor);
        Settle(bucket);
        ExpectNoMsg(TimeSpan.Zero);

        // A twentieth of a second brings 50: the second overdraws by 5, and the third waits for the next.
        Time.Advance(Tick);
        Assert.Equal(30, ExpectMsg<TokenBucketActor.Bytes>().Count);
        Assert.Equal(25, ExpectMsg<TokenBucketActor.Bytes>().Count);
        Settle(bucket);
        ExpectNoMsg(TimeSpan.Zero);
        Time.Advance(Tick);
        Assert.Equal(20, ExpectMsg<TokenBucketActor.Bytes>().Count);
    }

    [Fact]
    public void A_piece_larger_than_a_second_passes_and_the_next_one_pays_for_it()
    {
        var bucket = Sys.ActorOf(Props.Create(() => new TokenBucketActor(1000)));
        bucket.Tell(new TokenBucketActor.Bytes(2050), TestActor);
        bucket.Tell(new TokenBucketActor.Bytes(1), TestActor);
        Settle(bucket);
        Time.Advance(Tick);
        ExpectMsg<TokenBucketActor.Bytes>();
        Pass(TimeSpan.FromSeconds(2), Tick);
        Settle(bucket);
        ExpectNoMsg(TimeSpan.Zero);
        Time.Advance(Tick);
        Assert.Equal(1, ExpectMsg<TokenBucketActor.Bytes>().Count);
    }

    [Fact]
    public void Tokens_of_quiet_times_are_kept_for_a_second()
    {
        var bucket = Sys.ActorOf(Props.Create(() => new TokenBucketActor(1000)));
        Settle(bucket);
        Pass(TimeSpan.FromSeconds(10), Tick);
        for (var i = 0; i < 11; i++)
            bucket.Tell(new TokenBucketActor.Bytes(100), TestActor);
        for (var i = 0; i < 10; i++)
            ExpectMsg<TokenBucketActor.Bytes>();
        Settle(bucket);
        ExpectNoMsg(TimeSpan.Zero);
    }
}
