using Akka.Actor;
using Akka.TestKit;
using VTunnel.Actors.Tests.Hosting;
using VTunnel.Actors.Tests.Testing;
using VTunnel.Extensions;
using VTunnel.Options;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Routing;
using VTunnel.Sessions;
using VTunnel.Stages;
using VTunnel.Supervision;
using VTunnel.Testing;

namespace VTunnel.Actors.Tests.Sessions;

public sealed class ClientSessionActorTests : VirtualTimeKit
{
    private readonly TestProbe _pumpCalls;
    private readonly TestProbe _parent;
    private readonly FakeDialer _dialer = new();
    private readonly ListLogger _log = new();

    public ClientSessionActorTests()
    {
        _pumpCalls = CreateTestProbe();
        _parent = CreateTestProbe();
    }

    private IActorRef Start(TunnelClientOptions? options = null, params ForwardRule[] forwards) => StartChild(
        ClientSessionActor.Props(
            new SessionContext(
                "session-1",
                new FakeWire(new RecordingPump(_pumpCalls), _pumpCalls, TimeSpan.Zero),
                null,
                TunnelExtensions.None,
                TestMetrics.Client,
                _log),
            options ?? new TunnelClientOptions(),
            forwards,
            _dialer),
        _parent);

    private static ForwardRule Rule(int port) => new(port, new ForwardTarget(TargetScheme.Tcp, "localhost", port + 1000));

    private static StreamKey Key(uint id, long serial) => new(id, serial);

    [Fact]
    public void Forwards_are_asked_for_in_order()
    {
        var session = Start(null, Rule(9002), Rule(9001));
        session.Tell(new ClientSessionProtocol.AddForward(Rule(9003)));
        foreach (var port in new[] { 9002, 9001, 9003 })
            Assert.Equal(new Listen(port, $"localhost:{port + 1000}"), _pumpCalls.ExpectMsg<PumpCall.Control>().Message);
    }

    [Fact]
    public void Answers_for_ports_that_were_not_asked_for_are_ignored()
    {
        var session = Start(null, Rule(9000));
        session.Tell(new PumpEvents.ControlReceived(new ListenOk(1)));
        session.Tell(new PumpEvents.ControlReceived(new ListenErr(2, "no")));
        session.Tell(new PumpEvents.ControlReceived(new Listen(3)));
        session.Tell(new PumpEvents.ControlReceived(new ListenOk(9000)));
        Assert.Equal(new ClientSessionProtocol.ListenAnswered(9000, null), _parent.ExpectMsg<ClientSessionProtocol.ListenAnswered>());
    }

    [Fact]
    public void The_same_refusal_is_logged_once()
    {
        var session = Start(new TunnelClientOptions { AutoReconnect = true }, Rule(9000));
        for (var i = 0; i < 5; i++)
            session.Tell(new PumpEvents.ControlReceived(new ListenErr(9000, "taken")));
        session.Tell(new PumpEvents.ControlReceived(new ListenErr(9000, "forbidden")));
        for (var i = 0; i < 6; i++)
            _parent.ExpectMsg<ClientSessionProtocol.ListenAnswered>();
        Assert.Equal(2, _log.Lines.Count(line => line.Text.Contains("refused to listen", StringComparison.Ordinal)));
    }

    [Fact]
    public void A_server_that_changes_its_mind_all_the_time_does_not_fill_the_log_and_each_forward_is_told_of()
    {
        const int Forwards = 50;
        var session = Start(new TunnelClientOptions { AutoReconnect = true }, [.. Enumerable.Range(9000, Forwards).Select(Rule)]);
        for (var i = 0; i < 100; i++)
        {
            session.Tell(new PumpEvents.ControlReceived(new ListenOk(9000)));
            session.Tell(new PumpEvents.ControlReceived(new ListenErr(9000, "taken")));
            session.Tell(new PumpEvents.StreamRequested(Key(1, i), new StreamRequest(1)));
        }

        for (var port = 9001; port < 9000 + Forwards; port++)
            session.Tell(new PumpEvents.ControlReceived(new ListenErr(port, "taken")));
        for (var i = 0; i < 200 + Forwards - 1; i++)
            _parent.ExpectMsg<ClientSessionProtocol.ListenAnswered>();

        Assert.Equal(10 + Forwards - 1, Logged("refused to listen"));
        Assert.Equal(10, Logged("refused to listen on port 9000:"));
        Assert.Equal(1, Logged("further answers are not logged"));
        Assert.Equal(10, Logged("Forwarding"));
        Assert.Equal(20, Logged("which is not forwarded here"));

        int Logged(string part) => _log.Lines.Count(line => line.Text.Contains(part, StringComparison.Ordinal));
    }

    [Fact]
    public void A_stream_is_carried_to_the_target_of_its_port()
    {
        var session = Start(null, Rule(9000), Rule(9001));
        var key = Key(1, 1);
        session.Tell(new PumpEvents.StreamRequested(key, new StreamRequest(9001)));
        var attempt = _dialer.Next();
        Assert.Equal("localhost:10001", attempt.Target.ToString());
        var target = new FakeEndpoint();
        attempt.Succeed(target);
        var attach = _pumpCalls.FishForMessage<PumpCall.Attach>(_ => true);
        Assert.Equal(key, attach.Key);
        Assert.Same(target, attach.Endpoint);
    }

    [Fact]
    public void A_stream_for_a_port_that_is_not_forwarded_is_refused()
    {
        var session = Start();
        session.Tell(new PumpEvents.StreamRequested(Key(1, 1), new StreamRequest(9001)));
        Assert.Equal(Key(1, 1), _pumpCalls.ExpectMsg<PumpCall.Reset>().Key);
    }

    [Fact]
    public void Streams_beyond_the_limit_are_refused()
    {
        var session = Start(new TunnelClientOptions { MaxStreams = 1 }, Rule(9000));
        session.Tell(new PumpEvents.StreamRequested(Key(1, 1), new StreamRequest(9000)));
        session.Tell(new PumpEvents.StreamRequested(Key(2, 2), new StreamRequest(9000)));
        _dialer.Next();
        Assert.Equal(Key(2, 2), _pumpCalls.FishForMessage<PumpCall.Reset>(_ => true).Key);
    }

    [Fact]
    public async Task An_id_that_comes_back_at_once_is_another_stream()
    {
        // What comes to a stream that is just being cancelled is for this one to close, as it is below every root of the engine.
        var ready = CreateTestProbe();
        Sys.ActorOf(OrphanActor.Props()).Tell(new Identify(null), ready);
        ready.ExpectMsg<ActorIdentity>();
        var session = Start(null, Rule(9000));
        session.Tell(new PumpEvents.StreamRequested(Key(7, 1), new StreamRequest(9000)));
        var first = _dialer.Next();
        session.Tell(new PumpEvents.StreamCancelled(Key(7, 1)));
        session.Tell(new PumpEvents.StreamRequested(Key(7, 2), new StreamRequest(9000)));
        var second = _dialer.Next();
        var late = new FakeEndpoint();
        first.Succeed(late);
        await late.Gone.WaitAsync(TestTimeouts.Long);

        var target = new FakeEndpoint();
        second.Succeed(target);
        var attach = _pumpCalls.FishForMessage<PumpCall.Attach>(_ => true);
        Assert.Equal(Key(7, 2), attach.Key);
        Assert.Same(target, attach.Endpoint);
    }

    [Fact]
    public void A_draining_session_takes_no_new_streams()
    {
        var session = Start(null, Rule(9000));
        session.Tell(new PumpEvents.StreamRequested(Key(1, 1), new StreamRequest(9000)));
        _dialer.Next();
        session.Tell(new SessionProtocol.Drain(TimeSpan.FromSeconds(5)));
        session.Tell(new PumpEvents.StreamRequested(Key(2, 2), new StreamRequest(9000)));
        Assert.Equal(Key(2, 2), _pumpCalls.FishForMessage<PumpCall.Reset>(_ => true).Key);
        Settle(session);
        Time.Advance(TimeSpan.FromSeconds(5));
        _pumpCalls.ExpectMsg<PumpCall.Stop>();
    }
}
