using System.Globalization;
using System.Net.Sockets;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Expose;

/// <summary>
/// The program under full load in both directions, with every kind of stream event at once. What a socket's data wakes runs
/// on the very threads that poll the sockets there: anything that waited on one of them would stop everything, and this test
/// with it. VTUNNEL_STRESS_SECONDS makes it longer than its usual five seconds.
/// </summary>
[Collection(Heavy.Name)]
public sealed class StressTests
{
    private static readonly TimeSpan Duration = TimeSpan.FromSeconds(
        double.Parse(Environment.GetEnvironmentVariable("VTUNNEL_STRESS_SECONDS") ?? "5", CultureInfo.InvariantCulture));

    [Theory]
    [InlineData("v2")]
    [InlineData("v1")]
    public async Task Nothing_hangs_or_gets_lost_while_streams_begin_end_break_and_stall_under_full_load(string protocol)
    {
        await using var echo = TargetServer.StartEcho();
        await using var server = await ServerProgram.StartAsync();
        await using var proxy = FaultProxy.Start(server.Port);
        var port = FreePorts.Next();
        await using var client = await ClientProgram.StartAsync(
            $"ws://127.0.0.1:{proxy.Port}/", port, echo.Port, "--protocol", protocol, "--reconnect-min", "50ms", "--reconnect-max", "200ms");

        using var over = new CancellationTokenSource(Duration);
        var workers = new List<Task>
        {
            RepeatAsync(random => Payload.EchoOnceAsync(port, random.Next(1, 8 << 20))),
            RepeatAsync(random => Payload.EchoOnceAsync(port, random.Next(1, 8 << 20))),
            RepeatAsync(random => Payload.EchoOnceAsync(port, random.Next(1, 8 << 20))),
            RepeatAsync(random => Payload.EchoOnceAsync(port, random.Next(1, 2000))),
            RepeatAsync(random => Payload.EchoOnceAsync(port, random.Next(1, 2000))),
            RepeatAsync(random => ResetAsync(port, random.Next(0, 1 << 20))),
            RepeatAsync(random => ResetAsync(port, 0)),
        };
        if (protocol == "v2")
        {
            // v1 has no half-close, a stalled reader there holds its session up, and it cannot resume.
            workers.Add(RepeatAsync(random => HalfCloseAsync(port, random.Next(1, 1 << 20))));
            workers.Add(RepeatAsync(_ => StallAsync(port)));
            workers.Add(CutAsync());
        }

        await Task.WhenAll(workers);

        await Payload.EchoOnceAsync(port).WaitAsync(TestTimeouts.Step);
        Assert.False(server.Program.HasExited);
        Assert.False(client.Program.HasExited);

        async Task RepeatAsync(Func<Random, Task> once)
        {
            while (!over.IsCancellationRequested)
                await once(Random.Shared).WaitAsync(TestTimeouts.Step);
        }

        async Task CutAsync()
        {
            using var clock = new PeriodicTimer(TimeSpan.FromMilliseconds(700));
            for (var resets = true; !over.IsCancellationRequested && await clock.WaitForNextTickAsync(); resets = !resets)
                await proxy.CutAsync(resets ? ProxyCut.Reset : ProxyCut.Fin).WaitAsync(TestTimeouts.Step);
        }
    }

    private static async Task HalfCloseAsync(int port, int length)
    {
        using var visitor = await Payload.ConnectAsync(port);
        var stream = visitor.GetStream();
        var receiving = Payload.ReceiveAsync(stream);
        var sent = await Payload.SendRandomAsync(stream, length);
        visitor.Client.Shutdown(SocketShutdown.Send);
        Assert.Equal(sent, await receiving);
    }

    private static async Task ResetAsync(int port, int length)
    {
        var visitor = await Payload.ConnectAsync(port);
        await Payload.EchoAsync(visitor.GetStream(), 1 + (length / 2));
        visitor.LingerState = new LingerOption(true, 0);
        visitor.Client.Close();
    }

    /// <summary>Sends as much as fits and reads nothing, until nothing moves any more; then breaks off.</summary>
    private static async Task StallAsync(int port)
    {
        var visitor = await Payload.ConnectAsync(port);
        using var enough = new CancellationTokenSource(TimeSpan.FromMilliseconds(500));
        try
        {
            await Payload.SendRandomAsync(visitor.GetStream(), 1 << 30, enough.Token);
        }
        catch (OperationCanceledException)
        {
            // It was stalled long enough.
        }

        visitor.LingerState = new LingerOption(true, 0);
        visitor.Client.Close();
    }
}
