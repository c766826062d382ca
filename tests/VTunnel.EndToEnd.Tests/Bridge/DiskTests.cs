using CliWrap.Buffered;
using VTunnel.Bridge.Identity;
using VTunnel.Bridge.State;
using VTunnel.Bridge.Wire;
using VTunnel.Carriers;
using VTunnel.EndToEnd.Tests.CommandLine;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;
using VTunnel.Testing.Network;
using VTunnel.Testing.Programs;

namespace VTunnel.EndToEnd.Tests.Bridge;

/// <summary>A disk that is full, or cannot be written, stops changes and nothing else.</summary>
public sealed class DiskTests
{
    [Fact]
    public async Task A_full_or_read_only_disk_refuses_changes_and_those_who_are_connected_go_on()
    {
        await using var disk = await SmallDisk.StartAsync();
        await using var service = TargetServer.StartEcho();
        await using var lab = BridgeLab.Prepare();
        var (local, other) = (FreePorts.Next(), FreePorts.Next());
        lab.CreateUser("alice", (local, service.Port));
        string code;
        using (var relay = RelayStore.Open(lab.File("relay")))
            code = relay.Invite(TimeProvider.System.GetUtcNow(), TimeSpan.FromHours(1));
        lab.MoveTo(disk.Path, disk.PathFromOutside, disk.Launcher);
        await lab.StartRelayAsync();
        await lab.ServeAsync();
        var alice = await lab.ConnectAsync("alice");
        await Payload.EchoOnceAsync(local).WaitAsync(TestTimeouts.Step);

        disk.Fill();

        // Everything that changes something says so and changes nothing, on the publisher and on the relay.
        foreach (var arguments in new string[][] { ["create", "user", "bob", "-m", "1:1"], ["edit", "user", "alice", "-m", "2:2"] })
            await FailsAsync("publisher", 8, "the disk is full", arguments);
        await FailsAsync("relay", 8, "the disk is full", "relay", "invite");
        await FailsAsync("fresh", 8, "cannot be used", "join", lab.Url, code);
        await Assert.ThrowsAsync<TunnelConnectException>(() => EnrolAsync(lab, code));
        await lab.Relay.Output.WaitForAsync("relay.db cannot be used: the disk is full");

        // What is not written down of streams is told, and the streams do not mind.
        await Payload.EchoOnceAsync(local, 1_000_000).WaitAsync(TestTimeouts.Step);
        await lab.Publisher.Output.WaitForAsync("audit records were lost: ");

        // With space again all goes on, without a restart: the code was not used up, and what was known is known.
        disk.Free();
        await EnrolAsync(lab, code);
        await lab.RunAsync("publisher", "create", "user", "bob", "-m", $"{other}:{service.Port}");
        await lab.RunAsync("publisher", "export", "user", "bob", "--out", lab.File("bob.zip"));
        var bob = await lab.ConnectAsync("bob");
        await Payload.EchoOnceAsync(other).WaitAsync(TestTimeouts.Step);
        Assert.Equal("alice\nbob\n", (await lab.RunAsync("publisher", "list", "users", "--quiet")).Output);

        // A file system that takes nothing: nobody can start there, and all say why.
        foreach (var program in new[] { alice, bob, lab.Publisher, lab.Relay })
            Assert.Equal(0, await lab.StopAsync(program));
        await disk.MakeReadOnlyAsync();
        await FailsAsync("publisher", 8, "cannot be", "revoke", "user", "alice");
        await FailsAsync("publisher", 8, "cannot be", "serve");
        await FailsAsync("relay", 8, "cannot be", "relay", "--host", "127.0.0.1", "--port", "0", "--no-tls");
        await FailsAsync("alice", 8, "cannot be", "connect");
        await FailsAsync("new", 8, "cannot be", "connect", lab.File("alice.zip"));

        async Task FailsAsync(string state, int exitCode, string part, params string[] arguments)
        {
            var result = await lab.TryRunAsync(state, [.. arguments]);
            Assert.True(
                result.ExitCode == exitCode && result.Errors.Count == 1 && result.Errors[0].Contains(part, StringComparison.Ordinal),
                $"vtunnel {string.Join(' ', arguments)}: exit code {result.ExitCode}: {result.Output}{string.Join('\n', result.Errors)}");
        }
    }

    [Fact]
    public async Task A_program_that_was_copied_without_its_library_says_what_belongs_beside_it()
    {
        using var folder = new TempDirectory();
        var published = Path.GetDirectoryName(VTunnelProgram.Path)!;

        // By another process: what this one writes is open for writing in whatever it starts meanwhile, and cannot be run then.
        var files = Directory.GetFiles(published).Where(file => Path.GetFileName(file) != "libe_sqlite3.so");
        await Tools.RunAsync("cp", [.. files, folder.Path]);

        using var deadline = new CancellationTokenSource(TestTimeouts.Step);
        var result = await CliWrap.Cli.Wrap(folder.File(Path.GetFileName(VTunnelProgram.Path)))
            .WithArguments(["relay", "init", "--domain", "localhost", "--state-dir", folder.File("state")])
            .WithValidation(CliWrap.CommandResultValidation.None)
            .ExecuteBufferedAsync(deadline.Token);

        Assert.Equal(8, result.ExitCode);
        Assert.Equal(
            $"vtunnel: SQLite's library (libe_sqlite3.so on Linux) cannot be loaded: it came with the program and belongs beside it, in {folder.Path}/",
            result.StandardError.TrimEnd('\n'));
    }

    /// <summary>From somewhere else.</summary>
    private static async Task EnrolAsync(BridgeLab lab, string code)
    {
        using var identity = PublisherIdentity.Create();
        using var dialer = new RelayDialer(
            new RelayAddress(new Uri(lab.Url), "", null), identity.Fingerprint, identity.Certificate, TestTimeouts.Step, TimeProvider.System);
        await dialer.EnrolAsync(code, "late", CancellationToken.None);
    }

    /// <summary>A file system of two megabytes, in a mount namespace of its own that programs are started in.</summary>
    private sealed class SmallDisk : IAsyncDisposable
    {
        private readonly TempDirectory _mountPoint;
        private readonly RunningProgram _holder;

        private SmallDisk(TempDirectory mountPoint, RunningProgram holder) => (_mountPoint, _holder) = (mountPoint, holder);

        public string Path => _mountPoint.Path;

        public string PathFromOutside => $"/proc/{_holder.Id}/root{_mountPoint.Path}";

        public string[] Launcher => [Tools.Find("nsenter"), "--target", $"{_holder.Id}", "--user", "--preserve-credentials", "--mount"];

        private string Ballast => System.IO.Path.Combine(PathFromOutside, "ballast");

        public static async Task<SmallDisk> StartAsync()
        {
            var folder = new TempDirectory();
            var holder = RunningProgram.Start(
                Tools.Find("unshare"),
                ["--user", "--map-root-user", "--mount", "sh", "-c", $"mount -t tmpfs -o size=2m none {folder.Path} && echo mounted && exec tail -f /dev/null"]);
            await holder.Output.WaitForAsync("mounted");
            return new SmallDisk(folder, holder);
        }

        /// <summary>Takes what is left, to the last byte.</summary>
        public void Fill()
        {
            using var file = new FileStream(Ballast, FileMode.Append, FileAccess.Write, FileShare.None, bufferSize: 0);
            var block = new byte[4096];
            try
            {
                while (true)
                    file.Write(block);
            }
            catch (IOException)
            {
                // That was the last one.
            }
        }

        public void Free() => File.Delete(Ballast);

        /// <summary>Nobody may have a file open for writing.</summary>
        public async Task MakeReadOnlyAsync() => await Tools.RunAsync(Launcher[0], [.. Launcher[1..], "mount", "-o", "remount,ro", Path]);

        public async ValueTask DisposeAsync()
        {
            await _holder.DisposeAsync();
            _mountPoint.Dispose();
        }
    }
}
