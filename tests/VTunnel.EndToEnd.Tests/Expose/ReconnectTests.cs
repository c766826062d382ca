using System.Net.Sockets;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;
using VTunnel.Testing.Network;
using VTunnel.Testing.Programs;

namespace VTunnel.EndToEnd.Tests.Expose;

/// <summary>Over protocol v1 a lost connection ends the session, and the client makes another; <see cref="ResumeTests"/> has v2.</summary>
[Collection(Heavy.Name)]
public sealed class ReconnectTests
{
    private static readonly string[] Quickly = ["-protocol", "v1", "-reconnect-min", "20ms", "-reconnect-max", "200ms"];

    [Fact]
    public async Task Ten_flaps_in_a_row_leave_one_listener_and_nothing_else()
    {
        await using var echo = TargetServer.StartEcho();
        await using var server = await ServerProgram.StartAsync();
        await using var network = FaultProxy.Start(server.Port);
        var port = FreePorts.Next();
        await using var client = await ClientProgram.StartAsync($"ws://127.0.0.1:{network.Port}/", port, echo.Port, Quickly);
        var openFiles = (Server: 0, Client: 0);

        for (var flap = 1; flap <= 10; flap++)
        {
            await Payload.EchoOnceAsync(port).WaitAsync(TestTimeouts.Step);
            await network.CutAsync(flap % 2 == 0 ? ProxyCut.Fin : ProxyCut.Reset);
            await client.WaitForForwardsAsync(flap + 1);
            await server.Program.Output.WaitForCountAsync("no longer listens on port", flap);
            if (flap == 2)
                openFiles = (CountOpenFiles(server.Program), CountOpenFiles(client.Program));
        }

        await Payload.EchoOnceAsync(port).WaitAsync(TestTimeouts.Step);
        Assert.Equal(11, server.Program.Output.CountOf($"listens on 127.0.0.1:{port}"));
        Assert.Equal(10, server.Program.Output.CountOf("no longer listens on port"));
        Assert.Equal(1, network.ConnectionCount);
        Assert.InRange(CountOpenFiles(server.Program), 0, openFiles.Server + 5);
        Assert.InRange(CountOpenFiles(client.Program), 0, openFiles.Client + 5);
    }

    [Fact]
    public async Task Under_load_a_connection_is_either_right_or_broken_and_visitors_are_soon_served_again()
    {
        await using var echo = TargetServer.StartEcho();
        await using var server = await ServerProgram.StartAsync();
        await using var network = FaultProxy.Start(server.Port);
        var port = FreePorts.Next();
        await using var client = await ClientProgram.StartAsync($"ws://127.0.0.1:{network.Port}/", port, echo.Port, Quickly);

        var load = Enumerable.Range(0, 8).Select(_ => Load.Start(port)).ToArray();
        for (var cut = 1; cut <= 6; cut++)
        {
            await Task.WhenAll(load.Select(visitor => visitor.WaitForSuccessAsync()));

            // In the middle of a frame, sometimes of its header.
            network.CutAfter(
                cut % 2 == 0 ? ProxyDirection.ToTarget : ProxyDirection.FromTarget,
                Random.Shared.Next(1, 500_000),
                cut % 3 == 0 ? ProxyCut.Fin : ProxyCut.Reset);
            await client.WaitForForwardsAsync(cut + 1);
        }

        await Task.WhenAll(load.Select(visitor => visitor.WaitForSuccessAsync()));
        await Task.WhenAll(load.Select(visitor => visitor.StopAsync()));
        Assert.True(load.Sum(visitor => visitor.Failures) > 0);
        Assert.Equal(0, server.Program.Output.CountOf(" error "));
        Assert.Equal(0, client.Program.Output.CountOf(" error "));
    }

    [Fact]
    public async Task A_black_hole_is_found_on_both_sides()
    {
        await using var echo = TargetServer.StartEcho();
        await using var server = await ServerProgram.StartAsync(["-idle-timeout", "3s"]);
        await using var network = FaultProxy.Start(server.Port);
        var port = FreePorts.Next();
        await using var client = await ClientProgram.StartAsync(
            $"ws://127.0.0.1:{network.Port}/", port, echo.Port, ["-ping-interval", "1s", .. Quickly]);
        using var visitor = await Payload.ConnectAsync(port);
        await Payload.EchoAsync(visitor.GetStream(), 100).WaitAsync(TestTimeouts.Step);

        // Both ends give up by themselves: neither gets a word through, the end of the other included.
        network.Blackhole();
        await Task.WhenAll(
            server.Program.Output.WaitForAsync("nothing was heard for"),
            client.Program.Output.WaitForAsync("nothing was heard for"));
        await Assert.ThrowsAsync<IOException>(() => visitor.GetStream().ReadAsync(new byte[1]).AsTask().WaitAsync(TestTimeouts.Step));

        await network.CutAsync(ProxyCut.Reset);
        network.Resume();
        await client.WaitForForwardsAsync(2);
        await Payload.EchoOnceAsync(port).WaitAsync(TestTimeouts.Step);
    }

    [Fact]
    public async Task A_server_that_was_killed_and_comes_back_is_asked_for_every_forward_again()
    {
        await using var echo = TargetServer.StartEcho();
        var serverPort = FreePorts.Next();
        var ports = FreePorts.Next(5);
        var server = await ServerProgram.StartAsync(port: serverPort);
        await using var client = await ClientProgram.StartAsync(
            server.Url, [.. ports.Select(port => (port, $"127.0.0.1:{echo.Port}"))], Quickly);

        await server.DisposeAsync();
        await client.Program.Output.WaitForAsync("trying again in");
        await using var again = await ServerProgram.StartAsync(port: serverPort);
        await client.WaitForForwardsAsync(2);

        foreach (var port in ports)
            await Payload.EchoOnceAsync(port).WaitAsync(TestTimeouts.Step);
    }

    [Fact]
    public async Task A_server_that_is_not_there_yet_is_waited_for()
    {
        await using var echo = TargetServer.StartEcho();
        var serverPort = FreePorts.Next();
        var port = FreePorts.Next();
        await using var client = ClientProgram.Start($"ws://127.0.0.1:{serverPort}/", [(port, $"127.0.0.1:{echo.Port}")], Quickly);
        await client.Program.Output.WaitForCountAsync("trying again in", 3);

        await using var server = await ServerProgram.StartAsync(port: serverPort);
        await client.WaitForForwardsAsync();
        await Payload.EchoOnceAsync(port).WaitAsync(TestTimeouts.Step);
    }

    /// <summary>Without the libraries, which stay open from when they are first needed.</summary>
    private static int CountOpenFiles(RunningProgram program) =>
        new DirectoryInfo($"/proc/{program.Id}/fd").GetFiles().Count(file => file.LinkTarget?.EndsWith(".dll", StringComparison.Ordinal) is false);

    /// <summary>A visitor that comes again and again, each time with other data.</summary>
    private sealed class Load
    {
        private readonly int _port;
        private readonly CancellationTokenSource _stopping = new();
        private readonly Task _running;
        private TaskCompletionSource _succeeded = new(TaskCreationOptions.RunContinuationsAsynchronously);

        private Load(int port)
        {
            _port = port;
            _running = RunAsync();
        }

        public int Failures { get; private set; }

        public static Load Start(int port) => new(port);

        /// <summary>Waits for a connection that began after this call to go well.</summary>
        public async Task WaitForSuccessAsync()
        {
            // The one under way may have begun before.
            for (var i = 0; i < 2; i++)
                await (await Task.WhenAny(_succeeded.Task, _running)).WaitAsync(TestTimeouts.Step);
        }

        public async Task StopAsync()
        {
            await _stopping.CancelAsync();
            await _running.WaitAsync(TestTimeouts.Step);
        }

        private async Task RunAsync()
        {
            using var clock = new PeriodicTimer(TimeSpan.FromMilliseconds(10));
            while (!_stopping.IsCancellationRequested)
            {
                try
                {
                    // Other data than was sent would be an InvalidDataException, and silence a TimeoutException: neither may happen.
                    await Payload.EchoOnceAsync(_port, Random.Shared.Next(1, 300_000)).WaitAsync(TestTimeouts.Step);
                    Interlocked.Exchange(ref _succeeded, new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously)).SetResult();
                }
                catch (Exception e) when (e is IOException or SocketException)
                {
                    Failures++;
                    await clock.WaitForNextTickAsync();
                }
            }
        }
    }
}
