using System.Text.Json.Nodes;
using VTunnel.Bridge;
using VTunnel.Bridge.Consuming;
using VTunnel.Bridge.Publishing;
using VTunnel.Bridge.Relay;
using VTunnel.Bridge.State;
using VTunnel.Cli.Commands.Bridge;
using VTunnel.Cli.Hosting;
using VTunnel.Cli.Settings;
using VTunnel.Cli.Syntax;
using VTunnel.Sessions;

namespace VTunnel.Cli.Commands;

/// <summary><c>vtunnel status</c>: of servers, clients, and the parties of a bridge.</summary>
internal static class StatusCommand
{
    public static readonly CommandSpec Spec = new("status", "Ask the running processes of this machine how they are.")
    {
        Details = "Asks servers, clients, relay, publishers and consumers that were started with the same --state-dir. A consumer is connected if its publisher has just answered a probe, end to end. "
            + "The exit code is 0 if everything of a bridge that is set up runs, no server is shutting down, everyone is connected who dials, and every local port and every forward of a client is open, else 9; 2 if nothing runs and nothing is set up.",
        Options = [BridgeCli.Json, BridgeCli.StateDir],
        Examples = [new("", "vtunnel status")],
        Run = RunAsync,
    };

    private static Task<int> RunAsync(SettingsReader settings) => BridgeCli.RunAsync(settings, async () =>
    {
        var state = BridgeCli.State(settings);
        var healthy = true;
        var parts = new List<JsonNode>();
        var text = new List<string>();
        var told = new List<Task<Told>>();
        if (state.HasRelay)
            told.Add(TellRelayAsync(state));
        foreach (var name in state.ContextNames)
            told.Add(state.Load(name).Kind == ContextKind.Publisher ? TellPublisherAsync(state, name) : TellConsumerAsync(state, name));
        foreach (var one in await Task.WhenAll(told))
        {
            healthy &= one.IsHealthy;
            parts.Add(one.Part);
            text.AddRange(one.Lines);
        }

        foreach (var server in await TunnelSocket.AskAllAsync<RunningServer>(state, TunnelSocket.Server))
        {
            healthy &= server.Answer is { Status.IsDraining: false };
            parts.Add(Part(TunnelSocket.Server, server));
            text.AddRange(server.Answer is { } answer ? Describe(answer) : [$"server, process {server.Name}: {OneLine.Of(server.Problem!)}"]);
        }

        foreach (var client in await TunnelSocket.AskAllAsync<RunningClient>(state, TunnelSocket.Client))
        {
            healthy &= client.Answer?.Status is { IsConnected: true } status && status.Forwards.All(forward => forward.IsOpen);
            parts.Add(Part(TunnelSocket.Client, client));
            text.AddRange(client.Answer is { } answer ? Describe(answer) : [$"client, process {client.Name}: {OneLine.Of(client.Problem!)}"]);
        }

        if (parts.Count == 0)
            throw new BridgeException(BridgeError.Invalid, $"no server and no client runs with the state directory {state.Path}, and nothing of a bridge is set up there; see 'vtunnel relay init', 'vtunnel join' and 'vtunnel connect'");
        if (settings.Switch(BridgeCli.Json))
            BridgeCli.PrintJson(new JsonObject { ["healthy"] = healthy, ["parts"] = new JsonArray([.. parts]) });
        else
            text.ForEach(Console.Out.WriteLine);
        return healthy ? ExitCodes.Success : ExitCodes.NotHealthy;
    });

    /// <summary>What there is to say of one party of a bridge.</summary>
    private sealed record Told(bool IsHealthy, JsonNode Part, IEnumerable<string> Lines);

    private static async Task<Told> TellRelayAsync(StateDirectory state)
    {
        var relay = await AskAsync<RelayStatus>(state, "relay");
        return new Told(relay.Answer is not null, Part("relay", relay), relay.Problem is { } problem ? [$"relay: {OneLine.Of(problem)}"] : Describe(relay.Answer));
    }

    private static async Task<Told> TellPublisherAsync(StateDirectory state, string name)
    {
        var publisher = await AskAsync<PublisherState>(state, name);
        return new Told(
            publisher.Answer?.IsConnected == true,
            Part("publisher", publisher),
            publisher.Problem is { } problem ? [$"publisher {name}: {OneLine.Of(problem)}"] : Describe(name, publisher.Answer));
    }

    private static async Task<Told> TellConsumerAsync(StateDirectory state, string name)
    {
        var consumer = await AskAsync<ConsumerState>(state, name);
        return new Told(
            consumer.Answer?.IsConnected == true && consumer.Answer.Ports.All(port => port.IsOpen),
            Part("consumer", consumer),
            consumer.Problem is { } problem ? [$"consumer {name}: {OneLine.Of(problem)}"] : Describe(name, consumer.Answer));
    }

    /// <summary>One that cannot be asked says nothing about the others.</summary>
    private static async Task<Asked<T>> AskAsync<T>(StateDirectory state, string name)
        where T : class
    {
        try
        {
            return new Asked<T>(name, await ControlSocket.AskAsync<T>(state.SocketPath(name), "status"), null);
        }
        catch (BridgeException e)
        {
            return new Asked<T>(name, null, e.Message);
        }
    }

    private static JsonObject Part<T>(string role, string name, T? state)
        where T : class => new()
    {
        ["role"] = role,
        ["name"] = name,
        ["running"] = state is not null,
        ["state"] = state is null ? null : System.Text.Json.JsonSerializer.SerializeToNode(state, CliJson.Of<T>()),
    };

    private static JsonObject Part<T>(string role, Asked<T> asked)
        where T : class
    {
        var part = Part(role, asked.Name, asked.Answer);
        if (asked.Problem is { } problem)
            (part["running"], part["problem"]) = (true, problem);
        return part;
    }

    private static IEnumerable<string> Describe(RelayStatus? relay)
    {
        yield return relay is null ? "relay: not running; start it with 'vtunnel relay'" : $"relay: running, {relay.Publishers.Count(publisher => publisher.IsConnected)} publishers connected";
        foreach (var publisher in relay?.Publishers ?? [])
        {
            yield return $"  {OneLine.Of(publisher.Name)} ({publisher.Fingerprint[..12]}): {(publisher.IsConnected ? $"connected from {publisher.Remote}" : "not connected")}, "
                + $"{publisher.Streams} connections, {publisher.Waiting} waiting, {BridgeCli.Bytes(publisher.BytesFromConsumers)} from users, {BridgeCli.Bytes(publisher.BytesFromPublisher)} from it";
        }
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
            + (status.IsConnected ? $"connected with {status.Server}, {Describe(status.Session!, "targets")}" : $"not connected with {status.Server}: {OneLine.Of(status.Problem!)}");
        if (status is { IsConnected: false, Session: { } session })
            yield return $"  {Describe(session, "targets")}; connections wait for it to be connected again";
        foreach (var forward in status.Forwards)
            yield return $"  {Describe(forward)}{(forward.IsOpen && !status.IsConnected ? ": visitors wait" : "")}";
    }

    private static string Describe(SessionProtocol.SessionStatus session, string locals) =>
        $"{session.Protocol}, {session.Streams} connection{(session.Streams == 1 ? "" : "s")}, {BridgeCli.Bytes(session.BytesIn)} to {locals}, {BridgeCli.Bytes(session.BytesOut)} from them"
        + (session.RoundTripTime is { } trip ? $", round trip {trip.TotalMilliseconds:0.#} ms" : "");

    private static string Describe(SessionProtocol.ForwardStatus forward) =>
        $"{OneLine.Of(forward.Domain ?? $"port {forward.Port}")} -> {OneLine.Of(forward.Target ?? "a target that the client does not name")}"
        + (forward.IsOpen ? "" : $": closed: {OneLine.Of(forward.Problem ?? "unknown")}");
}
