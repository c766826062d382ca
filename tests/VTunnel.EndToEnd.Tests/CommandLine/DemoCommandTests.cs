using VTunnel.Cli;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing.Network;
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
    public async Task A_proxy_in_the_environment_is_not_asked_for_what_is_on_this_machine()
    {
        var nobody = $"http://127.0.0.1:{FreePorts.Next()}";
        var result = await VTunnelProgram.RunAsync(
            ["demo", "--once"], new Dictionary<string, string?> { ["http_proxy"] = nobody, ["HTTP_PROXY"] = nobody, ["no_proxy"] = null, ["NO_PROXY"] = null });
        Assert.True(result.ExitCode == ExitCodes.Success, string.Join('\n', result.Errors.Prepend(result.Output)));
    }

    [Fact]
    public async Task Without_a_network_to_this_machine_itself_it_fails_and_says_why()
    {
        // A network namespace of its own, whose loopback interface is down. Whoever is not root is root there.
        string[] user = Environment.IsPrivilegedProcess ? [] : ["--user", "--map-root-user"];
        var result = await Tools.TryRunAsync("unshare", [.. user, "--net", VTunnelProgram.Path, "demo", "--once"]);
        Assert.Equal(ExitCodes.DemoFailed, result.ExitCode);
        Assert.EndsWith("\nvtunnel: the demo failed: the server cannot be reached: Network is unreachable\n", result.StandardError, StringComparison.Ordinal);
        Assert.DoesNotContain("proof", result.StandardOutput, StringComparison.Ordinal);
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
