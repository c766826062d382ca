using System.Net.Sockets;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using VTunnel.Cli;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;
using VTunnel.Testing.Network;
using VTunnel.Testing.Programs;

namespace VTunnel.EndToEnd.Tests.Expose;

public sealed class ShutdownTests
{
    public enum Side
    {
        Server,
        Client,
    }

    [Theory]
    [InlineData(Side.Server, ProgramSignal.Terminate, "v1")]
    [InlineData(Side.Server, ProgramSignal.Interrupt, "v2")]
    [InlineData(Side.Client, ProgramSignal.Terminate, "v2")]
    [InlineData(Side.Client, ProgramSignal.Interrupt, "v1")]
    [InlineData(Side.Server, ProgramSignal.HangUp, "v2")]
    [InlineData(Side.Client, ProgramSignal.HangUp, "v2")]
    public async Task A_response_under_way_is_completed_and_nothing_new_begins(Side side, ProgramSignal signal, string protocol)
    {
        var halfway = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var goOn = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var web = await WebServer.StartAsync(app => app.MapGet("/slow", async (HttpResponse response) =>
        {
            await response.WriteAsync("first half, ");
            await response.Body.FlushAsync();
            halfway.SetResult();
            await goOn.Task;
            await response.WriteAsync("second half");
        }));
        await using var echo = TargetServer.StartEcho();

        // Whatever the machine does meanwhile, the response may still be completed.
        await using var server = await ServerProgram.StartAsync(["-drain-timeout", "60s"]);
        var (webPort, echoPort) = (FreePorts.Next(), FreePorts.Next());
        await using var client = await ClientProgram.StartAsync(
            server.Url, [(webPort, $"127.0.0.1:{web.Port}"), (echoPort, $"127.0.0.1:{echo.Port}")], "-protocol", protocol, "-drain-timeout", "60s");
        var ending = side == Side.Server ? server.Program : client.Program;

        var curl = Tools.RunAsync("curl", ["-sS", "--fail", $"http://127.0.0.1:{webPort}/slow"]);
        await halfway.Task.WaitAsync(TestTimeouts.Step);
        ending.Signal(signal);
        await WaitUntilNobodyIsServedAsync(echoPort);
        Assert.False(ending.HasExited);
        goOn.SetResult();

        Assert.Equal("first half, second half", (await curl).StandardOutput);
        Assert.Equal(ExitCodes.Success, await ending.WaitForExitAsync());
    }

    [Theory]
    [InlineData(Side.Server, "v1")]
    [InlineData(Side.Client, "v1")]
    [InlineData(Side.Server, "v2")]
    [InlineData(Side.Client, "v2")]
    public async Task A_connection_that_never_ends_does_not_hold_the_end_up_for_ever_and_is_not_taken_for_complete(Side side, string protocol)
    {
        var targetSaw = new TaskCompletionSource<Exception?>(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var target = TargetServer.Start(async (connection, cancellationToken) =>
        {
            // Half an answer, of which nobody can tell by itself that it is one.
            await connection.GetStream().WriteAsync("half"u8.ToArray(), cancellationToken);
            targetSaw.SetResult(await Record.ExceptionAsync(
                () => connection.GetStream().ReadExactlyAsync(new byte[1], cancellationToken).AsTask()));
        });
        await using var server = await ServerProgram.StartAsync(["-drain-timeout", "500ms"]);
        var port = FreePorts.Next();
        await using var client = await ClientProgram.StartAsync(server.Url, port, target.Port, "-protocol", protocol, "-drain-timeout", "500ms");
        using var visitor = await Payload.ConnectAsync(port);
        await visitor.GetStream().ReadExactlyAsync(new byte[4]).AsTask().WaitAsync(TestTimeouts.Step);

        var ending = side == Side.Server ? server.Program : client.Program;
        ending.Signal(ProgramSignal.Terminate);
        Assert.Equal(ExitCodes.Success, await ending.WaitForExitAsync());

        var visitorSaw = await Record.ExceptionAsync(
            () => visitor.GetStream().ReadExactlyAsync(new byte[1]).AsTask().WaitAsync(TestTimeouts.Step));
        AssertEnded(visitorSaw, protocol);
        AssertEnded(await targetSaw.Task.WaitAsync(TestTimeouts.Step), protocol);
    }

    [Theory]
    [InlineData("v1")]
    [InlineData("v2")]
    public async Task A_client_is_told_that_its_server_shuts_down_and_waits_for_the_next_one(string protocol)
    {
        await using var echo = TargetServer.StartEcho();
        var serverPort = FreePorts.Next();
        var port = FreePorts.Next();
        await using var server = await ServerProgram.StartAsync(port: serverPort);
        await using var client = await ClientProgram.StartAsync(server.Url, [(port, $"127.0.0.1:{echo.Port}")], "-reconnect-min", "20ms", "-protocol", protocol);

        server.Program.Signal(ProgramSignal.Terminate);
        Assert.Equal(ExitCodes.Success, await server.Program.WaitForExitAsync());
        await client.Program.Output.WaitForAsync("closed by the peer");
        await using var next = await ServerProgram.StartAsync(port: serverPort);
        await client.WaitForForwardsAsync(2);
        await Payload.EchoOnceAsync(port).WaitAsync(TestTimeouts.Step);
    }

    /// <summary>Broken off, and not as if it had come to its end; v1 has no way to tell the two apart.</summary>
    private static void AssertEnded(Exception? seen, string protocol)
    {
        if (protocol == "v1" && seen is EndOfStreamException)
            return;
        var broken = Assert.IsType<IOException>(seen);
        Assert.Equal(SocketError.ConnectionReset, Assert.IsType<SocketException>(broken.InnerException).SocketErrorCode);
    }

    private static async Task WaitUntilNobodyIsServedAsync(int echoPort)
    {
        using var deadline = new CancellationTokenSource(TestTimeouts.Step);
        try
        {
            while (!deadline.IsCancellationRequested)
                await Payload.EchoOnceAsync(echoPort, 1).WaitAsync(TestTimeouts.Step);
        }
        catch (Exception e) when (e is IOException or SocketException)
        {
            return;
        }

        throw new TimeoutException("new visitors are still served");
    }
}
