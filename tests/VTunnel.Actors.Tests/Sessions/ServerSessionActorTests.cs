using System.Net;
using System.Net.Sockets;
using Akka.Actor;
using Akka.TestKit;
using VTunnel.Access;
using VTunnel.Actors.Tests.Hosting;
using VTunnel.Actors.Tests.Testing;
using VTunnel.Diagnostics;
using VTunnel.Extensions;
using VTunnel.Options;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Errors;
using VTunnel.Sessions;
using VTunnel.Stages;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.Actors.Tests.Sessions;

public sealed class ServerSessionActorTests : VirtualTimeKit
{
    private readonly TestProbe _pumpCalls;
    private readonly TestProbe _parent;
    private readonly RecordingPump _pump;
    private readonly FakeWire _wire;
    private readonly ListLogger _log = new();

    public ServerSessionActorTests()
    {
        _pumpCalls = CreateTestProbe();
        _parent = CreateTestProbe();
        _pump = new RecordingPump(_pumpCalls);
        _wire = new FakeWire(_pump, _pumpCalls, TimeSpan.Zero);
    }

    private IActorRef Start(TunnelServerOptions? options = null, AccessToken? token = null, IActorRef? authorizer = null) => StartChild(
        ServerSessionActor.Props(
            new SessionContext("session-1", _wire, token?.Name, new TunnelExtensions(authorizer, []), TestMetrics.Server, _log),
            options ?? new TunnelServerOptions(),
            token),
        _parent);

    private static PumpEvents.ControlReceived Listen(int port, string? localAddr = null) => new(new Listen(port, localAddr));

    private string ExpectRefusal(int port)
    {
        var answer = Assert.IsType<ListenErr>(_pumpCalls.ExpectMsg<PumpCall.Control>().Message);
        Assert.Equal(port, answer.Port);
        return answer.Error;
    }

    private void ExpectListening(int port) => Assert.Equal(new ListenOk(port), _pumpCalls.ExpectMsg<PumpCall.Control>().Message);

    /// <summary>A session that listens on a free port.</summary>
    private (IActorRef Session, int Port) StartListening(TunnelServerOptions? options = null, IActorRef? authorizer = null)
    {
        var session = Start(options, authorizer: authorizer);
        var port = FreePorts.Next();
        session.Tell(Listen(port));
        Grant(session, port);
        ExpectListening(port);
        return (session, port);
    }

    private void Grant(IActorRef session, int port)
    {
        Assert.Equal(port, _parent.ExpectMsg<SessionProtocol.ClaimPort>().Port);
        session.Tell(new SessionProtocol.PortGranted(port));
    }

    private static async Task<TcpClient> VisitAsync(int port)
    {
        var visitor = new TcpClient(AddressFamily.InterNetwork);
        await visitor.ConnectAsync(IPAddress.Loopback, port);
        return visitor;
    }

    [Fact]
    public void A_port_is_claimed_opened_and_then_confirmed()
    {
        Sys.EventStream.Subscribe(TestActor, typeof(TunnelEvents.TunnelEvent));
        var (session, port) = StartListening();
        Assert.Equal("session-1", ExpectMsg<TunnelEvents.SessionStarted>().Session);
        Assert.Equal(port, ExpectMsg<TunnelEvents.ListenerOpened>().Port);

        // Asked for again, it is confirmed again.
        session.Tell(Listen(port));
        ExpectListening(port);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(-1)]
    [InlineData(65536)]
    public void A_port_out_of_range_is_refused(int port)
    {
        Start().Tell(Listen(port));
        Assert.Equal($"port {port} is out of range: 1 to 65535", ExpectRefusal(port));
    }

    [Fact]
    public void A_token_opens_its_ports_only()
    {
        var token = AccessTokens.EntryFor("ci", new Secret("t"), [new PortRange(9000, 9010)]);
        var session = Start(token: token);
        session.Tell(Listen(9011));
        Assert.Equal("token 'ci' may not listen on port 9011", ExpectRefusal(9011));
        session.Tell(Listen(9010));
        Assert.Equal(9010, _parent.ExpectMsg<SessionProtocol.ClaimPort>().Port);
    }

    [Fact]
    public void Ports_beyond_the_limit_are_refused_and_the_log_is_not_flooded()
    {
        var session = Start(new TunnelServerOptions { MaxListenersPerSession = 2 });
        for (var port = 9000; port < 9100; port++)
            session.Tell(Listen(port));
        for (var port = 9002; port < 9100; port++)
            Assert.Equal("the session is at its limit of 2 listened ports", ExpectRefusal(port));
        Assert.Equal(20, _log.Lines.Count(line => line.Text.Contains("may not listen", StringComparison.Ordinal)));
    }

    [Fact]
    public void A_port_that_another_session_holds_is_refused_with_the_reason_and_may_be_asked_for_again()
    {
        var session = Start();
        for (var i = 0; i < 2; i++)
        {
            session.Tell(Listen(9000));
            _parent.ExpectMsg<SessionProtocol.ClaimPort>();
            session.Tell(new SessionProtocol.PortRefused(9000, "held by session-7"));
            Assert.Equal("held by session-7", ExpectRefusal(9000));
        }
    }

    [Fact]
    public async Task A_port_in_use_by_another_program_is_refused_and_given_back()
    {
        using var other = new TcpListener(IPAddress.Loopback, 0);
        other.Start();
        var port = ((IPEndPoint)other.LocalEndpoint).Port;
        var session = Start(new TunnelServerOptions { ListenRetryTimeout = TimeSpan.Zero });
        session.Tell(Listen(port));
        Grant(session, port);
        Assert.Contains("is in use, by another program", ExpectRefusal(port), StringComparison.Ordinal);
        Assert.Equal(port, _parent.ExpectMsg<SessionProtocol.ReleasePort>().Port);

        // Asked for again at once, while the last listener may still be stopping.
        other.Stop();
        session.Tell(Listen(port));
        Grant(session, port);
        ExpectListening(port);
        using var visitor = await VisitAsync(port);
        _pumpCalls.ExpectMsg<PumpCall.Open>();
    }

    [Fact]
    public async Task A_visitor_is_handed_to_the_pump_with_its_port_and_address()
    {
        var (_, port) = StartListening();
        using var visitor = await VisitAsync(port);
        var open = _pumpCalls.ExpectMsg<PumpCall.Open>();
        Assert.Equal(port, open.Request.Port);
        Assert.Equal(visitor.Client.LocalEndPoint!.ToString(), open.Request.Remote);
        open.Endpoint.Abort();
    }

    [Fact]
    public async Task Visitors_beyond_the_limit_are_reset_and_the_warning_comes_once()
    {
        var (session, port) = StartListening(new TunnelServerOptions { MaxStreamsPerSession = 1 });
        using var first = await VisitAsync(port);
        var open = _pumpCalls.ExpectMsg<PumpCall.Open>();
        for (var i = 0; i < 3; i++)
        {
            // The reset may come before the visitor has seen that he is connected.
            var error = await Record.ExceptionAsync(async () =>
            {
                using var refused = await VisitAsync(port);
                await refused.GetStream().ReadAsync(new byte[1]).AsTask().WaitAsync(TestTimeouts.Long);
            });
            Assert.True(error is IOException or SocketException, $"{error}");
        }

        Assert.Single(_log.Lines, line => line.Text.Contains("limit of 1 streams", StringComparison.Ordinal));

        // One has ended: there is room again.
        Watch(open.Owner);
        open.Endpoint.Abort();
        open.Owner.Tell(new PumpEvents.StreamEnded(StreamEnd.Completed, 0, 0));
        ExpectTerminated(open.Owner);
        Settle(session);
        using var next = await VisitAsync(port);
        _pumpCalls.ExpectMsg<PumpCall.Open>().Endpoint.Abort();
    }

    [Fact]
    public void An_authoriser_is_asked_before_a_port_is_claimed()
    {
        var authorizer = CreateTestProbe();
        var session = Start(authorizer: authorizer);
        session.Tell(Listen(9000, "localhost:3000"));
        var question = authorizer.ExpectMsg<AuthorizationProtocol.AuthorizeListen>();
        Assert.Equal(("session-1", 9000, "localhost:3000"), (question.Session, question.Port, question.LocalAddr));
        _parent.ExpectNoMsg(TimeSpan.Zero);
        authorizer.Reply(AuthorizationProtocol.Allowed.Instance);
        _parent.ExpectMsg<SessionProtocol.ClaimPort>();

        session.Tell(Listen(9001));
        authorizer.ExpectMsg<AuthorizationProtocol.AuthorizeListen>();
        authorizer.Reply(new AuthorizationProtocol.Denied("not on a Sunday"));
        Assert.Equal("not on a Sunday", ExpectRefusal(9001));
    }

    [Fact]
    public void An_authoriser_that_answers_nonsense_denies()
    {
        var authorizer = CreateTestProbe();
        Start(authorizer: authorizer).Tell(Listen(9000));
        authorizer.ExpectMsg<AuthorizationProtocol.AuthorizeListen>();
        authorizer.Reply("certainly");
        Assert.StartsWith("the authoriser failed", ExpectRefusal(9000), StringComparison.Ordinal);
    }

    [Fact]
    public void An_authoriser_that_says_nothing_denies_in_the_end()
    {
        var authorizer = CreateTestProbe();
        Start(authorizer: authorizer).Tell(Listen(9000));
        authorizer.ExpectMsg<AuthorizationProtocol.AuthorizeListen>();
        Time.Advance(AuthorizationProtocol.Timeout);
        Assert.StartsWith("the authoriser did not answer within", ExpectRefusal(9000), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Draining_closes_the_ports_at_once_and_ends_when_the_last_stream_has()
    {
        var (session, port) = StartListening();
        using var visitor = await VisitAsync(port);
        var open = _pumpCalls.ExpectMsg<PumpCall.Open>();
        session.Tell(new SessionProtocol.Drain(TimeSpan.FromSeconds(5)));
        Assert.Equal(port, _parent.ExpectMsg<SessionProtocol.ReleasePort>().Port);
        session.Tell(Listen(port));
        Assert.Equal("the server is shutting down", ExpectRefusal(port));
        _pumpCalls.ExpectNoMsg(TimeSpan.Zero);

        open.Owner.Tell(new PumpEvents.StreamEnded(StreamEnd.Completed, 1, 2));
        Assert.Equal(SessionError.ShuttingDown, Assert.IsType<SessionProtocolException>(_pumpCalls.ExpectMsg<PumpCall.Stop>().Reason).Code);
        open.Endpoint.Abort();
    }

    [Fact]
    public async Task Draining_does_not_wait_for_ever()
    {
        var (session, port) = StartListening();
        using var visitor = await VisitAsync(port);
        var open = _pumpCalls.ExpectMsg<PumpCall.Open>();
        session.Tell(new SessionProtocol.Drain(TimeSpan.FromSeconds(5)));
        Settle(session);
        Time.Advance(TimeSpan.FromSeconds(5));
        _pumpCalls.ExpectMsg<PumpCall.Stop>();
        open.Endpoint.Abort();
    }

    [Fact]
    public async Task The_end_of_the_pump_ends_the_session_when_its_streams_have_told_how_they_ended()
    {
        Sys.EventStream.Subscribe(TestActor, typeof(TunnelEvents.StreamFinished));
        Sys.EventStream.Subscribe(TestActor, typeof(TunnelEvents.SessionEnded));
        var (session, port) = StartListening();
        using var visitor = await VisitAsync(port);
        var open = _pumpCalls.ExpectMsg<PumpCall.Open>();
        open.Owner.Tell(new PumpEvents.StreamOpened(new StreamKey(1, 1)));
        var lost = new SessionProtocolException(SessionError.ConnectionLost, "the connection was lost");
        session.Tell(new PumpEvents.PumpEnded(lost));
        var ended = _parent.FishForMessage<SessionProtocol.SessionEnded>(_ => true);
        Assert.Same(lost, ended.Cause);
        Assert.Equal("the connection was lost", ExpectMsg<TunnelEvents.SessionEnded>().Reason);

        open.Owner.Tell(new PumpEvents.StreamEnded(StreamEnd.SessionEnded, 10, 20));
        Assert.Equal((10, 20), (ExpectMsg<TunnelEvents.StreamFinished>() is var finished ? (finished.BytesIn, finished.BytesOut) : default));
        _parent.FishForMessage<ParentActor.ChildGone>(_ => true);
        open.Endpoint.Abort();
    }

    [Fact]
    public void Streams_that_are_still_delivered_after_the_end_do_not_change_its_reason()
    {
        var session = Start();
        var lost = new SessionProtocolException(SessionError.ConnectionLost, "the connection was lost");
        session.Tell(new PumpEvents.SessionOver(lost));
        Assert.Same(lost, _parent.ExpectMsg<SessionProtocol.SessionEnded>().Cause);
        session.Tell(new PumpEvents.PumpEnded(lost));
        _parent.ExpectMsg<ParentActor.ChildGone>();
        Assert.Single(_log.Lines, line => line.Text.Contains("down after", StringComparison.Ordinal));
    }

    [Fact]
    public void A_listener_that_fails_gives_its_port_back_and_the_client_is_told()
    {
        var (session, port) = StartListening();
        Sys.ActorSelection(session.Path / "*").Tell(Kill.Instance);
        Assert.Equal($"the listener on port {port} failed", ExpectRefusal(port));
        Assert.Equal(port, _parent.ExpectMsg<SessionProtocol.ReleasePort>().Port);
    }

    [Fact]
    public void A_stream_that_a_client_opens_is_refused()
    {
        var key = new StreamKey(1, 1);
        Start().Tell(new PumpEvents.StreamRequested(key, new(9000)));
        Assert.Equal(key, _pumpCalls.ExpectMsg<PumpCall.Reset>().Key);
    }

    [Fact]
    public void A_probe_is_answered_as_soon_as_something_arrives()
    {
        var session = Start();
        session.Tell(new SessionProtocol.Probe(TimeSpan.FromSeconds(2)), TestActor);
        session.Tell(new SessionProtocol.Probe(TimeSpan.FromSeconds(2)), TestActor);
        Settle(session);
        Assert.Equal(1, _wire.FakeCarrier.PingCount);
        Time.Advance(TimeSpan.FromMilliseconds(100));
        Settle(session);
        ExpectNoMsg(TimeSpan.Zero);
        _wire.FakeCarrier.Hear();
        Time.Advance(TimeSpan.FromMilliseconds(100));
        Assert.True(ExpectMsg<SessionProtocol.ProbeResult>().Alive);
        Assert.True(ExpectMsg<SessionProtocol.ProbeResult>().Alive);
    }

    [Fact]
    public void A_probe_fails_at_its_timeout()
    {
        var session = Start();
        session.Tell(new SessionProtocol.Probe(TimeSpan.FromSeconds(2)), TestActor);
        Settle(session);
        Pass(TimeSpan.FromSeconds(1.9), TimeSpan.FromSeconds(0.1));
        Settle(session);
        ExpectNoMsg(TimeSpan.Zero);
        Time.Advance(TimeSpan.FromSeconds(0.1));
        Assert.False(ExpectMsg<SessionProtocol.ProbeResult>().Alive);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_probe_that_can_prove_nothing_leaves_the_port_with_its_holder(bool canPing)
    {
        var session = Start();
        _wire.FakeCarrier.CanPing = canPing;
        _pump.IsReceivePaused = canPing;
        session.Tell(new SessionProtocol.Probe(TimeSpan.FromSeconds(2)), TestActor);
        Settle(session);
        Time.Advance(TimeSpan.FromSeconds(0.1));
        Assert.True(ExpectMsg<SessionProtocol.ProbeResult>().Alive);
    }

    [Fact]
    public void A_listen_for_an_open_port_is_confirmed_again_and_its_new_target_logged()
    {
        var (session, port) = StartListening();
        session.Tell(Listen(port));
        ExpectListening(port);
        session.Tell(Listen(port, "db.corp:5432"));
        ExpectListening(port);
        Assert.Equal($"session-1: port {port} is for db.corp:5432 now", _log.Lines[^1].Text);
    }

    [Fact]
    public void Another_target_of_an_open_port_is_for_the_authorizer_to_decide()
    {
        var authorizer = CreateTestProbe();
        var session = Start(authorizer: authorizer);
        var port = FreePorts.Next();
        session.Tell(Listen(port, "good:1"));
        session.Tell(Listen(port, "evil:1"));
        authorizer.ExpectMsg<AuthorizationProtocol.AuthorizeListen>(asked => asked.LocalAddr == "good:1");
        authorizer.Reply(AuthorizationProtocol.Allowed.Instance);
        Grant(session, port);
        ExpectListening(port);

        authorizer.ExpectMsg<AuthorizationProtocol.AuthorizeListen>(asked => asked.LocalAddr == "evil:1");
        session.Tell(Listen(port, "better:1"));
        authorizer.Reply(new AuthorizationProtocol.Denied("not there"));
        Assert.Equal("not there", ExpectRefusal(port));
        authorizer.ExpectMsg<AuthorizationProtocol.AuthorizeListen>(asked => asked.LocalAddr == "better:1");
        authorizer.Reply(AuthorizationProtocol.Allowed.Instance);
        ExpectListening(port);

        // Back to what holds while another target is being decided on: that is answered, too.
        session.Tell(Listen(port, "evil:1"));
        authorizer.ExpectMsg<AuthorizationProtocol.AuthorizeListen>();
        session.Tell(Listen(port, "better:1"));
        authorizer.Reply(new AuthorizationProtocol.Denied("not there"));
        Assert.Equal("not there", ExpectRefusal(port));
        ExpectListening(port);
    }

    [Fact]
    public void Where_there_is_a_proxy_a_port_is_confirmed_when_that_routes_to_it()
    {
        var session = Start(new TunnelServerOptions { Proxy = new ProxyOptions() });
        var port = FreePorts.Next();
        session.Tell(Listen(port, "one.corp:80"));
        Grant(session, port);
        Assert.Equal("one.corp", ExpectRoute());
        _pumpCalls.ExpectNoMsg(TimeSpan.Zero);
        session.Tell(SessionProtocol.RoutesTaken.Instance);
        ExpectListening(port);

        session.Tell(Listen(port, "two.corp:80"));
        session.Tell(Listen(port, "two.corp:80"));
        Assert.Equal("two.corp", ExpectRoute());
        session.Tell(SessionProtocol.RoutesTaken.Instance);
        ExpectListening(port);
        Assert.Equal("two.corp", ExpectRoute());
        session.Tell(SessionProtocol.RoutesTaken.Instance);
        ExpectListening(port);

        // Nothing changes, and the proxy knows it.
        session.Tell(Listen(port, "two.corp:80"));
        ExpectListening(port);
        _parent.ExpectNoMsg(TimeSpan.Zero);
    }

    [Fact]
    public void The_parent_hears_of_routes_again_when_they_have_taken_effect()
    {
        var session = Start(new TunnelServerOptions { Proxy = new ProxyOptions() });
        var port = FreePorts.Next();
        session.Tell(Listen(port, "one.corp:80"));
        Grant(session, port);
        Assert.Equal("one.corp", ExpectRoute());
        for (var i = 0; i < 10; i++)
            session.Tell(Listen(port, $"two-{i}.corp:80"));
        Settle(session);
        _parent.ExpectNoMsg(TimeSpan.Zero);
        session.Tell(SessionProtocol.RoutesTaken.Instance);
        ExpectListening(port);
        Assert.Equal("two-9.corp", ExpectRoute());
        _pumpCalls.ExpectNoMsg(TimeSpan.Zero);
        session.Tell(SessionProtocol.RoutesTaken.Instance);
        for (var i = 0; i < 10; i++)
            ExpectListening(port);
        Settle(session);
        _parent.ExpectNoMsg(TimeSpan.Zero);
    }

    [Fact]
    public void Answers_for_a_port_keep_their_order_where_one_waits_for_the_proxy()
    {
        var authorizer = CreateTestProbe();
        var session = Start(new TunnelServerOptions { Proxy = new ProxyOptions() }, authorizer: authorizer);
        var port = FreePorts.Next();
        session.Tell(Listen(port, "one.corp:80"));
        authorizer.ExpectMsg<AuthorizationProtocol.AuthorizeListen>();
        authorizer.Reply(AuthorizationProtocol.Allowed.Instance);
        Grant(session, port);
        ExpectRoute();
        session.Tell(Listen(port, "two.corp:80"));
        authorizer.ExpectMsg<AuthorizationProtocol.AuthorizeListen>();
        authorizer.Reply(new AuthorizationProtocol.Denied("not there"));
        ExpectListening(port);
        Assert.Equal("not there", ExpectRefusal(port));
        session.Tell(SessionProtocol.RoutesTaken.Instance);
        Settle(session);
        _pumpCalls.ExpectNoMsg(TimeSpan.Zero);
    }

    private string ExpectRoute() => Assert.Single(_parent.ExpectMsg<SessionProtocol.RoutesChanged>().Routes).Pattern.ToString().Split(':')[0];

    [Theory]
    [InlineData("gitlab.corp:443")]
    [InlineData("*.corp.test")]
    public void A_token_for_certain_ports_routes_no_domain_by_what_it_calls_its_target(string target)
    {
        var port = FreePorts.Next();
        var session = Start(new TunnelServerOptions { Proxy = new ProxyOptions() }, new AccessToken("ci", default, [new PortRange(port, port)]));
        session.Tell(Listen(port, "localhost:3000"));
        Grant(session, port);
        Assert.Empty(_parent.ExpectMsg<SessionProtocol.RoutesChanged>().Routes);
        session.Tell(SessionProtocol.RoutesTaken.Instance);
        session.Tell(Listen(port, target));
        Assert.Empty(_parent.ExpectMsg<SessionProtocol.RoutesChanged>().Routes);
    }

    [Fact]
    public void A_client_that_cannot_answer_visitors_gets_no_domain()
    {
        var session = Start(new TunnelServerOptions { Proxy = new ProxyOptions() });
        session.Tell(new PumpEvents.ControlReceived(new Listen(70_000, "localhost:80", "a.example.com")));
        Assert.Equal("a client that forwards domains must announce 'proxy' first", ExpectRefusal(70_000));
    }
}
