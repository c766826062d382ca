using System.Net.Sockets;
using VTunnel.Cli;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Expose;

/// <summary>Two clients that want the same port.</summary>
public sealed class SharedServerTests
{
    /// <summary>The server takes a silent client for dead after this; nothing here may wait for it.</summary>
    private const string LongIdleTimeout = "10m";

    [Theory]
    [InlineData("v1")]
    [InlineData("v2")]
    public async Task A_port_is_refused_to_a_second_client_while_the_first_lives(string protocol)
    {
        await using var first = TargetServer.Start((connection, ct) => connection.GetStream().WriteAsync("first"u8.ToArray(), ct).AsTask());
        await using var second = TargetServer.Start((connection, ct) => connection.GetStream().WriteAsync("second"u8.ToArray(), ct).AsTask());
        await using var server = await ServerProgram.StartAsync(["-probe-timeout", "60s"]);
        var port = FreePorts.Next();
        await using var holder = await ClientProgram.StartAsync(server.Url, port, first.Port, "-protocol", protocol);

        await using var newcomer = ClientProgram.Start(server.Url, [(port, $"127.0.0.1:{second.Port}")], "-no-reconnect", "-protocol", protocol);
        Assert.Equal(ExitCodes.ListenRefused, await newcomer.Program.WaitForExitAsync());
        await newcomer.Program.Output.WaitForAsync($"port {port} is held by session-1 of the server, which is alive");
        Assert.Equal("first", await ReadAllAsync(port));
    }

    [Theory]
    [InlineData("v1")]
    [InlineData("v2")]
    public async Task A_newcomer_gets_the_port_of_a_client_whose_network_has_vanished(string protocol)
    {
        await using var first = TargetServer.Start((connection, ct) => connection.GetStream().WriteAsync("first"u8.ToArray(), ct).AsTask());
        await using var second = TargetServer.Start((connection, ct) => connection.GetStream().WriteAsync("second"u8.ToArray(), ct).AsTask());
        await using var server = await ServerProgram.StartAsync(["-idle-timeout", LongIdleTimeout, "-probe-timeout", "300ms"]);
        await using var network = FaultProxy.Start(server.Port);
        var port = FreePorts.Next();
        await using var vanished = await ClientProgram.StartAsync($"ws://127.0.0.1:{network.Port}/", port, first.Port, "-ping-interval", "-1s", "-protocol", protocol);
        Assert.Equal("first", await ReadAllAsync(port));

        network.Blackhole();
        await using var newcomer = await ClientProgram.StartAsync(server.Url, port, second.Port, "-protocol", protocol);
        Assert.Equal("second", await ReadAllAsync(port));
        await server.Program.Output.WaitForAsync("session-1 is gone: it did not answer within");
    }

    [Fact]
    public async Task A_client_whose_connection_vanished_gets_its_own_port_back()
    {
        await using var echo = TargetServer.StartEcho();
        await using var server = await ServerProgram.StartAsync(["-idle-timeout", LongIdleTimeout, "-probe-timeout", "300ms"]);
        await using var network = FaultProxy.Start(server.Port);
        var port = FreePorts.Next();
        await using var client = await ClientProgram.StartAsync(
            $"ws://127.0.0.1:{network.Port}/", port, echo.Port, "-ping-interval", "1s", "-reconnect-min", "10ms", "-protocol", "v1");
        await Payload.EchoOnceAsync(port).WaitAsync(TestTimeouts.Step);

        network.Blackhole(newConnectionsToo: false);
        await client.WaitForForwardsAsync(2);
        await Payload.EchoOnceAsync(port).WaitAsync(TestTimeouts.Step);
        await server.Program.Output.WaitForAsync("session-1 is gone: it did not answer within");
    }

    private static async Task<string> ReadAllAsync(int port)
    {
        using var visitor = await Payload.ConnectAsync(port);
        using var reader = new StreamReader(visitor.GetStream());
        return await reader.ReadToEndAsync().WaitAsync(TestTimeouts.Step);
    }
}
