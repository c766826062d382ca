using VTunnel.Cli;
using VTunnel.Testing.Programs;

namespace VTunnel.EndToEnd.Tests.CommandLine;

public sealed class DemoCommandTests
{
    [Fact]
    public async Task Once_proves_the_tunnel_and_ends()
    {
        var result = await VTunnelProgram.RunAsync("demo", "--once");
        Assert.True(result.ExitCode == ExitCodes.Success, string.Join('\n', result.Errors.Prepend(result.Output)));
        Assert.Empty(result.Errors);
        Assert.Matches(@"proof +GET http://127\.0\.0\.1:\d+/ through the tunnel: 200, \d+ bytes, SHA-256 [0-9a-f]{16}…, the same as the original\n$", result.Output);
    }

    [Fact]
    public async Task It_stays_up_until_it_is_told_to_end()
    {
        await using var demo = VTunnelProgram.Start("demo");
        var url = (await demo.Output.WaitForAsync("open in a browser")).Split(' ')[^1];
        await demo.Output.WaitForAsync("Ctrl-C ends.");

        using var http = new HttpClient();
        Assert.Contains("It came through the tunnel", await http.GetStringAsync(new Uri(url)), StringComparison.Ordinal);

        demo.Signal(ProgramSignal.Interrupt);
        Assert.Equal(ExitCodes.Success, await demo.WaitForExitAsync());
    }
}
