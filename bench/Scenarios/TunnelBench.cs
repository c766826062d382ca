using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using HdrHistogram;
using VTunnel.Bench.Candidates;
using VTunnel.Bench.Load;
using VTunnel.Bench.Processes;
using VTunnel.Bench.Results;

namespace VTunnel.Bench.Scenarios;

/// <summary>What to measure.</summary>
internal sealed record BenchPlan
{
    public static readonly string[] StandardScenarios = ["throughput", "latency", "connects", "idle", "fairness", "wan", "resume"];

    /// <summary>How many connect at once where nothing else was asked for.</summary>
    public const int StandardConnecting = 4;

    public required IReadOnlyList<string> Arguments { get; init; }

    /// <summary>The vtunnel program.</summary>
    public required string Program { get; init; }

    public IReadOnlyList<string> Scenarios { get; init; } = StandardScenarios;

    public IReadOnlyList<string> Protocols { get; init; } = ["v2", "v1"];

    public IReadOnlyList<int> Streams { get; init; } = [1, 8, 64];

    /// <summary>How many connect at once.</summary>
    public IReadOnlyList<int> Connecting { get; init; } = [StandardConnecting];

    public IReadOnlyList<Peer> Peers { get; init; } = [];

    public int Rounds { get; init; } = 3;

    /// <summary>How long each measurement takes.</summary>
    public TimeSpan Window { get; init; } = TimeSpan.FromSeconds(0.25);

    public int IdleStreams { get; init; } = 2000;

    /// <summary>Streams that the scenario scale opens on one session.</summary>
    public int ScaleStreams { get; init; } = 10_000;

    /// <summary>Sessions that the scenario scale opens on one server.</summary>
    public int ScaleSessions { get; init; } = 1000;

    /// <summary>Bytes of the volume scenario's long run.</summary>
    public double VolumeGigabytes { get; init; } = 20;
}

/// <summary>Runs a plan: every round measures every candidate once, in turn, so that whatever happens to the machine happens to all.</summary>
internal sealed class TunnelBench : IDisposable
{
    private static readonly TimeSpan Rest = TimeSpan.FromSeconds(3);
    private static readonly TimeSpan WarmUp = TimeSpan.FromSeconds(2);

    /// <summary>The round before the first, of which nothing is kept.</summary>
    private const int WarmUpRound = -1;

    /// <summary>No measurement of the warm-up takes longer.</summary>
    private static readonly TimeSpan LongestWarmUp = TimeSpan.FromSeconds(0.4);

    private static readonly TimeSpan WanRoundTrip = TimeSpan.FromMilliseconds(100);

    private readonly BenchPlan _plan;
    private readonly Progress _progress;
    private readonly CancellationToken _stop;
    private readonly LoadTarget _target = new();
    private readonly Results.Recorder _recorder = new();
    private readonly List<Candidate> _candidates = [];
    private readonly List<BridgedCandidate> _bridges = [];
    private TimeSpan _window;

    public TunnelBench(BenchPlan plan, Progress progress, CancellationToken stop)
    {
        _plan = plan;
        _window = plan.Window;
        _progress = progress;
        _stop = stop;
    }

    /// <summary>Measures everything.</summary>
    /// <exception cref="BenchException">Something is wrong, and the figures with it.</exception>
    public BenchResult Run()
    {
        var started = Stopwatch.GetTimestamp();
        var startedAt = DateTimeOffset.UtcNow;
        var steps = Steps();
        var warmUp = steps.Where(step => step.IsWarmedUp).ToList();
        _progress.Begin(
            1 + (Wants("bridge") ? 1 : 0) + warmUp.Count + steps.Sum(step => step.IsSlow ? SlowRounds : _plan.Rounds)
            + (Wants("throughput") ? _plan.Protocols.Count : 0));
        StartCandidates();

        // Code that was not compiled yet, or not well, costs twice, in the relay, the bench and a program that runs on a runtime, and for
        // seconds of each kind of load. So everything is done once for nothing.
        _window = _plan.Window < LongestWarmUp ? _plan.Window : LongestWarmUp;
        foreach (var step in warmUp)
            Measure(step, WarmUpRound, "warming up");
        _window = _plan.Window;

        for (var round = 0; round < _plan.Rounds; round++)
        {
            foreach (var step in steps.Where(step => !step.IsSlow || round < SlowRounds))
                Measure(step, round, $"round {round + 1} of {_plan.Rounds}");
        }

        if (Wants("throughput"))
            MeasureAllocations();

        var series = _recorder.ToSeries();
        return new BenchResult(
            BenchResult.CurrentSchema, startedAt.ToString("yyyy-MM-dd'T'HH:mm:ss'Z'", CultureInfo.InvariantCulture),
            Math.Round(Stopwatch.GetElapsedTime(started).TotalSeconds, 1), _plan.Arguments,
            Machine.Describe(), Machine.Describe(_plan.Program), _plan.Rounds, _plan.Window.TotalSeconds, series, Goals.Check(series));
    }

    public void Dispose()
    {
        foreach (var candidate in _candidates.Concat(_bridges))
            candidate.Dispose();
        _target.Dispose();
    }

    /// <summary>Each round begins with another candidate: nobody is always the one who comes after the hungriest.</summary>
    private void Measure(Step step, int round, string when)
    {
        _progress.Next($"{when}: {step.Name}");
        for (var i = 0; i < _candidates.Count; i++)
        {
            _stop.ThrowIfCancellationRequested();
            step.Measure(_candidates[(i + Math.Max(0, round)) % _candidates.Count], round);
        }
    }

    private bool Wants(string scenario) => _plan.Scenarios.Contains(scenario);

    private int SlowRounds => (_plan.Rounds + 1) / 2;

    private static bool IsOurs(Candidate candidate) => candidate is TunnelCandidate;

    private void StartCandidates()
    {
        _progress.Next("starting the plain relay");
        _candidates.Add(new DirectCandidate(_target));
        _candidates.Add(new FloorCandidate(_target));
        foreach (var protocol in _plan.Protocols)
            _candidates.Add(new TunnelCandidate(_plan.Program, protocol, _target.Port));
        foreach (var peer in _plan.Peers)
            _candidates.Add(new PeerCandidate(peer, _target));

        if (Wants("bridge"))
            StartBridges();
    }

    private void StartBridges()
    {
        _progress.Next("starting relay, publisher and consumer");
        _bridges.Add(new BridgeCandidate(_plan.Program, _target));
        if (OpenSshBridgeCandidate.IsInstalled)
            _bridges.Add(new OpenSshBridgeCandidate(_target));
    }

    /// <summary>Two networks through a relay, end to end encrypted: the program and OpenSSH in turn, and each party by itself.</summary>
    private void Bridge(Candidate running, int round)
    {
        if (running is not DirectCandidate)
            return;
        var direct = Loads.Echo(running, _window).GetValueAtPercentile(50) / 1e3;
        for (var i = 0; i < _bridges.Count; i++)
        {
            var bridge = _bridges[(i + Math.Max(0, round)) % _bridges.Count];
            foreach (var (direction, streams) in ((Direction, int)[])[(Direction.Pull, 1), (Direction.Pull, 8), (Direction.Push, 1)])
            {
                var which = $"{direction.ToString().ToLowerInvariant()}-{streams}";
                var before = bridge.PartyNames.ToDictionary(party => party, bridge.CpuTime);
                var sample = Loads.Bulk(bridge, _target, direction, streams, _window);
                var used = bridge.PartyNames.ToDictionary(party => party, party => (bridge.CpuTime(party) - before[party]).TotalSeconds);
                Add("bridge", which, bridge, "rate", "MB/s", round, sample.MegabytesPerSecond);
                Add("bridge", which, bridge, "cpu", "CPU s/GB", round, sample.CpuSecondsPerGigabyte);
                foreach (var (party, seconds) in used)
                    Add("bridge", which, bridge, $"cpu-{party}", "CPU s/GB", round, sample.CpuSecondsPerGigabyte * seconds / used.Values.Sum());
            }

            Add("bridge", "echo", bridge, "p50-added", "µs", round, (Loads.Echo(bridge, _window).GetValueAtPercentile(50) / 1e3) - direct);
            Add("bridge", "memory", bridge, "resident", "MB", round, bridge.ResidentBytes() / 1e6);
            foreach (var party in bridge.PartyNames)
                Add("bridge", "memory", bridge, $"resident-{party}", "MB", round, bridge.ProcessesOf(party).Sum(ProcessUsage.ResidentBytes) / 1e6);
        }
    }

    /// <param name="Name">For the progress.</param>
    /// <param name="Measure">Measures one candidate in one round.</param>
    /// <param name="IsSlow">Starts programs of its own: measured in the first half of the rounds only.</param>
    /// <param name="IsWarmedUp">Done once for nothing before the rounds.</param>
    private sealed record Step(string Name, Action<Candidate, int> Measure, bool IsSlow = false, bool IsWarmedUp = true);

    private List<Step> Steps()
    {
        var steps = new List<Step>();
        if (Wants("throughput"))
        {
            foreach (var direction in (Direction[])[Direction.Pull, Direction.Push])
                steps.AddRange(_plan.Streams.Select(streams => Throughput(direction, streams)));
            steps.Add(Throughput(Direction.Both, _plan.Streams.Contains(8) ? 8 : _plan.Streams[0]));
        }

        if (Wants("latency"))
        {
            steps.Add(new Step("echo, idle", (candidate, round) => RecordEcho(candidate, "idle", round, Loads.Echo(candidate, _window))));
            steps.Add(new Step("echo, loaded", (candidate, round) =>
            {
                if (!Wants("fairness") || !IsOurs(candidate))
                    RecordEcho(candidate, "loaded", round, LoadedEcho(candidate).Echo);
            }));
        }

        if (Wants("connects"))
        {
            steps.AddRange(_plan.Connecting.Select(atOnce => new Step($"connections, {atOnce} at once", (candidate, round) =>
            {
                var (rate, cpu) = Loads.Connects(candidate, atOnce, _window);
                Add("connects", $"at-once-{atOnce}", candidate, "rate", "1/s", round, rate);
                if (candidate.Processes.Count > 0)
                    Add("connects", $"at-once-{atOnce}", candidate, "cpu", "ms/connection", round, cpu);
            })));
        }

        if (Wants("fairness"))
            steps.Add(new Step("fairness", Fairness));
        if (Wants("idle"))
            steps.Add(new Step("start and idle streams", StartAndIdle, IsSlow: true, IsWarmedUp: false));
        if (Wants("wan"))
            steps.Add(new Step("100 ms round trip", Wan, IsSlow: true, IsWarmedUp: false));
        if (Wants("resume"))
            steps.Add(new Step("resuming", Resume, IsSlow: true, IsWarmedUp: false));
        if (Wants("bridge"))
            steps.Add(new Step("two networks through a relay", Bridge));
        if (Wants("proxy"))
        {
            steps.Add(new Step("CONNECT through the proxy", Proxy, IsSlow: true, IsWarmedUp: false));
            steps.Add(new Step("requests through the proxy", ProxyRequests, IsSlow: true, IsWarmedUp: false));
        }

        if (Wants("scale"))
            steps.Add(new Step($"{_plan.ScaleStreams} streams, {_plan.ScaleSessions} sessions", Scale, IsSlow: true, IsWarmedUp: false));
        if (Wants("volume"))
            steps.Add(new Step(string.Create(CultureInfo.InvariantCulture, $"memory after {_plan.VolumeGigabytes} GB"), Volume, IsSlow: true, IsWarmedUp: false));
        return steps;
    }

    private void Add(string scenario, string which, Candidate candidate, string metric, string unit, int round, double value)
    {
        if (round != WarmUpRound)
            _recorder.Add(scenario, which, candidate.Name, metric, unit, round, value);
    }

    private Step Throughput(Direction direction, int streams)
    {
        var which = $"{direction.ToString().ToLowerInvariant()}-{streams}";
        return new Step($"throughput, {which}", Measure, IsWarmedUp: streams <= 8 || streams == _plan.Streams.Min()); // More run the same code.

        void Measure(Candidate candidate, int round)
        {
            var sample = Loads.Bulk(candidate, _target, direction, streams, _window);
            Add("throughput", which, candidate, "rate", "MB/s", round, sample.MegabytesPerSecond);
            if (candidate.Processes.Count > 0)
                Add("throughput", which, candidate, "cpu", "CPU s/GB", round, sample.CpuSecondsPerGigabyte);
        }
    }

    private void RecordEcho(Candidate candidate, string which, int round, LongHistogram times)
    {
        foreach (var (metric, percentile) in ((string, double)[])[("p50", 50), ("p90", 90), ("p99", 99), ("p99.9", 99.9)])
            Add("latency", which, candidate, metric, "µs", round, times.GetValueAtPercentile(percentile) / 1e3);
        Add("latency", which, candidate, "max", "µs", round, times.GetMaxValue() / 1e3);
    }

    private (LongHistogram Echo, BulkSample Bulk) LoadedEcho(Candidate candidate)
    {
        LongHistogram? echo = null;
        var bulk = Loads.Bulk(
            candidate, _target, Direction.Pull, 8, _window, meanwhile: _ => echo = Loads.Echo(candidate, Longer(_window, 2)));
        return (echo!, bulk);
    }

    private static TimeSpan Longer(TimeSpan window, double factor) => window * factor;

    private void Fairness(Candidate candidate, int round)
    {
        if (candidate is DirectCandidate or FloorCandidate)
            return; // A connection of its own for each stream: whatever the kernel makes of it.
        var idle = Loads.Echo(candidate, _window / 2);
        var (echo, bulk) = LoadedEcho(candidate);
        if (Wants("latency") && IsOurs(candidate))
            RecordEcho(candidate, "loaded", round, echo);
        Add("fairness", "bulk-8", candidate, "p99-to-idle", "×", round, echo.GetValueAtPercentile(99) / (double)idle.GetValueAtPercentile(99));
        Add("fairness", "bulk-8", candidate, "least-share", "of the mean", round, bulk.PerStream.Min() / (bulk.PerStream.Sum() / 8.0));
        if (!IsOurs(candidate) || candidate.Name == "v1" || round == WarmUpRound)
            return; // v1 has no credit: there a stalled reader holds up its session.

        // The stalled reader asks for everything and takes nothing. Before and after it, since what is compared must not differ in time.
        var before = Loads.Bulk(candidate, _target, Direction.Pull, 8, _window);
        using var stalled = new StalledReader(_target, candidate.VisitorPort);
        var beside = Loads.Bulk(candidate, _target, Direction.Pull, 8, _window);
        stalled.Dispose();
        var after = Loads.Bulk(candidate, _target, Direction.Pull, 8, _window);
        Add("fairness", "stalled-reader", candidate, "rate-left", "×", round,
            beside.MegabytesPerSecond / ((before.MegabytesPerSecond + after.MegabytesPerSecond) / 2));
    }

    /// <summary>Programs of their own: one after the other for what a start takes, since one that has just started is still busy, then all at once.</summary>
    private void StartAndIdle(Candidate running, int round)
    {
        if (running is not DirectCandidate)
            return;
        var ofThePlan = _candidates.Where(candidate => candidate is FloorCandidate or TunnelCandidate).ToList();
        foreach (var candidate in ofThePlan)
        {
            using var started = Fresh(candidate);
            Add("idle", "start", started, "time-to-listen", "ms", round, started.TimeToListen!.Value.TotalMilliseconds);
            if (started is TunnelCandidate tunnel)
                Add("idle", "start", tunnel, "client-time-to-first-byte", "ms", round, tunnel.ClientTimeToFirstByte.TotalMilliseconds);
        }

        // Memory differs by a hundredth from round to round, and takes its time to come to rest: once is enough.
        if (round != 0)
            return;
        var fresh = new List<Candidate>();
        try
        {
            foreach (var candidate in ofThePlan)
                fresh.Add(Fresh(candidate));
            Resident(fresh, round);
        }
        finally
        {
            foreach (var candidate in fresh)
                candidate.Dispose();
        }

        Candidate Fresh(Candidate like) =>
            like is TunnelCandidate ? new TunnelCandidate(_plan.Program, like.Name, _target.Port) : new FloorCandidate(_target);
    }

    private void Resident(List<Candidate> fresh, int round)
    {
        var start = AtRest();
        foreach (var candidate in fresh)
            Add("idle", "start", candidate, "resident", "MB", round, start[candidate] / 1e6);

        // The first streams pay for code and pools: what one more costs is the slope after them.
        var sockets = fresh.SelectMany(candidate => Loads.OpenIdle(candidate, Math.Max(1, _plan.IdleStreams / 5))).ToList();
        var few = AtRest();
        sockets.AddRange(fresh.SelectMany(candidate => Loads.OpenIdle(candidate, _plan.IdleStreams)));
        var more = AtRest();
        foreach (var candidate in fresh)
        {
            Add("idle", "streams", candidate, "resident-per-stream", "kB", round, (more[candidate] - few[candidate]) / 1e3 / _plan.IdleStreams);
            Add("idle", "streams", candidate, "resident", "MB", round, more[candidate] / 1e6);
        }

        foreach (var socket in sockets)
            socket.Dispose();
        _target.CloseIdle();
        foreach (var candidate in fresh)
            Loads.Bulk(candidate, _target, Direction.Both, 8, Longer(_window, 1.5));
        var afterLoad = AtRest();
        foreach (var candidate in fresh)
            Add("idle", "after-load", candidate, "resident", "MB", round, afterLoad[candidate] / 1e6);

        Dictionary<Candidate, long> AtRest()
        {
            Thread.Sleep(Rest);
            return fresh.ToDictionary(candidate => candidate, candidate => candidate.ResidentBytes());
        }
    }

    /// <summary>The program gives memory back when it has had nothing to do for a moment.</summary>
    private static long ResidentAtRest(TunnelCandidate candidate)
    {
        Thread.Sleep(Rest);
        return candidate.ResidentBytes();
    }

    private void Wan(Candidate running, int round)
    {
        if (running is FloorCandidate or PeerCandidate)
            return;
        if (running.Name == "v1" && _plan.Protocols.Count > 1)
            return; // It has no windows that could grow.
        DelayLine? line = null;
        try
        {
            using Candidate fresh = running is TunnelCandidate
                ? new TunnelCandidate(_plan.Program, running.Name, _target.Port, serverPort => (line = new DelayLine(serverPort, WanRoundTrip)).Port)
                : new DelayedCandidate(_target, WanRoundTrip);
            var sample = Loads.Bulk(fresh, _target, Direction.Pull, 1, Longer(_window, 2), ramp: TimeSpan.FromSeconds(2));
            Add("wan", "pull-1", fresh, "rate", "MB/s", round, sample.MegabytesPerSecond);
        }
        finally
        {
            line?.Dispose();
        }
    }

    /// <summary>CONNECT beside a plain forward of the same two processes.</summary>
    private void Proxy(Candidate running, int round)
    {
        if (running is not TunnelCandidate || running.Name == "v1")
            return;
        using var fresh = new TunnelCandidate(_plan.Program, running.Name, _target.Port, proxy: []);
        using var proxied = new ProxiedCandidate(fresh);

        // Code is compiled anew for seconds, and whoever is measured meanwhile pays for it.
        Loads.Bulk(fresh, _target, Direction.Both, 8, WarmUp * 3);
        Loads.Bulk(proxied, _target, Direction.Both, 8, WarmUp * 3);
        foreach (var direction in (Direction[])[Direction.Pull, Direction.Push])
        {
            foreach (var streams in (int[])[1, 8])
            {
                var which = $"{direction.ToString().ToLowerInvariant()}-{streams}";

                // In turn, for what a machine does to one of them in half a second is more than they differ by.
                var plain = new List<double> { Rate(fresh) };
                var through = new List<double>();
                while (through.Count < 15)
                {
                    through.Add(Rate(proxied));
                    plain.Add(Rate(fresh));
                }

                Add("proxy", which, fresh, "rate", "MB/s", round, Median(through));
                Add("proxy", which, fresh, "rate-to-forward", "×", round, Median(through) / Median(plain));

                static double Median(List<double> values) => values.Order().ElementAt(values.Count / 2);

                double Rate(Candidate candidate) => Loads.Bulk(candidate, _target, direction, streams, _window).MegabytesPerSecond;
            }
        }

        var (rate, _) = Loads.Connects(proxied, BenchPlan.StandardConnecting, _window);
        Add("proxy", "connects", fresh, "rate", "1/s", round, rate);
    }

    /// <summary>Requests through the proxy, from the server itself and through the tunnel, and inside TLS that ends at the proxy; nginx does the same by its side.</summary>
    private void ProxyRequests(Candidate running, int round)
    {
        if (running is not TunnelCandidate || running.Name == "v1")
            return;
        using var authority = new Authority(_plan.Program);
        using var nginx = new NginxCandidate(_target);
        using var plain = new TunnelCandidate(_plan.Program, running.Name, _target.Port, proxy: ["--proxy-resolve", "direct.test=127.0.0.1"]);
        using var intercepting = new TunnelCandidate(_plan.Program, running.Name, _target.Port, proxy: ["--proxy-mitm-ca", authority.File]);
        var here = $"direct.test:{_target.Port}";
        var there = TunnelCandidate.ProxiedHost;
        LoadTarget.Proxies[intercepting.ProxyPort] = there;
        try
        {
            Measure("requests-direct", plain, new RequestRoute(plain.ProxyPort, $"http://{here}/", here), new RequestRoute(nginx.VisitorPort, $"http://{here}/", here));
            Measure("requests-tunnel", plain, new RequestRoute(plain.ProxyPort, $"http://{there}/", there), new RequestRoute(nginx.VisitorPort, $"http://{there}/", there));
            Measure("requests-intercepted", intercepting, new RequestRoute(intercepting.ProxyPort, "/", there, IsTls: true), new RequestRoute(nginx.TlsPort, "/", there, IsTls: true));
        }
        finally
        {
            LoadTarget.Proxies.TryRemove(intercepting.ProxyPort, out _);
        }

        void Measure(string which, Candidate ours, RequestRoute way, RequestRoute nginxWay)
        {
            _stop.ThrowIfCancellationRequested();
            RequestLoad.Run(ours, which, way, WarmUp);
            var before = RequestLoad.Run(nginx, which, nginxWay, _window);
            var (rate, cpu) = RequestLoad.Run(ours, which, way, Longer(_window, 2));
            var after = RequestLoad.Run(nginx, which, nginxWay, _window);
            Add("proxy", which, ours, "rate", "1/s", round, rate);
            Add("proxy", which, ours, "cpu", "ms/request", round, cpu);
            Add("proxy", which, nginx, "rate", "1/s", round, (before.PerSecond + after.PerSecond) / 2);
            Add("proxy", which, nginx, "cpu", "ms/request", round, (before.CpuMilliseconds + after.CpuMilliseconds) / 2);
            Add("proxy", which, ours, "rate-to-nginx", "×", round, rate / ((before.PerSecond + after.PerSecond) / 2));
        }
    }

    /// <summary>An authority for a proxy that ends TLS, in a folder that goes with it.</summary>
    private sealed class Authority : IDisposable
    {
        private readonly string _folder = Directory.CreateTempSubdirectory("vtunnel-bench-").FullName;

        public Authority(string program)
        {
            File = Path.Combine(_folder, "ca.pem");
            using var create = ChildProgram.Start(program, ["ca", "create", "--out", File]);
            create.WaitForSuccess(TimeSpan.FromSeconds(30));
        }

        public string File { get; }

        public void Dispose() => Directory.Delete(_folder, recursive: true);
    }

    private void Resume(Candidate running, int round)
    {
        if (running is not TunnelCandidate || running.Name == "v1")
            return;
        CutLine? line = null;
        try
        {
            using var fresh = new TunnelCandidate(_plan.Program, running.Name, _target.Port, serverPort => (line = new CutLine(serverPort)).Port);
            Loads.Bulk(fresh, _target, Direction.Pull, 1, TimeSpan.Zero, meanwhile: _ =>
            {
                // Nothing is known of the stream here: the echo's longest time is what a visitor notices of the cut.
                var cut = LoadTarget.Start("cut", () =>
                {
                    Thread.Sleep(300);
                    line!.Cut();
                });
                var echo = Loads.Echo(fresh, TimeSpan.FromSeconds(1.5));
                cut.Join();
                Add("resume", "cut", fresh, "stall", "ms", round, echo.GetMaxValue() / 1e6);
            });
        }
        finally
        {
            line?.Dispose();
        }
    }

    private void Volume(Candidate running, int round)
    {
        if (running is not TunnelCandidate)
            return;
        using var fresh = new TunnelCandidate(_plan.Program, running.Name, _target.Port);
        Move(1);
        var early = ResidentAtRest(fresh);
        Move(_plan.VolumeGigabytes - 1);
        var late = ResidentAtRest(fresh);
        Add("volume", "pull-8", fresh, "resident-early", "MB", round, early / 1e6);
        Add("volume", "pull-8", fresh, "resident-late", "MB", round, late / 1e6);
        Add("volume", "pull-8", fresh, "resident-growth", "×", round, late / (double)early);

        void Move(double gigabytes)
        {
            for (var moved = 0.0; moved < gigabytes;)
            {
                _stop.ThrowIfCancellationRequested();
                moved += Loads.Bulk(fresh, _target, Direction.Pull, 8, TimeSpan.FromSeconds(1)).Bytes / 1e9;
            }
        }
    }

    /// <summary>Many idle streams on one session, then many sessions on one server; everything that is opened carries a byte each way.</summary>
    private void Scale(Candidate running, int round)
    {
        if (running is not TunnelCandidate)
            return;
        var needed = Math.Max(_plan.ScaleStreams, 4 * _plan.ScaleSessions) + 500;
        if (ProcessUsage.MaxOpenFiles() < needed)
            throw new BenchException($"scale needs {needed} open files for each process, and {ProcessUsage.MaxOpenFiles()} are allowed: raise the hard limit (ulimit -Hn) or lower --scale-streams");

        // A process of its own: visitors and their targets together would be twice as many connections.
        using var target = ChildProgram.StartHelper("target");
        var (targetPort, _) = FloorCandidate.ListenedPort(target);
        using (var fresh = new TunnelCandidate(_plan.Program, running.Name, targetPort))
        {
            var before = ResidentAtRest(fresh);
            var started = Stopwatch.GetTimestamp();
            var streams = Loads.OpenIdle(fresh, _plan.ScaleStreams);
            Add("scale", "streams", fresh, "opened", "1/s", round, _plan.ScaleStreams / Stopwatch.GetElapsedTime(started).TotalSeconds);
            var after = ResidentAtRest(fresh);
            Add("scale", "streams", fresh, "resident", "MB", round, after / 1e6);
            Add("scale", "streams", fresh, "resident-per-stream", "kB", round, (after - before) / 1e3 / _plan.ScaleStreams);
            Add("scale", "streams", fresh, "echo", "µs", round, Loads.Echo(fresh, _window).GetValueAtPercentile(50) / 1e3);
            foreach (var socket in streams)
                socket.Dispose();
        }

        using (var fresh = new TunnelCandidate(_plan.Program, running.Name, targetPort))
        {
            var ports = new HashSet<int>();
            while (ports.Count < _plan.ScaleSessions)
                ports.Add(Candidate.FreePort());
            var before = ProcessUsage.ResidentBytes(fresh.ServerProcess);
            using var sessions = new ManySessions(fresh.ServerPort, running.Name, targetPort, [.. ports]);
            Loads.EachCarriesAByte($"{running.Name}, {ports.Count} sessions", ports);
            var after = ProcessUsage.ResidentBytes(fresh.ServerProcess);
            Add("scale", "sessions", fresh, "connected", "1/s", round, ports.Count / sessions.TimeToConnect.TotalSeconds);
            Add("scale", "sessions", fresh, "resident", "MB", round, after / 1e6);
            Add("scale", "sessions", fresh, "resident-per-session", "kB", round, (after - before) / 1e3 / ports.Count);
            Add("scale", "sessions", fresh, "echo", "µs", round, Loads.Echo(fresh, _window).GetValueAtPercentile(50) / 1e3);
        }
    }

    /// <summary>Apart from the rounds, because counting costs a little.</summary>
    private void MeasureAllocations()
    {
        foreach (var candidate in _candidates.OfType<TunnelCandidate>())
        {
            _progress.Next($"allocations, {candidate.Name}");
            _stop.ThrowIfCancellationRequested();
            foreach (var direction in (Direction[])[Direction.Pull, Direction.Push])
            {
                using var server = new AllocationMeter(candidate.ServerProcess);
                using var client = new AllocationMeter(candidate.ClientProcess);
                var perByte = 0.0;
                Loads.Bulk(candidate, _target, direction, 8, TimeSpan.Zero, meanwhile: delivered =>
                {
                    // Each process counts in its own time, and its bytes are those of that time.
                    var (serverBefore, clientBefore) = (Next(server), Next(client));
                    Thread.Sleep(TimeSpan.FromSeconds(Math.Min(2, _plan.Window.TotalSeconds * 2)));
                    perByte = PerByte(serverBefore, Next(server)) + PerByte(clientBefore, Next(client));

                    (long Allocated, long Bytes) Next(AllocationMeter meter) => (meter.NextTotal(), delivered());

                    static double PerByte((long Allocated, long Bytes) before, (long Allocated, long Bytes) after) =>
                        (after.Allocated - before.Allocated) / (double)Math.Max(1, after.Bytes - before.Bytes);
                });
                Add("throughput", $"{direction.ToString().ToLowerInvariant()}-8", candidate, "allocated", "MB/GB", 0, perByte * 1e3);
            }
        }
    }

    /// <summary>A visitor that asks for a download and reads none of it.</summary>
    private sealed class StalledReader : IDisposable
    {
        private readonly Socket _socket;
        private readonly BulkStream _stream = new(Direction.Pull, new ManualResetEventSlim(initialState: true));

        public StalledReader(LoadTarget target, int port)
        {
            target.Expect(_stream);
            _socket = LoadTarget.Connect(port);
            _socket.Send([(byte)LoadKind.Bulk, (byte)(_stream.Number >> 8), (byte)_stream.Number]);
        }

        public void Dispose()
        {
            _socket.Dispose();
            _stream.Dispose();
        }
    }
}
