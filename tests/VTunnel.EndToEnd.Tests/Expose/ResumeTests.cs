using System.Globalization;
using System.Net.Sockets;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;
using VTunnel.Testing.Network;
using Xunit.Abstractions;

namespace VTunnel.EndToEnd.Tests.Expose;

/// <summary>
/// Over protocol v2 streams outlive their connection: the real program at both ends, and between them a network that breaks.
/// <c>VTUNNEL_SOAK_MIB</c> sets how much goes each way; the default is 48.
/// </summary>
[Collection(Heavy.Name)]
public sealed class ResumeTests(ITestOutputHelper output)
{
    private const int Streams = 4;
    private const int BytesBetweenCuts = 4 * 1024 * 1024;
    private const long Mebibyte = 1024 * 1024;

    private static readonly string[] Quickly = ["-protocol", "v2", "-reconnect-min", "20ms", "-reconnect-max", "200ms"];

    private static readonly long SoakBytes =
        Mebibyte * (long.TryParse(Environment.GetEnvironmentVariable("VTUNNEL_SOAK_MIB"), CultureInfo.InvariantCulture, out var budget) ? budget : 48);

    [Fact]
    public async Task Transfers_complete_unchanged_while_the_connection_is_closed_reset_and_swallowed_again_and_again()
    {
        await using var echo = TargetServer.StartEcho();
        await using var server = await ServerProgram.StartAsync();
        await using var network = FaultProxy.Start(server.Port);
        var port = FreePorts.Next();
        await using var client = await ClientProgram.StartAsync(
            $"ws://127.0.0.1:{network.Port}/", port, echo.Port, ["-ping-interval", "1s", .. Quickly]);

        var seed = Random.Shared.Next();
        output.WriteLine($"seed {seed}, {SoakBytes / Mebibyte} MiB each way");
        var random = new Random(seed);
        using var clock = new PeriodicTimer(TimeSpan.FromMilliseconds(20));
        var transfers = Task.WhenAll(Enumerable.Range(0, Streams).Select(async _ =>
        {
            using var visitor = await Payload.ConnectAsync(port);
            await Payload.EchoAsync(visitor.GetStream(), SoakBytes / Streams);
        }));
        var (cuts, swallowed) = (0, 0);
        while (!transfers.IsCompleted)
        {
            using var deadline = new CancellationTokenSource(TestTimeouts.Long);
            var accepted = network.AcceptedCount;
            var next = network.BytesForwarded(ProxyDirection.ToTarget) + random.Next(1, 2 * BytesBetweenCuts);
            var kind = random.Next(5);
            if (kind < 4)
            {
                network.CutAfter(
                    kind % 2 == 0 ? ProxyDirection.ToTarget : ProxyDirection.FromTarget,
                    random.Next(1, 2 * BytesBetweenCuts),
                    kind < 2 ? ProxyCut.Fin : ProxyCut.Reset);
            }
            else
            {
                while (!transfers.IsCompleted && network.BytesForwarded(ProxyDirection.ToTarget) < next)
                    await clock.WaitForNextTickAsync(deadline.Token);
                network.Blackhole(newConnectionsToo: false);
                swallowed++;
            }

            while (!transfers.IsCompleted && network.AcceptedCount == accepted)
                await clock.WaitForNextTickAsync(deadline.Token);
            cuts++;
        }

        await transfers;
        output.WriteLine(
            $"{cuts} cuts, {swallowed} of them silent; most resident: server {PeakMemory(server.Program.Id) / Mebibyte} MiB, client {PeakMemory(client.Program.Id) / Mebibyte} MiB");
        Assert.True(cuts > 4, $"only {cuts} cuts");
        Assert.Equal(0, server.Program.Output.CountOf(" error "));
        Assert.Equal(0, client.Program.Output.CountOf(" error "));
        Assert.Equal(1, server.Program.Output.CountOf("session-1 up"));
        Assert.Equal(0, server.Program.Output.CountOf("session-2 up"));

        // What both programs hold is bounded by their windows, however long it goes on.
        Assert.InRange(PeakMemory(server.Program.Id), 1, 600 * Mebibyte);
        Assert.InRange(PeakMemory(client.Program.Id), 1, 600 * Mebibyte);
    }

    [Fact]
    public async Task A_visitor_who_comes_while_the_connection_is_lost_is_served_when_it_is_back()
    {
        await using var echo = TargetServer.StartEcho();
        await using var server = await ServerProgram.StartAsync();
        await using var network = FaultProxy.Start(server.Port);
        var port = FreePorts.Next();
        await using var client = await ClientProgram.StartAsync($"ws://127.0.0.1:{network.Port}/", port, echo.Port, Quickly);
        using var before = await Payload.ConnectAsync(port);
        await Payload.EchoAsync(before.GetStream(), 1000).WaitAsync(TestTimeouts.Step);

        network.RefusesConnections = true;
        await network.CutAsync(ProxyCut.Reset);
        await server.Program.Output.WaitForAsync("has lost its connection and waits for another");
        var visits = Enumerable.Range(0, 20).Select(number => Payload.EchoOnceAsync(port, 1 + number * 10_000)).ToArray();
        var going = Payload.EchoAsync(before.GetStream(), 200_000);
        await client.Program.Output.WaitForAsync("trying again in");
        Assert.All(visits.Append(going), visit => Assert.False(visit.IsCompleted));

        network.RefusesConnections = false;
        await Task.WhenAll(visits.Append(going)).WaitAsync(TestTimeouts.Step);
        await server.Program.Output.WaitForAsync("session-1 goes on over");
        Assert.Equal(0, server.Program.Output.CountOf("no longer listens"));
    }

    [Fact]
    public async Task After_the_resume_window_visitors_are_reset_ports_close_and_the_client_starts_afresh()
    {
        await using var echo = TargetServer.StartEcho();
        await using var server = await ServerProgram.StartAsync(["-resume-window", "500ms"]);
        await using var network = FaultProxy.Start(server.Port);
        var port = FreePorts.Next();
        await using var client = await ClientProgram.StartAsync($"ws://127.0.0.1:{network.Port}/", port, echo.Port, Quickly);
        using var visitor = await Payload.ConnectAsync(port);
        await Payload.EchoAsync(visitor.GetStream(), 1000).WaitAsync(TestTimeouts.Step);

        network.RefusesConnections = true;
        await network.CutAsync(ProxyCut.Reset);
        var broken = await Assert.ThrowsAsync<IOException>(() => visitor.GetStream().ReadAsync(new byte[1]).AsTask().WaitAsync(TestTimeouts.Step));
        Assert.Equal(SocketError.ConnectionReset, Assert.IsType<SocketException>(broken.InnerException).SocketErrorCode);
        await server.Program.Output.WaitForAsync($"session-1 no longer listens on port {port}");
        await Assert.ThrowsAsync<SocketException>(() => Payload.ConnectAsync(port));

        network.RefusesConnections = false;
        await client.WaitForForwardsAsync(2);
        await Payload.EchoOnceAsync(port).WaitAsync(TestTimeouts.Step);
        await server.Program.Output.WaitForAsync("session-2 up");
    }

    [Fact]
    public async Task A_client_whose_network_moved_has_its_session_back_at_once()
    {
        await using var echo = TargetServer.StartEcho();
        await using var server = await ServerProgram.StartAsync(["-idle-timeout", "10m"]);
        await using var network = FaultProxy.Start(server.Port);
        var port = FreePorts.Next();
        await using var client = await ClientProgram.StartAsync(
            $"ws://127.0.0.1:{network.Port}/", port, echo.Port, ["-ping-interval", "1s", .. Quickly]);
        using var visitor = await Payload.ConnectAsync(port);
        await Payload.EchoAsync(visitor.GetStream(), 1000).WaitAsync(TestTimeouts.Step);

        // The server hears nothing of the old connection's end, and does not wait for it either.
        network.Blackhole(newConnectionsToo: false);
        await Payload.EchoAsync(visitor.GetStream(), 1_000_000).WaitAsync(TestTimeouts.Step);
        await server.Program.Output.WaitForAsync("session-1 goes on over");
        Assert.Equal(0, server.Program.Output.CountOf("no longer listens"));
    }

    [Fact]
    public async Task A_black_hole_is_found_on_both_sides_and_streams_survive_it()
    {
        await using var echo = TargetServer.StartEcho();
        await using var server = await ServerProgram.StartAsync(["-idle-timeout", "3s"]);
        await using var network = FaultProxy.Start(server.Port);
        var port = FreePorts.Next();
        await using var client = await ClientProgram.StartAsync(
            $"ws://127.0.0.1:{network.Port}/", port, echo.Port, ["-ping-interval", "1s", .. Quickly]);
        using var visitor = await Payload.ConnectAsync(port);
        await Payload.EchoAsync(visitor.GetStream(), 1000).WaitAsync(TestTimeouts.Step);

        // Both give the connection up by themselves: neither gets a word through, nor does another attempt.
        network.Blackhole();
        await Task.WhenAll(
            server.Program.Output.WaitForAsync("has lost its connection and waits for another"),
            client.Program.Output.WaitForAsync("has lost its connection and waits for another"));
        var going = Payload.EchoAsync(visitor.GetStream(), 1_000_000);
        await network.CutAsync(ProxyCut.Reset);
        network.Resume();

        await going.WaitAsync(TestTimeouts.Step);
        Assert.Equal(1, server.Program.Output.CountOf("session-1 goes on over"));
        Assert.Equal(0, server.Program.Output.CountOf("session-2 up"));
        Assert.Equal(0, server.Program.Output.CountOf("no longer listens"));
    }

    [Fact]
    public async Task A_reply_that_comes_after_the_request_has_ended_arrives_whole()
    {
        await using var target = TargetServer.Start(async (connection, cancellationToken) =>
        {
            var request = await Payload.ReceiveAsync(connection.GetStream(), cancellationToken: cancellationToken);
            await Payload.SendRandomAsync(connection.GetStream(), request.Length * 100, cancellationToken);
        });
        await using var server = await ServerProgram.StartAsync();
        var port = FreePorts.Next();
        await using var client = await ClientProgram.StartAsync(server.Url, port, target.Port, Quickly);

        var reply = await Tools.RunAsync("bash", ["-c", $"head -c 20000 /dev/zero | nc -N 127.0.0.1 {port} | wc -c"]);
        Assert.Equal("2000000", reply.StandardOutput.Trim());
    }

    /// <summary>The most memory that a process has had resident, in bytes.</summary>
    private static long PeakMemory(int processId)
    {
        var line = File.ReadLines($"/proc/{processId}/status").Single(line => line.StartsWith("VmHWM:", StringComparison.Ordinal));
        return 1024 * long.Parse(line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture);
    }
}
