using System.Globalization;
using System.Text.RegularExpressions;
using VTunnel.Bench.Load;
using VTunnel.Bench.Processes;

namespace VTunnel.Bench.Candidates;

/// <summary>A way from one private network into another through a relay, whose three parties are counted one by one.</summary>
internal abstract class BridgedCandidate(string name) : Candidate(name)
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vtunnel-bench-").FullName;

    /// <summary>What each party has started.</summary>
    protected Dictionary<string, List<ChildProgram>> Parties { get; } = new() { ["relay"] = [], ["publisher"] = [], ["consumer"] = [] };

    public override IReadOnlyList<int> Processes => [.. Parties.Keys.SelectMany(ProcessesOf)];

    /// <summary>The parties: relay, publisher, consumer.</summary>
    public IEnumerable<string> PartyNames => Parties.Keys;

    /// <summary>The processes of a party, as they are now.</summary>
    public IReadOnlyList<int> ProcessesOf(string party) => [.. Parties[party].SelectMany(program => ProcessUsage.Family(program.Id))];

    /// <summary>User plus system time of a party.</summary>
    public TimeSpan CpuTime(string party) => ProcessesOf(party).Aggregate(TimeSpan.Zero, (sum, process) => sum + ProcessUsage.CpuTime(process));

    public override void Dispose()
    {
        foreach (var program in Parties.Values.SelectMany(programs => programs).Reverse())
            program.Dispose();
        if (Directory.Exists(_folder))
            Directory.Delete(_folder, recursive: true);
    }

    /// <summary>A file or folder of this candidate.</summary>
    protected string File(string name) => Path.Combine(_folder, name);

    /// <summary>Runs a command to its end.</summary>
    protected static ChildProgram Run(string program, params string[] arguments)
    {
        var child = ChildProgram.Start(program, arguments);
        child.WaitForSuccess(TimeSpan.FromSeconds(30));
        return child;
    }

    /// <summary>Starts a party's program.</summary>
    protected ChildProgram Start(string party, string program, params string[] arguments)
    {
        var child = ChildProgram.Start(program, arguments);
        Parties[party].Add(child);
        return child;
    }
}

/// <summary>The real program: <c>vtunnel relay</c>, <c>serve</c> and <c>connect</c>, on loopback, without TLS to the relay but with TLS end to end.</summary>
internal sealed partial class BridgeCandidate : BridgedCandidate
{
    public BridgeCandidate(string program, LoadTarget target)
        : base("bridge")
    {
        var port = FreePort();
        VisitorPort = FreePort();
        var url = $"ws://127.0.0.1:{port}/";
        Run(program, "relay", "init", "--domain", "localhost", "--url", url, "--state-dir", File("relay")).Dispose();
        Start("relay", program, "relay", "--host", "127.0.0.1", "--port", $"{port}", "--no-tls", "--state-dir", File("relay")).WaitFor(Listening());
        using (var invite = ChildProgram.Start(program, ["relay", "invite", "--quiet", "--state-dir", File("relay")]))
            Run(program, "join", url, invite.WaitFor(Code()).Match.Value, "--state-dir", File("publisher")).Dispose();
        Run(program, "create", "user", "bench", "-m", string.Create(CultureInfo.InvariantCulture, $"{VisitorPort}:{target.Port}"), "--state-dir", File("publisher")).Dispose();
        Run(program, "export", "user", "bench", "--out", File("bench.zip"), "--state-dir", File("publisher")).Dispose();
        Start("publisher", program, "serve", "--state-dir", File("publisher"));
        Start("consumer", program, "connect", File("bench.zip"), "--state-dir", File("consumer"));
        WaitForFirstByte(VisitorPort, Name);
    }

    [GeneratedRegex("Listening on ")]
    private static partial Regex Listening();

    [GeneratedRegex("^([a-z2-9]{4}-){7}[a-z2-9]{4}$")]
    private static partial Regex Code();
}

/// <summary>
/// OpenSSH doing the same: the publisher forwards a port of the relay to its own sshd (<c>ssh -R</c>), and the consumer opens a
/// connection to that sshd through the relay (<c>ssh -W</c>) and forwards a local port over it (<c>ssh -L</c>). So the relay sees
/// ciphertext, too, and every byte is encrypted twice on the way to it.
/// </summary>
internal sealed partial class OpenSshBridgeCandidate : BridgedCandidate
{
    private static readonly string[] NoQuestions =
    [
        "-F", "/dev/null", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
        "-o", "ExitOnForwardFailure=yes",
    ];

    public OpenSshBridgeCandidate(LoadTarget target)
        : base("openssh-bridge")
    {
        var (relay, publisher, meeting) = (FreePort(), FreePort(), FreePort());
        VisitorPort = FreePort();
        if (Environment.IsPrivilegedProcess)
            Directory.CreateDirectory("/run/sshd");
        foreach (var key in (string[])["host", "user"])
            Run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", File(key)).Dispose();
        StartSshd("relay", relay);
        StartSshd("publisher", publisher);
        string[] login = [.. NoQuestions, "-i", File("user")];
        var toRelay = $"ssh {string.Join(' ', login)} -p {relay} -W 127.0.0.1:{meeting} {Environment.UserName}@127.0.0.1";
        Start("publisher", "ssh", [.. login, "-N", "-p", $"{relay}", "-R", $"127.0.0.1:{meeting}:127.0.0.1:{publisher}", $"{Environment.UserName}@127.0.0.1"]);
        WaitUntilListening(meeting);
        Start(
            "consumer", "ssh",
            [.. login, "-N", "-o", $"ProxyCommand={toRelay}", "-L", $"127.0.0.1:{VisitorPort}:127.0.0.1:{target.Port}", $"{Environment.UserName}@publisher"]);
        WaitForFirstByte(VisitorPort, Name);
    }

    /// <summary>Whether OpenSSH is there to compare with.</summary>
    public static bool IsInstalled => System.IO.File.Exists(Sshd);

    private const string Sshd = "/usr/sbin/sshd";

    private void StartSshd(string party, int port) => Start(
        party, Sshd, "-D", "-e", "-f", "/dev/null", "-p", $"{port}", "-o", "ListenAddress=127.0.0.1", "-o", $"HostKey={File("host")}",
        "-o", $"AuthorizedKeysFile={File("user.pub")}", "-o", "StrictModes=no", "-o", "PidFile=none", "-o", "UsePAM=no",
        "-o", "PermitRootLogin=prohibit-password", "-o", "MaxStartups=100").WaitFor(ServerListening());

    private static void WaitUntilListening(int port)
    {
        for (var tries = 0; ; tries++)
        {
            try
            {
                using var probe = LoadTarget.Connect(port);
                return;
            }
            catch (System.Net.Sockets.SocketException) when (tries < 2000)
            {
                Thread.Sleep(5);
            }
        }
    }

    [GeneratedRegex("Server listening")]
    private static partial Regex ServerListening();
}
