using System.Net.WebSockets;
using Akka.Actor;
using VTunnel.Actors.Tests.Hosting;
using VTunnel.Actors.Tests.Testing;
using VTunnel.Diagnostics;
using VTunnel.Extensions;
using VTunnel.Options;
using VTunnel.Proxy;
using VTunnel.Sessions;
using VTunnel.Supervision;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.Actors.Tests.Supervision;

public sealed class TunnelServerActorTests : VirtualTimeKit
{
    private static readonly TunnelServerOptions Options = new() { ProbeTimeout = TimeSpan.FromSeconds(2), IdleTimeout = Timeout.InfiniteTimeSpan };

    private readonly ListLogger _log = new();
    private readonly IActorRef _server;
    private int _sessions;

    public TunnelServerActorTests() => _server = StartServer(Options);

    private IActorRef StartServer(TunnelServerOptions options) =>
        Sys.ActorOf(TunnelServerActor.Props(options, TunnelExtensions.None, TunnelMetrics.Shared, _log));

    /// <summary>A v1 client, played by the test.</summary>
    private sealed record Client(MemoryCarrier Carrier, MemoryCarrier ServerEnd, ActorPath Session)
    {
        public Task ListenAsync(int port) => Carrier.SendTextAsync($$"""{"type":"listen","port":{{port}}}""");

        public async Task ExpectOkAsync(int port) =>
            Assert.Equal($$"""{"type":"listen_ok","port":{{port}}}""", await Carrier.ReceiveTextAsync());

        public async Task<string> ExpectErrorAsync(int port)
        {
            var answer = await Carrier.ReceiveTextAsync();
            var start = $$"""{"type":"listen_err","port":{{port}},"error":""";
            Assert.StartsWith(start, answer, StringComparison.Ordinal);
            return answer![start.Length..].Trim('"', '}');
        }

        /// <summary>The server has dealt with everything before.</summary>
        public async Task SettleAsync()
        {
            await Carrier.SendTextAsync("""{"type":"ping"}""");
            Assert.Equal("""{"type":"pong"}""", await Carrier.ReceiveTextAsync());
        }
    }

    private Client Connect(IActorRef? server = null)
    {
        var pair = new MemoryCarrierPair();
        (server ?? _server).Tell(new TunnelServerProtocol.StartSession(pair.Server, null, null));
        return new Client(pair.Client, pair.Server, (server ?? _server).Path / $"session-{++_sessions}");
    }

    private async Task<int> ListenOnFreePortAsync(Client client)
    {
        var port = FreePorts.Next();
        await client.ListenAsync(port);
        await client.ExpectOkAsync(port);
        return port;
    }

    private TunnelServerProtocol.ServerStatus Status()
    {
        _server.Tell(TunnelServerProtocol.GetStatus.Instance, TestActor);
        return ExpectMsg<TunnelServerProtocol.ServerStatus>();
    }

    private async Task AwaitProbeAsync(Client holder)
    {
        await holder.ServerEnd.Pinged.WaitAsync(TestTimeouts.Long);
        Settle(ActorOfPath(holder.Session));
    }

    private IActorRef ActorOfPath(ActorPath path)
    {
        var probe = CreateTestProbe();
        Sys.ActorSelection(path).Tell(new Identify(null), probe);
        return probe.ExpectMsg<ActorIdentity>().Subject ?? throw new InvalidOperationException($"{path} does not exist.");
    }

    /// <summary>Lets the holder's probe run out of time.</summary>
    private void FailProbe(Client holder)
    {
        var session = ActorOfPath(holder.Session);
        for (var i = 0; i < 20; i++)
        {
            Time.Advance(Options.ProbeTimeout / 20);
            if (i < 19)
                Settle(session);
        }
    }

    private string HolderOf(int port) =>
        Assert.Single(Status().Sessions, session => session.Forwards.Any(forward => forward.Port == port && forward.IsOpen)).Name;

    [Fact]
    public async Task Ports_belong_to_the_session_that_opened_them()
    {
        var first = Connect();
        var second = Connect();
        var port1 = await ListenOnFreePortAsync(first);
        var port2 = await ListenOnFreePortAsync(second);
        Assert.Equal(
            [("session-1", port1), ("session-2", port2)],
            Status().Sessions.Select(session => (session.Name, Assert.Single(session.Forwards, forward => forward.IsOpen).Port!.Value)));
    }

    [Fact]
    public async Task A_port_of_a_session_that_answers_is_refused_to_another()
    {
        var holder = Connect();
        var port = await ListenOnFreePortAsync(holder);
        var newcomer = Connect();
        await newcomer.ListenAsync(port);
        await AwaitProbeAsync(holder);
        Time.Advance(Options.ProbeTimeout / 20);
        Assert.Equal($"port {port} is held by session-1 of the server, which is alive", await newcomer.ExpectErrorAsync(port));
        await holder.SettleAsync();
        Assert.Equal("session-1", HolderOf(port));
    }

    [Fact]
    public async Task A_port_of_a_session_that_does_not_answer_goes_to_the_newcomer_when_the_probe_has_failed()
    {
        var holder = Connect();
        holder.ServerEnd.IsPingAnswered = false;
        var port = await ListenOnFreePortAsync(holder);
        var newcomer = Connect();
        await newcomer.ListenAsync(port);
        await AwaitProbeAsync(holder);
        FailProbe(holder);
        await newcomer.ExpectOkAsync(port);
        await holder.ServerEnd.Aborted.WaitAsync(TestTimeouts.Long);
        Assert.Equal("session-2", HolderOf(port));
        Assert.Contains(_log.Lines, line => line.Text.StartsWith("session-1 is gone: it did not answer", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_session_that_does_not_answer_is_asked_and_told_of_once_however_many_of_its_ports_are_wanted()
    {
        var holder = Connect();
        holder.ServerEnd.IsPingAnswered = false;
        var ports = new List<int>();
        for (var i = 0; i < 3; i++)
            ports.Add(await ListenOnFreePortAsync(holder));
        var newcomer = Connect();
        foreach (var port in ports)
            await newcomer.ListenAsync(port);
        await newcomer.SettleAsync();
        Settle(_server);
        await AwaitProbeAsync(holder);
        FailProbe(holder);
        var answers = new List<string>();
        foreach (var _ in ports)
            answers.Add(await newcomer.Carrier.ReceiveTextAsync() ?? "nothing");
        Assert.Equal(ports.Select(port => $$"""{"type":"listen_ok","port":{{port}}}""").Order(), answers.Order());
        Assert.All(ports, port => Assert.Equal("session-2", HolderOf(port)));
        Assert.Single(_log.Lines, line => line.Text.Contains("session-1 is gone", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Of_several_newcomers_the_first_gets_the_port_and_the_others_are_refused()
    {
        var holder = Connect();
        holder.ServerEnd.IsPingAnswered = false;
        var port = await ListenOnFreePortAsync(holder);
        var first = Connect();
        await first.ListenAsync(port);
        await AwaitProbeAsync(holder);
        var second = Connect();
        await second.ListenAsync(port);
        await second.SettleAsync();
        Settle(_server);
        FailProbe(holder);
        await first.ExpectOkAsync(port);
        await AwaitProbeAsync(first);
        Time.Advance(Options.ProbeTimeout / 20);
        Assert.Equal($"port {port} is held by session-2 of the server, which is alive", await second.ExpectErrorAsync(port));
    }

    [Fact]
    public async Task A_holder_that_leaves_meanwhile_leaves_its_port_to_the_newcomer()
    {
        var holder = Connect();
        holder.ServerEnd.IsPingAnswered = false;
        var port = await ListenOnFreePortAsync(holder);
        var newcomer = Connect();
        await newcomer.ListenAsync(port);
        await AwaitProbeAsync(holder);
        holder.Carrier.Abort();
        await newcomer.ExpectOkAsync(port);
    }

    [Fact]
    public async Task A_newcomer_that_leaves_meanwhile_does_not_get_the_port()
    {
        var holder = Connect();
        holder.ServerEnd.IsPingAnswered = false;
        var port = await ListenOnFreePortAsync(holder);
        var newcomer = Connect();
        await newcomer.ListenAsync(port);
        await AwaitProbeAsync(holder);
        Watch(ActorOfPath(newcomer.Session));
        newcomer.Carrier.Abort();
        ExpectMsg<Terminated>();
        Settle(_server);
        FailProbe(holder);
        await holder.ServerEnd.Aborted.WaitAsync(TestTimeouts.Long);

        var next = Connect();
        await next.ListenAsync(port);
        await next.ExpectOkAsync(port);
    }

    [Fact]
    public async Task A_session_that_ends_gives_its_ports_back()
    {
        var first = Connect();
        var port = await ListenOnFreePortAsync(first);
        Watch(ActorOfPath(first.Session));
        await first.Carrier.CloseAsync(WebSocketCloseStatus.NormalClosure, "");
        ExpectMsg<Terminated>();
        var second = Connect();
        await second.ListenAsync(port);
        await second.ExpectOkAsync(port);
    }

    [Fact]
    public async Task Draining_says_goodbye_to_every_session_and_takes_no_new_one()
    {
        var clients = new[] { Connect(), Connect() };
        foreach (var client in clients)
            await client.SettleAsync();
        _server.Tell(TunnelServerProtocol.Drain.Instance, TestActor);
        foreach (var client in clients)
        {
            Assert.Null(await client.Carrier.ReceiveTextAsync());
            Assert.Equal(WebSocketCloseStatus.EndpointUnavailable, client.Carrier.CloseReceived!.Value.Status);
            await client.Carrier.CloseAsync(WebSocketCloseStatus.EndpointUnavailable, "");
        }

        ExpectMsg<TunnelServerProtocol.Drained>();
        var late = Connect();
        Assert.Null(await late.Carrier.ReceiveTextAsync());
        Assert.Equal((WebSocketCloseStatus.EndpointUnavailable, "the server is shutting down"), late.Carrier.CloseReceived);
        await late.ServerEnd.Disposed.WaitAsync(TestTimeouts.Long);

        // Drained is drained, however often one asks.
        _server.Tell(TunnelServerProtocol.Drain.Instance, TestActor);
        ExpectMsg<TunnelServerProtocol.Drained>();
    }

    [Fact]
    public async Task Sessions_beyond_the_limit_are_turned_away_with_the_reason()
    {
        var server = StartServer(new TunnelServerOptions { MaxSessions = 1 });
        var first = Connect(server);
        await first.SettleAsync();
        var second = Connect(server);
        Assert.Null(await second.Carrier.ReceiveTextAsync());
        Assert.Equal("the server is at its limit of 1 sessions", second.Carrier.CloseReceived!.Value.Reason);
        await first.SettleAsync();
    }

    [Fact]
    public async Task A_session_that_crashes_takes_nothing_with_it()
    {
        var first = Connect();
        var second = Connect();
        var port = await ListenOnFreePortAsync(first);
        ActorOfPath(first.Session).Tell(Kill.Instance);
        await first.ServerEnd.Aborted.WaitAsync(TestTimeouts.Long);
        await second.ListenAsync(port);
        await second.ExpectOkAsync(port);
    }

    [Fact]
    public async Task A_client_is_told_that_its_port_is_open_when_the_proxy_routes_to_it_or_there_is_none_any_more()
    {
        var proxy = CreateTestProbe();
        var server = Sys.ActorOf(TunnelServerActor.Props(
            Options with { Proxy = new ProxyOptions() }, TunnelExtensions.None, TunnelMetrics.Shared, _log, Props.Create(() => new ProxyStub(proxy))));
        var client = Connect(server);
        var port = FreePorts.Next();
        await client.ListenAsync(port);
        var set = proxy.ExpectMsg<ProxyProtocol.SetRoutes>();
        await client.SettleAsync();
        proxy.Reply(SessionProtocol.RoutesTaken.Instance);
        await client.ExpectOkAsync(port);

        var another = FreePorts.Next();
        await client.ListenAsync(another);
        proxy.ExpectMsg<ProxyProtocol.SetRoutes>();
        await client.SettleAsync();
        Sys.Stop(ActorOfPath(server.Path / "proxy"));
        await client.ExpectOkAsync(another);
        Assert.Empty(set.Routes.Table.Routes);
        await client.ListenAsync(port);
        await client.ExpectOkAsync(port);
    }

    private sealed class ProxyStub : UntypedActor
    {
        private readonly IActorRef _probe;

        public ProxyStub(IActorRef probe) => _probe = probe;

        protected override void OnReceive(object message) => _probe.Forward(message);
    }
}
