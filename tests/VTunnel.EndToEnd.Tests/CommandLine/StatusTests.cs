using System.Text.Json.Nodes;
using VTunnel.Cli;
using VTunnel.Testing;
using VTunnel.Testing.Network;
using VTunnel.Testing.Programs;

namespace VTunnel.EndToEnd.Tests.CommandLine;

/// <summary><c>vtunnel status</c> of servers and clients; that of the bridge is tested with it.</summary>
public sealed class StatusTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vtunnel-status-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private Dictionary<string, string?> Environment => new() { ["VTUNNEL_STATE_DIR"] = _folder };

    private RunningProgram Start(params string[] arguments) => VTunnelProgram.Start(arguments, Environment);

    private async Task<ProgramResult> StatusAsync(params string[] arguments) => await VTunnelProgram.RunAsync(["status", .. arguments], Environment);

    private async Task<ProgramResult> WaitForAsync(string text)
    {
        using var clock = new PeriodicTimer(TimeSpan.FromMilliseconds(100));
        using var deadline = new CancellationTokenSource(TestTimeouts.Long);
        while (true)
        {
            var result = await StatusAsync();
            if (result.Output.Contains(text, StringComparison.Ordinal))
                return result;
            await clock.WaitForNextTickAsync(deadline.Token);
        }
    }

    [Fact]
    public async Task Servers_and_clients_of_the_machine_tell_what_they_forward_and_a_client_that_is_not_connected_is_not_healthy()
    {
        await using var target = TargetServer.StartEcho();
        var ports = FreePorts.Next(2);
        await using var server = Start("server", "--host", "127.0.0.1", "--port", "0", "--proxy", "0", "--token", "open-sesame-open-sesame");
        var address = await server.ListeningAsync();
        await using var client = Start(
            "client", "--server", $"ws://{address}/", "--token", "open-sesame-open-sesame",
            "--forward", $"{ports[0]}=127.0.0.1:{target.Port}", "--forward", $"api.example.com=127.0.0.1:{target.Port}");
        await client.Output.WaitForAsync("api.example.com");
        using var visitor = await Payload.ConnectAsync(ports[0]);
        await Payload.EchoAsync(visitor.GetStream(), 3_000_000).WaitAsync(TestTimeouts.Step);

        var all = await WaitForAsync("3000 kB from them, round trip");
        Assert.Equal(ExitCodes.Success, all.ExitCode);
        var lines = VTunnelProgram.Lines(all.Output);
        Assert.Matches(@"^server, process \d+: listening on ws://127\.0\.0\.1:\d+, proxy on 127\.0\.0\.1:\d+, 1 client$", lines[0]);
        Assert.Matches(@"^  session-1 from 127\.0\.0\.1:\d+, token-1: connected, v2, 1 connection, 3000 kB to visitors, 3000 kB from them, round trip [\d.]+ ms$", lines[1]);
        Assert.Equal([$"    port {ports[0]} -> 127.0.0.1:{target.Port}", $"    api.example.com -> 127.0.0.1:{target.Port}"], lines.Skip(2).Take(2));
        Assert.Matches($@"^client, process \d+: connected with ws://{address}/, v2, 1 connection, 3000 kB to targets, 3000 kB from them, round trip [\d.]+ ms$", lines[4]);
        Assert.Equal([$"  port {ports[0]} -> 127.0.0.1:{target.Port}", $"  api.example.com -> 127.0.0.1:{target.Port}"], lines.Skip(5));

        // Another client is refused the port, which is held by the first; a third finds no server.
        await using (var refused = Start(
            "client", "--server", $"ws://{address}/", "--token", "open-sesame-open-sesame", "--forward", $"{ports[0]}=127.0.0.1:{target.Port}"))
        {
            await refused.Output.WaitForAsync("is held by");
            Assert.Equal(ExitCodes.NotHealthy, (await WaitForAsync($"  port {ports[0]} -> 127.0.0.1:{target.Port}: closed: port {ports[0]} is held by session-1 of the server")).ExitCode);
            await using var lost = Start("client", "--server", $"ws://127.0.0.1:{FreePorts.Next()}/", "--forward", $"{ports[1]}=127.0.0.1:{target.Port}");
            await WaitForAsync("the server cannot be reached");
            await WaitForAsync($"  port {ports[1]} -> 127.0.0.1:{target.Port}: closed: the client is not connected");

            var json = JsonNode.Parse((await StatusAsync("--json")).Output)!;
            Assert.False((bool)json["healthy"]!);
            var parts = json["parts"]!.AsArray();
            Assert.Equal(["server", "client", "client", "client"], parts.Select(part => (string)part!["role"]!));
            Assert.Equal($"ws://{address}", (string)parts[0]!["state"]!["listening"]![0]!);
            Assert.Equal(2, parts[0]!["state"]!["status"]!["sessions"]!.AsArray().Count);
            var first = parts.Single(part => (string)part!["name"]! == $"{client.Id}")!["state"]!["status"]!;
            Assert.Equal(("Connected", 3_000_000), ((string)first["state"]!, (int)first["session"]!["bytes_in"]!));

            // This one ends in order, the other is killed.
            lost.Signal(ProgramSignal.Terminate);
            await lost.WaitForExitAsync();
        }

        visitor.Close();
        Assert.Equal(ExitCodes.Success, (await StatusAsync()).ExitCode);
        Assert.Equal([$"client~{client.Id}.sock", $"server~{server.Id}.sock"], Directory.GetFiles(Path.Combine(_folder, "run")).Select(Path.GetFileName).Order());
        client.Signal(ProgramSignal.Terminate);
        server.Signal(ProgramSignal.Terminate);
        Assert.Equal(ExitCodes.Success, await client.WaitForExitAsync());
        Assert.Equal(ExitCodes.Success, await server.WaitForExitAsync());
        var nobody = await StatusAsync();
        Assert.Equal(ExitCodes.Usage, nobody.ExitCode);
        Assert.Contains($"no server and no client runs with the state directory {_folder}", nobody.Errors.Single(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_server_that_cannot_be_asked_says_why_and_works()
    {
        var file = Path.Combine(_folder, "file");
        await File.WriteAllTextAsync(file, "");
        await using var server = VTunnelProgram.Start(["server", "--host", "127.0.0.1", "--port", "0", "--state-dir", Path.Combine(file, "state")]);
        var address = await server.ListeningAsync();
        await server.Output.WaitForAsync("'vtunnel status' cannot ask this process: ");
        using var http = new HttpClient();
        Assert.Equal("ok", await http.GetStringAsync(new Uri($"http://{address}/health")));
    }

    [Fact]
    public async Task The_folder_of_the_socket_is_its_owners_alone_and_a_client_is_told_by_its_address()
    {
        var state = Path.Combine(_folder, "state");
        await using var server = VTunnelProgram.Start(["server", "--port", "0", "--state-dir", state]);
        var address = (await server.ListeningAsync()).Replace("[::]", "127.0.0.1", StringComparison.Ordinal);
        await using var client = Start("client", "--server", $"ws://{address}/", "--forward", $"{FreePorts.Next()}=127.0.0.1:1");
        using var clock = new PeriodicTimer(TimeSpan.FromMilliseconds(20));
        using var deadline = new CancellationTokenSource(TestTimeouts.Long);

        // An address of IPv4 looks like one, although the socket is one for both.
        while (!(await VTunnelProgram.RunAsync("status", "--state-dir", state)).Output.Contains("session-1 from 127.0.0.1:", StringComparison.Ordinal))
            await clock.WaitForNextTickAsync(deadline.Token);
        if (OperatingSystem.IsWindows())
            return;
        var owner = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute;
        Assert.Equal((owner, owner), (File.GetUnixFileMode(state), File.GetUnixFileMode(Path.Combine(state, "run"))));
    }
}
