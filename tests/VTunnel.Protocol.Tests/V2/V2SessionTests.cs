using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Protocol.Mux;
using VTunnel.Protocol.Tests.Mux;
using VTunnel.Protocol.V2;

namespace VTunnel.Protocol.Tests.V2;

public sealed class V2SessionTests : IDisposable
{
    private static readonly StreamRequest Request = new(9000, "127.0.0.1:53211");
    private readonly V2Session _dialer = new(MuxRole.Dialer, new Hello("client", "1", ["x"]));
    private readonly V2Session _acceptor = new(MuxRole.Acceptor, new Hello("server", "2", []));

    public void Dispose()
    {
        _dialer.Abandon();
        _acceptor.Abandon();
    }

    [Fact]
    public void Both_sides_say_hello_first_and_measure_the_round_trip()
    {
        _dialer.Now = _acceptor.Now = TimeSpan.FromSeconds(1);
        _dialer.SendControl(new Listen(9000));
        _acceptor.SendControl(new ListenOk(9000));
        Run();
        Assert.Equal(["Control Hello", "Control ListenOk"], Happened(_dialer));
        Assert.Equal(["Control Hello", "Control Listen"], Happened(_acceptor));
        Assert.Equal("server", _dialer.PeerHello!.Agent);
        Assert.Equal(["x"], _acceptor.PeerHello!.Capabilities);
        Assert.NotNull(_dialer.RoundTrip);
        Assert.NotNull(_acceptor.RoundTrip);
        // The control stream is nobody's stream.
        Assert.Equal((0, 0), (_dialer.StreamCount, _acceptor.StreamCount));
    }

    [Fact]
    public void An_acceptor_that_opens_all_its_streams_before_the_dialer_speaks_leaves_room_for_the_control_stream()
    {
        using var ledger = ChunkLedger.Open();
        var dialer = new V2Session(MuxRole.Dialer, new Hello("client", "1", []));
        var acceptor = new V2Session(MuxRole.Acceptor, new Hello("server", "2", []), new MuxOptions { MaxStreams = 3 });
        Assert.Equal([true, true, false], Enumerable.Range(0, 3).Select(_ => acceptor.Open(Request) != 0));
        while (dialer.TryTakeFrame(out var frame))
            acceptor.Receive(frame);
        Assert.True(acceptor.TryTakeEvent(out var happened));
        Assert.IsType<Hello>(happened.Control);
        dialer.Abandon();
        acceptor.Abandon();
        Assert.Equal(0, ledger.Outstanding);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void A_stream_carries_its_request_data_both_ways_and_both_ends(bool fromAcceptor)
    {
        var (near, far) = fromAcceptor ? (_acceptor, _dialer) : (_dialer, _acceptor);
        Start();
        var id = near.Open(Request);
        Assert.Equal(fromAcceptor ? 2u : 3u, id);
        near.Send(id, Frames.Slice("GET"u8));
        near.Finish(id);
        Run();
        Assert.Equal([$"Opened {id} 9000 127.0.0.1:53211", $"Data {id} 3", $"Finished {id}"], Happened(far));
        Assert.Empty(Happened(near));

        far.Accept(id);
        far.Consumed(id, 3);
        Run();
        Assert.Equal([$"Accepted {id}"], Happened(near));
        far.Send(id, Frames.Slice("200 OK"u8));
        Run();
        Assert.Equal([$"Data {id} 6"], Happened(near));
        Assert.Equal((1, 1), (near.StreamCount, far.StreamCount));
        far.Finish(id);
        Run();
        Assert.Equal([$"Finished {id}"], Happened(near));
        Assert.Equal((0, 0), (near.StreamCount, far.StreamCount));
        near.Consumed(id, 6);
        near.Reset(id);
        Run();
        Assert.Empty(Happened(far));
    }

    [Fact]
    public void A_refused_stream_is_a_reset_to_the_one_who_opened_it()
    {
        Start();
        var id = _acceptor.Open(Request);
        _acceptor.Send(id, Frames.Slice(new byte[100]));
        Run();
        Happened(_dialer);
        _dialer.Reset(id);
        Run();
        Assert.Equal([$"Reset {id}"], Happened(_acceptor));
        Assert.Equal((0, 0), (_acceptor.StreamCount, _dialer.StreamCount));
    }

    [Fact]
    public void A_stream_is_opened_once_its_preface_is_complete_wherever_it_is_cut()
    {
        Start();
        var id = _acceptor.Open(Request);
        _acceptor.Send(id, Frames.Slice("payload"u8));
        var bytes = TakeAll(_acceptor);
        for (var i = 0; i < bytes.Length - 7; i++)
        {
            _dialer.Receive(Frames.Slice([bytes[i]]));
            Assert.Equal(i == bytes.Length - 7 - 12 - 1 ? [$"Opened {id} 9000 127.0.0.1:53211"] : [], Happened(_dialer));
        }

        _dialer.Receive(Frames.Slice(bytes.AsSpan(bytes.Length - 7)));
        Assert.Equal([$"Data {id} 7"], Happened(_dialer));
    }

    [Fact]
    public void Payload_in_the_frame_of_the_preface_is_handed_on_without_copying()
    {
        Start();
        Run();
        var chunk = ByteChunk.Rent();
        byte[] bytes =
        [
            .. Frames.Syn(2), .. Frames.Data(2, [.. "{\"type\":\"connect\",\"port\":5}\n"u8, .. Frames.Pattern(10_000)]),
        ];
        bytes.CopyTo(chunk.Array, 0);
        _dialer.Receive(new ByteSlice(chunk, 0, bytes.Length));
        Assert.True(_dialer.TryTakeEvent(out var opened));
        Assert.Equal(StreamEventKind.Opened, opened.Kind);
        Assert.True(_dialer.TryTakeEvent(out var data));
        Assert.Same(chunk, data.Payload.Chunk);
        Assert.Equal(Frames.Pattern(10_000), data.Payload.Span);
        data.Payload.Release();
        Assert.Equal(0, Frames.References(chunk));

        // The preface was consumed on the way, so the payload is what is left to consume.
        _dialer.Accept(2);
        _dialer.Consumed(2, 10_000);
        Assert.Throws<ArgumentOutOfRangeException>(() => _dialer.Consumed(2, 1));
    }

    [Fact]
    public void A_stream_for_something_unknown_is_reset_and_the_session_goes_on()
    {
        Start();
        _dialer.Receive(Frames.Slice([.. Frames.Syn(2), .. Frames.Data(2, [.. "{\"type\":\"datagrams\"}\n"u8, 1, 2, 3]), .. Frames.Data(2, 5)]));
        Assert.Empty(Happened(_dialer));
        Assert.Equal(["window-update rst 2 0"], Frames.Describe(TakeAll(_dialer)));
    }

    [Fact]
    public void A_stream_that_ends_or_breaks_before_it_said_what_it_is_for_never_shows()
    {
        Start();
        _dialer.Receive(Frames.Slice([.. Frames.Syn(2), .. Frames.Data(2, "{\"type\""u8.ToArray()), .. Frames.Fin(2), .. Frames.Syn(4), .. Frames.Rst(4)]));
        Assert.Empty(Happened(_dialer));
        Assert.Equal(["window-update rst 2 0"], Frames.Describe(TakeAll(_dialer)));
        Assert.Equal(0, _dialer.StreamCount);
    }

    [Theory]
    [InlineData("not json\n", SessionError.ProtocolViolation)]
    [InlineData("{\"type\":\"connect\",\"port\":70000}\n", SessionError.ProtocolViolation)]
    public void A_malformed_preface_ends_the_session_with_go_away(string preface, SessionError code)
    {
        Start();
        var error = Assert.Throws<SessionProtocolException>(() =>
            _dialer.Receive(Frames.Slice([.. Frames.Syn(2), .. Frames.Data(2, System.Text.Encoding.UTF8.GetBytes(preface)), .. Frames.Data(2, 9)])));
        Assert.Equal(code, error.Code);
        Assert.Equal(["go-away - 0 1"], Frames.Describe(TakeAll(_dialer)));
        Assert.Throws<SessionProtocolException>(() => _dialer.Receive(Frames.Slice(Frames.Ping(1))));
    }

    [Fact]
    public void A_malformed_control_line_ends_the_session_with_go_away()
    {
        Start();
        var error = Assert.Throws<SessionProtocolException>(() =>
            _acceptor.Receive(Frames.Slice(Frames.Data(1, "{\"type\":\"listen\"}\nmore\n"u8.ToArray()))));
        Assert.Equal(SessionError.ProtocolViolation, error.Code);
        Assert.Equal(["go-away - 0 1"], Frames.Describe(TakeAll(_acceptor)));
    }

    [Fact]
    public void The_control_stream_can_be_finished_but_neither_reset_nor_cut_in_a_line()
    {
        Start();
        _acceptor.Receive(Frames.Slice([.. Frames.Data(1, "{\"type\":\"listen\",\"port\":1}\n"u8.ToArray()), .. Frames.Fin(1)]));
        Assert.Equal(["Control Listen"], Happened(_acceptor));
        // The other direction of it goes on.
        _acceptor.SendControl(new ListenOk(1));
        Assert.Single(Frames.Describe(TakeAll(_acceptor)), f => f.StartsWith("data", StringComparison.Ordinal));

        using var other = new V2SessionTests();
        other.Start();
        Assert.Contains("middle of a line", Assert.Throws<SessionProtocolException>(() =>
            other._acceptor.Receive(Frames.Slice([.. Frames.Data(1, "{"u8.ToArray()), .. Frames.Fin(1)]))).Message, StringComparison.Ordinal);
        Assert.Contains("reset the control stream", Assert.Throws<SessionProtocolException>(() =>
            other._dialer.Receive(Frames.Slice(Frames.Rst(1)))).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_listen_ok_is_sent_before_the_first_visitor_of_the_port_and_ahead_of_bulk()
    {
        Start();
        var bulk = _acceptor.Open(Request);
        TakeAll(_acceptor);
        _acceptor.Send(bulk, Frames.Slice(new byte[50_000]));
        _acceptor.SendControl(new ListenOk(9000));
        var visitor = _acceptor.Open(Request);
        var sent = Frames.Describe(TakeAll(_acceptor)).ConvertAll(f => string.Join(' ', f.Split(' ')[..3]));
        Assert.Equal(["data - 1", $"data - {bulk}", $"window-update syn {visitor}", $"data - {visitor}"], sent);
    }

    [Fact]
    public void Control_messages_beyond_the_window_wait_in_order_and_are_split_where_they_must()
    {
        Start();
        var ports = Enumerable.Range(1, 8).ToArray();
        // Eight lines of 60,000 bytes are more than the window of 256 KiB.
        foreach (var port in ports)
            _acceptor.SendControl(new ListenErr(port, new string('e', 60_000)));
        Run();
        Assert.Equal(ports.Select(p => $"Control ListenErr"), Happened(_dialer));
    }

    [Fact]
    public void A_peer_that_never_reads_its_control_stream_ends_the_session()
    {
        Start();
        var count = 0;
        var error = Assert.Throws<SessionProtocolException>(() =>
        {
            for (; count < 1000; count++)
                _acceptor.SendControl(new ListenErr(1, new string('e', 60_000)));
        });
        Assert.InRange(count, 60, 80);
        Assert.Contains("does not read", error.Message, StringComparison.Ordinal);
        Assert.Equal(["go-away - 0 1"], Frames.Describe(TakeAll(_acceptor)));
    }

    [Fact]
    public void A_session_that_is_going_away_opens_nothing_and_finishes_what_there_is()
    {
        Start();
        var id = _acceptor.Open(Request);
        Run();
        Happened(_dialer);
        _acceptor.GoAway();
        Run();
        Assert.True(_dialer.PeerIsGoingAway);
        Assert.Equal((0u, 0u), (_dialer.Open(Request), _acceptor.Open(Request)));
        _dialer.Accept(id);
        _dialer.Send(id, Frames.Slice("x"u8));
        _dialer.Finish(id);
        Run();
        Assert.Equal([$"Accepted {id}", $"Data {id} 1", $"Finished {id}"], Happened(_acceptor));
    }

    [Fact]
    public void Calls_for_streams_that_do_not_exist_do_nothing()
    {
        Start();
        Assert.Equal(0, _dialer.SendAllowance(77));
        var slice = Frames.Slice([1]);
        slice.Chunk!.Retain();
        _dialer.Send(77, slice);
        Assert.Equal(1, Frames.References(slice.Chunk));
        _dialer.Accept(77);
        _dialer.Finish(77);
        _dialer.Reset(77);
        _dialer.Consumed(77, 1);
        // The control stream is not for callers.
        Assert.Equal(0, _dialer.SendAllowance(1));
        _dialer.Reset(1);
        Assert.Empty(TakeAll(_dialer));
    }

    [Fact]
    public void An_invalid_request_is_refused_before_a_stream_is_opened()
    {
        Start();
        Assert.Throws<ArgumentException>(() => _acceptor.Open(new StreamRequest(0)));
        Assert.Equal(0, _acceptor.StreamCount);
        Assert.Equal(2u, _acceptor.Open(Request));
    }

    [Fact]
    public void Writable_is_raised_when_frames_were_taken_and_when_credit_arrived()
    {
        Start();
        var id = _acceptor.Open(Request);
        Run();
        Happened(_dialer);
        var sent = 0;
        while (_acceptor.SendAllowance(id) is var allowance and > 0)
        {
            sent += allowance;
            _acceptor.Send(id, Frames.Slice(new byte[allowance]));
            Assert.Equal(0, _acceptor.SendAllowance(id));
            Run();
            if (sent + 58 < 256 * 1024)
                Assert.Equal([$"Writable {id}"], Happened(_acceptor));
        }

        Assert.Empty(Happened(_acceptor));
        Happened(_dialer);
        _dialer.Accept(id);
        _dialer.Consumed(id, sent);
        Run();
        Assert.Equal([$"Accepted {id}", $"Writable {id}"], Happened(_acceptor));
    }

    [Fact]
    public void Events_of_a_stream_that_was_reset_here_meanwhile_are_not_raised()
    {
        Start();
        var id = _acceptor.Open(Request);
        _acceptor.Send(id, Frames.Slice("before"u8));
        Run();
        var bytes = Frames.Slice([.. Frames.Data(id, 50_000), .. Frames.Fin(id)]);
        bytes.Chunk!.Retain();
        _dialer.Receive(bytes);
        Assert.True(_dialer.TryTakeEvent(out var opened));
        Assert.Equal(StreamEventKind.Opened, opened.Kind);
        _dialer.Reset(id);
        Assert.Empty(Happened(_dialer));
        Assert.Equal(1, Frames.References(bytes.Chunk));
    }

    [Fact]
    public void Opening_accepting_and_ending_thousands_of_streams_leaves_nothing_behind()
    {
        Start();
        for (var i = 0; i < 3000; i++)
        {
            var id = _acceptor.Open(Request);
            _acceptor.Finish(id);
            Run();
            _dialer.Finish(id);
            Run();
            Happened(_dialer);
            Assert.Equal([$"Accepted {id}", $"Finished {id}"], Happened(_acceptor));
        }

        Assert.Equal((0, 0), (_dialer.StreamCount, _acceptor.StreamCount));
    }

    [Fact]
    public void What_is_short_and_ready_at_the_same_time_leaves_in_one_run()
    {
        Start();
        var id = _dialer.Open(Request);
        _dialer.Send(id, Frames.Slice("GET"u8));
        Assert.Single(Runs(_dialer, _acceptor));
        Assert.Equal([$"Opened {id} 9000 127.0.0.1:53211", $"Data {id} 3"], Happened(_acceptor));

        _acceptor.Accept(id);
        _acceptor.Send(id, Frames.Slice("200 OK"u8));
        _acceptor.Finish(id);
        Assert.Single(Runs(_acceptor, _dialer));
        Assert.Equal([$"Accepted {id}", $"Data {id} 6", $"Finished {id}"], Happened(_dialer));
    }

    [Fact]
    public void A_frame_that_is_not_short_leaves_alone_in_its_place()
    {
        Start();
        uint[] ids = [_dialer.Open(Request), _dialer.Open(Request), _dialer.Open(Request)];
        Run();
        _dialer.Send(ids[0], Frames.Slice(new byte[100]));
        _dialer.Send(ids[1], Frames.Slice(new byte[5000]));
        _dialer.Send(ids[2], Frames.Slice(new byte[200]));
        Assert.Equal(
            [100 + MuxFrameHeader.Size, 5000 + MuxFrameHeader.Size, 200 + MuxFrameHeader.Size], Runs(_dialer));

        // What is taken and waits for its turn is released with the rest.
        _dialer.Send(ids[0], Frames.Slice(new byte[100]));
        _dialer.Send(ids[1], Frames.Slice(new byte[5000]));
        Assert.True(_dialer.TryTakeFrame(out var first));
        first.Release();
    }

    [Fact]
    public void Many_short_frames_leave_in_runs_of_4_KiB_in_their_order()
    {
        using var ledger = ChunkLedger.Open();
        Start();
        var ids = Enumerable.Range(0, 40).Select(_ => _dialer.Open(Request)).ToArray();
        Run();
        Happened(_acceptor);
        foreach (var id in ids)
            _dialer.Send(id, Frames.Slice(new byte[300]));
        var runs = Runs(_dialer, _acceptor);
        Assert.Equal([12, 12, 12, 4], runs.Select(run => run / (300 + MuxFrameHeader.Size)));
        Assert.All(runs, run => Assert.InRange(run, 1, 4096 - ByteChunk.Headroom));
        Assert.Equal(ids.Select(id => $"Data {id} 300"), Happened(_acceptor));
        Assert.Equal(0, ledger.Outstanding);
    }

    [Fact]
    public void Beside_much_that_is_queued_frames_are_taken_one_by_one_so_that_what_is_urgent_passes()
    {
        Start();
        uint[] ids = [_dialer.Open(Request), _dialer.Open(Request), _dialer.Open(Request)];
        Run();
        _dialer.Send(ids[0], Frames.Slice(new byte[100]));
        _dialer.Send(ids[1], Frames.Slice(new byte[60_000]));
        _dialer.Send(ids[2], Frames.Slice(new byte[60_000]));
        Assert.True(_dialer.TryTakeFrame(out var first));
        Assert.Equal(100 + MuxFrameHeader.Size, first.Length);
        first.Release();
        _dialer.SendControl(new Listen(9000));
        Assert.True(_dialer.TryTakeFrame(out var urgent));
        Assert.Contains("listen", System.Text.Encoding.ASCII.GetString(urgent.Span), StringComparison.Ordinal);
        urgent.Release();
        Assert.Equal([60_000 + MuxFrameHeader.Size, 60_000 + MuxFrameHeader.Size], Runs(_dialer));
    }

    private static List<int> Runs(V2Session from, V2Session? to = null)
    {
        var runs = new List<int>();
        while (from.TryTakeFrame(out var run))
        {
            runs.Add(run.Length);
            if (to is null)
                run.Release();
            else
                to.Receive(run);
        }

        return runs;
    }

    private void Start()
    {
        Run();
        Happened(_dialer);
        Happened(_acceptor);
    }

    private void Run() => V2Testing.Exchange(_dialer, _acceptor);

    private static byte[] TakeAll(V2Session session)
    {
        var bytes = new List<byte>();
        while (session.TryTakeFrame(out var frame))
        {
            bytes.AddRange(frame.Span);
            frame.Release();
        }

        return [.. bytes];
    }

    private static List<string> Happened(V2Session session)
    {
        var events = new List<string>();
        while (session.TryTakeEvent(out var e))
        {
            e.Payload.Release();
            events.Add(e.Kind switch
            {
                StreamEventKind.Control => $"Control {e.Control!.GetType().Name}",
                StreamEventKind.Opened => $"Opened {e.StreamId} {e.Request.Port} {e.Request.Remote}",
                StreamEventKind.Data => $"Data {e.StreamId} {e.Payload.Length}",
                _ => $"{e.Kind} {e.StreamId}",
            });
        }

        return events;
    }
}
