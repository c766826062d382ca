using System.Globalization;
using System.Net.Sockets;
using System.Text.Json;
using System.Text.Json.Serialization;
using VTunnel.Bench.Load;
using VTunnel.Bench.Processes;

namespace VTunnel.Bench.Candidates;

/// <summary>How another tunnel is started. In every command {T} is the port of its server, {R} the port that visitors connect to, {L} that of the target, {DIR} a folder of its own, {USER} who runs the bench, {BENCH} the bench itself.</summary>
/// <param name="Name">What its results are filed under: letters, digits and dashes.</param>
/// <param name="Setup">Commands that run to their end first; one that fails ends the run.</param>
/// <param name="Server">The command that runs at the public side; null where there is none.</param>
/// <param name="Client">The command that runs behind the NAT.</param>
internal sealed record Peer(
    string Name,
    IReadOnlyList<IReadOnlyList<string>>? Setup,
    IReadOnlyList<string>? Server,
    IReadOnlyList<string> Client);

/// <summary>A file of peers.</summary>
internal sealed record PeerFile(IReadOnlyList<Peer> Peers)
{
    /// <summary>Reads a file.</summary>
    /// <exception cref="BenchException">It cannot be read; the message names all that is wrong.</exception>
    public static PeerFile Read(string path)
    {
        PeerFile? file;
        try
        {
            file = JsonSerializer.Deserialize(File.ReadAllText(path), PeerJson.Default.PeerFile);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or JsonException)
        {
            throw new BenchException($"--peers {path}: {e.Message}", e);
        }

        var faults = new List<string>();
        if (file?.Peers is not { Count: > 0 } peers)
            throw new BenchException($"--peers {path}: no peers in it; write {{\"peers\": [{{\"name\": …, \"client\": [\"program\", \"argument\", …]}}]}}");
        foreach (var peer in peers)
        {
            if (peer.Name is not { Length: > 0 } || !peer.Name.All(letter => char.IsAsciiLetterOrDigit(letter) || letter is '-' or '.'))
                faults.Add($"--peers {path}: the name '{peer.Name}' must be letters, digits, dots and dashes");
            if (peer.Name is "direct" or "floor" or "v1" or "v2" or "nginx")
                faults.Add($"--peers {path}: the name '{peer.Name}' is the bench's own");
            if (peer.Client is not { Count: > 0 })
                faults.Add($"--peers {path}: '{peer.Name}' has no client command");
            else if (!peer.Client.Concat(peer.Server ?? []).Any(word => word.Contains("{R}", StringComparison.Ordinal)))
                faults.Add($"--peers {path}: no command of '{peer.Name}' has {{R}}, the port that visitors connect to");
        }

        return faults.Count == 0 ? file : throw new BenchException(string.Join('\n', faults));
    }
}

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, ReadCommentHandling = JsonCommentHandling.Skip, AllowTrailingCommas = true,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow)]
[JsonSerializable(typeof(PeerFile))]
internal sealed partial class PeerJson : JsonSerializerContext;

/// <summary>Another tunnel, running.</summary>
internal sealed class PeerCandidate : Candidate
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vtunnel-bench-").FullName;
    private readonly List<ChildProgram> _programs = [];

    public PeerCandidate(Peer peer, LoadTarget target)
        : base(peer.Name)
    {
        var serverPort = FreePort();
        VisitorPort = FreePort();
        try
        {
            foreach (var command in peer.Setup ?? [])
            {
                using var setup = Start(command);
                setup.WaitForSuccess(TimeSpan.FromSeconds(30));
            }

            if (peer.Server is { Count: > 0 } server)
            {
                _programs.Add(Start(server));
                WaitUntilListening(serverPort);
            }

            _programs.Add(Start(peer.Client));
            WaitForFirstByte(VisitorPort, peer.Name);
        }
        catch (BenchException e)
        {
            var said = string.Join('\n', _programs.Select(program => program.Output()).Where(text => text.Length > 0));
            Dispose();
            throw new BenchException($"{peer.Name}: {e.Message}{(said.Length > 0 ? $"\n{said}" : "")}", e);
        }

        ChildProgram Start(IReadOnlyList<string> command)
        {
            var words = command.Select(word => word
                .Replace("{T}", serverPort.ToString(CultureInfo.InvariantCulture), StringComparison.Ordinal)
                .Replace("{R}", VisitorPort.ToString(CultureInfo.InvariantCulture), StringComparison.Ordinal)
                .Replace("{L}", target.Port.ToString(CultureInfo.InvariantCulture), StringComparison.Ordinal)
                .Replace("{DIR}", _folder, StringComparison.Ordinal)
                .Replace("{USER}", Environment.UserName, StringComparison.Ordinal)
                .Replace("{BENCH}", Path.Combine(AppContext.BaseDirectory, "VTunnel.Bench"), StringComparison.Ordinal)).ToList();
            return ChildProgram.Start(words[0], words[1..]);
        }
    }

    public override IReadOnlyList<int> Processes => [.. _programs.SelectMany(program => ProcessUsage.Family(program.Id))];

    public override void Dispose()
    {
        foreach (var program in Enumerable.Reverse(_programs))
            program.Dispose();
        if (Directory.Exists(_folder))
            Directory.Delete(_folder, recursive: true);
    }

    private static void WaitUntilListening(int port)
    {
        for (var tries = 0; ; tries++)
        {
            try
            {
                using var probe = LoadTarget.Connect(port);
                return;
            }
            catch (SocketException) when (tries < 2000)
            {
                Thread.Sleep(5);
            }
            catch (SocketException e)
            {
                throw new BenchException($"nobody listens on port {port}, {{T}}, after 10 s: {e.Message}", e);
            }
        }
    }
}
