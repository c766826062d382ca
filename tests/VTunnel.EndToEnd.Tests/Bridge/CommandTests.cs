using System.Net;
using System.Net.Sockets;
using System.Text.Json;
using VTunnel.EndToEnd.Tests.CommandLine;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Bridge;

/// <summary>What the commands of the bridge say, and with which exit code, when things go well and when they do not.</summary>
public sealed class CommandTests(RunningLab shared) : IClassFixture<RunningLab>
{
    [Fact]
    public async Task Status_test_and_audit_say_what_is_true()
    {
        await using var service = TargetServer.StartEcho();
        await using var lab = await BridgeLab.StartAsync();
        var (local, other, dead) = (FreePorts.Next(), FreePorts.Next(), FreePorts.Next());
        await lab.CreateUserAsync("alice", "-m", $"{local}:{service.Port}");

        // Nothing but the relay runs.
        Assert.Equal(0, (await lab.TryRunAsync("relay", "status")).ExitCode);
        var stopped = await lab.TryRunAsync("publisher", "status");
        Assert.Equal(9, stopped.ExitCode);
        Assert.Contains("not running; start it with 'vtunnel serve", stopped.Output, StringComparison.Ordinal);

        await lab.ServeAsync();
        var consumer = await lab.ConnectAsync("alice");
        await Payload.EchoOnceAsync(local, 5000).WaitAsync(TestTimeouts.Step);

        using var status = JsonDocument.Parse((await lab.RunAsync("alice", "status", "--json")).Output);
        var state = status.RootElement.GetProperty("parts")[0].GetProperty("state");
        Assert.True(status.RootElement.GetProperty("healthy").GetBoolean());
        Assert.True(state.GetProperty("is_connected").GetBoolean());
        Assert.Equal(5000, state.GetProperty("bytes_in").GetInt64());
        Assert.Equal(5000, state.GetProperty("bytes_out").GetInt64());
        Assert.NotEqual(JsonValueKind.Undefined, state.GetProperty("probed_at").ValueKind);
        Assert.Contains("alice from", (await lab.RunAsync("publisher", "status")).Output, StringComparison.Ordinal);
        Assert.Contains("connected from", (await lab.RunAsync("relay", "relay", "list")).Output, StringComparison.Ordinal);

        var test = await lab.RunAsync("alice", "test");
        Assert.Contains($"ok      target: 127.0.0.1:{service.Port} (local port {local})", test.Output, StringComparison.Ordinal);
        await lab.RunAsync("publisher", "edit", "user", "alice", "-m", $"{other}:{dead}");
        await consumer.Output.WaitForAsync($"Local port {other} leads to");
        var failed = await lab.TryRunAsync("alice", "test");
        Assert.Equal(9, failed.ExitCode);
        Assert.Contains($"FAILED  target: 127.0.0.1:{dead} (local port {other}): cannot reach", failed.Output, StringComparison.Ordinal);
        Assert.Contains("Ask the publisher whether these services run", failed.Output, StringComparison.Ordinal);

        var audit = (await lab.RunAsync("publisher", "audit", "--user", "alice", "--since", "1h")).Output;
        foreach (var kind in new[] { "created", "login", "stream-open", "stream-end", "changed" })
            Assert.Contains(kind, audit, StringComparison.Ordinal);
        Assert.DoesNotContain("stream", (await lab.RunAsync("publisher", "audit", "--user", "bob")).Output, StringComparison.Ordinal);

        // Without a process that runs the test finds its own way; without a publisher it says so.
        Assert.Equal(0, await lab.StopAsync(consumer));
        Assert.Contains("answered end to end", (await lab.TryRunAsync("alice", "test")).Output, StringComparison.Ordinal);
        await lab.KillRelayAsync();
        var noRelay = await lab.TryRunAsync("alice", "test");
        Assert.Equal(9, noRelay.ExitCode);
        Assert.Contains("FAILED  TCP:", noRelay.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_local_port_in_use_is_told_with_its_holder_and_the_way_around()
    {
        await using var service = TargetServer.StartEcho();
        var lab = shared.Lab;
        using var holder = new TcpListener(IPAddress.Loopback, FreePorts.Next());
        holder.Start();
        var taken = ((IPEndPoint)holder.LocalEndpoint).Port;
        var other = FreePorts.Next();
        await lab.CreateUserAsync("paul", "-m", $"{taken}:{service.Port}");

        var refused = lab.Connect("paul");
        Assert.Equal(3, await refused.WaitForExitAsync());
        var line = Assert.Single(refused.Output.Lines, line => line.StartsWith("vtunnel: ", StringComparison.Ordinal));
        Assert.Contains($"port {taken} is in use", line, StringComparison.Ordinal);
        Assert.Contains($"(process {Environment.ProcessId})", line, StringComparison.Ordinal);
        Assert.Contains($":{taken}", line[line.IndexOf("--map", StringComparison.Ordinal)..], StringComparison.Ordinal);

        await lab.ConnectAsync("paul", "--map", $"{other}:{taken}");
        await Payload.EchoOnceAsync(other).WaitAsync(TestTimeouts.Step);
    }

    [Fact]
    public async Task A_key_made_by_the_user_and_a_passphrase_work_end_to_end()
    {
        await using var service = TargetServer.StartEcho();
        var lab = shared.Lab;
        var ports = FreePorts.Next(2);
        await lab.RunAsync("dave", "request", "--name", "dave", "--out", lab.File("dave.request"));
        await lab.CreateUserAsync("dave", "--request", lab.File("dave.request"), "-m", $"{ports[0]}:{service.Port}");
        await lab.RunAsync("publisher", "create", "user", "erin", "-m", $"{ports[1]}:{service.Port}");
        await lab.RunAsync("publisher", "export", "user", "erin", "--out", lab.File("erin.zip"), "--passphrase", "correct horse battery");

        await lab.ConnectAsync("dave");
        await Payload.EchoOnceAsync(ports[0]).WaitAsync(TestTimeouts.Step);
        var stranger = await lab.TryRunAsync("stranger", "connect", lab.File("dave.zip"));
        Assert.Equal(2, stranger.ExitCode);
        Assert.Contains("there is no key in this bundle", stranger.Errors[0], StringComparison.Ordinal);

        var without = await lab.TryRunAsync("erin", "connect", lab.File("erin.zip"));
        Assert.Equal(2, without.ExitCode);
        Assert.Contains("VTUNNEL_PASSPHRASE", without.Errors[0], StringComparison.Ordinal);
        await lab.ConnectAsync("erin", "--passphrase", "correct horse battery");
        await Payload.EchoOnceAsync(ports[1]).WaitAsync(TestTimeouts.Step);
    }

    [Fact]
    public async Task Several_bundles_connect_with_several_publishers_at_once()
    {
        await using var first = TargetServer.StartEcho();
        await using var second = TargetServer.StartEcho();
        var lab = shared.Lab;
        var ports = FreePorts.Next(2);
        await lab.CreateUserAsync("zoe", "-m", $"{ports[0]}:{first.Port}");
        await lab.JoinAsync("branch");
        await lab.RunAsync("branch", "create", "user", "zoe", "-m", $"{ports[1]}:{second.Port}");
        await lab.RunAsync("branch", "export", "user", "zoe", "--out", lab.File("branch.zip"));
        var branch = lab.Start("branch", "serve", []);
        await branch.Output.WaitForAsync("waiting for consumers");

        var consumer = lab.Connect("zoe", lab.File("branch.zip"));
        await consumer.Output.WaitForCountAsync("Connected to ", 2);
        await Payload.EchoOnceAsync(ports[0]).WaitAsync(TestTimeouts.Step);
        await Payload.EchoOnceAsync(ports[1]).WaitAsync(TestTimeouts.Step);
        Assert.Contains("zoe@branch", (await lab.RunAsync("zoe", "config", "get-contexts")).Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Bad_input_is_told_in_words_and_changes_nothing()
    {
        await using var lab = await BridgeLab.StartAsync();
        await lab.CreateUserAsync("alice", "-m", "5432:5432");
        var bundle = await File.ReadAllBytesAsync(lab.File("alice.zip"));
        await File.WriteAllBytesAsync(lab.File("short.zip"), bundle[..(bundle.Length / 2)]);

        foreach (var (state, arguments, exitCode, part) in new (string, string[], int, string)[]
        {
            ("relay", ["relay", "--no-tls", "--port", "0"], 2, "loopback address only"),
            ("relay", ["relay", "--port", "0"], 2, "TLS needs a certificate"),
            ("relay", ["relay", "init", "--domain", "localhost"], 2, "there is a relay"),
            ("nowhere", ["relay", "--no-tls", "--host", "127.0.0.1"], 2, "vtunnel relay init"),
            ("fresh", ["join", lab.Url, "abcd-abcd-abcd-abcd-abcd-abcd-abcd-abcd"], 6, "does not take this code"),
            ("fresh", ["join", "relay.example.com", "code"], 2, "a URL begins with"),
            ("fresh", ["join", lab.Url], 2, "CODE is missing"),
            ("fresh", ["create", "user", "bob", "-m", "1:1"], 2, "vtunnel join"),
            ("publisher", ["create", "user", "bob", "-m", "5432"], 2, "LOCAL:PORT"),
            ("publisher", ["create", "user", "bob", "-m", "1:1", "-m", "1:2"], 2, "local port 1 is given 2 times"),
            ("publisher", ["create", "user", "bob"], 2, "say what the user may reach"),
            ("publisher", ["create", "user", "../bob", "-m", "1:1"], 2, "a name is"),
            ("publisher", ["create", "user", "alice", "-m", "1:1"], 2, "there is a user 'alice' already"),
            ("publisher", ["create", "user", "bob", "--app", "none"], 2, "no application 'none'"),
            ("publisher", ["create", "user", "bob", "-m", "1:1", "--expires", "yesterday"], 2, "30d"),
            ("publisher", ["show", "user", "nobody"], 2, "no user 'nobody'"),
            ("publisher", ["edit", "user", "alice", "--bogus"], 2, "there is no such option"),
            ("alice", ["connect", lab.File("short.zip")], 2, "not a whole bundle"),
            ("alice", ["connect", lab.File("none.zip")], 2, "there is no such file"),
            ("alice", ["connect"], 2, "no identity is set up"),
            ("alice", ["connect", lab.File("alice.zip"), "--map", "1"], 2, "NEW:ORIGINAL"),
            ("alice", ["status"], 2, "nothing is set up"),
        })
        {
            var result = await lab.TryRunAsync(state, arguments);
            Assert.True(
                result.ExitCode == exitCode && result.Errors.Any(line => line.StartsWith("vtunnel: ", StringComparison.Ordinal) && line.Contains(part, StringComparison.Ordinal)),
                $"vtunnel {string.Join(' ', arguments)}: exit code {result.ExitCode}: {result.Output}{string.Join('\n', result.Errors)}");
        }

        Assert.Equal("alice\n", (await lab.RunAsync("publisher", "list", "users", "--quiet")).Output);
        var unwritable = await VTunnelProgram.RunAsync("relay", "init", "--domain", "localhost", "--state-dir", "/proc/vtunnel");
        Assert.Equal(8, unwritable.ExitCode);
        Assert.Contains("--state-dir", unwritable.Errors[0], StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_second_process_of_the_same_identity_is_refused()
    {
        var lab = shared.Lab;
        var second = await lab.TryRunAsync("publisher", "serve");
        Assert.Equal(2, second.ExitCode);
        Assert.Contains("it runs already", second.Errors[^1], StringComparison.Ordinal);
    }
}
