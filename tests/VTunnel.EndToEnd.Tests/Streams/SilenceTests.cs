using System.Net;
using System.Net.Sockets;
using System.Net.WebSockets;
using System.Text;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Supervision;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Streams;

/// <summary>What is taken for the silence of a dead peer, and what is not.</summary>
public sealed class SilenceTests
{
    private static readonly TimeSpan Idle = TimeSpan.FromSeconds(2);

    [Fact]
    public async Task A_peer_that_says_nothing_is_given_up()
    {
        await using var host = await TunnelHost.StartAsync(server => server.IdleTimeout = Idle);
        await using var peer = await host.ConnectByHandAsync();
        var line = await host.Log.Lines.WaitForAsync("session-1 down");
        Assert.Contains("nothing was heard for 2s", line, StringComparison.Ordinal);
        await Assert.ThrowsAsync<WebSocketException>(() => peer.ReceiveCloseAsync());
    }

    [Fact]
    public async Task A_message_that_takes_long_to_arrive_is_not_silence()
    {
        await using var host = await TunnelHost.StartAsync(server => server.IdleTimeout = Idle);
        await using var peer = await host.ConnectByHandAsync();

        var message = Encoding.UTF8.GetBytes("""{"type":"ping"}""");
        using var clock = new PeriodicTimer(Idle / 10);
        for (var i = 0; i < message.Length; i++)
        {
            await peer.SendAsync(message.AsMemory(i, 1), WebSocketMessageType.Text, endOfMessage: i == message.Length - 1);
            await clock.WaitForNextTickAsync();
        }

        Assert.Equal("pong", (await peer.ReceiveAsync()).Type);
        Assert.Equal(0, host.Log.Lines.CountOf("session-1 down"));
    }

    [Fact]
    public async Task Messages_that_make_no_sense_are_not_silence()
    {
        await using var host = await TunnelHost.StartAsync(server => server.IdleTimeout = Idle);
        await using var peer = await host.ConnectByHandAsync();

        using var clock = new PeriodicTimer(Idle / 4);
        for (var i = 0; i < 8; i++)
        {
            await peer.SendAsync("nonsense");
            await clock.WaitForNextTickAsync();
        }

        await peer.ExpectPongAsync();
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_reader_that_stalls_for_longer_than_the_keepalive_is_not_silence(bool visitorStalls)
    {
        using var target = new TcpListener(IPAddress.Loopback, 0);
        target.Start();
        await using var pair = await TunnelPair.StartAsync(
            server => server.IdleTimeout = Idle, client => client.PingInterval = Idle / 2);
        var lost = false;
        pair.Client.StateChanged += (_, change) => lost |= change.State != TunnelClientState.Connected;
        var port = await pair.ForwardAsync(((IPEndPoint)target.LocalEndpoint).Port);
        using var visitor = await Payload.ConnectAsync(port);
        using var accepted = await target.AcceptTcpClientAsync().WaitAsync(TestTimeouts.Step);
        var (writer, reader) = visitorStalls ? (accepted, visitor) : (visitor, accepted);

        // From when the stall is known it lasts for twice the keepalive: until two who really said nothing have been given up.
        var writing = StallingWriter.Start(writer);
        Assert.InRange(await writing.WaitForStallAsync(), 1, StallingWriter.BoundedBytes);
        foreach (var session in (int[])[2, 3])
        {
            await using var silent = await pair.Host.ConnectByHandAsync();
            await pair.Host.Log.Lines.WaitForAsync($"session-{session} down");
        }

        var receiving = Payload.ReceiveAsync(reader.GetStream());
        var sent = await writing.StopAsync();
        writer.Close();

        Assert.Equal(sent, await receiving.WaitAsync(TestTimeouts.Step));
        Assert.False(lost);
        Assert.Equal(0, pair.Host.Log.Lines.CountOf("session-1 down"));
    }

    [Fact]
    public async Task A_reader_that_stalls_is_not_a_slow_HTTP_client()
    {
        // A web server drops clients that take its responses too slowly; a session that waits for a reader is no such client.
        var grace = TimeSpan.FromSeconds(1.1);
        using var target = new TcpListener(IPAddress.Loopback, 0);
        target.Start();
        await using var pair = await TunnelPair.StartAsync(kestrel: options =>
        {
            options.Limits.MinResponseDataRate = new MinDataRate(1e12, grace);
            options.Limits.MinRequestBodyDataRate = new MinDataRate(1e12, grace);
        });
        var port = await pair.ForwardAsync(((IPEndPoint)target.LocalEndpoint).Port);
        using var visitor = await Payload.ConnectAsync(port);
        using var accepted = await target.AcceptTcpClientAsync().WaitAsync(TestTimeouts.Step);

        var writing = StallingWriter.Start(visitor);
        Assert.InRange(await writing.WaitForStallAsync(), 1, StallingWriter.BoundedBytes);
        await pair.Host.Heartbeat.WaitAsync(4);
        var receiving = Payload.ReceiveAsync(accepted.GetStream());
        var sent = await writing.StopAsync();
        visitor.Close();

        Assert.Equal(sent, await receiving.WaitAsync(TestTimeouts.Step));
        Assert.Equal(0, pair.Host.Log.Lines.CountOf("down after"));
    }
}
