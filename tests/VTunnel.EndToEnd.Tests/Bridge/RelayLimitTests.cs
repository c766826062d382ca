using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Bridge;

/// <summary>What strangers can do to a relay: little.</summary>
public sealed class RelayLimitTests(LimitedLab shared) : IClassFixture<LimitedLab>
{
    [Fact]
    public async Task Half_made_handshakes_are_ended_and_strangers_are_limited_while_those_who_are_admitted_go_on()
    {
        await using var service = TargetServer.StartEcho();
        var lab = shared.Lab;
        var local = FreePorts.Next();
        lab.CreateUser("alice", (local, service.Port));
        await lab.ConnectAsync("alice");

        // Three that begin a request and do not end it.
        var slow = new List<TcpClient>();
        for (var number = 0; number < 3; number++)
        {
            slow.Add(await Payload.ConnectAsync(lab.Port));
            await slow[^1].GetStream().WriteAsync(Encoding.ASCII.GetBytes("GET / HTTP/1.1\r\nHost: "));
        }

        // A fourth is not served at all; those who were admitted before are none of these.
        var since = Stopwatch.GetTimestamp();
        using (var fourth = await Payload.ConnectAsync(lab.Port))
            Assert.Equal(0, (await ReceiveAsync(fourth)).Length);
        await Payload.EchoOnceAsync(local).WaitAsync(TestTimeouts.Step);

        // The slow ones are ended in their turn, and leave the place to others.
        foreach (var client in slow)
        {
            var answer = await ReceiveAsync(client);
            Assert.True(answer.Length == 0 || answer.StartsWith("HTTP/1.1 408", StringComparison.Ordinal), answer);
            client.Dispose();
        }

        Assert.InRange(Stopwatch.GetElapsedTime(since).TotalSeconds, 0.5, double.MaxValue);
        using var polite = await Payload.ConnectAsync(lab.Port);
        await polite.GetStream().WriteAsync(Encoding.ASCII.GetBytes("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        Assert.StartsWith("HTTP/1.1 404", await ReceiveAsync(polite), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_limit_of_bandwidth_holds_and_loses_nothing()
    {
        await using var service = TargetServer.StartEcho();
        var lab = shared.Lab;
        var local = FreePorts.Next();
        lab.CreateUser("bulk", (local, service.Port));
        await lab.ConnectAsync("bulk");

        var since = Stopwatch.GetTimestamp();
        await Payload.EchoOnceAsync(local, 2_000_000).WaitAsync(TestTimeouts.Long);

        // Both directions count: 4 MB take 2 s, but for what may be saved up.
        Assert.InRange(Stopwatch.GetElapsedTime(since).TotalSeconds, 1.2, double.MaxValue);
    }

    private static async Task<string> ReceiveAsync(TcpClient client)
    {
        var text = new StringBuilder();
        var buffer = new byte[4096];
        try
        {
            while (await client.GetStream().ReadAsync(buffer).AsTask().WaitAsync(TestTimeouts.Step) is > 0 and var count)
                text.Append(Encoding.ASCII.GetString(buffer, 0, count));
        }
        catch (IOException)
        {
            // Reset: that is an end, too.
        }

        return text.ToString();
    }
}

/// <summary>A lab whose relay is narrow in every way. A handshake has time enough for a test to begin all that it needs at once.</summary>
public sealed class LimitedLab : RunningLab
{
    private protected override Task<BridgeLab> StartAsync() =>
        BridgeLab.StartAsync(relayOptions: ["--max-connections", "3", "--handshake-timeout", "5s", "--max-bandwidth", "2000000"]);
}
