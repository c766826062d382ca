using System.Security.Cryptography;
using System.Text.Json;
using VTunnel.Cli;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;
using VTunnel.Testing.Programs;

namespace VTunnel.EndToEnd.Tests.Peers;

/// <summary>
/// Both programs against peers on another WebSocket implementation, the <c>ws</c> package of npm: the scenarios are in
/// <c>tests/peers/v1</c>, and each says itself what it expects.
/// </summary>
public sealed class V1PeerTests(V1PeerTests.Peers peers) : IClassFixture<V1PeerTests.Peers>
{
    private const int DefaultMessageLimit = 1024 * 1024;

    /// <summary>The installed scripts, and a server for those that need no special one.</summary>
    public sealed class Peers : IAsyncLifetime
    {
        internal static string Folder { get; } = Path.Combine(AppContext.BaseDirectory, "peers", "v1");

        internal ServerProgram Server { get; private set; } = null!;

        public async Task InitializeAsync()
        {
            // Installing what is installed already costs seconds; the mark says which lock file it was done for.
            var wanted = Convert.ToHexString(SHA256.HashData(await File.ReadAllBytesAsync(Path.Combine(Folder, "package-lock.json"))));
            var mark = Path.Combine(Folder, "node_modules", ".installed");
            if (!File.Exists(mark) || await File.ReadAllTextAsync(mark) != wanted)
            {
                await Tools.RunAsync("npm", ["ci", "--ignore-scripts"], Folder, TestTimeouts.Long);
                await File.WriteAllTextAsync(mark, wanted);
            }

            Server = await ServerProgram.StartAsync();
        }

        public async Task DisposeAsync() => await Server.DisposeAsync();
    }

    [Theory]
    [InlineData("fields_in_any_order_and_form")]
    [InlineData("unknown_types_and_fields")]
    [InlineData("messages_in_continuation_frames")]
    [InlineData("payloads_of_all_sizes", "780000")]
    [InlineData("a_message_of_exactly_the_limit", "1048576")]
    [InlineData("a_message_beyond_the_limit", "1048576")]
    [InlineData("a_binary_message")]
    [InlineData("streams_closed_at_any_moment")]
    [InlineData("listens_repeated")]
    [InlineData("several_listens_without_waiting")]
    [InlineData("a_port_that_is_taken")]
    [InlineData("ports_are_open_on_loopback_only")]
    [InlineData("pings")]
    [InlineData("a_goodbye_is_returned")]
    public async Task A_client_of_another_implementation_is_served(string scenario, params string[] arguments)
    {
        await RunClientAsync(scenario, peers.Server, arguments);
        Assert.Equal(0, peers.Server.Program.Output.CountOf(" error "));
    }

    [Fact]
    public async Task A_server_with_a_higher_limit_takes_payloads_of_a_MiB()
    {
        await using var server = await ServerProgram.StartAsync(["-max-message-bytes", $"{2 * DefaultMessageLimit}"]);
        await RunClientAsync("payloads_of_all_sizes", server, "1048576");
        await RunClientAsync("a_message_beyond_the_limit", server, $"{2 * DefaultMessageLimit}");
    }

    [Fact]
    public async Task A_client_of_another_implementation_is_told_of_the_servers_end()
    {
        await using var server = await ServerProgram.StartAsync();
        await using var client = StartNode("client.mjs", "the_server_shuts_down", server.Url);
        await client.Output.WaitForAsync("READY");
        server.Program.Signal(ProgramSignal.Terminate);

        Assert.Equal(ExitCodes.Success, await server.Program.WaitForExitAsync());
        Assert.True(await client.WaitForExitAsync() == 0, client.Output.Text());
    }

    [Theory]
    [InlineData("streams_of_all_kinds")]
    [InlineData("ids_that_are_used_again")]
    [InlineData("pings_and_silence")]
    [InlineData("goodbyes")]
    public async Task A_server_of_another_implementation_is_understood(string scenario)
    {
        await using var server = StartNode("server.mjs", scenario);
        await using var client = await StartClientAsync(server, "-ping-interval", scenario == "pings_and_silence" ? "1s" : "30s");
        Assert.True(await server.WaitForExitAsync() == 0, server.Output.Text() + "\n" + client.Program.Output.Text());
        Assert.Equal(0, client.Program.Output.CountOf(" error "));
    }

    [Fact]
    public async Task Answers_of_another_implementation_are_understood_in_any_form()
    {
        await using var server = StartNode("server.mjs", "answers_in_any_order_and_form");
        await using var client = await StartClientAsync(server);
        await server.Output.WaitForAsync("DONE");
        await client.Program.Output.WaitForAsync("Forwarding 9000 on the server");
        await client.Program.Output.WaitForAsync("Forwarding 9002 on the server");
        await client.Program.Output.WaitForAsync("The server refused to listen on port 9001: not here");
        await client.Program.Output.WaitForAsync("sent a message that was skipped");

        client.Program.Signal(ProgramSignal.Terminate);
        Assert.Equal(ExitCodes.Success, await client.Program.WaitForExitAsync());
        Assert.True(await server.WaitForExitAsync() == 0, server.Output.Text());
    }

    [Fact]
    public async Task A_server_of_another_implementation_is_told_of_the_clients_end()
    {
        await using var server = StartNode("server.mjs", "the_client_shuts_down");
        await using var client = await StartClientAsync(server);
        await server.Output.WaitForAsync("GO");
        client.Program.Signal(ProgramSignal.Terminate);
        Assert.Equal(ExitCodes.Success, await client.Program.WaitForExitAsync());
        Assert.True(await server.WaitForExitAsync() == 0, server.Output.Text());
    }

    private static async Task RunClientAsync(string scenario, ServerProgram server, params string[] arguments) =>
        await Tools.RunAsync("node", ["client.mjs", scenario, server.Url, .. arguments], Peers.Folder, TestTimeouts.Long);

    private static RunningProgram StartNode(string script, params string[] arguments) =>
        RunningProgram.Start(Tools.Find("node"), [script, .. arguments], Tools.Direct, Peers.Folder);

    private static async Task<ClientProgram> StartClientAsync(RunningProgram server, params string[] options)
    {
        var ready = await server.Output.WaitForAsync("READY ");
        using var ports = JsonDocument.Parse(ready["READY ".Length..]);
        int Port(string name) => ports.RootElement.GetProperty(name).GetInt32();
        return ClientProgram.Start(
            $"ws://127.0.0.1:{Port("server")}/",
            [(9000, $"127.0.0.1:{Port("target")}"), (9001, $"127.0.0.1:{Port("second")}"), (9002, $"127.0.0.1:{Port("nobody")}")],
            ["-reconnect-min", "10ms", "-reconnect-max", "50ms", .. options]);
    }
}
