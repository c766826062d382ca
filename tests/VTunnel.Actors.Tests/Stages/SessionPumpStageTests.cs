using System.Text;
using Akka.Streams;
using Akka.Streams.Dsl;
using Microsoft.Extensions.Time.Testing;
using VTunnel.Actors.Tests.Testing;
using VTunnel.Diagnostics;
using VTunnel.Endpoints;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Protocol.Mux;
using VTunnel.Protocol.V1;
using VTunnel.Protocol.V2;
using VTunnel.Stages;

namespace VTunnel.Actors.Tests.Stages;

public sealed class SessionPumpStageTests : VirtualTimeKit
{
    private static readonly PumpTimeouts Timeouts = new();

    private void RunServer(Action<PumpBench> test, V1SessionOptions? options = null) =>
        PumpBench.Run(CallingThreadMaterializer(), () => CreateTestProbe(), V1Role.Server, options, test);

    private void RunClient(Action<PumpBench> test, V1SessionOptions? options = null) =>
        PumpBench.Run(CallingThreadMaterializer(), () => CreateTestProbe(), V1Role.Client, options, test);

    [Fact]
    public void A_visitors_bytes_follow_its_connect() => RunServer(bench =>
    {
        var visitor = bench.Open();
        visitor.Feed("hello");
        Assert.Equal(["Connect 1 :9000", "Data 1 hello"], bench.Frames());
    });

    [Fact]
    public void What_the_peer_sends_reaches_the_endpoint_in_order() => RunServer(bench =>
    {
        var visitor = bench.Open();
        bench.PutData(1, "one ");
        bench.PutData(1, "two");
        Assert.Equal("one two", visitor.SentText);
    });

    [Fact]
    public void A_visitors_end_closes_the_stream_after_its_last_byte() => RunServer(bench =>
    {
        var visitor = bench.Open();
        visitor.Feed("bye");
        visitor.Endpoint.FeedEnd();
        Assert.Equal(["Connect 1 :9000", "Data 1 bye", "Close 1"], bench.Frames());
        Assert.True(visitor.Endpoint.IsFinished);
        Assert.True(visitor.Endpoint.IsDisposed);
        Assert.Equal(3, visitor.ExpectEnd(StreamEnd.Completed).BytesOut);
    });

    [Fact]
    public void Bytes_before_a_close_are_delivered_before_the_end() => RunServer(bench =>
    {
        var visitor = bench.Open(new FakeEndpoint { IsStalled = true });
        bench.PutData(1, "first ");
        bench.PutData(1, "second");
        bench.PutClose(1);
        Assert.False(visitor.Endpoint.IsFinished);

        visitor.Endpoint.CompleteSend();
        Assert.False(visitor.Endpoint.IsFinished);
        visitor.Endpoint.CompleteSend();
        Assert.Equal("first second", visitor.SentText);
        Assert.True(visitor.Endpoint.IsFinished);
    });

    [Fact]
    public void A_stalled_endpoint_pauses_reading_and_loses_nothing() => RunServer(
        bench =>
        {
            var stalled = bench.Open(new FakeEndpoint { IsStalled = true });
            var sent = new byte[100 * 1000];
            Random.Shared.NextBytes(sent);
            foreach (var piece in sent.Chunk(1000))
                bench.PutData(1, piece);

            Assert.True(bench.Pump.IsReceivePaused);
            Assert.InRange(bench.Wire.WaitingCount, 85, 95);

            stalled.Endpoint.IsStalled = false;
            stalled.Endpoint.CompleteSend();
            Assert.False(bench.Pump.IsReceivePaused);
            Assert.Equal(sent, stalled.Endpoint.Sent);
        },
        new V1SessionOptions { StreamBufferBytes = 10_000 });

    [Fact]
    public void While_nothing_is_read_the_peer_gets_signs_of_life() => RunServer(
        bench =>
        {
            var stalled = bench.Open(new FakeEndpoint { IsStalled = true });
            bench.PutData(1, new byte[5_000]);
            bench.PutData(1, new byte[5_000]);
            bench.PutData(1, new byte[5_000]);
            Assert.True(bench.Pump.IsReceivePaused);
            bench.Frames();
            for (var i = 0; i < 3; i++)
            {
                Time.Advance(TimeSpan.FromMilliseconds(500));
                Assert.Equal(["Pong"], bench.Frames());
            }

            stalled.Endpoint.IsStalled = false;
            stalled.Endpoint.CompleteSend();
            Assert.False(bench.Pump.IsReceivePaused);
            Time.Advance(TimeSpan.FromSeconds(5));
            Assert.Empty(bench.Frames());
        },
        new V1SessionOptions { StreamBufferBytes = 10_000 });

    [Fact]
    public void A_visitor_is_read_no_further_while_the_peer_takes_nothing() => RunServer(bench =>
    {
        bench.Wire.TakesAll = false;
        var visitor = bench.Open();
        for (var i = 0; i < 100; i++)
            visitor.Endpoint.Feed(new byte[10_000]);

        // One message waits in the session, one on the wire, and a third may have been read before.
        Assert.InRange(visitor.Endpoint.ReceivedBytes, 1, 3 * 32 * 1024);
        bench.Wire.TakesAll = true;
        Assert.Equal(100 * 10_000, visitor.Endpoint.ReceivedBytes);
    });

    public static TheoryData<string> Faults => ["receive fails", "receive throws", "claims more than its buffer", "send fails", "finish fails"];

    [Theory]
    [MemberData(nameof(Faults))]
    public void A_failing_endpoint_ends_its_stream_alone(string fault) => RunServer(bench =>
    {
        var failing = bench.Open();
        var other = bench.Open();
        bench.Frames();
        switch (fault)
        {
            case "receive fails":
                failing.Endpoint.FeedError();
                break;
            case "receive throws":
                failing.Endpoint.Throws = true;
                failing.Feed("x");
                break;
            case "claims more than its buffer":
                failing.Endpoint.ClaimedBytes = 1_000_000;
                failing.Feed("x");
                break;
            case "send fails":
                failing.Endpoint.SendError = new IOException("broken pipe");
                bench.PutData(1, "x");
                break;
            case "finish fails":
                failing.Endpoint.SendError = new IOException("broken pipe");
                bench.PutClose(1);
                break;
        }

        failing.ExpectEnd(StreamEnd.EndpointReset);
        Assert.True(failing.Endpoint.IsAborted);
        Assert.Equal(fault == "finish fails" ? [] : ["Close 1"], bench.Frames());

        other.Feed("still here");
        bench.PutData(2, "you, too");
        Assert.Equal(["Data 2 still here"], bench.Frames());
        Assert.Equal("you, too", other.SentText);
    });

    [Fact]
    public void A_send_that_fails_later_ends_its_stream_and_releases_what_waited() => RunServer(bench =>
    {
        var failing = bench.Open(new FakeEndpoint { IsStalled = true });
        bench.PutData(1, "one");
        bench.PutData(1, "two");
        failing.Endpoint.FailSend();
        failing.ExpectEnd(StreamEnd.EndpointReset);
        Assert.Equal(["Connect 1 :9000", "Close 1"], bench.Frames());
    });

    [Fact]
    public void A_reset_breaks_the_stream_and_its_endpoint() => RunServer(bench =>
    {
        var visitor = bench.Open(new FakeEndpoint { IsStalled = true });
        bench.PutData(1, "never to arrive");
        bench.Pump.Reset(visitor.Key);
        visitor.ExpectEnd(StreamEnd.Cancelled);
        Assert.True(visitor.Endpoint.IsAborted);
        Assert.Equal(["Connect 1 :9000", "Close 1"], bench.Frames());
    });

    [Fact]
    public void At_the_limit_of_streams_one_more_visitor_is_refused_and_the_session_goes_on() => RunServer(
        bench =>
        {
            var first = bench.Open();
            var endpoint = new FakeEndpoint();
            var owner = CreateTestProbe();
            bench.Pump.Open(new StreamRequest(9000), endpoint, owner);
            Assert.Equal(StreamEnd.Cancelled, owner.ExpectMsg<PumpEvents.StreamEnded>().End);
            Assert.True(endpoint.IsAborted);

            first.Feed("fine");
            Assert.Equal(["Connect 1 :9000", "Data 1 fine"], bench.Frames());
        },
        new V1SessionOptions { MaxStreams = 1 });

    [Fact]
    public void A_close_of_the_peer_is_followed_by_a_wait_for_the_visitor_to_finish() => RunServer(bench =>
    {
        var visitor = bench.Open();
        bench.Frames();
        bench.PutData(1, "the reply");
        bench.PutClose(1);
        Assert.True(visitor.Endpoint.IsFinished);
        Assert.False(visitor.Endpoint.IsGone);

        // What it still says has no reader.
        visitor.Feed("too late");
        Assert.Empty(bench.Frames());
        visitor.Endpoint.FeedEnd();
        Assert.True(visitor.Endpoint.IsDisposed);
        visitor.ExpectEnd(StreamEnd.Completed);
    });

    [Fact]
    public void A_visitor_that_never_finishes_is_closed_after_a_while() => RunServer(bench =>
    {
        var visitor = bench.Open();
        bench.PutClose(1);
        Time.Advance(Timeouts.Linger - TimeSpan.FromMilliseconds(1));
        Assert.False(visitor.Endpoint.IsGone);
        Time.Advance(TimeSpan.FromMilliseconds(1));
        Assert.True(visitor.Endpoint.IsDisposed);
        visitor.ExpectEnd(StreamEnd.Completed);
    });

    [Fact]
    public void A_visitor_that_sends_without_end_does_not_hold_the_pump()
    {
        // Not on the calling thread, which the endless visitor would keep for itself.
        var session = CreateTestProbe();
        var (pump, wire) = Flow.FromGraph(new SessionPumpStage<V1Message>(new V1Session(V1Role.Server), session, TestMetrics.Server, TimeProvider.System))
            .JoinMaterialized(Flow.FromGraph(new ManualWireStage<V1Message>()), Keep.Both)
            .Run(Sys.Materializer());
        var owner = CreateTestProbe();
        var visitor = new FakeEndpoint();
        pump.Open(new StreamRequest(9000), visitor, owner);
        owner.ExpectMsg<PumpEvents.StreamOpened>();
        pump.SendControl(new ListenOk(1));
        visitor.EndlessBytes = int.MaxValue;
        visitor.Feed(1);
        wire.Put(new V1Message(V1MessageType.Close, 1));
        wire.Put(new V1Message(V1MessageType.Listen, Port: 9001));
        session.ExpectMsg<PumpEvents.ControlReceived>();

        Time.Advance(Timeouts.Linger);
        Assert.Equal(StreamEnd.Completed, owner.ExpectMsg<PumpEvents.StreamEnded>().End);
    }

    [Fact]
    public void What_is_left_of_a_finished_stream_waits_for_a_slow_visitor_but_not_for_a_dead_one() => RunServer(bench =>
    {
        var visitor = bench.Open(new FakeEndpoint { IsStalled = true });
        bench.PutData(1, "one");
        bench.PutData(1, new byte[20_000]);
        bench.PutClose(1);

        Time.Advance(Timeouts.TailStall - TimeSpan.FromMilliseconds(1));
        visitor.Endpoint.CompleteSend();
        Time.Advance(Timeouts.TailStall);
        Assert.False(visitor.Endpoint.IsGone);
        Time.Advance(Timeouts.TailStall);
        Assert.True(visitor.Endpoint.IsAborted);
        visitor.ExpectEnd(StreamEnd.EndpointReset);
    });

    [Fact]
    public void A_stream_that_goes_on_may_stall_for_ever() => RunServer(bench =>
    {
        var visitor = bench.Open(new FakeEndpoint { IsStalled = true });
        bench.PutData(1, "one");
        Pass(TimeSpan.FromHours(5), TimeSpan.FromMinutes(1));
        Assert.False(visitor.Endpoint.IsGone);
        visitor.Endpoint.CompleteSend();
        Assert.Equal("one", visitor.SentText);
    });

    [Fact]
    public void What_finished_visitors_leave_unread_pauses_the_session_before_it_fills_memory() => RunServer(bench =>
    {
        var visitors = new List<OpenStream>();
        var piece = new byte[32 * 1024];
        uint id = 0;
        while (!bench.Pump.IsReceivePaused)
        {
            Assert.True(++id < 100, "The session is never paused.");
            var visitor = bench.Open(new FakeEndpoint { IsStalled = true });
            visitors.Add(visitor);
            for (var i = 0; i < 30; i++)
                bench.PutData(id, piece);
            visitor.Endpoint.FeedEnd();
        }

        // The bound, and what one stream may hold beyond it.
        Assert.InRange(visitors.Count * 30L * piece.Length, 8 * 1024 * 1024, 18 * 1024 * 1024);

        foreach (var visitor in visitors)
        {
            visitor.Endpoint.IsStalled = false;
            visitor.Endpoint.CompleteSend();
            Assert.Equal(30 * piece.Length, visitor.Endpoint.Sent.Length);
            visitor.ExpectEnd(StreamEnd.Completed);
        }

        Assert.False(bench.Pump.IsReceivePaused);
    });

    [Fact]
    public void A_target_that_connects_after_the_peer_closed_gets_the_tail() => RunClient(bench =>
    {
        var key = bench.Request(1);
        bench.PutData(1, "all of it");
        bench.PutClose(1);
        var target = bench.Attach(key);
        Assert.Equal("all of it", target.SentText);
        Assert.True(target.Endpoint.IsFinished);
        target.Endpoint.FeedEnd();
        target.ExpectEnd(StreamEnd.Completed);
    });

    [Fact]
    public void A_target_that_stalls_on_the_tail_it_came_late_for_is_given_up() => RunClient(bench =>
    {
        var key = bench.Request(1);
        bench.PutData(1, "all of it");
        bench.PutClose(1);
        var target = bench.Attach(key, new FakeEndpoint { IsStalled = true });
        Time.Advance(Timeouts.TailStall);
        target.ExpectEnd(StreamEnd.EndpointReset);
    });

    [Fact]
    public void A_refused_stream_is_closed_and_what_came_for_it_released() => RunClient(bench =>
    {
        var key = bench.Request(1);
        bench.PutData(1, "for nobody");
        bench.Pump.Reset(key);
        Assert.Equal(["Close 1"], bench.Frames());
        bench.PutData(1, "still for nobody");
        Assert.Empty(bench.Frames());
    });

    [Fact]
    public void A_target_for_a_stream_that_is_gone_is_closed_and_its_owner_told() => RunClient(bench =>
    {
        var key = bench.Request(1);
        bench.Pump.Reset(key);
        var late = bench.Attach(key);
        Assert.True(late.Endpoint.IsAborted);
        late.ExpectEnd(StreamEnd.PeerReset);
    });

    [Fact]
    public void An_id_used_again_leaves_the_tail_of_its_last_stream_alone() => RunClient(bench =>
    {
        var first = bench.RequestAndAttach(7, new FakeEndpoint { IsStalled = true });
        bench.PutData(7, "old one, ");
        bench.PutData(7, "old two");
        first.Endpoint.FeedEnd();
        Assert.Equal(["Close 7"], bench.Frames());

        var second = bench.RequestAndAttach(7);
        Assert.NotEqual(first.Key, second.Key);
        bench.PutData(7, "new");
        second.Feed("reply");
        Assert.Equal("new", second.SentText);
        Assert.Equal(["Data 7 reply"], bench.Frames());

        first.Endpoint.IsStalled = false;
        first.Endpoint.CompleteSend();
        Assert.Equal("old one, old two", first.SentText);
        Assert.Equal(16, first.ExpectEnd(StreamEnd.Completed).BytesIn);

        bench.PutData(7, "er");
        Assert.Equal("newer", second.SentText);
    });

    [Fact]
    public void What_comes_late_for_a_stream_does_not_reach_the_next_one_of_its_id() => RunClient(bench =>
    {
        var first = bench.Request(7);
        bench.Pump.Reset(first);
        bench.Frames();
        var second = bench.Request(7);

        bench.Pump.Reset(first);
        Assert.Empty(bench.Frames());
        var late = bench.Attach(first);
        late.ExpectEnd(StreamEnd.PeerReset);

        bench.PutData(7, "for the second");
        Assert.Equal("for the second", bench.Attach(second).SentText);
    });

    [Fact]
    public void A_requested_stream_whose_id_the_peer_reuses_is_cancelled() => RunClient(bench =>
    {
        var key = bench.Request(3);
        bench.Wire.Put(new V1Message(V1MessageType.Connect, 3, 9000));
        Assert.Equal(key, bench.Session.ExpectMsg<PumpEvents.StreamCancelled>().Key);
        Assert.Equal(["Close 3"], bench.Frames());
    });

    [Fact]
    public void A_stream_that_ended_before_its_target_was_there_is_over_when_its_id_is_used_again() => RunClient(bench =>
    {
        var first = bench.Request(5);
        bench.PutClose(5);
        bench.Wire.Put(new V1Message(V1MessageType.Connect, 5, 9000));
        Assert.Equal(first, bench.Session.ExpectMsg<PumpEvents.StreamCancelled>().Key);
        var second = bench.Session.ExpectMsg<PumpEvents.StreamRequested>().Key;

        var late = bench.Attach(first);
        Assert.True(late.Endpoint.IsAborted);
        late.ExpectEnd(StreamEnd.PeerReset);
        bench.PutData(5, "for the second");
        Assert.Equal("for the second", bench.Attach(second).SentText);
    });

    [Fact]
    public void Streams_send_in_turns() => RunServer(bench =>
    {
        bench.Wire.TakesAll = false;
        var visitors = Enumerable.Range(0, 8).Select(_ => bench.Open()).ToArray();
        foreach (var visitor in visitors)
        {
            for (var i = 0; i < 20; i++)
                visitor.Endpoint.Feed(new byte[32 * 1024]);
        }

        bench.Wire.TakesAll = true;
        var order = bench.Frames().Where(frame => frame.StartsWith("Data", StringComparison.Ordinal)).Select(frame => frame.Split(' ')[1]).ToArray();

        // While all of them have something, nobody is served twice before everybody was served once.
        foreach (var turn in order.Take(8 * 15).Chunk(8).Skip(1))
            Assert.Equal(8, turn.Distinct().Count());
    });

    [Fact]
    public void An_idle_stream_holds_no_memory() => RunServer(bench =>
    {
        using var books = ChunkLedger.Open();
        var visitor = bench.Open();
        Assert.Equal(0, books.Outstanding);
        visitor.Feed("something");
        bench.Frames();
        Assert.True(visitor.Endpoint.IsReceiving);
        Assert.Equal(0, visitor.Endpoint.ReceiveBufferBytes);
        Assert.Equal(0, books.Outstanding);
    });

    [Fact]
    public void A_busy_stream_is_read_in_whole_messages_without_asking_first() => RunServer(bench =>
    {
        var visitor = bench.Open();
        visitor.Endpoint.Feed(new byte[4 * 1024 * 1024]);
        var messages = bench.Frames().Count(frame => frame == "Data 1 (32768)");
        Assert.True(messages >= 126, $"{messages} whole messages");

        // Growing takes a few reads; after that every read is a message.
        Assert.InRange(visitor.Endpoint.ReceiveCount, messages, messages + 10);
    });

    [Fact]
    public void The_end_of_the_session_ends_every_stream_and_tells_its_owner() => RunServer(bench =>
    {
        var idle = bench.Open();
        var stalled = bench.Open(new FakeEndpoint { IsStalled = true });
        bench.PutData(2, "unread");
        var lost = new SessionProtocolException(SessionError.ConnectionLost, "the connection was lost");
        bench.Wire.Close(lost);
        idle.ExpectEnd(StreamEnd.SessionEnded);
        stalled.ExpectEnd(StreamEnd.SessionEnded);
        Assert.True(idle.Endpoint.IsAborted);
        Assert.True(stalled.Endpoint.IsAborted);
        Assert.Same(lost, bench.ExpectPumpEnded());
    });

    [Fact]
    public void Commands_after_the_end_close_their_endpoints_and_tell_their_owners() => RunClient(bench =>
    {
        var key = bench.Request(1);
        bench.Wire.Close();
        Assert.Null(bench.ExpectPumpEnded());

        bench.Attach(key).ExpectEnd(StreamEnd.SessionEnded);
        var visitor = new FakeEndpoint();
        var owner = CreateTestProbe();
        bench.Pump.Open(new StreamRequest(9000), visitor, owner);
        Assert.Equal(StreamEnd.SessionEnded, owner.ExpectMsg<PumpEvents.StreamEnded>().End);
        Assert.True(visitor.IsAborted);
        bench.Pump.Reset(key);
        bench.Pump.SendPing();
        bench.Pump.SendControl(new Listen(9000));
    });

    [Fact]
    public void A_stop_sends_what_finished_streams_left_behind() => RunServer(bench =>
    {
        var visitor = bench.Open();
        visitor.Feed("the last words");
        bench.Wire.TakesAll = false;
        bench.Pump.SendPing();
        visitor.Endpoint.FeedEnd();
        visitor.ExpectEnd(StreamEnd.Completed);

        bench.Pump.Stop(PumpBench.Shutdown);
        Assert.False(bench.Wire.IsFinished);
        bench.Wire.TakesAll = true;
        Assert.Equal(["Connect 1 :9000", "Data 1 the last words", "Pong", "Close 1"], bench.Frames());
        Assert.True(bench.Wire.IsFinished);
        Assert.Same(PumpBench.Shutdown, bench.Wire.Failure);
    });

    [Fact]
    public void A_stop_breaks_streams_that_still_run_and_tells_the_peer() => RunServer(bench =>
    {
        var visitor = bench.Open();
        bench.Frames();
        bench.Pump.Stop(PumpBench.Shutdown);
        visitor.ExpectEnd(StreamEnd.SessionEnded);
        Assert.Equal(["Close 1"], bench.Frames());
        Assert.Same(PumpBench.Shutdown, bench.ExpectPumpEnded());
    });

    [Fact]
    public void A_peer_that_does_not_read_holds_a_stop_up_for_a_moment_only() => RunServer(bench =>
    {
        bench.Wire.TakesAll = false;
        bench.Open();
        bench.Open();
        bench.Pump.Stop(PumpBench.Shutdown);
        Time.Advance(Timeouts.Flush - TimeSpan.FromMilliseconds(1));
        Assert.False(bench.Wire.IsFinished);
        Time.Advance(TimeSpan.FromMilliseconds(1));
        Assert.True(bench.Wire.IsFinished);
    });

    [Fact]
    public void Streams_that_the_peer_opens_during_a_stop_are_refused() => RunClient(bench =>
    {
        bench.Wire.TakesAll = false;
        bench.RequestAndAttach(1);
        bench.Pump.SendPing();
        bench.Pump.Stop(PumpBench.Shutdown);
        bench.Wire.Put(new V1Message(V1MessageType.Connect, 2, 9000));
        bench.Wire.TakesAll = true;
        Assert.Equal(["Ping", "Close 1", "Close 2"], bench.Frames());
    });

    [Fact]
    public void The_stage_stays_until_the_carrier_has_said_goodbye()
    {
        var session = CreateTestProbe();
        var (pump, wire) = Flow.FromGraph(new SessionPumpStage<V1Message>(new V1Session(V1Role.Client), session, TestMetrics.Server, TimeProvider.System))
            .JoinMaterialized(Flow.FromGraph(new ManualWireStage<V1Message>(closesWhenFinished: false)), Keep.Both)
            .Run(CallingThreadMaterializer());
        pump.Stop(PumpBench.Shutdown);
        Assert.Same(PumpBench.Shutdown, wire.Failure);
        session.ExpectNoMsg(TimeSpan.Zero);
        wire.Put(new V1Message(V1MessageType.Pong));
        wire.Close();
        Assert.Same(PumpBench.Shutdown, session.ExpectMsg<PumpEvents.PumpEnded>().Cause);
    }

    [Fact]
    public void What_comes_while_the_carrier_says_goodbye_is_dropped()
    {
        using var books = ChunkLedger.Open();
        var session = CreateTestProbe();
        var (pump, wire) = Flow.FromGraph(new SessionPumpStage<V1Message>(new V1Session(V1Role.Client), session, TestMetrics.Server, TimeProvider.System))
            .JoinMaterialized(Flow.FromGraph(new ManualWireStage<V1Message>(closesWhenFinished: false)), Keep.Both)
            .Run(CallingThreadMaterializer());
        pump.Stop(PumpBench.Shutdown);
        for (var i = 0; i < 3; i++)
            wire.Put(new V1Message(V1MessageType.Data, 1, Payload: ByteChunk.Copy([1, 2, 3])));
        Assert.Equal(0, wire.WaitingCount);
        Assert.Equal(0, books.Outstanding);
        wire.Close();
        session.ExpectMsg<PumpEvents.PumpEnded>();
    }

    [Fact]
    public void What_has_arrived_whole_is_delivered_after_the_end_of_the_session() => RunServer(bench =>
    {
        var whole = bench.Open(new FakeEndpoint { IsStalled = true });
        var partial = bench.Open(new FakeEndpoint { IsStalled = true });
        bench.PutData(1, "all ");
        bench.PutData(1, "of it");
        bench.PutClose(1);
        bench.PutData(2, "the beginning");
        var lost = new SessionProtocolException(SessionError.ConnectionLost, "the connection was lost");
        bench.Wire.Close(lost);
        partial.ExpectEnd(StreamEnd.SessionEnded);
        bench.Session.ExpectMsg<PumpEvents.SessionOver>();

        whole.Endpoint.IsStalled = false;
        whole.Endpoint.CompleteSend();
        Assert.Equal("all of it", whole.SentText);
        Assert.True(whole.Endpoint.IsFinished);
        whole.Endpoint.FeedEnd();
        whole.ExpectEnd(StreamEnd.Completed);
        Assert.Same(lost, bench.ExpectPumpEnded());
    });

    [Fact]
    public void A_visitor_that_stalls_is_given_up_after_the_end_of_the_session_as_before_it() => RunServer(bench =>
    {
        var visitor = bench.Open(new FakeEndpoint { IsStalled = true });
        bench.PutData(1, "never taken");
        bench.PutClose(1);
        bench.Wire.Close();
        bench.Session.ExpectMsg<PumpEvents.SessionOver>();
        Time.Advance(Timeouts.TailStall);
        visitor.ExpectEnd(StreamEnd.EndpointReset);
        Assert.True(visitor.Endpoint.IsAborted);
        Assert.Null(bench.ExpectPumpEnded());
    });

    [Fact]
    public void A_stop_lets_whole_streams_be_delivered_and_gives_the_peer_the_reason_all_the_same() => RunServer(bench =>
    {
        var visitor = bench.Open(new FakeEndpoint { IsStalled = true });
        bench.PutData(1, "all of it");
        bench.PutClose(1);
        bench.Pump.Stop(PumpBench.Shutdown);
        Assert.Same(PumpBench.Shutdown, bench.Wire.Failure);
        Assert.False(visitor.Endpoint.IsGone);

        visitor.Endpoint.CompleteSend();
        Time.Advance(Timeouts.Linger);
        visitor.ExpectEnd(StreamEnd.Completed);
    });

    [Fact]
    public void A_visitor_that_has_everything_is_not_reset_by_the_end_of_the_session() => RunServer(bench =>
    {
        var visitor = bench.Open();
        bench.PutData(1, "all of it");
        bench.PutClose(1);
        bench.Wire.Close();
        visitor.ExpectEnd(StreamEnd.SessionEnded);
        Assert.True(visitor.Endpoint.IsDisposed);
    });

    [Fact]
    public void Commands_while_the_last_streams_are_delivered_are_refused() => RunServer(bench =>
    {
        bench.Open(new FakeEndpoint { IsStalled = true });
        bench.PutData(1, "slowly");
        bench.PutClose(1);
        bench.Wire.Close();
        bench.Session.ExpectMsg<PumpEvents.SessionOver>();
        var late = new FakeEndpoint();
        var owner = CreateTestProbe();
        bench.Pump.Open(new StreamRequest(9000), late, owner);
        Assert.Equal(StreamEnd.SessionEnded, owner.ExpectMsg<PumpEvents.StreamEnded>().End);
        Assert.True(late.IsAborted);
        bench.Pump.SendPing();
        bench.Pump.Stop(null);
        Time.Advance(Timeouts.TailStall);
    });

    [Fact]
    public void A_peer_that_breaks_the_protocol_is_told_so()
    {
        var session = CreateTestProbe();
        var (_, wire) = Flow.FromGraph(new SessionPumpStage<ByteSlice>(new V2Session(MuxRole.Acceptor, new Hello("test", "1", [])), session, TestMetrics.Server, TimeProvider.System))
            .JoinMaterialized(Flow.FromGraph(new ManualWireStage<ByteSlice>()), Keep.Both)
            .Run(CallingThreadMaterializer());
        wire.Put(ByteChunk.Copy(Encoding.ASCII.GetBytes("this is no frame of yamux")));
        var cause = Assert.IsType<SessionProtocolException>(session.ExpectMsg<PumpEvents.PumpEnded>().Cause);
        Assert.Equal(SessionError.ProtocolViolation, cause.Code);
        Assert.Same(cause, wire.Failure);

        // Type 3 is go-away; its code 1 says protocol error.
        var goAway = wire.Taken[^1].Span;
        Assert.Equal(3, goAway[1]);
        Assert.Equal(1, goAway[^1]);
    }

    [Fact]
    public void A_write_that_completes_while_the_session_ends_is_followed_by_the_next() => RunServer(bench =>
    {
        // Stream 1 is any other stream; while the end of the session aborts it, the send of stream 2 completes elsewhere.
        var slow = new FakeEndpoint { IsStalled = true };
        bench.OpenAny(new EndpointThatTells(new FakeEndpoint(), slow.CompleteSend));
        var delivered = bench.Open(slow);
        bench.PutData(2, "first ");
        bench.PutData(2, "second");
        bench.PutClose(2);
        bench.Wire.Close();
        bench.Session.ExpectMsg<PumpEvents.SessionOver>();
        slow.CompleteSend();
        Assert.Equal("first second", delivered.SentText);
        Assert.True(slow.IsFinished);
        slow.FeedEnd();
        delivered.ExpectEnd(StreamEnd.Completed);
    });

    [Fact]
    public void What_waits_for_visitors_counts_after_both_ends_have_finished()
    {
        var clock = new FakeTimeProvider();
        var options = new MuxOptions { SendQuantumBytes = (256 * 1024) - ByteChunk.Headroom, MaxStreamWindowBytes = 2 << 20, MaxSessionWindowBytes = 4 << 20 };
        var session = CreateTestProbe();
        var (pump, wire) = Flow.FromGraph(new SessionPumpStage<ByteSlice>(
                new V2Session(MuxRole.Acceptor, new Hello("test", "1", []), options), session, TestMetrics.Server, clock))
            .JoinMaterialized(Flow.FromGraph(new ManualWireStage<ByteSlice>()), Keep.Both)
            .Run(CallingThreadMaterializer());
        var peer = new V2Session(MuxRole.Dialer, new Hello("test", "1", []), options);
        var endpoints = new List<FakeEndpoint>();
        long sent = 0;

        Exchange();
        Exchange();
        for (var i = 0; i < 8; i++)
        {
            var id = peer.Open(new StreamRequest(9000));
            Exchange();
            var endpoint = new FakeEndpoint();
            endpoints.Add(endpoint);
            pump.Attach(session.FishForMessage<PumpEvents.StreamRequested>(_ => true).Key, endpoint, CreateTestProbe());

            // The visitor reads fast, so that his window grows, then no more, until both ends have finished.
            for (var round = 0; round < 6; round++)
                SendAll(id);
            endpoint.IsStalled = true;
            SendAll(id);
            SendAll(id);
            peer.Finish(id);
            endpoint.FeedEnd();
            Exchange();
            Exchange();
        }

        Assert.InRange(Held(), 4 << 20, options.MaxSessionWindowBytes + (9 * 256 * 1024));
        foreach (var endpoint in endpoints)
        {
            endpoint.IsStalled = false;
            while (endpoint.IsSending)
                endpoint.CompleteSend();
        }

        Assert.Equal(0, Held());
        pump.Stop(null);

        long Held() => sent - endpoints.Sum(endpoint => (long)endpoint.Sent.Length);

        void SendAll(uint id)
        {
            while (peer.SendAllowance(id) is > 0 and var allowance)
            {
                peer.Send(id, new ByteSlice(ByteChunk.Rent(ByteChunk.Headroom + allowance), ByteChunk.Headroom, allowance));
                sent += allowance;
                Push();
            }

            Exchange();
        }

        void Push()
        {
            while (peer.TryTakeFrame(out var frame))
                wire.Put(frame);
        }

        void Exchange()
        {
            Push();
            clock.Advance(TimeSpan.FromMilliseconds(50));
            peer.Now += TimeSpan.FromMilliseconds(50);
            var taken = wire.Taken.ToArray();
            wire.Taken.Clear();
            foreach (var frame in taken)
                peer.Receive(frame);
            while (peer.TryTakeEvent(out var happened))
                happened.Payload.Release();
            Push();
        }
    }

    [Fact]
    public void A_peer_that_asks_faster_than_the_session_answers_is_read_no_further() => RunServer(bench =>
    {
        var asked = 0;
        for (; bench.Wire.IsWanted; asked++)
            bench.Wire.Put(new V1Message(V1MessageType.Listen, Port: 9000, Text: "localhost:80"));
        Assert.Equal(1024, asked);
        Assert.True(bench.Pump.IsReceivePaused);

        for (var handled = 0; handled < 511; handled++)
            bench.Pump.ConfirmHandled();
        Assert.False(bench.Wire.IsWanted);
        bench.Pump.ConfirmHandled();
        Assert.True(bench.Wire.IsWanted);
        Assert.False(bench.Pump.IsReceivePaused);
    });

    [Fact]
    public void A_peer_that_opens_and_closes_faster_than_the_session_hears_of_it_is_read_no_further() => RunClient(bench =>
    {
        var opened = 0u;
        for (; bench.Wire.IsWanted && opened < 10_000; opened++)
        {
            bench.Wire.Put(new V1Message(V1MessageType.Connect, opened + 1, 80));
            bench.PutClose(opened + 1);
        }

        Assert.Equal(1024u, opened);
    });

    [Fact]
    public void A_fault_of_the_protocol_code_ends_the_session_and_nothing_else()
    {
        var session = CreateTestProbe();
        var owner = CreateTestProbe();
        var visitor = new FakeEndpoint();
        var (pump, wire) = Flow.FromGraph(new SessionPumpStage<V1Message>(new V1Session(V1Role.Server), session, TestMetrics.Server, TimeProvider.System))
            .JoinMaterialized(Flow.FromGraph(new ManualWireStage<V1Message>()), Keep.Both)
            .Run(CallingThreadMaterializer());
        pump.Open(new StreamRequest(9000), visitor, owner);

        // A port that the protocol refuses with an exception stands for any fault.
        pump.Open(new StreamRequest(0), new FakeEndpoint(), CreateTestProbe());
        Assert.IsType<ArgumentOutOfRangeException>(session.ExpectMsg<PumpEvents.PumpEnded>().Cause);
        Assert.True(visitor.IsAborted);
        Assert.True(wire.IsFinished);
    }

    [Fact]
    public void An_end_of_the_materializer_closes_every_endpoint()
    {
        var materializer = CallingThreadMaterializer();
        var session = CreateTestProbe();
        var owner = CreateTestProbe();
        var visitor = new FakeEndpoint();
        var pump = Flow.FromGraph(new SessionPumpStage<V1Message>(new V1Session(V1Role.Server), session, TestMetrics.Server, TimeProvider.System))
            .JoinMaterialized(Flow.FromGraph(new ManualWireStage<V1Message>()), Keep.Left)
            .Run(materializer);
        pump.Open(new StreamRequest(9000), visitor, owner);
        owner.ExpectMsg<PumpEvents.StreamOpened>();
        ((ActorMaterializer)materializer).Shutdown();
        Assert.Equal(StreamEnd.SessionEnded, owner.ExpectMsg<PumpEvents.StreamEnded>().End);
        Assert.True(visitor.IsAborted);
        session.ExpectMsg<PumpEvents.PumpEnded>();
    }

    private sealed class EndpointThatTells(StreamEndpoint inner, Action whenAborted) : DelegatingEndpoint(inner)
    {
        public override void Abort()
        {
            whenAborted();
            base.Abort();
        }
    }
}
