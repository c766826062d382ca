using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Protocol.V1;

namespace VTunnel.Protocol.Tests.V1;

public sealed class V1SessionTests
{
    [Fact]
    public void Streams_are_numbered_from_1_and_announced_before_their_data() =>
        TestedSession.Run(V1Role.Server, server =>
        {
            Assert.Equal(1u, server.Open(9000));
            Assert.Equal(2u, server.Open(9001));
            server.Send(2, "two");
            server.Send(1, "one");
            Assert.Equal(["Connect 1 :9000", "Connect 2 :9001", "Data 2 two", "Data 1 one"], server.Frames());
            Assert.Equal(["Writable 2", "Writable 1"], server.Events());
            Assert.Equal(2, server.Session.StreamCount);
        });

    [Fact]
    public void After_the_last_number_0_and_numbers_in_use_are_left_out() =>
        TestedSession.Run(V1Role.Server, server =>
        {
            server.Open();
            server.Open();
            server.Session.LastStreamId = uint.MaxValue - 1;
            Assert.Equal(uint.MaxValue, server.Open());
            Assert.Equal(3u, server.Open());
        });

    [Fact]
    public void A_number_is_in_use_until_its_close_was_taken_and_its_last_bytes_consumed() =>
        TestedSession.Run(V1Role.Server, server =>
        {
            server.Open();
            server.Open();
            server.Frames();
            server.Session.Reset(1);
            server.ReceiveData(2, "rest");
            server.ReceiveClose(2);
            server.Session.LastStreamId = 0;
            Assert.Equal(3u, server.Open());

            Assert.Equal(["Close 1", "Connect 3 :9000"], server.Frames());
            server.Session.Consumed(2, 4);
            server.Session.LastStreamId = 0;
            Assert.Equal(1u, server.Open());
            Assert.Equal(2u, server.Open());
            server.Events();
        });

    [Fact]
    public void Only_the_server_opens_streams() =>
        TestedSession.Run(V1Role.Client, client => Assert.Throws<InvalidOperationException>(() => client.Open()));

    [Theory]
    [InlineData(0)]
    [InlineData(-1)]
    [InlineData(65536)]
    public void A_stream_is_opened_for_a_port_that_can_be(int port) =>
        TestedSession.Run(V1Role.Server, server =>
        {
            Assert.Throws<ArgumentOutOfRangeException>(() => server.Open(port));
            Assert.Equal(0, server.Session.StreamCount);
            Assert.Empty(server.Frames());
        });

    [Fact]
    public void No_more_streams_are_opened_than_allowed() =>
        TestedSession.Run(V1Role.Server, new V1SessionOptions { MaxStreams = 2 }, server =>
        {
            server.Open();
            server.Open();
            Assert.Equal(0u, server.Open());
            Assert.Equal(["Connect 1 :9000", "Connect 2 :9000"], server.Frames());
            server.ReceiveClose(1);
            Assert.Equal(3u, server.Open());
        });

    [Fact]
    public void A_connect_opens_a_stream_on_the_client() =>
        TestedSession.Run(V1Role.Client, client =>
        {
            client.Receive("{\"type\":\"connect\",\"stream_id\":17,\"port\":9000}");
            Assert.Equal(["Opened 17 :9000"], client.Events());
            Assert.Equal(1, client.Session.StreamCount);

            client.Session.Accept(17);
            Assert.Empty(client.Frames());

            client.Send(17, "hello");
            client.ReceiveData(17, "hi");
            Assert.Equal(["Data 17 hello"], client.Frames());
            Assert.Equal(["Data 17 hi", "Writable 17"], client.Events());
        });

    [Theory]
    [InlineData(-1)]
    [InlineData(65536)]
    [InlineData(0)]
    public void A_connect_for_a_port_that_cannot_be_is_answered_close(int port) =>
        TestedSession.Run(V1Role.Client, client =>
        {
            client.ReceiveConnect(1, port);
            Assert.Empty(client.Events());
            Assert.Equal(["Close 1"], client.Frames());
            Assert.Equal(0, client.Session.StreamCount);
        });

    [Fact]
    public void A_target_that_cannot_be_reached_is_answered_close() =>
        TestedSession.Run(V1Role.Client, client =>
        {
            client.ReceiveConnect(1);
            client.ReceiveData(1, "already on its way");
            client.Session.Reset(1);
            Assert.Equal(["Close 1"], client.Frames());
            Assert.Equal(["Opened 1 :9000", "Data 1 already on its way"], client.Events());
            Assert.Equal(0, client.Session.StreamCount);
        });

    [Fact]
    public void Connects_beyond_the_allowed_number_are_answered_close_and_the_others_go_on() =>
        TestedSession.Run(V1Role.Client, new V1SessionOptions { MaxStreams = 2 }, client =>
        {
            client.ReceiveConnect(1);
            client.ReceiveConnect(2);
            client.ReceiveConnect(3);
            client.ReceiveData(3, "lost");
            client.ReceiveData(2, "kept");
            Assert.Equal(["Opened 1 :9000", "Opened 2 :9000", "Data 2 kept"], client.Events());
            Assert.Equal(["Close 3"], client.Frames());

            client.ReceiveClose(1);
            client.ReceiveConnect(4);
            Assert.Equal(["Closed 1", "Opened 4 :9000"], client.Events());
        });

    [Fact]
    public void Streams_that_ended_with_bytes_unread_count_as_streams_so_that_opening_and_closing_is_no_way_round_the_limit() =>
        TestedSession.Run(V1Role.Client, new V1SessionOptions { MaxStreams = 2 }, client =>
        {
            for (uint id = 1; id <= 3; id++)
            {
                client.ReceiveConnect(id);
                client.ReceiveData(id, "x");
                client.ReceiveClose(id);
            }

            Assert.Equal(["Opened 1 :9000", "Data 1 x", "Closed 1", "Opened 2 :9000", "Data 2 x", "Closed 2"], client.Events());
            Assert.Equal(["Close 3"], client.Frames());
            Assert.Equal(2, client.Session.StreamCount);
        });

    [Fact]
    public void A_server_is_not_connected_to_by_its_client() =>
        TestedSession.Run(V1Role.Server, server =>
        {
            server.ReceiveConnect(7);
            server.ReceiveConnect(server.Open());
            Assert.Empty(server.Events());
            Assert.Equal(["Connect 1 :9000"], server.Frames());
            Assert.Equal(1, server.Session.StreamCount);
        });

    [Fact]
    public void An_id_reused_while_its_stream_is_open_ends_the_old_stream_and_the_new_one() =>
        TestedSession.Run(V1Role.Client, client =>
        {
            client.ReceiveConnect(5, 9000);
            client.ReceiveConnect(6, 9000);
            client.ReceiveData(5, "old visitor");
            client.Send(5, "for the old visitor");
            client.ReceiveConnect(5, 9001);
            client.ReceiveData(5, "new visitor");
            client.ReceiveConnect(5, 9002);

            // Neither visitor's bytes reach the other's target, nor the other way round; another stream does not notice.
            Assert.Equal(["Opened 5 :9000", "Opened 6 :9000", "Data 5 old visitor", "Reset 5"], client.Events());
            Assert.Equal(["Close 5"], client.Frames());
            Assert.Equal(0, client.Session.SendAllowance(5));
            client.Send(6, "other");
            Assert.Equal(["Data 6 other"], client.Frames());
            client.Events();

            // Both ends have ended it now: the id is free.
            client.ReceiveConnect(5, 9001);
            Assert.Equal(["Opened 5 :9001"], client.Events());
        });

    [Fact]
    public void An_id_reused_while_this_side_is_ending_its_stream_gets_nothing_of_what_was_queued() =>
        TestedSession.Run(V1Role.Client, client =>
        {
            client.ReceiveConnect(5);
            client.Send(5, "for the old visitor");
            client.Session.Finish(5);
            client.ReceiveConnect(5);
            Assert.Equal(["Opened 5 :9000"], client.Events());
            Assert.Equal(["Close 5"], client.Frames());
            Assert.Equal(0, client.Session.StreamCount);
        });

    [Fact]
    public void An_id_reused_while_the_old_stream_s_last_bytes_are_being_read_is_refused_and_the_bytes_stay() =>
        TestedSession.Run(V1Role.Client, client =>
        {
            client.ReceiveConnect(5);
            client.ReceiveData(5, "last");
            client.ReceiveClose(5);
            client.ReceiveConnect(5);
            client.ReceiveData(5, "new visitor");
            Assert.Equal(["Opened 5 :9000", "Data 5 last", "Closed 5"], client.Events());
            Assert.Equal(["Close 5"], client.Frames());

            client.Session.Consumed(5, 4);
            Assert.Equal(0, client.Session.StreamCount);
            client.ReceiveConnect(5);
            Assert.Equal(["Opened 5 :9000"], client.Events());
        });

    [Fact]
    public void Data_and_close_for_unknown_streams_are_ignored() =>
        TestedSession.Run(V1Role.Server, server =>
        {
            server.ReceiveData(99, "late");
            server.ReceiveClose(99);
            server.Receive("{\"type\":\"data\",\"stream_id\":4294967295,\"data\":\"YWJj\"}");
            Assert.Empty(server.Events());
            Assert.Empty(server.Frames());
            Assert.True(server.Session.CanReceive);
        });

    [Theory]
    [InlineData(V1Role.Server)]
    [InlineData(V1Role.Client)]
    public void Messages_for_stream_0_are_ignored_even_if_a_reader_let_them_through(V1Role role) =>
        TestedSession.Run(role, session =>
        {
            session.ReceiveConnect(0);
            session.ReceiveData(0, "x");
            session.ReceiveClose(0);
            Assert.Empty(session.Events());
            Assert.Empty(session.Frames());
            Assert.Equal(0, session.Session.StreamCount);
        });

    [Fact]
    public void Unknown_messages_and_pong_are_ignored() =>
        TestedSession.Run(V1Role.Client, client =>
        {
            client.Receive("{\"type\":\"stats\",\"rx\":1}", "{\"type\":\"pong\"}");
            Assert.Empty(client.Events());
            Assert.Empty(client.Frames());
        });

    [Fact]
    public void An_empty_data_message_is_nothing() =>
        TestedSession.Run(V1Role.Client, client =>
        {
            client.ReceiveConnect(1);
            client.Receive("{\"type\":\"data\",\"stream_id\":1}");
            Assert.Equal(["Opened 1 :9000"], client.Events());
            client.Session.Send(1, ByteSlice.Empty);
            client.Session.Send(1, ByteChunk.Copy([]));
            Assert.Empty(client.Frames());
        });

    [Fact]
    public void One_payload_of_a_stream_waits_at_a_time() =>
        TestedSession.Run(V1Role.Server, new V1SessionOptions { MaxPayloadBytes = 10 }, server =>
        {
            var id = server.Open();
            Assert.Equal(10, server.Session.SendAllowance(id));
            server.Send(id, "a");
            Assert.Equal(0, server.Session.SendAllowance(id));
            Assert.Throws<InvalidOperationException>(() => server.Send(id, "b"));

            Assert.Equal("Connect 1 :9000", server.Frame());
            Assert.Equal(0, server.Session.SendAllowance(id));
            Assert.Empty(server.Events());
            Assert.Equal("Data 1 a", server.Frame());
            Assert.Equal(["Writable 1"], server.Events());
            Assert.Equal(10, server.Session.SendAllowance(id));

            Assert.Throws<InvalidOperationException>(() => server.Send(id, "eleven more"));
            Assert.Null(server.Frame());
        });

    [Fact]
    public void The_default_payload_is_32_KiB() =>
        TestedSession.Run(V1Role.Server, server => Assert.Equal(32 * 1024, server.Session.SendAllowance(server.Open())));

    [Fact]
    public void Nothing_is_sent_on_streams_that_are_gone() =>
        TestedSession.Run(V1Role.Server, server =>
        {
            var finished = server.Open();
            var reset = server.Open();
            var closed = server.Open();
            var tail = server.Open();
            server.Frames();
            server.Session.Finish(finished);
            server.Session.Reset(reset);
            server.ReceiveClose(closed);
            server.ReceiveData(tail, "tail");
            server.ReceiveClose(tail);
            server.Frames();

            foreach (var id in new[] { finished, reset, closed, tail, 99u })
            {
                Assert.Equal(0, server.Session.SendAllowance(id));
                server.Send(id, "late");
            }

            Assert.Empty(server.Frames());
            server.Events();
        });

    [Fact]
    public void Streams_take_turns() =>
        TestedSession.Run(V1Role.Server, server =>
        {
            for (var i = 0; i < 3; i++)
                server.Open();
            server.Frames();
            server.Send(1, "a");
            server.Send(2, "b");
            Assert.Equal("Data 1 a", server.Frame());
            server.Send(1, "c");
            server.Send(3, "d");
            Assert.Equal(["Data 2 b", "Data 1 c", "Data 3 d"], server.Frames());
            server.Events();
        });

    [Fact]
    public void What_the_session_says_goes_ahead_of_payload() =>
        TestedSession.Run(V1Role.Server, server =>
        {
            server.Open();
            server.Open();
            server.Frames();
            server.Send(1, "payload");
            server.Session.SendControl(new ListenOk(9000));
            server.Session.SendControl(new ListenErr(80, "in use"));
            server.Session.Finish(2);
            server.Open(9001);
            server.Receive("{\"type\":\"ping\"}");
            Assert.Equal(["Pong", "ListenOk :9000", "ListenErr :80 in use", "Close 2", "Connect 3 :9001", "Data 1 payload"], server.Frames());
            server.Events();
        });

    [Fact]
    public void Close_follows_the_stream_s_own_data_and_overtakes_others() =>
        TestedSession.Run(V1Role.Server, server =>
        {
            server.Open();
            server.Open();
            server.Frames();
            server.Send(1, "last words");
            server.Send(2, "something else");
            server.Session.Finish(1);
            Assert.Equal(["Data 1 last words", "Close 1", "Data 2 something else"], server.Frames());
            Assert.Equal(["Writable 2"], server.Events());
            Assert.Equal(1, server.Session.StreamCount);
        });

    [Fact]
    public void A_stream_that_begins_and_ends_before_anything_is_sent_is_sent_whole_when_it_ended_in_order() =>
        TestedSession.Run(V1Role.Server, server =>
        {
            server.Open();
            server.Send(1, "GET /");
            server.Session.Finish(1);
            Assert.Equal(1, server.Session.StreamCount);
            Assert.Equal(["Connect 1 :9000", "Data 1 GET /", "Close 1"], server.Frames());
            Assert.Equal(0, server.Session.StreamCount);
            server.Events();
        });

    [Fact]
    public void A_stream_that_breaks_before_its_connect_was_sent_is_never_mentioned() =>
        TestedSession.Run(V1Role.Server, server =>
        {
            server.Open();
            server.Open();
            server.Send(1, "lost");
            server.Session.Reset(1);
            Assert.Equal(["Connect 2 :9000"], server.Frames());

            server.Open();
            server.Session.Finish(3);
            server.Session.Reset(3);
            Assert.Empty(server.Frames());
            Assert.Equal(1, server.Session.StreamCount);
            Assert.Empty(server.Events());
        });

    [Fact]
    public void Reset_drops_what_is_queued_and_sends_close() =>
        TestedSession.Run(V1Role.Server, server =>
        {
            server.Open();
            server.Frames();
            server.Send(1, "lost");
            server.Session.Reset(1);
            Assert.Equal(["Close 1"], server.Frames());
            Assert.Empty(server.Events());
        });

    [Fact]
    public void Reset_after_Finish_drops_what_is_still_queued() =>
        TestedSession.Run(V1Role.Server, server =>
        {
            server.Open();
            server.Frames();
            server.Send(1, "lost");
            server.Session.Finish(1);
            server.Session.Reset(1);
            Assert.Equal(["Close 1"], server.Frames());
            Assert.Empty(server.Events());
        });

    [Fact]
    public void Ending_a_stream_twice_sends_close_once() =>
        TestedSession.Run(V1Role.Server, server =>
        {
            server.Open();
            server.Open();
            server.Frames();
            server.Session.Finish(1);
            server.Session.Finish(1);
            server.Session.Reset(1);
            server.Session.Reset(2);
            server.Session.Reset(2);
            server.Session.Finish(2);
            Assert.Equal(["Close 1", "Close 2"], server.Frames());
            server.Session.Finish(1);
            server.Session.Reset(2);
            server.Session.Finish(99);
            server.Session.Reset(99);
            Assert.Empty(server.Frames());
            Assert.Empty(server.Events());
        });

    [Fact]
    public void Finish_ends_both_directions() =>
        TestedSession.Run(V1Role.Client, client =>
        {
            client.ReceiveConnect(1);
            client.Session.Finish(1);
            client.ReceiveData(1, "too late");
            Assert.Equal(["Close 1"], client.Frames());
            client.ReceiveData(1, "too late");
            client.ReceiveClose(1);
            Assert.Equal(["Opened 1 :9000"], client.Events());
            Assert.False(client.Session.HasHalfClose);
        });

    [Fact]
    public void The_peer_s_close_comes_after_its_data_and_is_not_answered() =>
        TestedSession.Run(V1Role.Client, client =>
        {
            client.ReceiveConnect(1);
            client.ReceiveData(1, "a");
            client.ReceiveData(1, "b");
            client.ReceiveClose(1);
            client.ReceiveClose(1);
            client.ReceiveData(1, "after the end");
            Assert.Equal(["Opened 1 :9000", "Data 1 a", "Data 1 b", "Closed 1"], client.Events());
            client.Session.Consumed(1, 2);
            Assert.Empty(client.Frames());
            Assert.Equal(0, client.Session.StreamCount);
        });

    [Fact]
    public void What_was_queued_for_a_peer_that_closed_is_not_sent() =>
        TestedSession.Run(V1Role.Server, server =>
        {
            for (var i = 0; i < 4; i++)
                server.Open();
            Assert.Equal("Connect 1 :9000", server.Frame());
            Assert.Equal("Connect 2 :9000", server.Frame());
            Assert.Equal("Connect 3 :9000", server.Frame());
            server.Send(1, "moot");
            server.Send(2, "moot");
            server.Session.Finish(2);
            server.Session.Finish(3);
            for (uint id = 1; id <= 4; id++)
                server.ReceiveClose(id);

            // Closes crossed: none is sent, which could hit the next stream of that number. Even the fourth, which only
            // a peer that guesses can close, leaves nothing behind.
            Assert.Empty(server.Frames());
            Assert.Equal(0, server.Session.StreamCount);
            Assert.Equal(["Closed 1", "Closed 4"], server.Events());
        });

    [Fact]
    public void Pings_are_answered_by_one_pong_at_a_time() =>
        TestedSession.Run(V1Role.Server, server =>
        {
            for (var i = 0; i < 10_000; i++)
                server.Receive("{\"type\":\"ping\"}");
            Assert.Equal(["Pong"], server.Frames());
            server.Receive("{\"type\":\"ping\"}");
            Assert.Equal(["Pong"], server.Frames());
            Assert.Empty(server.Events());
        });

    [Fact]
    public void One_ping_waits_at_a_time() =>
        TestedSession.Run(V1Role.Client, client =>
        {
            client.Session.SendPing();
            client.Session.SendPing();
            Assert.Equal(["Ping"], client.Frames());
            client.Session.SendPing();
            Assert.Equal(["Ping"], client.Frames());
        });

    [Fact]
    public void A_server_shows_that_it_lives_by_a_pong() =>
        TestedSession.Run(V1Role.Server, server =>
        {
            server.Session.SendPing();
            server.Session.SendPing();
            Assert.Equal(["Pong"], server.Frames());
        });

    [Fact]
    public void A_server_hears_listens_and_answers_them() =>
        TestedSession.Run(V1Role.Server, server =>
        {
            server.Receive(
                "{\"type\":\"listen\",\"port\":9000,\"local_addr\":\"localhost:3000\"}",
                "{\"type\":\"listen\"}",
                "{\"type\":\"listen\",\"port\":65536}",
                "{\"type\":\"listen\",\"port\":-1}",
                "{\"type\":\"listen_ok\",\"port\":1}",
                "{\"type\":\"listen_err\",\"port\":1}");
            Assert.Equal(["Listen :9000 localhost:3000", "Listen :0", "Listen :65536", "Listen :-1"], server.Events());

            server.Session.SendControl(new ListenOk(9000));
            server.Session.SendControl(new ListenErr(65536, "65536 is no port"));
            Assert.Equal(["ListenOk :9000", "ListenErr :65536 65536 is no port"], server.Frames());
        });

    [Fact]
    public void A_client_asks_to_listen_and_hears_the_answers() =>
        TestedSession.Run(V1Role.Client, client =>
        {
            client.Session.SendControl(new Listen(9000, "localhost:3000"));
            client.Session.SendControl(new Listen(9001));
            Assert.Equal(["Listen :9000 localhost:3000", "Listen :9001"], client.Frames());

            client.Receive(
                "{\"type\":\"listen_ok\",\"port\":9000}",
                "{\"type\":\"listen_err\",\"port\":9001,\"error\":\"in use\"}",
                "{\"type\":\"listen_err\",\"port\":9002}",
                "{\"type\":\"listen\",\"port\":1}");
            Assert.Equal(["ListenOk :9000", "ListenErr :9001 in use", "ListenErr :9002 the server gave no reason"], client.Events());
        });

    [Fact]
    public void A_message_that_v1_does_not_have_is_not_sent() =>
        TestedSession.Run(V1Role.Client, client =>
        {
            Assert.Throws<ArgumentException>(() => client.Session.SendControl(new Foreign()));
            Assert.Empty(client.Frames());
        });

    [Fact]
    public void A_stream_that_holds_more_than_its_buffer_stops_the_session_until_it_holds_less_than_half() =>
        TestedSession.Run(V1Role.Client, new V1SessionOptions { StreamBufferBytes = 10 }, client =>
        {
            client.ReceiveConnect(1);
            client.ReceiveConnect(2);
            client.ReceiveData(1, "0123456789");
            client.ReceiveData(2, "0123456789");
            Assert.True(client.Session.CanReceive);
            client.ReceiveData(1, "x");
            Assert.False(client.Session.CanReceive);
            client.Session.Consumed(1, 6);
            Assert.False(client.Session.CanReceive);
            client.Session.Consumed(2, 10);
            Assert.False(client.Session.CanReceive);
            client.Session.Consumed(1, 1);
            Assert.True(client.Session.CanReceive);
            client.Events();
        });

    [Fact]
    public void Every_full_stream_must_drain_before_the_session_is_read_again() =>
        TestedSession.Run(V1Role.Client, new V1SessionOptions { StreamBufferBytes = 1 }, client =>
        {
            client.ReceiveConnect(1);
            client.ReceiveConnect(2);
            client.ReceiveData(1, "ab");
            client.ReceiveData(2, "ab");
            client.Session.Consumed(1, 2);
            Assert.False(client.Session.CanReceive);
            client.Session.Consumed(2, 2);
            Assert.True(client.Session.CanReceive);
            client.Events();
        });

    [Theory]
    [InlineData("Finish")]
    [InlineData("Reset")]
    [InlineData("Connect")]
    public void Ending_a_full_stream_lets_the_session_be_read_again(string how) =>
        TestedSession.Run(V1Role.Client, new V1SessionOptions { StreamBufferBytes = 1 }, client =>
        {
            client.ReceiveConnect(1);
            client.ReceiveData(1, "ab");
            Assert.False(client.Session.CanReceive);
            if (how == "Finish")
                client.Session.Finish(1);
            else if (how == "Reset")
                client.Session.Reset(1);
            else
                client.ReceiveConnect(1);
            Assert.True(client.Session.CanReceive);

            // The reader may not have heard yet.
            client.Session.Consumed(1, 2);
            Assert.True(client.Session.CanReceive);
            client.Events();
        });

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Bytes_of_a_stream_that_the_peer_ended_count_until_they_are_consumed_or_given_up(bool consumed) =>
        TestedSession.Run(V1Role.Client, new V1SessionOptions { StreamBufferBytes = 4 }, client =>
        {
            client.ReceiveConnect(1);
            client.ReceiveData(1, "abcdef");
            client.ReceiveClose(1);
            Assert.False(client.Session.CanReceive);
            Assert.Equal(1, client.Session.StreamCount);
            client.Session.Consumed(1, 1);
            client.Session.Finish(1);
            Assert.False(client.Session.CanReceive);
            if (consumed)
                client.Session.Consumed(1, 5);
            else
                client.Session.Reset(1);
            Assert.True(client.Session.CanReceive);
            Assert.Equal(0, client.Session.StreamCount);
            Assert.Empty(client.Frames());
            client.Events();
        });

    [Fact]
    public void Many_streams_together_stop_the_session_although_none_is_full() =>
        TestedSession.Run(V1Role.Client, new V1SessionOptions { SessionBufferBytes = 1024 * 1024 }, client =>
        {
            uint count = 0;
            while (client.Session.CanReceive)
            {
                client.ReceiveConnect(++count);
                client.Session.Receive(new V1Message(V1MessageType.Data, count, Payload: ByteChunk.Copy(new byte[32 * 1024])));
            }

            // 32 KiB and their headroom lie in arrays of 64 KiB.
            Assert.Equal(16u, count);
            for (uint id = 1; id <= 8; id++)
            {
                Assert.False(client.Session.CanReceive);
                client.Session.Consumed(id, 32 * 1024);
            }

            client.Session.Consumed(9, 32 * 1024);
            Assert.True(client.Session.CanReceive);
            client.Events();
        });

    [Fact]
    public void A_flood_of_tiny_messages_counts_for_the_memory_it_takes() =>
        TestedSession.Run(V1Role.Client, new V1SessionOptions { SessionBufferBytes = 100_000 }, client =>
        {
            client.ReceiveConnect(1);
            var count = 0;
            for (; client.Session.CanReceive; count++)
                client.ReceiveData(1, "x");
            Assert.InRange(count, 100, 1000);

            // Counted in bytes by the reader, and even then the account closes at zero.
            for (var left = count; left > 0; left--)
                client.Session.Consumed(1, 1);
            Assert.True(client.Session.CanReceive);
            client.Events();
            var again = 0;
            for (; client.Session.CanReceive; again++)
                client.ReceiveData(1, "x");
            Assert.Equal(count, again);
            client.Events();
        });

    [Fact]
    public void More_than_was_delivered_cannot_be_consumed() =>
        TestedSession.Run(V1Role.Client, client =>
        {
            client.ReceiveConnect(1);
            client.ReceiveData(1, "abc");
            Assert.Throws<ArgumentOutOfRangeException>(() => client.Session.Consumed(1, 4));
            Assert.Throws<ArgumentOutOfRangeException>(() => client.Session.Consumed(1, -1));
            client.Session.Consumed(1, 0);
            client.Session.Consumed(1, 3);
            client.Session.Consumed(99, 3);
            client.Events();
        });

    [Fact]
    public void A_client_that_asks_and_never_reads_is_heard_no_further() =>
        TestedSession.Run(V1Role.Server, new V1SessionOptions { MaxControlFrames = 100 }, server =>
        {
            var asked = 0;
            for (; server.Session.CanReceive && asked < 10_000; asked++)
            {
                server.Receive("{\"type\":\"listen\",\"port\":80}");
                Assert.Equal(["Listen :80"], server.Events());
                server.Session.SendControl(new ListenErr(80, "not yours"));
            }

            Assert.Equal(101, asked);
            for (var taken = 0; taken < 51; taken++)
            {
                Assert.False(server.Session.CanReceive);
                Assert.Equal("ListenErr :80 not yours", server.Frame());
            }

            Assert.False(server.Session.CanReceive);
            server.Frame();
            Assert.True(server.Session.CanReceive);
        });

    [Fact]
    public void Answers_that_pile_up_although_nothing_more_was_read_end_the_session_before_they_fill_the_memory() =>
        TestedSession.Run(V1Role.Server, new V1SessionOptions { MaxControlFrames = 10 }, server =>
        {
            for (var port = 1; port <= 40; port++)
                server.Session.SendControl(new ListenOk(port));
            var error = Assert.Throws<SessionProtocolException>(() => server.Session.SendControl(new ListenErr(41, "one too many")));
            Assert.Equal(SessionError.ProtocolViolation, error.Code);
            Assert.Equal(40, server.Frames().Length);
            server.Session.SendControl(new ListenOk(42));
        });

    [Fact]
    public void A_server_that_connects_beyond_the_limit_and_never_reads_is_heard_no_further() =>
        TestedSession.Run(V1Role.Client, new V1SessionOptions { MaxStreams = 1, MaxControlFrames = 10 }, client =>
        {
            uint id = 0;
            while (client.Session.CanReceive && id < 1000)
                client.ReceiveConnect(++id);
            Assert.Equal(12u, id);
            Assert.Equal(11, client.Frames().Length);
            Assert.True(client.Session.CanReceive);
            client.Events();
        });

    [Fact]
    public void What_this_side_sends_of_its_own_accord_never_stops_it_from_reading() =>
        TestedSession.Run(V1Role.Server, new V1SessionOptions { MaxControlFrames = 1 }, server =>
        {
            for (uint id = 1; id <= 100; id++)
                server.Open();
            Assert.True(server.Session.CanReceive);
            server.Frames();
            for (uint id = 1; id <= 100; id++)
                server.Session.Reset(id);
            Assert.True(server.Session.CanReceive);
            Assert.Equal(100, server.Session.StreamCount);
            server.Frames();
            Assert.Equal(0, server.Session.StreamCount);
        });

    [Fact]
    public void What_this_side_sends_of_its_own_accord_does_not_make_room_for_more_answers() =>
        TestedSession.Run(V1Role.Server, new V1SessionOptions { MaxControlFrames = 2 }, server =>
        {
            for (uint id = 1; id <= 10; id++)
                server.Open();
            server.Frames();
            for (uint id = 1; id <= 10; id++)
                server.Session.Reset(id);
            server.Frames();

            server.Session.SendControl(new ListenOk(1));
            server.Session.SendControl(new ListenOk(2));
            Assert.True(server.Session.CanReceive);
            server.Session.SendControl(new ListenOk(3));
            Assert.False(server.Session.CanReceive);
        });

    [Fact]
    public void A_client_s_own_listens_never_stop_it_from_reading() =>
        TestedSession.Run(V1Role.Client, new V1SessionOptions { MaxControlFrames = 1 }, client =>
        {
            for (var port = 1; port <= 100; port++)
                client.Session.SendControl(new Listen(port));
            Assert.True(client.Session.CanReceive);
            Assert.Equal(100, client.Frames().Length);
        });

    [Fact]
    public void Visitors_that_come_and_go_while_nothing_can_be_sent_leave_nothing_behind() =>
        TestedSession.Run(V1Role.Server, new V1SessionOptions { MaxStreams = 4 }, server =>
        {
            for (var visitor = 0; visitor < 1000; visitor++)
            {
                var id = server.Open();
                server.Send(id, "lost");
                server.Session.Reset(id);
            }

            Assert.Empty(server.Frames());
            Assert.Equal(0, server.Session.StreamCount);
        });

    [Fact]
    public void Abandon_releases_what_is_queued_in_both_directions()
    {
        using var ledger = ChunkLedger.Open();
        var session = new V1Session(V1Role.Server);
        for (uint id = 1; id <= 3; id++)
        {
            session.Open(new StreamRequest(9000));
            session.Send(id, ByteChunk.Copy("queued"u8));
            session.Receive(new V1Message(V1MessageType.Data, id, Payload: ByteChunk.Copy("not fetched"u8)));
        }

        session.Finish(3);
        Assert.Equal(6, ledger.Outstanding);
        session.Abandon();
        Assert.Equal(0, ledger.Outstanding);
    }

    [Fact]
    public void Options_out_of_range_are_refused()
    {
        foreach (var options in new V1SessionOptions[]
                 {
                     new() { MaxPayloadBytes = 0 }, new() { StreamBufferBytes = 0 }, new() { SessionBufferBytes = -1 },
                     new() { MaxStreams = 0 }, new() { MaxControlFrames = 0 },
                 })
        {
            Assert.Throws<ArgumentOutOfRangeException>(() => new V1Session(V1Role.Server, options));
        }
    }

    private sealed record Foreign : ControlMessage;
}
