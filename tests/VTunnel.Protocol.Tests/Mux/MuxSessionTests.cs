using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Mux;

namespace VTunnel.Protocol.Tests.Mux;

public class MuxSessionTests
{
    private const int Initial = MuxOptions.InitialWindowBytes;

    [Fact]
    public void The_dialer_uses_odd_ids_and_the_acceptor_even_ones()
    {
        var dialer = new MuxSession(MuxRole.Dialer);
        var acceptor = new MuxSession(MuxRole.Acceptor);
        Assert.Equal([1u, 3u, 5u], Enumerable.Range(0, 3).Select(_ => dialer.Open()!.Id));
        Assert.Equal([2u, 4u, 6u], Enumerable.Range(0, 3).Select(_ => acceptor.Open()!.Id));
    }

    [Fact]
    public void Opening_is_announced_without_data_and_travels_in_one_slice_with_the_first_data()
    {
        var session = new MuxSession(MuxRole.Dialer);
        session.Open();
        Assert.Equal(["window-update syn 1 0"], Frames.Sent(session));

        var second = session.Open()!;
        session.Send(second, Frames.Slice([7, 8]));
        Assert.True(session.TryTakeFrame(out var frame));
        Assert.Equal(["window-update syn 3 0", "data - 3 2 0708"], Frames.Describe(frame.Span));
        Assert.True(frame.Offset >= 40, "the layers below need room for their headers");
        frame.Release();
        Assert.False(session.TryTakeFrame(out _));
    }

    [Fact]
    public void Header_and_payload_are_one_slice_of_the_payloads_chunk()
    {
        var session = new MuxSession(MuxRole.Dialer);
        var stream = session.Open()!;
        Frames.Sent(session);
        var payload = Frames.Slice([1, 2, 3]);
        session.Send(stream, payload);

        Assert.True(session.TryTakeFrame(out var frame));
        Assert.Same(payload.Chunk, frame.Chunk);
        Assert.Equal(payload.Offset - 12, frame.Offset);
        Assert.Equal(1, Frames.References(frame.Chunk!));
        frame.Release();
    }

    [Fact]
    public void Accepting_acknowledges_once()
    {
        var session = new MuxSession(MuxRole.Acceptor);
        Frames.Receive(session, Frames.Syn(1));
        var opened = Assert.Single(Frames.Events(session));
        Assert.Equal(MuxEventKind.Opened, opened.Kind);
        Assert.Empty(Frames.Sent(session));

        session.Accept(opened.Stream!);
        session.Accept(opened.Stream!);
        Assert.Equal(["window-update ack 1 0"], Frames.Sent(session));
    }

    [Fact]
    public void Sending_or_finishing_on_a_stream_of_the_peer_accepts_it_first()
    {
        var session = new MuxSession(MuxRole.Acceptor);
        Frames.Receive(session, Frames.Syn(1), Frames.Syn(3));
        var streams = Frames.Events(session).ConvertAll(e => e.Stream!);
        session.Send(streams[0], Frames.Slice([5]));
        session.Finish(streams[1]);
        Assert.Equal(
            ["window-update ack 1 0", "window-update ack 3 0", "data - 1 1 05", "window-update fin 3 0"],
            Frames.Sent(session));
    }

    [Theory]
    [InlineData(0, 0)]
    [InlineData(0, 17)]
    [InlineData(5, 0)]
    public void An_acknowledgement_may_come_with_data_or_credit(int data, int credit)
    {
        var session = new MuxSession(MuxRole.Dialer);
        var stream = session.Open()!;
        Frames.Sent(session);
        Frames.Receive(session, data > 0 ? Frames.Data(1, data, MuxFrameFlags.Ack) : Frames.Update(1, (uint)credit, MuxFrameFlags.Ack));
        // A second one says nothing new.
        Frames.Receive(session, Frames.Ack(1));

        Assert.Equal(data > 0 ? ["accepted 1", $"data 1 {data}"] : ["accepted 1"], Frames.Happened(session));
        Assert.True(stream.IsAccepted);
        Assert.Equal(Initial + credit, stream.SendCredit);
    }

    [Fact]
    public void A_stream_may_be_opened_filled_and_finished_in_one_frame()
    {
        var session = new MuxSession(MuxRole.Acceptor);
        Frames.Receive(session, Frames.Data(1, 9, MuxFrameFlags.Syn | MuxFrameFlags.Fin));
        Assert.Equal(["opened 1", "data 1 9", "finished 1"], Frames.Happened(session));
    }

    [Fact]
    public void Credit_that_comes_with_the_opening_counts()
    {
        var session = new MuxSession(MuxRole.Acceptor);
        Frames.Receive(session, Frames.Update(1, 1000, MuxFrameFlags.Syn));
        Assert.Equal(Initial + 1000, Frames.Events(session)[0].Stream!.SendCredit);
    }

    // Half-close: every order of the two ends, with and without data in flight.

    [Theory]
    [InlineData(false, false)]
    [InlineData(false, true)]
    [InlineData(true, false)]
    [InlineData(true, true)]
    public void A_stream_is_forgotten_when_both_sides_finished_and_not_before(bool peerFirst, bool withData)
    {
        var (session, stream) = Established();
        if (withData)
            session.Send(stream, Frames.Slice([1, 2, 3]));

        if (peerFirst)
        {
            Frames.Receive(session, withData ? Frames.Data(1, 4, MuxFrameFlags.Fin) : Frames.Fin(1));
            Assert.Equal(withData ? ["data 1 4", "finished 1"] : ["finished 1"], Frames.Happened(session));
            Assert.False(stream.IsGone);
            // The other direction goes on.
            Assert.True(session.SendAllowance(stream) > 0);
            session.Send(stream, Frames.Slice([4]));
            session.Finish(stream);
            Assert.False(stream.IsGone);
        }
        else
        {
            session.Finish(stream);
            Assert.Equal(0, session.SendAllowance(stream));
        }

        string[] data = [.. withData ? ["data - 1 3 010203"] : Array.Empty<string>(), .. peerFirst ? ["data - 1 1 04"] : Array.Empty<string>()];
        Assert.Equal([.. data, "window-update fin 1 0"], Frames.Sent(session));

        if (!peerFirst)
        {
            Assert.False(stream.IsGone);
            Frames.Receive(session, Frames.Data(1, 4), withData ? Frames.Data(1, 4, MuxFrameFlags.Fin) : Frames.Fin(1));
            Assert.Equal(withData ? ["data 1 4", "data 1 4", "finished 1"] : ["data 1 4", "finished 1"], Frames.Happened(session));
        }

        Assert.True(stream.IsGone);
        Assert.Equal(0, session.StreamCount);
    }

    [Fact]
    public void The_end_of_a_data_frame_in_parts_comes_after_its_last_part()
    {
        var (session, stream) = Established();
        var frame = Frames.Data(1, 100, MuxFrameFlags.Fin);
        session.Receive(Frames.Slice(frame.AsSpan(0, 50)));
        Assert.Equal(["data 1 38"], Frames.Happened(session));
        Assert.False(stream.PeerFinished);
        session.Receive(Frames.Slice(frame.AsSpan(50)));
        Assert.Equal(["data 1 62", "finished 1"], Frames.Happened(session));
    }

    [Fact]
    public void An_end_repeated_says_nothing_new()
    {
        var (session, _) = Established();
        Frames.Receive(session, Frames.Fin(1), Frames.Fin(1), Frames.Data(1, 0, MuxFrameFlags.Fin));
        Assert.Equal(["finished 1"], Frames.Happened(session));
    }

    [Fact]
    public void Credit_that_arrives_after_both_ends_is_ignored()
    {
        var (session, stream) = Established();
        session.Finish(stream);
        Frames.Sent(session);
        Frames.Receive(session, Frames.Fin(1), Frames.Update(1, 5000));
        Assert.Equal(["finished 1"], Frames.Happened(session));
    }

    // Reset, in each state.

    [Theory]
    [InlineData("opening")]
    [InlineData("announced")]
    [InlineData("established")]
    [InlineData("finished here")]
    [InlineData("finished there")]
    [InlineData("with data queued")]
    [InlineData("in the middle of a data frame")]
    public void Resetting_here_drops_what_is_queued_and_tells_the_peer_once(string state)
    {
        var session = new MuxSession(MuxRole.Dialer);
        var stream = session.Open()!;
        ByteSlice queued = default;
        byte[] rest = [];
        if (state != "opening")
            Frames.Sent(session);
        switch (state)
        {
            case "established":
                Frames.Receive(session, Frames.Ack(1));
                break;
            case "finished here":
                session.Finish(stream);
                Frames.Sent(session);
                break;
            case "finished there":
                Frames.Receive(session, Frames.Fin(1));
                break;
            case "with data queued":
                queued = Frames.Slice(new byte[1000]);
                queued.Chunk!.Retain();
                session.Send(stream, queued);
                session.Finish(stream);
                break;
            case "in the middle of a data frame":
                var frame = Frames.Data(1, 100, MuxFrameFlags.Fin);
                Frames.Receive(session, frame[..50]);
                rest = frame[50..];
                break;
        }

        Frames.Happened(session);
        session.Reset(stream);
        session.Reset(stream);

        Assert.Equal(state == "opening" ? [] : ["window-update rst 1 0"], Frames.Sent(session));
        Assert.True(stream.IsGone);
        Assert.Equal(0, session.QueuedBytes);
        if (state == "with data queued")
            Assert.Equal(1, Frames.References(queued.Chunk!));

        // What the peer sent before it heard is dropped in silence.
        if (state != "opening")
            Frames.Receive(session, [.. rest, .. Frames.Data(1, 500)], Frames.Update(1, 5), Frames.Fin(1), Frames.Rst(1));
        Assert.Empty(Frames.Happened(session));
        Assert.Empty(Frames.Sent(session));

        // Nothing does anything any more.
        session.Send(stream, Frames.Slice([1]));
        session.Finish(stream);
        session.Accept(stream);
        session.Consumed(stream, 1);
        Assert.Equal(0, session.SendAllowance(stream));
        Assert.Empty(Frames.Sent(session));
    }

    [Theory]
    [InlineData("unaccepted")]
    [InlineData("accepted")]
    [InlineData("finished here")]
    [InlineData("finished there")]
    [InlineData("with data queued")]
    public void A_reset_by_the_peer_ends_the_stream_and_is_not_answered(string state)
    {
        var session = new MuxSession(MuxRole.Acceptor);
        Frames.Receive(session, Frames.Syn(1));
        var stream = Frames.Events(session)[0].Stream!;
        if (state != "unaccepted")
            session.Accept(stream);
        if (state == "finished here")
            session.Finish(stream);
        Frames.Sent(session);
        if (state == "finished there")
            Frames.Receive(session, Frames.Fin(1));
        if (state == "with data queued")
        {
            session.Send(stream, Frames.Slice(new byte[1000]));
            session.Finish(stream);
        }

        Frames.Happened(session);
        Frames.Receive(session, Frames.Data(1, state == "finished there" ? 0 : 10), Frames.Rst(1));

        Assert.Equal(state == "finished there" ? ["reset 1"] : ["data 1 10", "reset 1"], Frames.Happened(session));
        Assert.Empty(Frames.Sent(session));
        Assert.Equal(0, session.StreamCount);
        Assert.Equal(0, session.QueuedBytes);
        session.Reset(stream);
        Assert.Empty(Frames.Sent(session));
    }

    [Fact]
    public void Resets_that_cross_are_both_ignored()
    {
        var (session, stream) = Established();
        session.Reset(stream);
        Frames.Receive(session, Frames.Rst(1));
        Assert.Empty(Frames.Happened(session));
        Assert.Equal(["window-update rst 1 0"], Frames.Sent(session));
    }

    [Fact]
    public void A_stream_refused_by_the_peer_is_a_reset()
    {
        var session = new MuxSession(MuxRole.Dialer);
        session.Send(session.Open()!, Frames.Slice(new byte[100]));
        Frames.Sent(session);
        Frames.Receive(session, Frames.Update(1, 0, MuxFrameFlags.Rst | MuxFrameFlags.Ack));
        Assert.Equal(["reset 1"], Frames.Happened(session));
    }

    [Fact]
    public void Events_of_a_stream_that_was_reset_here_meanwhile_are_not_raised()
    {
        var (session, stream) = Established();
        var bytes = Frames.Slice([.. Frames.Data(1, 60_000), .. Frames.Fin(1)]);
        bytes.Chunk!.Retain();
        session.Receive(bytes);
        session.Reset(stream);
        Assert.Empty(Frames.Happened(session));
        Assert.Equal(1, Frames.References(bytes.Chunk!));
    }

    [Fact]
    public void Data_of_a_frame_that_resets_is_dropped()
    {
        var (session, _) = Established();
        Frames.Receive(session, Frames.Data(1, 10, MuxFrameFlags.Rst), Frames.Ping(1));
        Assert.Equal(["reset 1"], Frames.Happened(session));
        Assert.Equal(["ping ack 0 1"], Frames.Sent(session));
    }

    // Limits.

    [Fact]
    public void Streams_beyond_the_backlog_are_reset_until_one_is_accepted()
    {
        var session = new MuxSession(MuxRole.Acceptor, new MuxOptions { MaxUnacceptedStreams = 2 });
        Frames.Receive(session, Frames.Syn(1), Frames.Syn(3), Frames.Data(5, 9, MuxFrameFlags.Syn), Frames.Data(5, 9));
        var events = Frames.Events(session);
        Assert.Equal([1u, 3u], events.Select(e => e.Stream!.Id));
        Assert.Equal(["window-update rst 5 0"], Frames.Sent(session));

        session.Accept(events[0].Stream!);
        Frames.Sent(session);
        Frames.Receive(session, Frames.Syn(7), Frames.Syn(9));
        Assert.Equal(["opened 7"], Frames.Happened(session));
        Assert.Equal(["window-update rst 9 0"], Frames.Sent(session));
    }

    [Fact]
    public void Streams_beyond_the_limit_are_reset_or_not_opened()
    {
        var session = new MuxSession(MuxRole.Acceptor, new MuxOptions { MaxStreams = 2 });
        var mine = session.Open();
        Assert.NotNull(mine);
        Frames.Receive(session, Frames.Syn(1), Frames.Syn(3));
        Assert.Equal(["opened 1"], Frames.Happened(session));
        Assert.Null(session.Open());
        Assert.Equal(["window-update rst 3 0", "window-update syn 2 0"], Frames.Sent(session));

        session.Reset(mine);
        Assert.NotNull(session.Open());
    }

    [Theory]
    [InlineData(1, false)]
    [InlineData(1000, true)]
    public void A_peer_that_keeps_opening_streams_without_reading_the_refusals_ends_the_session(int maxStreams, bool resetByCaller)
    {
        var session = new MuxSession(MuxRole.Acceptor, new MuxOptions { MaxStreams = maxStreams });
        var opened = 0u;
        var error = Assert.Throws<SessionProtocolException>(() =>
        {
            for (; opened < 1_000_000; opened++)
            {
                Frames.Receive(session, Frames.Syn(1 + 2 * opened));
                foreach (var e in Frames.Events(session).Where(_ => resetByCaller))
                    session.Reset(e.Stream!);
            }
        });

        Assert.InRange(opened, 16 * 1024u, 16 * 1024 + 1u);
        Assert.Contains("without reading", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_ping_flood_is_answered_with_the_last_sixteen()
    {
        var session = new MuxSession(MuxRole.Acceptor);
        for (var i = 0u; i < 100_000; i++)
            Frames.Receive(session, Frames.Ping(i));
        Assert.Equal(Enumerable.Range(99_984, 16).Select(i => $"ping ack 0 {i}"), Frames.Sent(session));
    }

    [Fact]
    public void Window_updates_of_a_stream_coalesce_into_one_frame()
    {
        var (session, stream) = Established();
        for (var i = 0; i < 4; i++)
            Frames.Receive(session, Frames.Data(1, Initial / 4));
        Frames.Happened(session);
        for (var i = 0; i < Initial; i += 64)
            session.Consumed(stream, 64);
        // It carried bulk, so its window has doubled by then.
        Assert.Equal([$"window-update - 1 {2 * Initial}"], Frames.Sent(session).FindAll(f => !f.StartsWith("ping", StringComparison.Ordinal)));
    }

    [Fact]
    public void More_control_frames_than_fit_one_slice_come_in_several()
    {
        var session = new MuxSession(MuxRole.Acceptor);
        for (var i = 0u; i < 1000; i++)
            Frames.Receive(session, Frames.Syn(1 + 2 * i));
        foreach (var e in Frames.Events(session))
            session.Accept(e.Stream!);

        var slices = 0;
        var frames = 0;
        while (session.TryTakeFrame(out var slice))
        {
            slices++;
            frames += Frames.Describe(slice.Span).Count;
            Assert.True(slice.Length <= 4096);
            slice.Release();
        }

        Assert.Equal(1000, frames);
        Assert.Equal(3, slices);
    }

    // Ping and go-away.

    [Fact]
    public void A_ping_measures_the_round_trip_and_there_is_one_at_a_time()
    {
        var session = new MuxSession(MuxRole.Dialer) { Now = TimeSpan.FromSeconds(1) };
        Assert.Null(session.RoundTrip);
        session.SendPing();
        session.SendPing();
        session.Now += TimeSpan.FromSeconds(1);
        Assert.Equal(["ping syn 0 1"], Frames.Sent(session));
        session.SendPing();
        Assert.Empty(Frames.Sent(session));

        session.Now += TimeSpan.FromMilliseconds(30);
        Frames.Receive(session, Frames.Ping(7, MuxFrameFlags.Ack));
        Assert.Null(session.RoundTrip);
        Frames.Receive(session, Frames.Ping(1, MuxFrameFlags.Ack));
        Assert.Equal(TimeSpan.FromMilliseconds(30), session.RoundTrip);
        // Unasked answers mean nothing.
        Frames.Receive(session, Frames.Ping(1, MuxFrameFlags.Ack));

        session.SendPing();
        Assert.Equal(["ping syn 0 2"], Frames.Sent(session));
        Assert.Empty(Frames.Happened(session));
    }

    [Fact]
    public void An_orderly_go_away_of_the_peer_leaves_streams_and_opens_no_more()
    {
        var (session, stream) = Established();
        Frames.Receive(session, Frames.GoAway(0), Frames.GoAway(0), Frames.Data(1, 3));
        Assert.Equal(["goaway", "data 1 3"], Frames.Happened(session));
        Assert.True(session.PeerIsGoingAway);
        Assert.Null(session.Open());
        session.Send(stream, Frames.Slice([1]));
        Assert.Equal(["data - 1 1 01"], Frames.Sent(session));
    }

    [Fact]
    public void After_an_orderly_go_away_of_this_side_new_streams_are_reset_and_old_ones_go_on()
    {
        var session = new MuxSession(MuxRole.Acceptor);
        Frames.Receive(session, Frames.Syn(1));
        var stream = Frames.Events(session)[0].Stream!;
        session.GoAway();
        session.GoAway(MuxGoAwayCode.InternalError);
        Assert.Null(session.Open());
        Assert.Equal(["go-away - 0 0"], Frames.Sent(session));

        Frames.Receive(session, Frames.Syn(3), Frames.Data(1, 5));
        Assert.Equal(["data 1 5"], Frames.Happened(session));
        session.Send(stream, Frames.Slice([9]));
        Assert.Equal(["window-update rst 3 0", "window-update ack 1 0", "data - 1 1 09"], Frames.Sent(session));
    }

    [Theory]
    [InlineData(1u, SessionError.ProtocolViolation, "go-away 1")]
    [InlineData(2u, SessionError.InternalError, "go-away 2")]
    [InlineData(77u, SessionError.ProtocolViolation, "go-away 77")]
    public void A_go_away_with_an_error_ends_the_session_unanswered(uint code, SessionError error, string says)
    {
        var (session, _) = Established();
        var thrown = Assert.Throws<SessionProtocolException>(() => Frames.Receive(session, Frames.GoAway(code)));
        Assert.Equal(error, thrown.Code);
        Assert.Contains(says, thrown.Message, StringComparison.Ordinal);
        Assert.Empty(Frames.Sent(session));
    }

    // Frames that break the rules.

    public static TheoryData<string, byte[]> Violations => new()
    {
        { "version 9", [9, .. Frames.Ping(1).Skip(1)] },
        { "type 7", [0, 7, .. Frames.Ping(1).Skip(2)] },
        { "for stream 0", Frames.Data(0, 1) },
        { "for stream 0", Frames.Update(0, 1) },
        { "for stream 9", Frames.Header(MuxFrameType.Ping, MuxFrameFlags.Syn, 9, 1) },
        { "for stream 9", Frames.Header(MuxFrameType.GoAway, MuxFrameFlags.None, 9, 0) },
        { "never opened", Frames.Data(99, 1) },
        { "never opened", Frames.Update(98, 1) },
        { "never opened", Frames.Rst(99) },
        { "never opened", Frames.Ack(4) },
        { "this side's", Frames.Syn(20) },
        { "while it exists", Frames.Syn(1) },
        { "used before", Frames.Syn(3) },
        { "exceeds its window", Frames.Header(MuxFrameType.Data, MuxFrameFlags.None, 1, Initial + 1) },
        { "exceeds its window", Frames.Header(MuxFrameType.Data, MuxFrameFlags.Syn, 11, uint.MaxValue) },
        { "after its end", [.. Frames.Fin(1), .. Frames.Data(1, 1)] },
        { "beyond 4294967295", Frames.Update(1, uint.MaxValue) },
    };

    [Theory]
    [MemberData(nameof(Violations))]
    public void A_frame_that_breaks_the_rules_ends_the_session_with_go_away(string says, byte[] frame)
    {
        var session = new MuxSession(MuxRole.Acceptor);
        Frames.Receive(session, Frames.Syn(1), Frames.Syn(3), Frames.Rst(3));
        var mine = session.Open()!;
        Frames.Sent(session);
        session.Accept(session.TryGetStream(1, out var stream) ? stream : throw new InvalidOperationException());
        session.Send(mine, Frames.Slice([1]));
        session.Open();

        var bytes = Frames.Slice(frame);
        bytes.Chunk!.Retain();
        var error = Assert.Throws<SessionProtocolException>(() => session.Receive(bytes));
        Assert.Equal(SessionError.ProtocolViolation, error.Code);
        Assert.Contains(says, error.Message, StringComparison.Ordinal);
        Assert.Equal(["go-away - 0 1"], Frames.Sent(session));

        // It stays ended.
        Assert.Null(session.Open());
        Assert.Equal(0, session.SendAllowance(mine));
        Assert.Equal(error.Message, Assert.Throws<SessionProtocolException>(() => Frames.Receive(session, Frames.Ping(1))).Message);
        Assert.Empty(Frames.Sent(session));
        session.Abandon();
        Assert.Equal(1, Frames.References(bytes.Chunk!));
    }

    [Fact]
    public void A_peer_may_open_streams_out_of_order()
    {
        var session = new MuxSession(MuxRole.Acceptor);
        Frames.Receive(session, Frames.Syn(5), Frames.Syn(1), Frames.Syn(3));
        Assert.Equal(["opened 5", "opened 1", "opened 3"], Frames.Happened(session));
    }

    [Fact]
    public void Abandoning_releases_everything_that_is_queued()
    {
        var (session, stream) = Established();
        var sent = Frames.Slice(new byte[100]);
        var received = Frames.Slice([.. Frames.Data(1, 5000), .. Frames.Data(1, 10)[..15]]);
        sent.Chunk!.Retain();
        received.Chunk!.Retain();
        session.Send(stream, sent);
        session.Receive(received);
        session.Abandon();

        Assert.Equal(1, Frames.References(sent.Chunk!));
        Assert.Equal(1, Frames.References(received.Chunk!));
        Assert.Equal(0, session.StreamCount);
    }

    [Fact]
    public void Options_that_make_no_sense_are_refused_all_at_once()
    {
        var error = Assert.Throws<ArgumentException>(() => new MuxSession(
            MuxRole.Dialer, new MuxOptions { MaxStreams = 0, SendQuantumBytes = 100, MaxStreamWindowBytes = 1, MaxSendQueueBytes = 5, InteractiveQuantumBytes = 5, InteractiveHold = TimeSpan.FromTicks(-1) }));
        foreach (var key in new[] { "MaxStreams", "SendQuantumBytes", "MaxStreamWindowBytes", "MaxSendQueueBytes", "InteractiveQuantumBytes", "InteractiveHold" })
            Assert.Contains(key, error.Message, StringComparison.Ordinal);
    }

    private static (MuxSession Session, MuxStream Stream) Established()
    {
        var session = new MuxSession(MuxRole.Dialer);
        var stream = session.Open()!;
        Frames.Sent(session);
        Frames.Receive(session, Frames.Ack(1));
        Assert.Equal(["accepted 1"], Frames.Happened(session));
        return (session, stream);
    }
}
