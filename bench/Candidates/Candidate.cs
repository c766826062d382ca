using System.Diagnostics;
using System.Globalization;
using System.Text.RegularExpressions;
using VTunnel.Bench.Load;
using VTunnel.Bench.Processes;

namespace VTunnel.Bench.Candidates;

/// <summary>Something that leads from <see cref="VisitorPort"/> to the load target, and is running.</summary>
internal abstract class Candidate(string name) : IDisposable
{
    /// <summary>What results are filed under: <c>direct</c>, <c>floor</c>, <c>v2</c>, <c>v1</c>, or a peer's name.</summary>
    public string Name { get; } = name;

    /// <summary>Where visitors connect, on 127.0.0.1.</summary>
    public int VisitorPort { get; protected init; }

    /// <summary>The processes between visitor and target, as they are now.</summary>
    public abstract IReadOnlyList<int> Processes { get; }

    /// <summary>From the start of the first process until it listened; null where nobody can tell.</summary>
    public TimeSpan? TimeToListen { get; protected init; }

    /// <summary>User plus system time of all processes.</summary>
    public TimeSpan CpuTime() => Processes.Aggregate(TimeSpan.Zero, (sum, process) => sum + ProcessUsage.CpuTime(process));

    /// <summary>Resident memory of all processes, in bytes.</summary>
    public long ResidentBytes() => Processes.Sum(ProcessUsage.ResidentBytes);

    /// <summary>Ends what was started for it.</summary>
    public abstract void Dispose();

    /// <summary>A port that nobody listens on now, below the range that outgoing connections get theirs from.</summary>
    public static int FreePort()
    {
        while (true)
        {
            var port = Random.Shared.Next(10_000, 32_000);
            using var probe = new System.Net.Sockets.Socket(
                System.Net.Sockets.AddressFamily.InterNetwork, System.Net.Sockets.SocketType.Stream, System.Net.Sockets.ProtocolType.Tcp);
            try
            {
                probe.Bind(new System.Net.IPEndPoint(System.Net.IPAddress.Loopback, port));
                return port;
            }
            catch (System.Net.Sockets.SocketException)
            {
                // Taken.
            }
        }
    }

    /// <summary>Tries until a visitor gets a byte through.</summary>
    protected static void WaitForFirstByte(int port, string name)
    {
        var started = Stopwatch.GetTimestamp();
        while (true)
        {
            try
            {
                using var socket = LoadTarget.Connect(port);
                Span<byte> one = [(byte)LoadKind.OneByte];
                socket.Send(one);
                if (socket.Receive(one) == 1)
                    return;
            }
            catch (System.Net.Sockets.SocketException)
            {
                // Not up yet.
            }

            if (Stopwatch.GetElapsedTime(started) > TimeSpan.FromSeconds(20))
                throw new BenchException($"{name} lets nothing through on port {port}");
            Thread.Sleep(1);
        }
    }
}

/// <summary>No tunnel: the visitor connects to the target.</summary>
internal sealed class DirectCandidate : Candidate
{
    public DirectCandidate(LoadTarget target)
        : base("direct") => VisitorPort = target.Port;

    public override IReadOnlyList<int> Processes => [];

    public override void Dispose()
    {
        // Nothing was started.
    }
}

/// <summary>The delay line alone: visitor, delay line, target.</summary>
internal sealed class DelayedCandidate : Candidate
{
    private readonly DelayLine _line;

    public DelayedCandidate(LoadTarget target, TimeSpan roundTrip)
        : base("direct")
    {
        _line = new DelayLine(target.Port, roundTrip);
        VisitorPort = _line.Port;
    }

    public override IReadOnlyList<int> Processes => [];

    public override void Dispose() => _line.Dispose();
}

/// <summary>
/// The baseline: as many hops and processes as a tunnel has, and nothing else. Visitor, relay, relay, target; each relay
/// two asynchronous loops for a connection, over pooled buffers.
/// </summary>
internal sealed partial class FloorCandidate : Candidate
{
    private readonly ChildProgram _near;
    private readonly ChildProgram _far;

    public FloorCandidate(LoadTarget target)
        : base("floor")
    {
        _far = ChildProgram.StartHelper("relay", $"{target.Port}");
        var (farPort, _) = ListenedPort(_far);
        _near = ChildProgram.StartHelper("relay", $"{farPort}");
        (VisitorPort, var time) = ListenedPort(_near);
        TimeToListen = Stopwatch.GetElapsedTime(_near.Started, time);
    }

    public override IReadOnlyList<int> Processes => [_near.Id, _far.Id];

    /// <summary>Waits until one of the bench's own helpers says where it listens.</summary>
    public static (int Port, long Time) ListenedPort(ChildProgram helper)
    {
        var (match, time) = helper.WaitFor(Listening());
        return (int.Parse(match.Groups[1].ValueSpan, CultureInfo.InvariantCulture), time);
    }

    public override void Dispose()
    {
        _near.Dispose();
        _far.Dispose();
    }

    [GeneratedRegex(@"^listening on (\d+)$")]
    private static partial Regex Listening();
}

/// <summary>A delay line between two parties, as a process of its own.</summary>
internal sealed class DelayLine : IDisposable
{
    private readonly ChildProgram _program;

    public DelayLine(int targetPort, TimeSpan roundTrip)
    {
        _program = ChildProgram.StartHelper("delay-line", $"{targetPort}", string.Create(CultureInfo.InvariantCulture, $"{roundTrip.TotalMilliseconds}"));
        (Port, _) = FloorCandidate.ListenedPort(_program);
    }

    public int Port { get; }

    public void Dispose() => _program.Dispose();
}

/// <summary>The real program: <c>vtunnel server</c> and <c>vtunnel client</c>.</summary>
internal sealed partial class TunnelCandidate : Candidate
{
    private readonly ChildProgram _server;
    private readonly ChildProgram _client;

    /// <param name="program">The program's file.</param>
    /// <param name="protocol"><c>v1</c> or <c>v2</c>.</param>
    /// <param name="targetPort">Where connections go, on 127.0.0.1.</param>
    /// <param name="between">Makes what stands between client and server, and gives the port that the client is to dial.</param>
    /// <param name="proxy">Options of the HTTP proxy that the server has; null for none.</param>
    public TunnelCandidate(string program, string protocol, int targetPort, Func<int, int>? between = null, IReadOnlyList<string>? proxy = null)
        : base(protocol)
    {
        var hasProxy = proxy is not null;
        _server = ChildProgram.Start(
            program, ["server", "--host", "127.0.0.1", "--port", "0", "--protocol", protocol, .. hasProxy ? (string[])["--proxy", "0", .. proxy!] : []]);
        ServerProcess = _server.Id;
        var (listening, listeningAt) = _server.WaitFor(Listening());
        TimeToListen = Stopwatch.GetElapsedTime(_server.Started, listeningAt);
        var serverPort = int.Parse(listening.Groups[1].ValueSpan, CultureInfo.InvariantCulture);
        ServerPort = serverPort;
        if (hasProxy)
            ProxyPort = int.Parse(_server.WaitFor(ProxyListening()).Match.Groups[1].ValueSpan, CultureInfo.InvariantCulture);

        VisitorPort = FreePort();
        _client = ChildProgram.Start(
            program,
            ["client", "--server", $"ws://127.0.0.1:{between?.Invoke(serverPort) ?? serverPort}/", "--forward", $"{VisitorPort}=127.0.0.1:{targetPort}", "--protocol", protocol,
                .. hasProxy ? (string[])["--forward", $"{ProxiedHost}=127.0.0.1:{targetPort}"] : []]);
        WaitForFirstByte(VisitorPort, protocol);
        ClientTimeToFirstByte = Stopwatch.GetElapsedTime(_client.Started);
    }

    /// <summary>What its proxy leads to the target under.</summary>
    public const string ProxiedHost = "target.test:9000";

    /// <summary>Where its proxy listens; 0 where it has none.</summary>
    public int ProxyPort { get; }

    /// <summary>Where the server listens for clients.</summary>
    public int ServerPort { get; }

    public int ServerProcess { get; }

    public int ClientProcess => _client.Id;

    /// <summary>From the start of the client's process until a visitor had got a byte through, the server being up.</summary>
    public TimeSpan ClientTimeToFirstByte { get; }

    public override IReadOnlyList<int> Processes => [_server.Id, _client.Id];

    public override void Dispose()
    {
        _client.Dispose();
        _server.Dispose();
    }

    [GeneratedRegex(@"Listening on \S*:(\d+)/?$")]
    private static partial Regex Listening();

    [GeneratedRegex(@"Proxy listening on \S*:(\d+)$")]
    private static partial Regex ProxyListening();
}

/// <summary>Visitors of a tunnel that come through its HTTP proxy, by CONNECT.</summary>
internal sealed class ProxiedCandidate : Candidate
{
    private readonly TunnelCandidate _tunnel;

    /// <param name="tunnel">One with a proxy; stays the caller's.</param>
    public ProxiedCandidate(TunnelCandidate tunnel)
        : base(tunnel.Name)
    {
        _tunnel = tunnel;
        VisitorPort = tunnel.ProxyPort;
        LoadTarget.Proxies[VisitorPort] = TunnelCandidate.ProxiedHost;
        WaitForFirstByte(VisitorPort, "the proxy");
    }

    public override IReadOnlyList<int> Processes => _tunnel.Processes;

    public override void Dispose() => LoadTarget.Proxies.TryRemove(VisitorPort, out _);
}
