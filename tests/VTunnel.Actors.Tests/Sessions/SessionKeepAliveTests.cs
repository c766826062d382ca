using Akka.Actor;
using Akka.TestKit;
using VTunnel.Actors.Tests.Testing;
using VTunnel.Extensions;
using VTunnel.Options;
using VTunnel.Protocol.Errors;
using VTunnel.Sessions;

namespace VTunnel.Actors.Tests.Sessions;

public sealed class SessionKeepAliveTests : VirtualTimeKit
{
    private readonly TestProbe _pumpCalls;
    private readonly TestProbe _parent;
    private readonly RecordingPump _pump;
    private FakeWire _wire = null!;

    public SessionKeepAliveTests()
    {
        _pumpCalls = CreateTestProbe();
        _parent = CreateTestProbe();
        _pump = new RecordingPump(_pumpCalls);
    }

    private SessionContext Context(TimeSpan idleTimeout)
    {
        _wire = new FakeWire(_pump, _pumpCalls, idleTimeout);
        return new SessionContext("session-1", _wire, null, TunnelExtensions.None, TestMetrics.Server, new ListLogger());
    }

    private IActorRef StartServer(TimeSpan idleTimeout) =>
        StartChild(ServerSessionActor.Props(Context(idleTimeout), new TunnelServerOptions { IdleTimeout = idleTimeout }, null), _parent);

    private IActorRef StartClient(TimeSpan pingInterval)
    {
        var context = Context(pingInterval > TimeSpan.Zero ? pingInterval * 2 : TimeSpan.Zero);
        return StartChild(ClientSessionActor.Props(context, new TunnelClientOptions { PingInterval = pingInterval }, [], new FakeDialer()), _parent);
    }

    private void PassSilence(IActorRef session, TimeSpan time)
    {
        Settle(session);
        for (var passed = TimeSpan.Zero; passed < time; passed += TimeSpan.FromSeconds(7.5))
        {
            Time.Advance(TimeSpan.FromSeconds(7.5));
            Settle(session);
        }
    }

    private void ExpectTimeout()
    {
        // The last ping of a client falls on the same moment.
        _pumpCalls.FishForMessage<PumpCall.WireAborted>(_ => true);
        var reason = Assert.IsType<SessionProtocolException>(_pumpCalls.FishForMessage<PumpCall.Stop>(_ => true).Reason);
        Assert.Equal(SessionError.KeepAliveTimeout, reason.Code);
    }

    [Fact]
    public void A_server_gives_a_silent_client_up_at_its_idle_timeout()
    {
        var session = StartServer(TimeSpan.FromSeconds(60));
        PassSilence(session, TimeSpan.FromSeconds(52.5));
        _pumpCalls.ExpectNoMsg(TimeSpan.Zero);
        PassSilence(session, TimeSpan.FromSeconds(7.5));
        ExpectTimeout();
    }

    [Fact]
    public void Anything_that_arrives_starts_the_count_again()
    {
        var session = StartServer(TimeSpan.FromSeconds(60));
        for (var i = 0; i < 5; i++)
        {
            PassSilence(session, TimeSpan.FromSeconds(52.5));
            _wire.FakeCarrier.Hear();
            PassSilence(session, TimeSpan.FromSeconds(7.5));
        }

        PassSilence(session, TimeSpan.FromSeconds(52.5));
        _pumpCalls.ExpectNoMsg(TimeSpan.Zero);
        PassSilence(session, TimeSpan.FromSeconds(7.5));
        ExpectTimeout();
    }

    [Fact]
    public void Silence_means_nothing_while_this_side_does_not_read()
    {
        var session = StartServer(TimeSpan.FromSeconds(60));
        PassSilence(session, TimeSpan.FromSeconds(30));
        _pump.IsReceivePaused = true;
        PassSilence(session, TimeSpan.FromHours(1));
        _pumpCalls.ExpectNoMsg(TimeSpan.Zero);

        // From now on silence counts again, from the beginning.
        _pump.IsReceivePaused = false;
        PassSilence(session, TimeSpan.FromSeconds(52.5));
        _pumpCalls.ExpectNoMsg(TimeSpan.Zero);
        PassSilence(session, TimeSpan.FromSeconds(7.5));
        ExpectTimeout();
    }

    [Fact]
    public void A_server_without_an_idle_timeout_waits_for_ever()
    {
        var session = StartServer(Timeout.InfiniteTimeSpan);
        PassSilence(session, TimeSpan.FromMinutes(15));
        _pumpCalls.ExpectNoMsg(TimeSpan.Zero);
    }

    [Fact]
    public void A_client_pings_every_interval_and_gives_up_after_two_without_a_word()
    {
        var session = StartClient(TimeSpan.FromSeconds(30));
        for (var i = 0; i < 3; i++)
        {
            PassSilence(session, TimeSpan.FromSeconds(22.5));
            _pumpCalls.ExpectNoMsg(TimeSpan.Zero);
            _wire.FakeCarrier.Hear();
            PassSilence(session, TimeSpan.FromSeconds(7.5));
            _pumpCalls.ExpectMsg<PumpCall.Ping>();
        }

        PassSilence(session, TimeSpan.FromSeconds(52.5));
        _pumpCalls.ExpectMsg<PumpCall.Ping>();
        _pumpCalls.ExpectNoMsg(TimeSpan.Zero);
        PassSilence(session, TimeSpan.FromSeconds(7.5));
        ExpectTimeout();
    }

    [Fact]
    public void A_client_with_a_negative_interval_neither_pings_nor_gives_up()
    {
        var session = StartClient(TimeSpan.FromSeconds(-1));
        PassSilence(session, TimeSpan.FromMinutes(15));
        _pumpCalls.ExpectNoMsg(TimeSpan.Zero);
    }
}
