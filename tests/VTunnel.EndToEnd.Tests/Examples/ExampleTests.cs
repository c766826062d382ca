using VTunnel.Testing;
using VTunnel.Testing.Network;
using VTunnel.Testing.Programs;

namespace VTunnel.EndToEnd.Tests.Examples;

/// <summary>The programs of <c>examples/</c>, as they were built beside these tests.</summary>
public sealed class ExampleTests
{
    private static RunningProgram Start(string example, params string[] arguments) =>
        RunningProgram.Start(Path.Combine(AppContext.BaseDirectory, OperatingSystem.IsWindows() ? $"{example}.exe" : example), arguments);

    private static async Task<Uri> ListeningAsync(RunningProgram server)
    {
        var line = await server.Output.WaitForAsync("Now listening on: ");
        return new Uri(line[line.IndexOf("http://", StringComparison.Ordinal)..].Trim());
    }

    private static string TunnelOf(Uri server) => $"ws://{server.Authority}/tunnel";

    [Fact]
    public async Task The_embedded_server_and_the_embedded_client_make_a_tunnel_and_end_in_order()
    {
        await using var echo = TargetServer.StartEcho();
        await using var server = Start("EmbedServer", "--urls", "http://127.0.0.1:0");
        var address = await ListeningAsync(server);
        using var web = new HttpClient();
        Assert.Equal("Clients of the tunnel dial /tunnel.\n", await web.GetStringAsync(address));

        var port = FreePorts.Next();
        await using var client = Start("EmbedClient", TunnelOf(address), $"{port}=127.0.0.1:{echo.Port}");
        await client.Output.WaitForAsync($"Port {port} of the server leads to 127.0.0.1:{echo.Port}");
        using (var visitor = await Payload.ConnectAsync(port))
            await Payload.EchoAsync(visitor.GetStream(), 100_000).WaitAsync(TestTimeouts.Step);

        client.Signal(ProgramSignal.Interrupt);
        Assert.Equal(0, await client.WaitForExitAsync());
        server.Signal(ProgramSignal.Terminate);
        Assert.Equal(0, await server.WaitForExitAsync());
    }

    [Fact]
    public async Task The_embedded_client_ends_in_order_while_there_is_no_server()
    {
        await using var client = Start("EmbedClient", $"ws://127.0.0.1:{FreePorts.Next()}/", "9000=localhost:3000");
        await client.Output.WaitForAsync("WaitingToReconnect");
        client.Signal(ProgramSignal.Terminate);
        Assert.Equal(0, await client.WaitForExitAsync());
    }

    [Fact]
    public async Task The_extended_server_refuses_a_port_and_says_why()
    {
        await using var server = Start("Extending", "--urls", "http://127.0.0.1:0");
        var address = await ListeningAsync(server);
        var port = FreePorts.Next();
        await using var client = Start("EmbedClient", TunnelOf(address), $"{port}=localhost:3000");
        await client.Output.WaitForAsync($"The server does not listen on port {port}: port {port} is not for tunnels; use 9000-9999");
        Assert.Equal(1, await client.WaitForExitAsync());
        await server.Output.WaitForAsync($"session-1: port {port} refused");
    }

    [Theory]
    [InlineData]
    [InlineData("not a url", "9000=localhost:3000")]
    [InlineData("ws://localhost/", "9000")]
    public async Task The_embedded_client_says_how_it_is_used(params string[] arguments)
    {
        await using var client = Start("EmbedClient", arguments);
        Assert.Equal(2, await client.WaitForExitAsync());
        Assert.Contains("usage: EmbedClient URL PORT=HOST:PORT", client.Output.Text(), StringComparison.Ordinal);
    }
}
