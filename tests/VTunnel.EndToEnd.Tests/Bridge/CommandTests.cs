using System.Net;
using System.Net.Sockets;
using System.Runtime.Versioning;
using System.Text;
using System.Text.Json;
using VTunnel.Bridge.State;
using VTunnel.EndToEnd.Tests.CommandLine;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Protocol.Bridge;
using VTunnel.Testing;
using VTunnel.Testing.Network;
using VTunnel.Testing.Programs;

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
        lab.CreateUser("alice", (local, service.Port));

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

        if (!OperatingSystem.IsWindows())
        {
            foreach (var socket in new[] { "relay", "publisher", "alice" }.SelectMany(role => Directory.GetFiles(lab.File(role), "*.sock", SearchOption.AllDirectories)))
                Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(socket));
        }

        // Without a process that runs the test finds its own way; without a publisher, a relay or a name it says so.
        Assert.Equal(0, await lab.StopAsync(consumer));
        Assert.Contains("answered end to end", (await lab.TryRunAsync("alice", "test")).Output, StringComparison.Ordinal);
        Assert.Equal(0, await lab.StopAsync(lab.Publisher));
        await FailsAsync("publisher", "FAILED  publisher: it is not running", "Start it: vtunnel serve");
        await lab.KillRelayAsync();
        await FailsAsync("alice", "FAILED  TCP: 127.0.0.1:", "that the relay runs");
        var context = Directory.GetFiles(lab.File("alice"), "context.json", SearchOption.AllDirectories).Single();
        await File.WriteAllTextAsync(context, (await File.ReadAllTextAsync(context)).Replace("ws://127.0.0.1", "ws://relay.invalid", StringComparison.Ordinal));
        await FailsAsync("alice", "FAILED  name: relay.invalid", "Check this machine's DNS");

        async Task FailsAsync(string role, string step, string remedy)
        {
            var result = await lab.TryRunAsync(role, "test");
            Assert.Equal(9, result.ExitCode);
            Assert.Contains(step, result.Output, StringComparison.Ordinal);
            Assert.Contains(remedy, result.Output, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task A_test_of_a_relay_behind_a_firewall_that_drops_packets_says_which_step_had_no_answer()
    {
        await using var lab = BridgeLab.Prepare();
        lab.CreateUser("alice", (5432, 5432));
        await lab.RunAsync("alice", "config", "import", lab.File("alice.zip"));

        // Where nobody accepts, the system takes a connection or two and then drops what asks for more.
        using var full = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        full.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        full.Listen(0);
        var crowd = Enumerable.Range(0, 8).Select(_ => new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp)).ToList();
        foreach (var one in crowd)
            _ = one.ConnectAsync(full.LocalEndPoint!).ContinueWith(task => task.Exception, TaskScheduler.Default);
        var context = Directory.GetFiles(lab.File("alice"), "context.json", SearchOption.AllDirectories).Single();
        await File.WriteAllTextAsync(context, (await File.ReadAllTextAsync(context)).Replace(lab.Url, $"ws://{full.LocalEndPoint}/", StringComparison.Ordinal));

        var result = await lab.TryRunAsync("alice", "test");

        crowd.ForEach(one => one.Dispose());
        Assert.Equal(9, result.ExitCode);
        Assert.Contains($"FAILED  TCP: {full.LocalEndPoint}: no answer within 10s", result.Output, StringComparison.Ordinal);
        Assert.Empty(result.Errors);
    }

    [Fact]
    public async Task A_publisher_whose_enrolment_was_not_answered_enrols_with_the_same_key_the_next_time()
    {
        await using var lab = await BridgeLab.StartAsync();
        await using var proxy = FaultProxy.Start(lab.Port);
        var code = (await lab.RunAsync("relay", "relay", "invite", "--quiet")).Output.Trim();
        proxy.Delay(ProxyDirection.FromTarget, TimeSpan.FromHours(1));
        var first = lab.Start("late", "join", [$"ws://127.0.0.1:{proxy.Port}/", code, "--name", "late"]);
        await lab.Relay.Output.WaitForAsync("Publisher late (");
        first.Signal(ProgramSignal.Terminate);
        await first.WaitForExitAsync();
        proxy.Delay(ProxyDirection.FromTarget, TimeSpan.Zero);

        var fingerprint = (await lab.RunAsync("late", "join", lab.Url, code, "--name", "late", "--quiet")).Output.Trim();

        Assert.Contains(fingerprint, (await lab.RunAsync("relay", "relay", "list", "--quiet")).Output, StringComparison.Ordinal);
        Assert.Equal(2, (await lab.RunAsync("relay", "relay", "list", "--quiet")).Output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length);
        Assert.Empty(Directory.GetFiles(lab.File("late/joining")));
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
        lab.CreateUser("paul", (taken, service.Port));

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
    public async Task A_consumer_of_which_a_local_port_is_closed_is_not_healthy()
    {
        var lab = shared.Lab;
        using var holder = new TcpListener(IPAddress.Loopback, 0);
        holder.Start();
        var taken = ((IPEndPoint)holder.LocalEndpoint).Port;
        lab.CreateUser("otto", (FreePorts.Next(), 9));
        var consumer = await lab.ConnectAsync("otto");
        Assert.Equal(0, (await lab.TryRunAsync("otto", "status")).ExitCode);

        lab.Change(store => store.EditUser("otto", new UserChange { Add = [new BridgeGrant(taken, "127.0.0.1", 9)] }, TimeProvider.System.GetUtcNow()));
        await consumer.Output.WaitForAsync($"Local port {taken} for 127.0.0.1:9 cannot be opened");

        var status = await lab.TryRunAsync("otto", "status");
        Assert.Equal(9, status.ExitCode);
        Assert.Contains($"127.0.0.1:{taken} -> 127.0.0.1:9: closed: ", status.Output, StringComparison.Ordinal);
    }

    [Fact]
    [UnsupportedOSPlatform("windows")]
    public async Task One_that_cannot_be_asked_is_told_of_beside_the_others()
    {
        await using var lab = BridgeLab.Prepare();
        var state = new StateDirectory(lab.File("relay"));
        Directory.CreateDirectory(Path.GetDirectoryName(state.SocketPath("relay"))!, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        using var broken = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        broken.Bind(new UnixDomainSocketEndPoint(state.SocketPath("relay")));
        broken.Listen();
        var answering = AnswerAsync();
        lab.CreateUser("alice", (5432, 5432));
        await lab.RunAsync("relay", "config", "import", lab.File("alice.zip"));

        var status = await lab.TryRunAsync("relay", "status", "--json");

        await answering.WaitAsync(TestTimeouts.Step);
        Assert.Equal(9, status.ExitCode);
        using var shown = JsonDocument.Parse(status.Output);
        var parts = shown.RootElement.GetProperty("parts").EnumerateArray().ToList();
        Assert.Equal(["relay", "consumer"], parts.Select(part => part.GetProperty("role").GetString()));
        Assert.Equal("the running process says: it is beside itself", parts[0].GetProperty("problem").GetString());
        Assert.True(parts[0].GetProperty("running").GetBoolean());
        Assert.False(parts[1].GetProperty("running").GetBoolean());

        async Task AnswerAsync()
        {
            using var asker = await broken.AcceptAsync().WaitAsync(TestTimeouts.Step);
            await using var stream = new NetworkStream(asker);
            using var reader = new StreamReader(stream);
            Assert.Equal("status ", await reader.ReadLineAsync());
            await stream.WriteAsync("failed\nit is beside itself"u8.ToArray());
        }
    }

    [Fact]
    public async Task A_local_port_that_is_mapped_to_one_grant_and_proposed_by_another_is_told_with_both()
    {
        await using var service = TargetServer.StartEcho();
        var lab = shared.Lab;
        var (first, second, third) = (FreePorts.Next(), FreePorts.Next(), FreePorts.Next());
        lab.CreateUser("rosa", (first, service.Port), (second, 9));

        var refused = lab.Connect("rosa", "--map", $"{first}:{second}");
        Assert.Equal(3, await refused.WaitForExitAsync());
        var line = Assert.Single(refused.Output.Lines, line => line.StartsWith("vtunnel: ", StringComparison.Ordinal));
        Assert.Contains($"local port {first} leads to 127.0.0.1:9, by --map {first}:{second}, and not to 127.0.0.1:{service.Port}", line, StringComparison.Ordinal);

        // Both moved, the ports may change places.
        await lab.ConnectAsync("rosa", "--map", $"{first}:{second}", "--map", $"{third}:{first}");
        await Payload.EchoOnceAsync(third).WaitAsync(TestTimeouts.Step);
    }

    [Fact]
    public async Task A_key_made_by_the_user_and_a_passphrase_work_end_to_end()
    {
        await using var service = TargetServer.StartEcho();
        var lab = shared.Lab;
        var ports = FreePorts.Next(2);
        await lab.RunAsync("dave", "request", "--name", "dave", "--out", lab.File("dave.request"));
        await lab.RunAsync("publisher", "create", "user", "dave", "--request", lab.File("dave.request"), "-m", $"{ports[0]}:{service.Port}");
        await lab.RunAsync("publisher", "export", "user", "dave", "--out", lab.File("dave.zip"));
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
        lab.CreateUser("zoe", (ports[0], first.Port));
        lab.Join("branch");
        lab.CreateUser("branch", "zoe-at-branch", new UserChange { Add = [new BridgeGrant(ports[1], "127.0.0.1", second.Port)] });
        var branch = lab.Start("branch", "serve", []);
        await branch.Output.WaitForAsync("waiting for consumers");

        var consumer = lab.Connect("zoe", lab.File("zoe-at-branch.zip"));
        await consumer.Output.WaitForCountAsync("Connected to ", 2);
        await Payload.EchoOnceAsync(ports[0]).WaitAsync(TestTimeouts.Step);
        await Payload.EchoOnceAsync(ports[1]).WaitAsync(TestTimeouts.Step);
        Assert.Contains("zoe-at-branch@branch", (await lab.RunAsync("zoe", "config", "get-contexts")).Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Bad_input_is_told_in_words_and_changes_nothing()
    {
        var lab = shared.Lab;
        lab.CreateUser("bea", (5432, 5432));
        var users = (await lab.RunAsync("publisher", "show", "user", "bea")).Output;
        var bundle = await File.ReadAllBytesAsync(lab.File("bea.zip"));
        await File.WriteAllBytesAsync(lab.File("short.zip"), bundle[..(bundle.Length / 2)]);

        var cases = new (string State, string[] Arguments, int ExitCode, string Part)[]
        {
            ("relay", ["relay", "--no-tls", "--port", "0"], 2, "loopback address only"),
            ("relay", ["relay", "--port", "0"], 2, "TLS needs a certificate"),
            ("relay", ["relay", "init", "--domain", "localhost"], 2, "there is a relay"),
            ("nowhere", ["relay", "--no-tls", "--host", "127.0.0.1"], 2, "vtunnel relay init"),
            ("fresh", ["join", lab.Url, "abcd-abcd-abcd-abcd-abcd-abcd-abcd-abcd"], 6, "does not take this code"),
            ("fresh", ["join", "relay.example.com", "code"], 2, "a URL begins with"),
            ("fresh", ["join", lab.Url], 2, "CODE is missing"),
            ("fresh", ["join", lab.Url, ""], 2, "CODE: it is empty; 'vtunnel relay invite' prints one"),
            ("relay", ["relay", "invite", "--expires", "0s"], 2, "a duration is a number above 0"),
            ("relay", ["relay", "invite", "--expires", "99999999h"], 2, "less than 36500d"),
            ("publisher", ["audit", "--since", "99999999h"], 2, "less than 36500d"),
            ("bea", ["connect", lab.File("bea.zip"), "--ping-interval", "2m"], 2, "a relay cuts what says nothing for two minutes"),
            ("publisher", ["export", "user", "bea", "--out", lab.File("none/bea.zip")], 8, "none/bea.zip' cannot be written: there is no such folder; name another file with --out"),
            ("publisher", ["config", "export", "publisher", "--out", lab.File("none/it.zip")], 8, "none/it.zip' cannot be written: there is no such folder; name another file with --out"),
            ("fresh", ["request", "--name", "dave", "--out", lab.File("publisher")], 8, "publisher' cannot be written: it is a folder; name another file with --out"),
            ("fresh", ["create", "user", "bob", "-m", "1:1"], 2, "vtunnel join"),
            ("publisher", ["create", "user", "bob", "-m", "5432"], 2, "LOCAL:PORT"),
            ("publisher", ["create", "user", "bob", "-m", "1:1", "-m", "1:2"], 2, "local port 1 is given 2 times"),
            ("publisher", ["create", "user", "bob"], 2, "say what the user may reach"),
            ("publisher", ["create", "user", "../bob", "-m", "1:1"], 2, "a name is"),
            ("publisher", ["create", "user", "", "-m", "1:1"], 2, "NAME '': a name is"),
            ("publisher", ["create", "app", "", "-m", "1:1"], 2, "NAME '': a name is"),
            ("publisher", ["show", "user", ""], 2, "NAME '': a name is"),
            ("publisher", ["config", "import", ""], 2, "is empty"),
            ("bea", ["connect", ""], 2, "is empty"),
            ("relay", ["relay", "remove", ""], 2, "PUBLISHER '': say which one"),
            ("publisher", ["create", "user", "bea", "-m", "1:1"], 2, "there is a user 'bea' already"),
            ("publisher", ["create", "user", "bob", "--app", "none"], 2, "no application 'none'"),
            ("publisher", ["create", "user", "bob", "-m", "1:1", "--expires", "yesterday"], 2, "30d"),
            ("publisher", ["show", "user", "nobody"], 2, "no user 'nobody'"),
            ("publisher", ["edit", "user", "bea", "--bogus"], 2, "there is no such option"),
            ("bea", ["connect", lab.File("short.zip")], 2, "not a whole bundle"),
            ("bea", ["connect", lab.File("none.zip")], 2, "there is no such file"),
            ("bea", ["connect"], 2, "no identity is set up"),
            ("bea", ["connect", lab.File("bea.zip"), "--map", "1"], 2, "NEW:ORIGINAL"),
            ("bea", ["status"], 2, "nothing of a bridge is set up there"),
        };
        await Parallel.ForEachAsync(cases, new ParallelOptions { MaxDegreeOfParallelism = Environment.ProcessorCount }, async (bad, _) =>
        {
            var result = await lab.TryRunAsync(bad.State, bad.Arguments);
            Assert.True(
                result.ExitCode == bad.ExitCode && result.Errors.Any(line => line.StartsWith("vtunnel: ", StringComparison.Ordinal) && line.Contains(bad.Part, StringComparison.Ordinal)),
                $"vtunnel {string.Join(' ', bad.Arguments)}: exit code {result.ExitCode}: {result.Output}{string.Join('\n', result.Errors)}");
        });

        Assert.Equal(users, (await lab.RunAsync("publisher", "show", "user", "bea")).Output);
        Assert.DoesNotContain("bob", (await lab.RunAsync("publisher", "list", "users", "--quiet")).Output, StringComparison.Ordinal);
        var unwritable = await VTunnelProgram.RunAsync("relay", "init", "--domain", "localhost", "--state-dir", "/proc/vtunnel");
        Assert.Equal(8, unwritable.ExitCode);
        Assert.Contains("--state-dir", unwritable.Errors[0], StringComparison.Ordinal);
        var noFolder = await VTunnelProgram.RunAsync("status", "--state-dir", "/dev/null");
        Assert.Equal(8, noFolder.ExitCode);
        Assert.Contains("/dev/null cannot be used", noFolder.Errors[0], StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("--state-dir '': the name of the directory is empty", "status", "--state-dir", "")]
    [InlineData("--state-dir '': the name of the directory is empty", "relay", "init", "--domain", "localhost", "--state-dir", "")]
    [InlineData("--context '': the value is empty", "list", "users", "--context", "")]
    [InlineData("--user '': the value is empty", "audit", "--user", "")]
    public async Task An_option_whose_value_is_empty_is_none_that_was_left_out(string problem, params string[] arguments)
    {
        var lab = shared.Lab;
        var home = new Dictionary<string, string?> { ["XDG_STATE_HOME"] = lab.File("home") };
        if (!Directory.Exists(lab.File("home")))
        {
            Directory.CreateDirectory(lab.File("home"));
            Directory.CreateSymbolicLink(lab.File("home/vtunnel"), lab.File("publisher"));
        }

        var result = await VTunnelProgram.RunAsync(arguments, home);
        Assert.Equal(2, result.ExitCode);
        Assert.Contains(problem, Assert.Single(result.Errors), StringComparison.Ordinal);
        Assert.Empty(result.Output);

        // A variable that is empty is one that is not set.
        home["VTUNNEL_STATE_DIR"] = "";
        Assert.Equal("", string.Concat((await VTunnelProgram.RunAsync(["list", "users", "--quiet"], home)).Errors));
    }

    [Fact]
    public async Task A_second_process_of_the_same_identity_is_refused()
    {
        var lab = shared.Lab;
        var second = await lab.TryRunAsync("publisher", "serve");
        Assert.Equal(2, second.ExitCode);
        Assert.Contains("it runs already", second.Errors[^1], StringComparison.Ordinal);

        // Nor does it get another name meanwhile, under which it could be started beside itself.
        foreach (var change in (string[][])[["rename-context", "publisher", "other"], ["delete-context", "publisher"]])
        {
            var refused = await lab.TryRunAsync("publisher", ["config", .. change]);
            Assert.Equal(2, refused.ExitCode);
            Assert.Contains("'publisher' is in use by a running 'vtunnel serve'; end that first", Assert.Single(refused.Errors), StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task Contexts_are_listed_chosen_renamed_moved_and_deleted()
    {
        var lab = shared.Lab;
        lab.CreateUser("cora", (5432, 5432));
        lab.CreateUser("carl", (5433, 5433));
        foreach (var user in new[] { "cora", "carl" })
            await lab.RunAsync("contexts", "config", "import", lab.File($"{user}.zip"));

        await lab.RunAsync("contexts", "config", "use-context", "carl@publisher");
        var list = (await lab.RunAsync("contexts", "config", "get-contexts")).Output;
        Assert.Contains("*  carl@publisher", list, StringComparison.Ordinal);
        Assert.Contains("   cora@publisher", list, StringComparison.Ordinal);
        await lab.RunAsync("contexts", "config", "rename-context", "carl@publisher", "office");
        var view = (await lab.RunAsync("contexts", "config", "view")).Output;
        Assert.Contains("carl", view, StringComparison.Ordinal);
        Assert.DoesNotContain("PRIVATE KEY", view, StringComparison.Ordinal);

        await lab.RunAsync("contexts", "config", "export", "office", "--out", lab.File("office-context.zip"));
        await lab.RunAsync("contexts", "config", "delete-context", "office");
        Assert.Equal("cora@publisher\n", (await lab.RunAsync("contexts", "config", "get-contexts", "--quiet")).Output);
        await lab.RunAsync("moved", "config", "import", lab.File("office-context.zip"));
        Assert.Contains("carl", (await lab.RunAsync("moved", "config", "view", "office")).Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_second_publisher_on_a_machine_leaves_the_first_one_current_and_its_commands_are_told_with_its_name()
    {
        var lab = shared.Lab;
        var first = await JoinAsync("first");
        Assert.DoesNotContain("--context", first, StringComparison.Ordinal);

        var second = await JoinAsync("second");
        Assert.Contains("The current context is 'first' as before: name this one with --context second", second, StringComparison.Ordinal);
        Assert.Contains("vtunnel create user alice -m 5432:5432 --context second --state-dir", second, StringComparison.Ordinal);
        Assert.Contains("vtunnel serve --context second --state-dir", second, StringComparison.Ordinal);

        await lab.RunAsync("two", "create", "user", "fred", "-m", "5432:5432");
        var created = (await lab.RunAsync("two", "create", "user", "sue", "-m", "5432:5432", "--context", "second")).Output;
        Assert.Contains("vtunnel export user sue --context second --state-dir", created, StringComparison.Ordinal);
        Assert.Equal("fred\n", (await lab.RunAsync("two", "list", "users", "--quiet", "--context", "first")).Output);

        async Task<string> JoinAsync(string name)
        {
            var code = (await lab.RunAsync("relay", "relay", "invite", "--quiet")).Output.Trim();
            return (await lab.RunAsync("two", "join", lab.Url, code, "--name", name, "--context", name)).Output;
        }
    }

    [Fact]
    public async Task A_publisher_that_was_removed_enrols_its_key_again_and_its_bundles_are_good_as_before()
    {
        await using var service = TargetServer.StartEcho();
        await using var lab = await BridgeLab.StartAsync();
        var local = FreePorts.Next();
        lab.CreateUser("alice", (local, service.Port));
        var removed = (await lab.RunAsync("relay", "relay", "remove", "publisher")).Output;
        Assert.Contains($"vtunnel join {lab.Url} CODE --context NAME", removed, StringComparison.Ordinal);
        Assert.Contains($"vtunnel join {lab.Url} CODE --context publisher", (await lab.TryRunAsync("publisher", "test")).Output, StringComparison.Ordinal);

        var code = (await lab.RunAsync("relay", "relay", "invite", "--quiet")).Output.Trim();
        var elsewhere = await lab.TryRunAsync("publisher", "join", "ws://127.0.0.1:1/", code, "--context", "publisher");
        Assert.Equal(2, elsewhere.ExitCode);
        Assert.Contains($"of a publisher at {lab.Url}", elsewhere.Errors[0], StringComparison.Ordinal);
        Assert.Contains("as good as before", (await lab.RunAsync("publisher", "join", lab.Url, code, "--context", "publisher")).Output, StringComparison.Ordinal);

        await lab.ServeAsync();
        await lab.ConnectAsync("alice");
        await Payload.EchoOnceAsync(local).WaitAsync(TestTimeouts.Step);
    }

    [Fact]
    public async Task A_publisher_of_which_the_key_and_the_users_were_restored_alone_joins_with_that_key()
    {
        await using var lab = await BridgeLab.StartAsync();
        lab.CreateUser("alice", (5432, 5432));
        var fingerprint = (await lab.RunAsync("relay", "relay", "list", "--quiet")).Output.Trim();
        File.Delete(Directory.GetFiles(lab.File("publisher"), "context.json", SearchOption.AllDirectories).Single());
        var code = (await lab.RunAsync("relay", "relay", "invite", "--quiet")).Output.Trim();

        var joined = (await lab.RunAsync("publisher", "join", lab.Url, code, "--context", "publisher")).Output;

        Assert.Contains($"Its fingerprint is {fingerprint}", joined, StringComparison.Ordinal);
        Assert.Contains("The key is the one that was in", joined, StringComparison.Ordinal);
        Assert.Equal("alice\n", (await lab.RunAsync("publisher", "list", "users", "--quiet")).Output);
        var audit = (await lab.RunAsync("relay", "audit", "--relay", "--user", fingerprint[..8])).Output;
        Assert.Contains("enrolled", audit, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_test_goes_by_the_proxy_that_the_environment_names()
    {
        await using var service = TargetServer.StartEcho();
        await using var lab = await BridgeLab.StartAsync();
        lab.CreateUser("alice", (FreePorts.Next(), service.Port));
        await lab.RunAsync("alice", "config", "import", lab.File("alice.zip"));
        await lab.ServeAsync();
        await using var proxy = await ServerProgram.StartAsync(["-proxy", "0", "-proxy-allow", "127.0.0.1"]);
        var address = "127.0.0.1:" + (await proxy.Program.Output.WaitForAsync("Proxy listening on ")).Split(':')[^1];

        var result = await VTunnelProgram.RunAsync(
            ["test", "--state-dir", lab.File("alice")],
            new Dictionary<string, string?> { ["http_proxy"] = $"http://{address}", ["no_proxy"] = null, ["NO_PROXY"] = null });

        Assert.True(result.ExitCode == 0, result.Output);
        Assert.Contains($"ok      proxy: {address} is asked to connect to 127.0.0.1:{lab.Port}", result.Output, StringComparison.Ordinal);
        await proxy.Program.Output.WaitForAsync($"CONNECT 127.0.0.1:{lab.Port}");
    }

    [Fact]
    public async Task An_invitation_that_is_withdrawn_enrols_nobody()
    {
        await using var lab = await BridgeLab.StartAsync();
        Assert.Contains("No invitation is open. Next: vtunnel relay invite", (await lab.RunAsync("relay", "relay", "invitations")).Output, StringComparison.Ordinal);
        var invited = (await lab.RunAsync("relay", "relay", "invite")).Output;
        Assert.Contains("To withdraw it:           vtunnel relay withdraw CODE", invited, StringComparison.Ordinal);
        var code = System.Text.RegularExpressions.Regex.Match(invited, "([a-z2-9]{4}-){7}[a-z2-9]{4}").Value;
        var id = (await lab.RunAsync("relay", "relay", "invitations", "--quiet")).Output.Trim();
        Assert.Matches("^[0-9a-f]{12}$", id);
        Assert.Contains(id, (await lab.RunAsync("relay", "relay", "invitations")).Output, StringComparison.Ordinal);

        Assert.Contains($"Invitation {id} of ", (await lab.RunAsync("relay", "relay", "withdraw", code)).Output, StringComparison.Ordinal);

        var refused = await lab.TryRunAsync("late", "join", lab.Url, code);
        Assert.NotEqual(0, refused.ExitCode);
        var again = await lab.TryRunAsync("relay", "relay", "withdraw", id);
        Assert.Equal(2, again.ExitCode);
        Assert.Contains("'vtunnel relay invitations' shows which are open", again.Errors[0], StringComparison.Ordinal);
        Assert.Contains("withdrawn", (await lab.RunAsync("relay", "audit")).Output, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("wss://relay.example.com/", "relay --tls-cert fullchain.pem --tls-key privkey.pem")]
    [InlineData("wss://relay.example.com:8443/", "relay --tls-cert fullchain.pem --tls-key privkey.pem --port 8443")]
    [InlineData("ws://relay.example.com:8080/", "relay --no-tls --behind-proxy --port 8080")]
    [InlineData("ws://[::1]:8080/", "relay --no-tls --host ::1 --port 8080")]
    public async Task A_relay_that_is_set_up_says_how_it_is_started(string url, string command)
    {
        using var folder = new TempDirectory();
        var result = await VTunnelProgram.RunAsync("relay", "init", "--domain", "relay.example.com", "--url", url, "--state-dir", folder.File("relay"));
        Assert.Equal(0, result.ExitCode);
        Assert.Contains($"Next, start it:            vtunnel {command} --state-dir ", result.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Users_and_applications_are_shown_as_they_are()
    {
        var lab = shared.Lab;
        await lab.RunAsync("publisher", "create", "app", "intranet", "-m", "8081:10.0.0.7:80");
        await lab.RunAsync("publisher", "create", "user", "una", "--app", "intranet", "-m", "2222:22", "--expires", "2999-01-31", "--single-session");

        var una = (await lab.RunAsync("publisher", "show", "user", "una")).Output;
        foreach (var line in new[]
        {
            "State:        admitted", "Expires:      2999-01-31 00:00:00Z", "Sessions:     one at a time", "Applications: intranet", "Own mappings: 2222:127.0.0.1:22",
            "May reach:    2222:127.0.0.1:22, 8081:10.0.0.7:80",
        })
            Assert.Contains(line, una, StringComparison.Ordinal);
        Assert.Contains("intranet", (await lab.RunAsync("publisher", "list", "apps")).Output, StringComparison.Ordinal);

        await lab.RunAsync("publisher", "edit", "user", "una", "--remove-app", "intranet", "--many-sessions", "--expires", "never");
        await lab.RunAsync("publisher", "delete", "app", "intranet");
        await lab.RunAsync("publisher", "revoke", "user", "una");
        var edited = (await lab.RunAsync("publisher", "edit", "user", "una", "--expires", "30d")).Output;
        Assert.Contains("but user 'una' was revoked and is refused all the same", edited, StringComparison.Ordinal);
        Assert.Contains("vtunnel delete user una --state-dir", edited, StringComparison.Ordinal);
        Assert.DoesNotContain("may reach", edited, StringComparison.Ordinal);
        Assert.Contains(
            "May reach:    nothing, since user 'una' was revoked; granted: 2222:127.0.0.1:22", (await lab.RunAsync("publisher", "show", "user", "una")).Output, StringComparison.Ordinal);
        await lab.RunAsync("publisher", "edit", "user", "una", "--expires", "never");
        using var shown = JsonDocument.Parse((await lab.RunAsync("publisher", "show", "user", "una", "--json")).Output);
        Assert.False(shown.RootElement.GetProperty("single_session").GetBoolean());
        Assert.True(shown.RootElement.TryGetProperty("revoked", out _));
        Assert.False(shown.RootElement.TryGetProperty("expires", out _));
    }

    /// <summary>Members that have no value are left out.</summary>
    [Theory]
    [InlineData("publisher", "list users --json", "name key_fingerprint single_session maps apps grants")]
    [InlineData("publisher", "list apps --json", "name maps")]
    [InlineData("publisher", "audit --limit 1 --json", "time kind")]
    [InlineData("publisher", "config get-contexts --json", "name is_current kind relay publisher publisher_name")]
    [InlineData("publisher", "config view", "version kind relay relay_id publisher publisher_name")]
    [InlineData("relay", "relay invitations --json", "id created expires")]
    [InlineData("relay", "relay list --json", "name fingerprint enrolled relay_is_running is_connected remote streams bytes_from_consumers bytes_from_publisher")]
    public async Task Scripts_get_json_from_whatever_lists_or_shows(string state, string command, string members)
    {
        var lab = shared.Lab;
        if (command.StartsWith("list users", StringComparison.Ordinal))
            await lab.RunAsync("publisher", "create", "user", "json", "-m", "2223:22");
        if (command.StartsWith("list apps", StringComparison.Ordinal))
            await lab.RunAsync("publisher", "create", "app", "json", "-m", "8082:80");
        if (command.StartsWith("relay invitations", StringComparison.Ordinal))
            await lab.RunAsync("relay", "relay", "invite");

        using var shown = JsonDocument.Parse((await lab.RunAsync(state, command.Split(' '))).Output);
        var one = shown.RootElement.ValueKind == JsonValueKind.Array ? shown.RootElement.EnumerateArray().Last() : shown.RootElement;
        Assert.Superset(members.Split(' ').ToHashSet(), one.EnumerateObject().Select(member => member.Name).ToHashSet());
        if (one.TryGetProperty("kind", out var kind))
            Assert.Equal(JsonValueKind.String, kind.ValueKind);
    }

    [Fact]
    public async Task Quiet_commands_print_the_value_alone()
    {
        var lab = shared.Lab;
        Assert.Matches("^([a-z2-9]{4}-){7}[a-z2-9]{4}\n$", (await lab.RunAsync("relay", "relay", "invite", "--quiet")).Output);
        Assert.Equal("quinn\n", (await lab.RunAsync("publisher", "create", "user", "quinn", "-m", "5432:5432", "--quiet")).Output);
        Assert.Equal(lab.File("a.zip") + "\n", (await lab.RunAsync("publisher", "export", "user", "quinn", "--out", lab.File("a.zip"), "--quiet")).Output);
        Assert.Contains("quinn", (await lab.RunAsync("publisher", "list", "users", "--quiet")).Output.Split('\n'));
        Assert.Matches("^([0-9a-f]{64}\n)+$", (await lab.RunAsync("relay", "relay", "list", "--quiet")).Output);
    }

    [Fact]
    [UnsupportedOSPlatform("windows")]
    public async Task Keys_and_bundles_can_be_read_by_their_owner_only()
    {
        if (OperatingSystem.IsWindows())
            return;

        var lab = shared.Lab;
        lab.CreateUser("kim", (5432, 5432));
        await lab.RunAsync("kim", "config", "import", lab.File("kim.zip"));

        var files = new[] { "relay", "publisher", "kim" }.SelectMany(state => Directory.GetFiles(lab.File(state), "*", SearchOption.AllDirectories))
            .Append(lab.File("kim.zip")).Where(file => !file.EndsWith(".sock", StringComparison.Ordinal)).ToList();

        Assert.Contains(files, file => file.EndsWith("publisher.pem", StringComparison.Ordinal));
        Assert.Contains(files, file => file.EndsWith("user.key", StringComparison.Ordinal));
        foreach (var file in files)
        {
            var mode = File.GetUnixFileMode(file);
            Assert.True((mode & ~(UnixFileMode.UserRead | UnixFileMode.UserWrite)) == 0, $"{file}: {mode}");
        }

        // Where that is not so, the command says how to mend it, and goes on.
        var key = files.Single(file => file.EndsWith("user.key", StringComparison.Ordinal));
        File.SetUnixFileMode(key, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.OtherRead);
        Assert.Equal(
            [$"vtunnel: warning: {key} can be read or changed by others than the owner; mend it: chmod 600 {key}"], (await lab.RunAsync("kim", "config", "get-contexts")).Errors);
        File.SetUnixFileMode(Path.Combine(Path.GetDirectoryName(key)!, "context.json"), (UnixFileMode)0b110_110_110);
        Assert.Contains(
            $"and 1 more files of the state can be read or changed by others than the owner; mend it: chmod -R go= {lab.File("kim")}",
            Assert.Single((await lab.RunAsync("kim", "config", "get-contexts")).Errors),
            StringComparison.Ordinal);

        Assert.DoesNotContain("PRIVATE KEY", Encoding.Latin1.GetString(await File.ReadAllBytesAsync(lab.File("relay/relay.db"))), StringComparison.Ordinal);
    }
}
