using System.Net.WebSockets;
using Akka.Actor;
using Akka.TestKit;
using VTunnel.Actors.Tests.Hosting;
using VTunnel.Actors.Tests.Testing;
using VTunnel.Carriers;
using VTunnel.Diagnostics;
using VTunnel.Extensions;
using VTunnel.Options;
using VTunnel.Routing;
using VTunnel.Supervision;
using VTunnel.Testing;

namespace VTunnel.Actors.Tests.Supervision;

public sealed class TunnelClientActorTests : VirtualTimeKit
{
    private static readonly TimeSpan Moment = TimeSpan.FromMilliseconds(1);

    private readonly FakeConnector _connector = new();
    private readonly FakeDialer _dialer = new();
    private readonly TestProbe _observer;
    private double _random = 0.5;

    public TunnelClientActorTests() => _observer = CreateTestProbe();

    private static TunnelClientOptions Options(bool autoReconnect = true) => new()
    {
        Server = new Uri("ws://server.example/"),
        AutoReconnect = autoReconnect,
        ReconnectMin = TimeSpan.FromSeconds(1),
        ReconnectMax = TimeSpan.FromSeconds(5),
        StableAfter = TimeSpan.FromSeconds(10),
    };

    private IActorRef Start(TunnelClientOptions options) => Sys.ActorOf(TunnelClientActor.Props(
        options, _connector, _dialer, TunnelExtensions.None, TunnelMetrics.Shared, _observer, () => _random, new ListLogger()));

    private static ForwardRule Rule(int port) => new(port, new ForwardTarget(TargetScheme.Tcp, "localhost", 3000));

    private TunnelClientProtocol.StateChanged ExpectState(TunnelClientState state)
    {
        var change = _observer.ExpectMsg<TunnelClientProtocol.StateChanged>();
        Assert.Equal(state, change.State);
        return change;
    }

    /// <summary>The client waits for exactly this long and dials.</summary>
    private DialAttempt ExpectDialAfter(IActorRef client, TimeSpan delay)
    {
        ExpectState(TunnelClientState.WaitingToReconnect);
        Settle(client);
        if (delay > Moment)
        {
            Time.Advance(delay - Moment);
            Settle(client);
            Assert.False(_connector.HasAttempt);
            Time.Advance(Moment);
        }
        else
        {
            Time.Advance(Moment);
        }

        var attempt = _connector.Next();
        ExpectState(TunnelClientState.Connecting);
        return attempt;
    }

    private (IActorRef Client, MemoryCarrierPair Pair) StartConnected(TunnelClientOptions options)
    {
        var client = Start(options);
        client.Tell(TunnelClientProtocol.Connect.Instance, TestActor);
        ExpectState(TunnelClientState.Connecting);
        var pair = _connector.Next().Succeed();
        ExpectState(TunnelClientState.Connected);
        ExpectMsg<TunnelClientProtocol.Connected>();
        return (client, pair);
    }

    private static async Task ExpectListenAsync(MemoryCarrierPair pair, int port) =>
        Assert.Equal(
            $$"""{"type":"listen","port":{{port}},"local_addr":"localhost:3000"}""",
            await pair.Server.ReceiveTextAsync());

    private static Task AnswerAsync(MemoryCarrierPair pair, int port, string? error = null) => pair.Server.SendTextAsync(
        error is null
            ? $$"""{"type":"listen_ok","port":{{port}}}"""
            : $$"""{"type":"listen_err","port":{{port}},"error":"{{error}}"}""");

    [Fact]
    public void Waits_between_attempts_double_up_to_the_longest()
    {
        var client = Start(Options());
        client.Tell(TunnelClientProtocol.Connect.Instance, ActorRefs.NoSender);
        var attempt = _connector.Next();
        ExpectState(TunnelClientState.Connecting);
        foreach (var bound in new[] { 1, 2, 4, 5, 5 })
        {
            attempt.Fail();
            attempt = ExpectDialAfter(client, TimeSpan.FromSeconds(bound * 0.5));
        }
    }

    [Theory]
    [InlineData(0)]
    [InlineData(0.001)]
    [InlineData(0.25)]
    [InlineData(0.999)]
    public void Jitter_takes_any_part_of_the_wait(double part)
    {
        _random = part;
        var client = Start(Options());
        client.Tell(TunnelClientProtocol.Connect.Instance, ActorRefs.NoSender);
        ExpectState(TunnelClientState.Connecting);
        _connector.Next().Fail();
        ExpectDialAfter(client, TimeSpan.FromSeconds(part));
    }

    [Fact]
    public void Only_a_connection_that_lasted_makes_the_next_wait_short_again()
    {
        var options = Options();
        var (client, pair) = StartConnected(options);
        Settle(client);
        Time.Advance(options.StableAfter - Moment);
        pair.Break();
        var attempt = ExpectDialAfter(client, TimeSpan.FromSeconds(0.5));
        pair = attempt.Succeed();
        ExpectState(TunnelClientState.Connected);
        Settle(client);
        Time.Advance(options.StableAfter - Moment);
        pair.Break();
        attempt = ExpectDialAfter(client, TimeSpan.FromSeconds(1));

        pair = attempt.Succeed();
        ExpectState(TunnelClientState.Connected);
        Settle(client);
        Time.Advance(options.StableAfter);
        Settle(client);
        pair.Break();
        ExpectDialAfter(client, TimeSpan.FromSeconds(0.5));
    }

    [Fact]
    public void A_first_attempt_that_fails_is_repeated_and_whoever_waits_is_told_in_the_end()
    {
        var client = Start(Options());
        client.Tell(TunnelClientProtocol.Connect.Instance, TestActor);
        ExpectState(TunnelClientState.Connecting);
        _connector.Next().Fail();
        ExpectDialAfter(client, TimeSpan.FromSeconds(0.5)).Succeed();
        ExpectState(TunnelClientState.Connected);
        ExpectMsg<TunnelClientProtocol.Connected>();
    }

    [Fact]
    public void Without_reconnecting_a_first_attempt_that_fails_is_the_end_and_says_why()
    {
        var client = Start(Options(autoReconnect: false));
        client.Tell(new TunnelClientProtocol.Listen(Rule(9000)), TestActor);
        client.Tell(TunnelClientProtocol.Connect.Instance, TestActor);
        ExpectState(TunnelClientState.Connecting);
        _connector.Next().Fail(ConnectError.Unauthorized, "the server does not accept the token (401)");

        var change = ExpectState(TunnelClientState.Stopped);
        Assert.Equal(ConnectError.Unauthorized, change.Failure!.Code);
        for (var i = 0; i < 2; i++)
            Assert.Equal(ConnectError.Unauthorized, ExpectMsg<TunnelClientProtocol.Failed>().Cause.Code);
        client.Tell(TunnelClientProtocol.Connect.Instance, TestActor);
        Assert.Equal(ConnectError.Unauthorized, ExpectMsg<TunnelClientProtocol.Failed>().Cause.Code);
        client.Tell(new TunnelClientProtocol.Listen(Rule(9001)), TestActor);
        Assert.Equal(ConnectError.Unauthorized, ExpectMsg<TunnelClientProtocol.Failed>().Cause.Code);
        Assert.False(_connector.HasAttempt);
    }

    [Fact]
    public void Its_end_is_in_the_log_before_anybody_is_told_and_logs_of_it_as_well()
    {
        var log = new ListLogger();
        IReadOnlyList<string>? atEnd = null;
        Action<TunnelClientProtocol.StateChanged> see = change =>
            atEnd = change.State == TunnelClientState.Stopped ? [.. log.Lines.Select(line => line.Text)] : null;
        var observer = Sys.ActorOf(Props.Create(() => new InTell<TunnelClientProtocol.StateChanged>(see)).WithDispatcher(CallingThreadDispatcher.Id));
        var client = Sys.ActorOf(TunnelClientActor.Props(
            Options(autoReconnect: false), _connector, _dialer, TunnelExtensions.None, TunnelMetrics.Shared, observer, () => _random, log));
        client.Tell(TunnelClientProtocol.Connect.Instance, TestActor);
        _connector.Next().Fail(ConnectError.Unreachable, "nobody is there");
        ExpectMsg<TunnelClientProtocol.Failed>();
        Assert.Equal("Client stopped: nobody is there", atEnd![^1]);
    }

    /// <summary>With the dispatcher of the calling thread it sees each message while the sender still tells it.</summary>
    private sealed class InTell<T> : ReceiveActor
    {
        public InTell(Action<T> see) => Receive(see);
    }

    [Fact]
    public void Without_reconnecting_a_lost_connection_is_the_end()
    {
        var (client, pair) = StartConnected(Options(autoReconnect: false));
        client.Tell(new TunnelClientProtocol.Listen(Rule(9000)), TestActor);
        pair.Break();
        Assert.Equal(ConnectError.ConnectionLost, ExpectState(TunnelClientState.Stopped).Failure!.Code);
        Assert.Equal(ConnectError.ConnectionLost, ExpectMsg<TunnelClientProtocol.Failed>().Cause.Code);
    }

    [Fact]
    public async Task Every_listen_is_replayed_in_the_order_in_which_it_was_asked_for()
    {
        var options = Options();
        options.Forwards = [Rule(9005), Rule(9001)];
        var (client, pair) = StartConnected(options);
        client.Tell(new TunnelClientProtocol.Listen(Rule(9003)), TestActor);
        foreach (var port in new[] { 9005, 9001, 9003 })
        {
            await ExpectListenAsync(pair, port);
            await AnswerAsync(pair, port);
        }

        ExpectMsg<TunnelClientProtocol.ListenSucceeded>();
        pair.Break();
        var attempt = ExpectDialAfter(client, TimeSpan.FromSeconds(0.5));

        // Asked for in the gap, so it comes last.
        client.Tell(new TunnelClientProtocol.Listen(Rule(9000)), TestActor);
        pair = attempt.Succeed();
        foreach (var port in new[] { 9005, 9001, 9003, 9000 })
        {
            await ExpectListenAsync(pair, port);
            await AnswerAsync(pair, port);
        }

        Assert.Equal(9000, ExpectMsg<TunnelClientProtocol.ListenSucceeded>().Port);
    }

    [Fact]
    public async Task A_listen_before_the_first_connection_waits_for_it()
    {
        var client = Start(Options());
        client.Tell(new TunnelClientProtocol.Listen(Rule(9000)), TestActor);
        client.Tell(TunnelClientProtocol.Connect.Instance, ActorRefs.NoSender);
        var pair = _connector.Next().Succeed();
        await ExpectListenAsync(pair, 9000);
        await AnswerAsync(pair, 9000);
        Assert.Equal(9000, ExpectMsg<TunnelClientProtocol.ListenSucceeded>().Port);
    }

    [Fact]
    public async Task A_listen_that_was_not_answered_before_the_connection_was_lost_is_answered_by_the_next()
    {
        var (client, pair) = StartConnected(Options());
        client.Tell(new TunnelClientProtocol.Listen(Rule(9000)), TestActor);
        await ExpectListenAsync(pair, 9000);
        pair.Break();
        pair = ExpectDialAfter(client, TimeSpan.FromSeconds(0.5)).Succeed();
        await ExpectListenAsync(pair, 9000);
        await AnswerAsync(pair, 9000);
        ExpectMsg<TunnelClientProtocol.ListenSucceeded>();
    }

    [Fact]
    public async Task A_refused_listen_gives_the_servers_reason_and_is_asked_again_from_time_to_time()
    {
        var (client, pair) = StartConnected(Options());
        client.Tell(new TunnelClientProtocol.Listen(Rule(9000)), TestActor);
        await ExpectListenAsync(pair, 9000);
        await AnswerAsync(pair, 9000, "port 9000 is taken");
        Assert.Equal("port 9000 is taken", ExpectMsg<TunnelClientProtocol.ListenRefused>().Reason);

        for (var i = 0; i < 2; i++)
        {
            await SettleSessionAsync(client, pair);
            Time.Advance(TimeSpan.FromSeconds(10));
            await ExpectListenAsync(pair, 9000);
            await AnswerAsync(pair, 9000, "port 9000 is still taken");
        }

        // And after a reconnect.
        pair.Break();
        pair = ExpectDialAfter(client, TimeSpan.FromSeconds(0.5)).Succeed();
        await ExpectListenAsync(pair, 9000);
    }

    [Fact]
    public async Task Without_reconnecting_a_refused_listen_is_forgotten()
    {
        var (client, pair) = StartConnected(Options(autoReconnect: false));
        client.Tell(new TunnelClientProtocol.Listen(Rule(9000)), TestActor);
        await ExpectListenAsync(pair, 9000);
        await AnswerAsync(pair, 9000, "no");
        ExpectMsg<TunnelClientProtocol.ListenRefused>();
        await SettleSessionAsync(client, pair);
        Time.Advance(TimeSpan.FromSeconds(20));

        // The next thing that the server hears of is the next listen.
        client.Tell(new TunnelClientProtocol.Listen(Rule(9001)), TestActor);
        await ExpectListenAsync(pair, 9001);
    }

    /// <summary>The session has dealt with everything that the server said: it answers what comes after.</summary>
    private static async Task SettleSessionAsync(IActorRef client, MemoryCarrierPair pair)
    {
        await pair.Server.SendTextAsync("""{"type":"connect","stream_id":4000000000,"port":1}""");
        Assert.Equal("""{"type":"close","stream_id":4000000000}""", await pair.Server.ReceiveTextAsync());
    }

    [Fact]
    public async Task Two_who_ask_for_the_same_port_are_both_answered()
    {
        var (client, pair) = StartConnected(Options());
        client.Tell(new TunnelClientProtocol.Listen(Rule(9000)), TestActor);
        client.Tell(new TunnelClientProtocol.Listen(Rule(9000)), TestActor);
        await ExpectListenAsync(pair, 9000);
        await AnswerAsync(pair, 9000);
        ExpectMsg<TunnelClientProtocol.ListenSucceeded>();
        ExpectMsg<TunnelClientProtocol.ListenSucceeded>();
    }

    [Fact]
    public void Whoever_connects_again_is_told_at_once()
    {
        var (client, _) = StartConnected(Options());
        client.Tell(TunnelClientProtocol.Connect.Instance, TestActor);
        ExpectMsg<TunnelClientProtocol.Connected>();
        Assert.False(_connector.HasAttempt);
    }

    [Fact]
    public async Task A_stop_while_dialling_cancels_the_attempt_and_drops_a_connection_that_comes_too_late()
    {
        var client = Start(Options());
        client.Tell(TunnelClientProtocol.Connect.Instance, TestActor);
        var attempt = _connector.Next();
        ExpectState(TunnelClientState.Connecting);
        client.Tell(TunnelClientProtocol.Stop.Instance, TestActor);
        ExpectState(TunnelClientState.Stopped);
        Assert.Equal(ConnectError.Stopped, ExpectMsg<TunnelClientProtocol.Failed>().Cause.Code);
        ExpectMsg<TunnelClientProtocol.Stopped>();
        Assert.True(attempt.CancellationToken.IsCancellationRequested);

        var late = attempt.Succeed();
        await late.Client.Aborted.WaitAsync(TestTimeouts.Long);
        await late.Client.Disposed.WaitAsync(TestTimeouts.Long);
    }

    [Fact]
    public void A_stop_while_waiting_ends_the_waiting()
    {
        var client = Start(Options());
        client.Tell(TunnelClientProtocol.Connect.Instance, ActorRefs.NoSender);
        ExpectState(TunnelClientState.Connecting);
        _connector.Next().Fail();
        ExpectState(TunnelClientState.WaitingToReconnect);
        client.Tell(TunnelClientProtocol.Stop.Instance, TestActor);
        ExpectState(TunnelClientState.Stopped);
        ExpectMsg<TunnelClientProtocol.Stopped>();
        Time.Advance(TimeSpan.FromMinutes(1));
        Settle(client);
        Assert.False(_connector.HasAttempt);
    }

    [Fact]
    public async Task A_stop_while_connected_says_goodbye_to_the_server()
    {
        var (client, pair) = StartConnected(Options());
        client.Tell(TunnelClientProtocol.Stop.Instance, TestActor);
        Assert.Null(await pair.Server.ReceiveTextAsync());
        Assert.Equal(WebSocketCloseStatus.EndpointUnavailable, pair.Server.CloseReceived!.Value.Status);
        await pair.Server.CloseAsync(WebSocketCloseStatus.EndpointUnavailable, "");
        ExpectState(TunnelClientState.Stopped);
        ExpectMsg<TunnelClientProtocol.Stopped>();
        await pair.Client.Disposed.WaitAsync(TestTimeouts.Long);

        client.Tell(TunnelClientProtocol.Stop.Instance, TestActor);
        ExpectMsg<TunnelClientProtocol.Stopped>();
        Assert.False(_connector.HasAttempt);
    }

    [Fact]
    public void A_stop_before_anything_is_an_end_too()
    {
        var client = Start(Options());
        client.Tell(TunnelClientProtocol.Stop.Instance, TestActor);
        ExpectState(TunnelClientState.Stopped);
        ExpectMsg<TunnelClientProtocol.Stopped>();
    }

    [Fact]
    public void States_change_in_order_and_say_why()
    {
        var client = Start(Options());
        client.Tell(TunnelClientProtocol.Connect.Instance, ActorRefs.NoSender);
        ExpectState(TunnelClientState.Connecting);
        _connector.Next().Fail(message: "nobody there");
        Assert.Equal("nobody there", ExpectState(TunnelClientState.WaitingToReconnect).Reason);
        Settle(client);
        Time.Advance(TimeSpan.FromSeconds(1));
        ExpectState(TunnelClientState.Connecting);
        var pair = _connector.Next().Succeed();
        ExpectState(TunnelClientState.Connected);
        pair.Break();
        Assert.StartsWith("the connection was lost", ExpectState(TunnelClientState.WaitingToReconnect).Reason, StringComparison.Ordinal);
        client.Tell(TunnelClientProtocol.Stop.Instance, TestActor);
        ExpectState(TunnelClientState.Stopped);
        ExpectMsg<TunnelClientProtocol.Stopped>();
        _observer.ExpectNoMsg(TimeSpan.Zero);
    }

    [Fact]
    public async Task A_slow_target_does_not_hold_up_the_next_session()
    {
        var options = Options();
        options.Forwards = [Rule(9000)];
        var (client, pair) = StartConnected(options);
        await ExpectListenAsync(pair, 9000);
        var target = new FakeEndpoint { IsStalled = true };
        await pair.Server.SendTextAsync("""{"type":"connect","stream_id":1,"port":9000}""");
        _dialer.Next().Succeed(target);
        await pair.Server.SendTextAsync("""{"type":"data","stream_id":1,"data":"AAAA"}""");
        await pair.Server.SendTextAsync("""{"type":"close","stream_id":1}""");
        await target.SendStarted.WaitAsync(TestTimeouts.Long);
        await SettleSessionAsync(client, pair);
        pair.Break();

        var second = ExpectDialAfter(client, TimeSpan.FromSeconds(0.5)).Succeed();
        await ExpectListenAsync(second, 9000);
        Assert.False(target.IsGone);
        Assert.Equal([0, 0, 0], target.Sent);
    }

    [Fact]
    public async Task The_end_of_the_actor_ends_its_session_and_answers_whoever_waits()
    {
        var (client, pair) = StartConnected(Options());
        client.Tell(new TunnelClientProtocol.Listen(Rule(9000)), TestActor);
        await ExpectListenAsync(pair, 9000);
        Sys.Stop(client);
        Assert.Equal(ConnectError.Stopped, ExpectMsg<TunnelClientProtocol.Failed>().Cause.Code);
        ExpectState(TunnelClientState.Stopped);
        await pair.Client.Disposed.WaitAsync(TestTimeouts.Long);
    }
}
