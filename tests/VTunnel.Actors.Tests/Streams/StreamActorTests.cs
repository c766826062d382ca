using Akka.Actor;
using Akka.TestKit;
using VTunnel.Actors.Tests.Hosting;
using VTunnel.Actors.Tests.Testing;
using VTunnel.Diagnostics;
using VTunnel.Endpoints;
using VTunnel.Extensions;
using VTunnel.Routing;
using VTunnel.Stages;
using VTunnel.Streams;
using VTunnel.Targets;
using VTunnel.Testing;

namespace VTunnel.Actors.Tests.Streams;

public sealed class StreamActorTests : VirtualTimeKit
{
    private static readonly StreamInfo Info = new("session-1", "ci", 9000, "203.0.113.7:4711");
    private static readonly ForwardTarget Target = new(TargetScheme.Tcp, "localhost", 3000);
    private static readonly StreamKey Key = new(5, 1);

    private readonly TestProbe _pumpCalls;
    private readonly TestProbe _parent;
    private readonly TestProbe _events;
    private readonly FakeDialer _dialer = new();
    private readonly ListLogger _log = new();

    public StreamActorTests()
    {
        _pumpCalls = CreateTestProbe();
        _parent = CreateTestProbe();
        _events = CreateTestProbe();
        Sys.EventStream.Subscribe(_events, typeof(TunnelEvents.TunnelEvent));
    }

    private StreamServices Services(TunnelExtensions? extensions) =>
        new(new RecordingPump(_pumpCalls), extensions ?? TunnelExtensions.None, TestMetrics.Server, _log);

    private IActorRef StartVisitor(StreamEndpoint visitor, TunnelExtensions? extensions = null) =>
        StartChild(StreamActor.ForVisitor(Services(extensions), Info, visitor), _parent);

    private IActorRef StartTarget(TunnelExtensions? extensions = null) =>
        StartChild(StreamActor.ForTarget(Services(extensions), Info, Key, new ForwardRule(9000, Target), null, _dialer), _parent);

    private void ExpectGone()
    {
        _parent.ExpectMsg<StreamProtocol.StreamGone>();
        _parent.ExpectMsg<ParentActor.ChildGone>();
    }

    [Fact]
    public void A_visitor_is_handed_over_at_once_and_its_life_is_told()
    {
        var visitor = new FakeEndpoint();
        StartVisitor(visitor);
        var open = _pumpCalls.ExpectMsg<PumpCall.Open>();
        Assert.Same(visitor, open.Endpoint);
        open.Owner.Tell(new PumpEvents.StreamOpened(Key));
        Assert.Equal(new TunnelEvents.StreamStarted("session-1", 5, 9000, "203.0.113.7:4711", "ci"), _events.ExpectMsg<TunnelEvents.StreamStarted>());
        open.Owner.Tell(new PumpEvents.StreamEnded(StreamEnd.Completed, 10, 20));
        var finished = _events.ExpectMsg<TunnelEvents.StreamFinished>();
        Assert.Equal((StreamEnd.Completed, 10, 20), (finished.End, finished.BytesIn, finished.BytesOut));
        ExpectGone();
        Assert.False(visitor.IsGone);
    }

    [Fact]
    public void A_visitor_that_the_pump_refuses_has_neither_begun_nor_ended()
    {
        StartVisitor(new FakeEndpoint());
        _pumpCalls.ExpectMsg<PumpCall.Open>().Owner.Tell(new PumpEvents.StreamEnded(StreamEnd.SessionEnded, 0, 0));
        ExpectGone();
        _events.ExpectNoMsg(TimeSpan.Zero);
    }

    [Fact]
    public void A_target_is_dialled_and_attached()
    {
        StartTarget();
        var endpoint = new FakeEndpoint();
        var attempt = _dialer.Next();
        Assert.Equal(Target, attempt.Target);
        attempt.Succeed(endpoint);
        var attach = _pumpCalls.ExpectMsg<PumpCall.Attach>();
        Assert.Equal(Key, attach.Key);
        Assert.Same(endpoint, attach.Endpoint);
        _events.ExpectMsg<TunnelEvents.StreamStarted>();
    }

    [Fact]
    public void A_target_that_cannot_be_reached_refuses_the_stream_and_is_named_in_the_log()
    {
        StartTarget();
        _dialer.Next().Fail(new TargetException(TargetError.ConnectionRefused, "connection refused"));
        Assert.Equal(Key, _pumpCalls.ExpectMsg<PumpCall.Reset>().Key);
        ExpectGone();
        Assert.Contains(_log.Lines, line => line.Text == "Target localhost:3000 of port 9000 refused: connection refused");
        _events.ExpectNoMsg(TimeSpan.Zero);
    }

    [Fact]
    public async Task A_stream_that_is_cancelled_while_its_target_is_dialled_closes_what_comes_too_late()
    {
        var stream = StartTarget();
        var attempt = _dialer.Next();
        stream.Tell(StreamProtocol.Cancel.Instance);
        ExpectGone();
        Assert.True(attempt.CancellationToken.IsCancellationRequested);
        var late = new FakeEndpoint();
        attempt.Succeed(late);
        await late.Gone.WaitAsync(TestTimeouts.Long);
        Assert.True(late.IsAborted);
    }

    [Fact]
    public void A_cancellation_that_comes_after_the_target_is_the_pumps_to_answer()
    {
        var stream = StartTarget();
        _dialer.Next().Succeed(new FakeEndpoint());
        var attach = _pumpCalls.ExpectMsg<PumpCall.Attach>();
        stream.Tell(StreamProtocol.Cancel.Instance);
        Settle(stream);
        attach.Owner.Tell(new PumpEvents.StreamEnded(StreamEnd.PeerReset, 0, 0));
        ExpectGone();
        Assert.Equal(StreamEnd.PeerReset, _events.FishForMessage<TunnelEvents.StreamFinished>(_ => true).End);
    }

    [Fact]
    public void The_end_of_the_actor_closes_its_endpoint_and_resets_its_stream()
    {
        var visitor = new FakeEndpoint();
        var stream = StartVisitor(visitor);
        _pumpCalls.ExpectMsg<PumpCall.Open>().Owner.Tell(new PumpEvents.StreamOpened(Key));
        _events.ExpectMsg<TunnelEvents.StreamStarted>();
        Sys.Stop(stream);
        ExpectGone();
        Assert.Equal(Key, _pumpCalls.ExpectMsg<PumpCall.Reset>().Key);
        Assert.True(visitor.IsAborted);
        Assert.Equal(StreamEnd.SessionEnded, _events.ExpectMsg<TunnelEvents.StreamFinished>().End);
    }

    [Fact]
    public void An_authoriser_that_denies_a_visitor_closes_it_unseen()
    {
        var authorizer = CreateTestProbe();
        var visitor = new FakeEndpoint();
        StartVisitor(visitor, new TunnelExtensions(authorizer, []));
        Assert.Equal(Info, authorizer.ExpectMsg<AuthorizationProtocol.AuthorizeConnect>().Stream);
        authorizer.Reply(new AuthorizationProtocol.Denied("not you"));
        ExpectGone();
        Assert.True(visitor.IsAborted);
        _pumpCalls.ExpectNoMsg(TimeSpan.Zero);
        Assert.Contains(_log.Lines, line => line.Text.EndsWith("was denied: not you", StringComparison.Ordinal));
    }

    [Fact]
    public void An_authoriser_that_denies_a_stream_keeps_its_target_from_being_dialled()
    {
        var authorizer = CreateTestProbe();
        StartTarget(new TunnelExtensions(authorizer, []));
        authorizer.ExpectMsg<AuthorizationProtocol.AuthorizeConnect>();
        authorizer.Reply(new AuthorizationProtocol.Denied("not you"));
        Assert.Equal(Key, _pumpCalls.ExpectMsg<PumpCall.Reset>().Key);
        ExpectGone();
    }

    [Theory]
    [InlineData("nonsense")]
    [InlineData("failure")]
    [InlineData("silence")]
    public void An_authoriser_that_does_not_decide_denies(string answer)
    {
        var authorizer = CreateTestProbe();
        var visitor = new FakeEndpoint();
        StartVisitor(visitor, new TunnelExtensions(authorizer, []));
        authorizer.ExpectMsg<AuthorizationProtocol.AuthorizeConnect>();
        if (answer == "nonsense")
            authorizer.Reply(42);
        else if (answer == "failure")
            authorizer.Reply(new Status.Failure(new InvalidOperationException("the database is down")));
        else
            Time.Advance(AuthorizationProtocol.Timeout);
        ExpectGone();
        Assert.True(visitor.IsAborted);
    }

    [Fact]
    public void An_authoriser_that_allows_lets_the_visitor_in()
    {
        var authorizer = CreateTestProbe();
        StartVisitor(new FakeEndpoint(), new TunnelExtensions(authorizer, []));
        authorizer.ExpectMsg<AuthorizationProtocol.AuthorizeConnect>();
        authorizer.Reply(AuthorizationProtocol.Allowed.Instance);
        _pumpCalls.ExpectMsg<PumpCall.Open>();
    }

    [Fact]
    public void Middleware_wraps_in_order_the_first_closest_to_the_socket()
    {
        var visitor = new FakeEndpoint();
        StartVisitor(visitor, new TunnelExtensions(null, [new Naming("inner"), new Naming("outer")]));
        var outer = Assert.IsType<NamedEndpoint>(_pumpCalls.ExpectMsg<PumpCall.Open>().Endpoint);
        Assert.Equal(("outer", Info), (outer.Name, outer.Stream));
        var inner = Assert.IsType<NamedEndpoint>(outer.Wrapped);
        Assert.Equal("inner", inner.Name);
        Assert.Same(visitor, inner.Wrapped);
    }

    [Theory]
    [InlineData(true, true)]
    [InlineData(false, true)]
    [InlineData(true, false)]
    [InlineData(false, false)]
    public async Task Middleware_that_fails_or_returns_nothing_refuses_the_stream_and_says_so(bool isVisitor, bool throws)
    {
        var endpoint = new FakeEndpoint();
        var extensions = new TunnelExtensions(null, throws ? [new Failing()] : [new Naming("inner"), new Forgetting()]);
        if (isVisitor)
        {
            StartVisitor(endpoint, extensions);
        }
        else
        {
            StartTarget(extensions);
            _dialer.Next().Succeed(endpoint);
            Assert.Equal(Key, _pumpCalls.ExpectMsg<PumpCall.Reset>().Key);
        }

        ExpectGone();
        await endpoint.Gone.WaitAsync(TestTimeouts.Long);
        Assert.Contains(_log.Lines, line => line.Id.Id == 305 && line.Text.Contains("a stream middleware failed", StringComparison.Ordinal));
    }

    private sealed class Naming(string name) : IStreamMiddleware
    {
        public StreamEndpoint Wrap(StreamEndpoint endpoint, StreamInfo stream) => new NamedEndpoint(endpoint, name, stream);
    }

    private sealed class Failing : IStreamMiddleware
    {
        public StreamEndpoint Wrap(StreamEndpoint endpoint, StreamInfo stream) => throw new InvalidOperationException("no licence");
    }

    private sealed class Forgetting : IStreamMiddleware
    {
        public StreamEndpoint Wrap(StreamEndpoint endpoint, StreamInfo stream) => null!;
    }

    private sealed class NamedEndpoint(StreamEndpoint inner, string name, StreamInfo stream) : DelegatingEndpoint(inner)
    {
        public string Name => name;

        public StreamInfo Stream => stream;

        public StreamEndpoint Wrapped => Inner;
    }
}
