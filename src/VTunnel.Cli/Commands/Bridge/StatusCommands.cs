using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Text.Json.Nodes;
using VTunnel.Bridge;
using VTunnel.Bridge.Consuming;
using VTunnel.Bridge.Identity;
using VTunnel.Bridge.Publishing;
using VTunnel.Bridge.Relay;
using VTunnel.Bridge.State;
using VTunnel.Bridge.Wire;
using VTunnel.Carriers;
using VTunnel.Cli.Hosting;
using VTunnel.Cli.Settings;
using VTunnel.Cli.Syntax;
using VTunnel.Hosting;
using VTunnel.Sessions;
using VTunnel.Protocol.Bridge;

namespace VTunnel.Cli.Commands.Bridge;

/// <summary><c>vtunnel status</c>, <c>vtunnel test</c> and <c>vtunnel audit</c>.</summary>
internal static class StatusCommands
{
    private static readonly OptionSpec User = new("user", "NAME", "Of this user only; at a relay, the publisher's fingerprint.") { CommandLineOnly = true };
    private static readonly OptionSpec Since = new("since", "DURATION", "Not older than this: 1h, 7d.") { CommandLineOnly = true };
    private static readonly OptionSpec Limit = new("limit", "N", "How many, the newest.") { CommandLineOnly = true, Default = "1000" };

    public static readonly CommandSpec Status = new("status", "Ask the running processes of this machine how they are.")
    {
        Details = "Asks servers, clients, relay, publishers and consumers that were started with the same --state-dir. A consumer is connected if its publisher has just answered a probe, end to end. "
            + "The exit code is 0 if everything of a bridge that is set up runs, no server is shutting down, everyone is connected who dials, and every local port and every forward of a client is open, else 9.",
        Options = [BridgeCli.Json, BridgeCli.StateDir],
        Examples = [new("", "vtunnel status")],
        Run = RunStatus,
    };

    public static readonly CommandSpec Test = new("test", "Find out step by step what works: name, TCP, TLS, relay, publisher, each granted target.")
    {
        Details = "The exit code is 0 if every step works, else 9.",
        Options = [BridgeCli.Context, BridgeCli.StateDir],
        Examples = [new("", "vtunnel test")],
        Run = RunTest,
    };

    public static readonly CommandSpec Audit = new("audit", "Show what happened at this publisher or relay.")
    {
        Options = [User, Since, Limit, BridgeCli.Json, BridgeCli.Context, BridgeCli.StateDir],
        Examples = [new("", "vtunnel audit --user alice --since 1h")],
        Run = RunAudit,
    };

    private static Task<int> RunStatus(SettingsReader settings) => BridgeCli.RunAsync(settings, async () =>
    {
        var state = BridgeCli.State(settings);
        var healthy = true;
        var parts = new JsonArray();
        var text = new List<string>();
        if (state.HasRelay)
        {
            var relay = await ControlSocket.AskAsync<RelayStatus>(state.SocketPath("relay"), "status");
            healthy &= relay is not null;
            parts.Add(Part("relay", "relay", relay));
            text.Add(relay is null ? "relay: not running; start it with 'vtunnel relay'" : $"relay: running, {relay.Publishers.Count(publisher => publisher.IsConnected)} publishers connected");
            foreach (var publisher in relay?.Publishers ?? [])
            {
                text.Add($"  {OneLine.Of(publisher.Name)} ({publisher.Fingerprint[..12]}): {(publisher.IsConnected ? $"connected from {publisher.Remote}" : "not connected")}, "
                    + $"{publisher.Streams} connections, {publisher.Waiting} waiting, {BridgeCli.Bytes(publisher.BytesFromConsumers)} from users, {BridgeCli.Bytes(publisher.BytesFromPublisher)} from it");
            }
        }

        foreach (var name in state.ContextNames)
        {
            if (state.Load(name).Kind == ContextKind.Publisher)
            {
                var publisher = await ControlSocket.AskAsync<PublisherState>(state.SocketPath(name), "status");
                healthy &= publisher?.IsConnected == true;
                parts.Add(Part("publisher", name, publisher));
                text.AddRange(Describe(name, publisher));
            }
            else
            {
                var consumer = await ControlSocket.AskAsync<ConsumerState>(state.SocketPath(name), "status");
                healthy &= consumer?.IsConnected == true && consumer.Ports.All(port => port.IsOpen);
                parts.Add(Part("consumer", name, consumer));
                text.AddRange(Describe(name, consumer));
            }
        }

        foreach (var server in await TunnelSocket.AskAllAsync<RunningServer>(state, TunnelSocket.Server))
        {
            healthy &= server.Answer is { Status.IsDraining: false };
            parts.Add(Part(TunnelSocket.Server, server));
            text.AddRange(server.Answer is { } answer ? Describe(answer) : [$"server, process {server.Process}: {OneLine.Of(server.Problem!)}"]);
        }

        foreach (var client in await TunnelSocket.AskAllAsync<RunningClient>(state, TunnelSocket.Client))
        {
            healthy &= client.Answer?.Status is { IsConnected: true } status && status.Forwards.All(forward => forward.IsOpen);
            parts.Add(Part(TunnelSocket.Client, client));
            text.AddRange(client.Answer is { } answer ? Describe(answer) : [$"client, process {client.Process}: {OneLine.Of(client.Problem!)}"]);
        }

        if (parts.Count == 0)
            throw new BridgeException(BridgeError.Invalid, $"no server and no client runs with the state directory {state.Path}, and nothing of a bridge is set up there; see 'vtunnel relay init', 'vtunnel join' and 'vtunnel connect'");
        if (settings.Switch(BridgeCli.Json))
            BridgeCli.PrintJson(new JsonObject { ["healthy"] = healthy, ["parts"] = parts });
        else
            text.ForEach(Console.Out.WriteLine);
        return healthy ? ExitCodes.Success : ExitCodes.NotHealthy;
    });

    private static JsonObject Part<T>(string role, string name, T? state)
        where T : class => new()
    {
        ["role"] = role,
        ["name"] = name,
        ["running"] = state is not null,
        ["state"] = state is null ? null : System.Text.Json.JsonSerializer.SerializeToNode(state, BridgeCli.JsonOutput),
    };

    private static JsonObject Part<T>(string role, Asked<T> asked)
        where T : class
    {
        var part = Part(role, asked.Process, asked.Answer);
        if (asked.Problem is { } problem)
            (part["running"], part["problem"]) = (true, problem);
        return part;
    }

    private static IEnumerable<string> Describe(string name, PublisherState? state)
    {
        if (state is null)
        {
            yield return $"publisher {name}: not running; start it with 'vtunnel serve --context {name}'";
            yield break;
        }

        yield return $"publisher {name}: {(state.IsConnected ? $"connected with the relay {state.Relay}" : $"not connected: {OneLine.Of(state.Problem!)}")}, "
            + $"{state.Users.Count} sessions, {state.UserCount} users";
        foreach (var user in state.Users)
        {
            yield return $"  {user.User} from {OneLine.Of(user.Remote)}: {(user.IsConnected ? "connected" : "waiting for it to come back")}, {user.Streams} streams, "
                + $"{BridgeCli.Bytes(user.BytesIn)} in, {BridgeCli.Bytes(user.BytesOut)} out"
                + (user.RoundTrip is { } trip ? $", round trip {trip.TotalMilliseconds:0.#} ms" : "");
        }
    }

    private static IEnumerable<string> Describe(string name, ConsumerState? state)
    {
        if (state is null)
        {
            yield return $"consumer {name}: not running; start it with 'vtunnel connect --context {name}'";
            yield break;
        }

        var probe = state.ProbedAt is { } at ? $"last probe answered {BridgeCli.Time(at)} in {state.ProbeTook!.Value.TotalMilliseconds:0.#} ms" : "no probe answered yet";
        yield return $"consumer {name}: {(state.IsConnected ? $"connected with {OneLine.Of(state.Publisher)} as {state.User}" : $"not connected: {OneLine.Of(state.Problem ?? "unknown")}")}; {probe}";
        yield return $"  {state.Streams} streams, {state.Waiting} visitors waiting, {BridgeCli.Bytes(state.BytesIn)} received, {BridgeCli.Bytes(state.BytesOut)} sent";
        foreach (var port in state.Ports)
            yield return $"  127.0.0.1:{port.Port} -> {OneLine.Of(port.Target)}{(port.IsOpen ? "" : $": closed: {OneLine.Of(port.Problem ?? "opening")}")}";
    }

    private static IEnumerable<string> Describe(RunningServer server)
    {
        var sessions = server.Status.Sessions;
        yield return $"server, process {server.Process}: {(server.Status.IsDraining ? "shutting down" : $"listening on {string.Join(" and ", server.Listening)}")}"
            + $"{(server.Proxy is { } proxy ? $", proxy on {proxy}" : "")}, {sessions.Count} client{(sessions.Count == 1 ? "" : "s")}";
        foreach (var session in sessions)
        {
            yield return $"  {session.Name} from {OneLine.Of(session.Remote)}{(session.Identity is { } identity ? $", {OneLine.Of(identity)}" : "")}: "
                + $"{(session.IsOver ? "gone, but visitors have yet to take what it sent" : session.IsConnected ? "connected" : "waiting for it to come back")}, {Describe(session, "visitors")}";
            foreach (var forward in session.Forwards)
                yield return $"    {Describe(forward)}";
        }
    }

    private static IEnumerable<string> Describe(RunningClient client)
    {
        var status = client.Status;
        yield return $"client, process {client.Process}: "
            + $"{(status.IsConnected ? $"connected with {status.Server}" : $"not connected with {status.Server}: {OneLine.Of(status.Problem!)}")}"
            + (status.Session is { } session ? $", {Describe(session, "targets")}" : "");
        foreach (var forward in status.Forwards)
            yield return $"  {Describe(forward)}";
    }

    private static string Describe(SessionProtocol.SessionStatus session, string locals) =>
        $"{session.Protocol}, {session.Streams} connections, {BridgeCli.Bytes(session.BytesIn)} to {locals}, {BridgeCli.Bytes(session.BytesOut)} from them"
        + (session.RoundTripTime is { } trip ? $", round trip {trip.TotalMilliseconds:0.#} ms" : "");

    private static string Describe(SessionProtocol.ForwardStatus forward) =>
        $"{OneLine.Of(forward.Domain ?? $"port {forward.Port}")} -> {OneLine.Of(forward.Target ?? "a target that the client does not name")}"
        + (forward.IsOpen ? "" : $": closed: {OneLine.Of(forward.Problem ?? "unknown")}");

    private static Task<int> RunAudit(SettingsReader settings)
    {
        var since = settings.SourceOf(Since) is null ? (TimeSpan?)null : settings.One(Since, BridgeCli.LongDuration, TimeSpan.Zero);
        var limit = settings.One(Limit, ValueParsers.Count, 1000);
        if (limit < 1)
            settings.Fault(Limit, $"{limit}", "at least 1");
        var user = settings.Text(User);
        return BridgeCli.Run(settings, () =>
        {
            var state = BridgeCli.State(settings);
            var from = TimeProvider.System.GetUtcNow() - since;
            var isRelay = settings.SourceOf(BridgeCli.Context) is null && state.HasRelay
                && !state.ContextNames.Any(name => state.Load(name).Kind == ContextKind.Publisher);
            IReadOnlyList<AuditRecord> records;
            if (isRelay)
            {
                using var store = RelayStore.Open(state.Path);
                records = store.ReadAudit(user, from, limit);
            }
            else
            {
                using var store = state.OpenPublisherStore(state.Resolve(ContextKind.Publisher, settings.Text(BridgeCli.Context)));
                records = store.ReadAudit(user, from, limit);
            }

            if (settings.Switch(BridgeCli.Json))
            {
                BridgeCli.PrintJson(records);
                return ExitCodes.Success;
            }

            BridgeCli.PrintTable(
                ["TIME", "WHAT", isRelay ? "PUBLISHER" : "USER", "TARGET", "DURATION", "IN", "OUT", "DETAIL"],
                records.Select(record => new[]
                {
                    BridgeCli.Time(record.Time),
                    record.Kind,
                    isRelay && record.User is { Length: > 12 } fingerprint ? fingerprint[..12] : record.User ?? "",
                    record.Target ?? "",
                    record.Duration is { } duration ? $"{duration.TotalSeconds:0.###} s" : "",
                    record.BytesIn is { } bytesIn ? BridgeCli.Bytes(bytesIn) : "",
                    record.BytesOut is { } bytesOut ? BridgeCli.Bytes(bytesOut) : "",
                    record.Detail ?? "",
                }));
            return ExitCodes.Success;
        });
    }

    private static Task<int> RunTest(SettingsReader settings) => BridgeCli.RunAsync(settings, async () =>
    {
        var state = BridgeCli.State(settings);
        var named = settings.Text(BridgeCli.Context);
        if (state.ContextNames.Count == 0 && state.HasRelay)
            throw new BridgeException(BridgeError.Invalid, $"{state.Path} is a relay's state, and this is for publishers and consumers; 'vtunnel status' and 'vtunnel relay list' say how the relay is");
        var name = named ?? (state.CurrentContext is { } current && state.ContextNames.Contains(current) ? current
            : state.ContextNames is [var only] ? only
            : state.Resolve(ContextKind.Consumer, null));
        var context = state.Load(name);
        using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(60));
        try
        {
            await TestRelayAsync(state, name, context, deadline.Token);
            if (context.Kind == ContextKind.Publisher)
                await TestPublisherAsync(state, name);
            else
                await TestConsumerAsync(state, name);
            return ExitCodes.Success;
        }
        catch (StepFailedException e)
        {
            Console.Out.WriteLine($"FAILED  {e.Step}: {OneLine.Of(e.Message)}");
            Console.Out.WriteLine($"        {e.Remedy}");
            return ExitCodes.NotHealthy;
        }
    });

    private static void Passed(string step, string detail) => Console.Out.WriteLine($"ok      {step}: {OneLine.Of(detail)}");

    private static async Task TestRelayAsync(StateDirectory state, string name, BridgeContext context, CancellationToken cancellationToken)
    {
        var host = context.Relay.IdnHost;
        IPAddress[] addresses;
        try
        {
            addresses = await Dns.GetHostAddressesAsync(host, cancellationToken);
            Passed("name", $"{host} is {string.Join(", ", addresses.Select(address => address.ToString()))}");
        }
        catch (SocketException e)
        {
            throw new StepFailedException("name", $"{host}: {e.Message}", "Check this machine's DNS, and the relay's address with its operator.");
        }

        using var socket = new TcpClient();
        try
        {
            await socket.ConnectAsync(addresses, context.Relay.Port, cancellationToken);
            var found = (IPEndPoint)socket.Client.RemoteEndPoint!;
            Passed("TCP", $"{(found.Address.IsIPv4MappedToIPv6 ? new IPEndPoint(found.Address.MapToIPv4(), found.Port) : found)}");
        }
        catch (SocketException e)
        {
            throw new StepFailedException("TCP", $"{host}:{context.Relay.Port}: {e.Message}", "Check that a firewall lets this machine dial out to it, and that the relay runs.");
        }

        if (context.Relay.Scheme is "wss" or "https")
        {
            await using var tls = new SslStream(socket.GetStream());
            try
            {
                // What the certificate is worth is seen to in the next step, with the authorities of this identity.
#pragma warning disable CA5359
                await tls.AuthenticateAsClientAsync(
                    new SslClientAuthenticationOptions { TargetHost = host, RemoteCertificateValidationCallback = static (_, _, _, _) => true }, cancellationToken);
#pragma warning restore CA5359
                Passed("TLS", $"{tls.SslProtocol}, {tls.RemoteCertificate?.Subject}");
            }
            catch (Exception e) when (e is AuthenticationException or IOException)
            {
                throw new StepFailedException("TLS", e.Message, "Check that a relay listens there, and that nothing on the way breaks TLS open.");
            }
        }

        using var certificate = context.Kind == ContextKind.Publisher ? null : state.LoadUser(name);
        using var identity = context.Kind == ContextKind.Publisher ? state.LoadPublisher(name) : null;
        using var dialer = new RelayDialer(
            state.Relay(name), context.Publisher, certificate ?? identity!.Certificate, TimeSpan.FromSeconds(15), TimeProvider.System);
        try
        {
            // A publisher that runs must not be displaced: an answer to nobody is admitted all the same.
            using var connection = await dialer.DialAsync(identity is null ? AdmissionKind.Consume : AdmissionKind.Answer, identity is null ? null : "test", cancellationToken);
            connection.Abort();
            Passed("relay", $"it admits {context.User ?? "this publisher"}{(dialer.Skew == TimeSpan.Zero ? "" : $"; this machine's clock is {dialer.Skew.Duration().TotalSeconds:0} s {(dialer.Skew > TimeSpan.Zero ? "behind" : "ahead")}")}");
        }
        catch (TunnelConnectException e)
        {
            throw new StepFailedException("relay", e.Message, e.Code switch
            {
                ConnectError.TlsFailed => "Check the relay's certificate; if it has an authority of its own, join again with --ca FILE, or import a new bundle.",
                ConnectError.Forbidden => context.Kind == ContextKind.Publisher
                    ? $"Ask the relay's operator whether this publisher is still enrolled (vtunnel relay list); if not, enrol its key again with a new code: vtunnel join {context.Relay} CODE --context {name}"
                    : "Ask the publisher whether it is still enrolled at the relay, and for a new bundle.",
                _ => "Check the URL and that the relay runs.",
            });
        }
    }

    private static async Task TestPublisherAsync(StateDirectory state, string name)
    {
        var publisher = await ControlSocket.AskAsync<PublisherState>(state.SocketPath(name), "status");
        if (publisher is null)
            throw new StepFailedException("publisher", "it is not running", $"Start it: vtunnel serve --context {name}");
        if (!publisher.IsConnected)
            throw new StepFailedException("publisher", publisher.Problem ?? "not connected", "It tries again by itself; its log has the details.");
        Passed("publisher", $"running and connected; {publisher.Users.Count} sessions, {publisher.UserCount} users");
        using var store = state.OpenPublisherStore(name);
        var failed = 0;
        foreach (var target in store.ListUsers().SelectMany(user => user.Grants).DistinctBy(grant => grant.Target))
        {
            try
            {
                using var socket = new TcpClient();
                using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(10));
                await socket.ConnectAsync(target.Host, target.Port, deadline.Token);
                Passed("target", target.Target);
            }
            catch (Exception e) when (e is SocketException or OperationCanceledException)
            {
                failed++;
                Console.Out.WriteLine($"FAILED  target: {target.Target}: {OneLine.Of(e.Message)}");
            }
        }

        if (failed > 0)
            throw new StepFailedException("targets", $"{failed} cannot be reached", "Check that these services run and accept connections from this machine.");
    }

    private static async Task TestConsumerAsync(StateDirectory state, string name)
    {
        var path = state.SocketPath(name);
        var running = await ControlSocket.AskAsync<ConsumerState>(path, "status");
        if (running is not null)
        {
            RequireProbe(running);
            var open = running.Ports.Select(port => BridgeCli.Mapping($"{port.Port}:{port.Target}", out var grant, out _) ? grant : null).OfType<BridgeGrant>().ToList();
            await TestGrantsAsync(open, async grant => (await ControlSocket.AskAsync<CheckAnswer>(path, "check", grant.ToString()))?.Problem);
            return;
        }

        await using var consumer = BridgeConsumer.CreateProbe(state, name);
        await consumer.StartAsync();
        using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(45));
        var ended = consumer.WaitForEndAsync(deadline.Token);
        var found = await consumer.WaitForProbeAsync(deadline.Token);
        if (ended.IsCompletedSuccessfully && await ended is { } reason)
            throw new StepFailedException("publisher", reason, "Ask the publisher for access.");
        RequireProbe(found);
        await TestGrantsAsync(state.Load(name).Grants ?? [], consumer.CheckAsync);
    }

    private static void RequireProbe(ConsumerState state)
    {
        if (!state.IsConnected)
        {
            throw new StepFailedException(
                "publisher", state.Problem ?? "not connected", "Ask the publisher whether 'vtunnel serve' runs and is connected (vtunnel status), and whether you are admitted (vtunnel show user).");
        }

        Passed("publisher", $"{state.Publisher} answered end to end in {state.ProbeTook!.Value.TotalMilliseconds:0.#} ms");
    }

    private static async Task TestGrantsAsync(IReadOnlyList<BridgeGrant> grants, Func<BridgeGrant, Task<string?>> check)
    {
        var failed = 0;
        foreach (var grant in grants)
        {
            var problem = await check(grant);
            if (problem is null)
            {
                Passed("target", $"{grant.Target} (local port {grant.Local})");
                continue;
            }

            failed++;
            Console.Out.WriteLine($"FAILED  target: {OneLine.Of($"{grant.Target} (local port {grant.Local}): {problem}")}");
        }

        if (failed > 0)
            throw new StepFailedException("targets", $"{failed} cannot be reached by the publisher", "Ask the publisher whether these services run, and whether they are granted to you.");
    }

    private sealed class StepFailedException(string step, string message, string remedy) : Exception(message)
    {
        public string Step { get; } = step;

        public string Remedy { get; } = remedy;
    }
}
