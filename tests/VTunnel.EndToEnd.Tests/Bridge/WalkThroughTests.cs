using VTunnel.EndToEnd.Tests.CommandLine;
using VTunnel.Testing;
using VTunnel.Testing.Network;
using VTunnel.Testing.Programs;

namespace VTunnel.EndToEnd.Tests.Bridge;

public sealed class WalkThroughTests
{
    /// <summary>As a script would run it: nothing waits for anything but the commands themselves.</summary>
    private const string Script =
        """
        set -e
        trap 'kill $(jobs -p) 2> /dev/null' EXIT
        vtunnel relay init --domain localhost --url ws://127.0.0.1:$P/ --state-dir relay
        vtunnel relay --host 127.0.0.1 --port $P --no-tls --state-dir relay &
        vtunnel join ws://127.0.0.1:$P/ "$(vtunnel relay invite --quiet --state-dir relay)" --state-dir publisher
        vtunnel create user alice -m $LOCAL:$SERVICE --state-dir publisher
        vtunnel export user alice --out alice.zip --state-dir publisher
        vtunnel serve --state-dir publisher &
        vtunnel connect alice.zip --state-dir consumer &
        wait -n
        """;

    [Fact]
    public async Task The_sequence_for_scripts_carries_bytes_to_the_service_and_back()
    {
        await using var service = TargetServer.StartEcho();
        using var folder = new TempDirectory();
        var local = FreePorts.Next();
        var environment = new Dictionary<string, string?>
        {
            ["P"] = $"{FreePorts.Next()}",
            ["LOCAL"] = $"{local}",
            ["SERVICE"] = $"{service.Port}",
            ["PATH"] = $"{Path.GetDirectoryName(VTunnelProgram.Path)}:{Environment.GetEnvironmentVariable("PATH")}",
        };
        await using var script = RunningProgram.Start("bash", ["-c", Script], environment, folder.Path);
        await script.Output.WaitForAsync("as alice, through", timeout: TestTimeouts.Long);

        await Payload.EchoOnceAsync(local, 3_000_000).WaitAsync(TestTimeouts.Step);

        // What to do next is told as it has to be typed: with the state directory where that is on this machine.
        foreach (var hint in new[]
        {
            $"Next, start it:            vtunnel relay --no-tls --host 127.0.0.1 --port {environment["P"]} --state-dir relay",
            "Next, add a user:     vtunnel create user alice -m 5432:5432 --state-dir publisher",
            "Next, write the bundle for 'alice':   vtunnel export user alice --state-dir publisher",
            "Next, on the machine of 'alice':   vtunnel connect alice.zip",
        })
        {
            Assert.Contains(hint, script.Output.Lines);
        }

        script.Signal(ProgramSignal.Terminate);
        await script.WaitForExitAsync();
    }
}
