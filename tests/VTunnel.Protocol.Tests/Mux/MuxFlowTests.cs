using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Mux;

namespace VTunnel.Protocol.Tests.Mux;

public class MuxFlowTests
{
    private const int Initial = MuxOptions.InitialWindowBytes;
    private static readonly int Quantum = new MuxOptions().SendQuantumBytes;

    [Fact]
    public void What_may_be_sent_is_the_least_of_credit_and_queue_so_that_no_payload_is_ever_split()
    {
        var pair = new MuxPair();
        var (stream, _) = pair.Open();
        var total = 0;
        while (pair.Dialer.SendAllowance(stream) is var allowance and > 0)
        {
            Assert.True(allowance <= Quantum);
            pair.Dialer.Send(stream, Frames.Slice(new byte[allowance]));
            // The queue is full now, however much credit there is.
            Assert.Equal(0, pair.Dialer.SendAllowance(stream));
            total += allowance;
            Assert.True(pair.Dialer.TryTakeFrame(out var frame));
            Assert.Equal(allowance + 12, frame.Length);
            frame.Release();
        }

        Assert.Equal(Initial, total);
    }

    [Fact]
    public void A_queue_that_is_more_than_half_full_allows_nothing_so_that_reads_stay_large()
    {
        var pair = new MuxPair();
        var (stream, _) = pair.Open();
        pair.Dialer.Send(stream, Frames.Slice(new byte[Quantum / 2]));
        Assert.Equal(Quantum - Quantum / 2, pair.Dialer.SendAllowance(stream));
        pair.Dialer.Send(stream, Frames.Slice(new byte[1]));
        Assert.Equal(0, pair.Dialer.SendAllowance(stream));
    }

    [Fact]
    public void Frames_are_shorter_for_a_while_after_a_stream_that_sends_little_has_sent_some()
    {
        var options = new MuxOptions { SendQuantumBytes = 65_000, InteractiveQuantumBytes = 10_000, InteractiveHold = TimeSpan.FromMilliseconds(250) };
        var pair = new MuxPair(options);
        var (bulk, _) = pair.Open();
        var (keys, _) = pair.Open();
        Assert.False(pair.Dialer.IsInteractive);
        Assert.Equal(65_000, pair.Dialer.SendAllowance(bulk));

        SendSmall(pair, keys, 3);
        Assert.False(pair.Dialer.IsInteractive);
        pair.Dialer.Send(keys, Frames.Slice([1]));
        Assert.False(pair.Dialer.IsInteractive);
        pair.Send();
        Assert.True(pair.Dialer.IsInteractive);
        Assert.Equal(10_000, pair.Dialer.SendAllowance(bulk));

        pair.Deliver(TimeSpan.FromMilliseconds(249));
        Assert.True(pair.Dialer.IsInteractive);
        pair.Deliver(TimeSpan.FromMilliseconds(1));
        Assert.False(pair.Dialer.IsInteractive);
        Assert.Equal(65_000, pair.Dialer.SendAllowance(bulk));
    }

    [Fact]
    public void The_small_rest_of_much_makes_nobody_interactive_and_neither_do_control_messages()
    {
        var pair = new MuxPair();
        var (bulk, _) = pair.Open();
        var (control, _) = pair.Open();
        pair.Dialer.Prioritize(control);
        pair.Dialer.Send(bulk, Frames.Slice(new byte[60_000]));
        pair.Send();
        SendSmall(pair, bulk, 3);
        SendSmall(pair, control, 10);
        Assert.False(pair.Dialer.IsInteractive);
        pair.Dialer.Send(bulk, Frames.Slice(new byte[3000]));
        SendSmall(pair, bulk, 3);
        Assert.False(pair.Dialer.IsInteractive);

        // But then it has become a stream that sends little.
        SendSmall(pair, bulk, 1);
        Assert.True(pair.Dialer.IsInteractive);
    }

    private static void SendSmall(MuxPair pair, MuxStream stream, int count)
    {
        for (var i = 0; i < count; i++)
        {
            pair.Dialer.Send(stream, Frames.Slice([1]));
            pair.Send();
        }
    }

    [Fact]
    public void What_was_allowed_before_a_stream_sent_little_may_still_be_sent()
    {
        var pair = new MuxPair(new MuxOptions { InteractiveQuantumBytes = 4096 });
        var (bulk, _) = pair.Open();
        var (keys, _) = pair.Open();
        var allowed = pair.Dialer.SendAllowance(bulk);
        SendSmall(pair, keys, 4);
        Assert.True(pair.Dialer.SendAllowance(bulk) < allowed);
        pair.Dialer.Send(bulk, Frames.Slice(new byte[allowed]));
        Assert.Equal(0, pair.Dialer.SendAllowance(bulk));
        Assert.Equal(1, pair.Send());
    }

    [Fact]
    public void However_small_the_writes_a_stream_queues_at_most_64()
    {
        var pair = new MuxPair();
        var (stream, _) = pair.Open();
        var count = 0;
        for (; pair.Dialer.SendAllowance(stream) > 0; count++)
            pair.Dialer.Send(stream, Frames.Slice([1]));
        Assert.Equal(64, count);
    }

    [Fact]
    public void More_than_was_allowed_and_a_slice_without_headroom_are_mistakes_of_the_caller()
    {
        var pair = new MuxPair();
        var (stream, _) = pair.Open();
        Assert.Throws<ArgumentException>(() => pair.Dialer.Send(stream, Frames.Slice(new byte[Quantum + 1])));
        Assert.Throws<ArgumentException>(() => pair.Dialer.Send(stream, Frames.Slice([1, 2, 3]) with { Offset = 63 }));
        pair.Dialer.Finish(stream);
        Assert.Throws<InvalidOperationException>(() => pair.Dialer.Send(stream, Frames.Slice([1])));
    }

    [Fact]
    public void Consuming_more_than_was_delivered_is_a_mistake_of_the_caller()
    {
        var (session, stream) = (new MuxSession(MuxRole.Dialer), default(MuxStream));
        stream = session.Open()!;
        Frames.Sent(session);
        Frames.Receive(session, Frames.Data(1, 10, MuxFrameFlags.Ack));
        Assert.Throws<ArgumentOutOfRangeException>(() => session.Consumed(stream, 11));
        session.Consumed(stream, 10);
        Assert.Throws<ArgumentOutOfRangeException>(() => session.Consumed(stream, 1));
    }

    [Fact]
    public void Writable_is_raised_once_for_each_time_that_nothing_was_allowed()
    {
        var pair = new MuxPair();
        var (stream, far) = pair.Open();
        Assert.Empty(Frames.Happened(pair.Dialer));
        var sent = 0;
        while (MuxPair.Fill(pair.Dialer, stream) is var filled and > 0)
        {
            sent += filled;
            pair.Run();
            Assert.Equal(sent < Initial ? ["writable 1"] : [], Frames.Happened(pair.Dialer));
        }

        Assert.Equal(Initial, sent);
        Frames.Happened(pair.Acceptor);
        pair.Acceptor.Consumed(far, Initial / 2 - 1);
        pair.Run();
        Assert.Empty(Frames.Happened(pair.Dialer));
        pair.Acceptor.Consumed(far, 1);
        pair.Run();
        Assert.Equal(["writable 1"], Frames.Happened(pair.Dialer));
        Assert.True(pair.Dialer.SendAllowance(stream) > 0);
        // Nobody was refused since, so nobody is told.
        pair.Acceptor.Consumed(far, Initial / 2);
        pair.Run();
        Assert.Empty(Frames.Happened(pair.Dialer));
    }

    [Fact]
    public void A_stalled_reader_costs_its_own_window_and_nothing_else()
    {
        var pair = new MuxPair();
        var (stalled, _) = pair.Open();
        var (moving, movingFar) = pair.Open();
        var (sent, moved) = (0L, 0L);
        for (var i = 0; i < 500; i++)
        {
            sent += MuxPair.Fill(pair.Dialer, stalled);
            MuxPair.Fill(pair.Dialer, moving);
            pair.Run();
            while (pair.Acceptor.TryTakeEvent(out var e))
            {
                if (e.Kind == MuxEventKind.Data && e.Stream == movingFar)
                {
                    moved += e.Payload.Length;
                    pair.Acceptor.Consumed(movingFar, e.Payload.Length);
                }

                e.Payload.Release();
            }

            Frames.Happened(pair.Dialer);
        }

        Assert.Equal(Initial, sent);
        Assert.True(moved >= 499L * Quantum, $"{moved} bytes moved");
    }

    [Fact]
    public void Two_ends_full_at_once_go_on_as_soon_as_either_reads()
    {
        var pair = new MuxPair();
        var streams = Enumerable.Range(0, 8).Select(_ => pair.Open()).ToArray();

        // Both saturate every stream while nobody reads.
        for (var i = 0; i < 10; i++)
        {
            foreach (var (near, far) in streams)
            {
                MuxPair.Fill(pair.Dialer, near);
                MuxPair.Fill(pair.Acceptor, far);
            }

            pair.Run();
        }

        Assert.All(streams, s => Assert.Equal((0, 0), (pair.Dialer.SendAllowance(s.Dialer), pair.Acceptor.SendAllowance(s.Acceptor))));
        var held = Frames.Events(pair.Dialer).Concat(Frames.Events(pair.Acceptor)).Where(e => e.Kind == MuxEventKind.Data).ToList();
        Assert.Equal(16L * Initial, held.Sum(e => (long)e.Payload.Length));

        foreach (var e in held)
        {
            e.Payload.Release();
            (e.Stream!.IsLocal ? pair.Dialer : pair.Acceptor).Consumed(e.Stream, e.Payload.Length);
        }

        pair.Run();
        Assert.All(streams, s => Assert.True(pair.Dialer.SendAllowance(s.Dialer) > 0 && pair.Acceptor.SendAllowance(s.Acceptor) > 0));
    }

    [Fact]
    public void Receiving_goes_on_while_nothing_can_be_sent()
    {
        // The line takes nothing from the acceptor: what it owes stays bounded by its streams, and it reads on.
        var acceptor = new MuxSession(MuxRole.Acceptor);
        Frames.Receive(acceptor, Frames.Syn(1));
        var stream = Frames.Events(acceptor)[0].Stream!;
        acceptor.Accept(stream);
        while (acceptor.SendAllowance(stream) > 0)
            acceptor.Send(stream, Frames.Slice(new byte[acceptor.SendAllowance(stream)]));
        for (var i = 0; i < Initial / 1024; i++)
        {
            Frames.Receive(acceptor, Frames.Data(1, 1024), Frames.Ping((uint)i));
            Assert.Equal(["data 1 1024"], Frames.Happened(acceptor));
            acceptor.Consumed(stream, 1024);
        }

        var sent = Frames.Sent(acceptor);
        Assert.Equal(16, sent.Count(f => f.StartsWith("ping ack", StringComparison.Ordinal)));
        Assert.Single(sent, f => f.StartsWith("window-update ack", StringComparison.Ordinal));
    }

    [Fact]
    public void Control_frames_pass_ahead_of_data()
    {
        var pair = new MuxPair();
        var (stream, far) = pair.Open();
        MuxPair.Fill(pair.Dialer, stream);
        Frames.Receive(pair.Dialer, Frames.Ping(3), Frames.Data(stream.Id, Initial));
        Frames.Happened(pair.Dialer);
        pair.Dialer.Consumed(stream, Initial);
        pair.Dialer.Reset(pair.Dialer.Open()!);
        var announced = pair.Dialer.Open()!;

        Assert.True(pair.Dialer.TryTakeFrame(out var first));
        Assert.Contains("ping ack 0 3", Frames.Describe(first.Span));
        Assert.Contains(Frames.Describe(first.Span), f => f.StartsWith("window-update -", StringComparison.Ordinal));
        first.Release();
        Assert.True(announced.Id > stream.Id && far.Id == stream.Id);
    }

    [Fact]
    public void Eight_bulk_streams_share_the_line_equally_and_a_keystroke_waits_for_one_frame()
    {
        var session = new MuxSession(MuxRole.Dialer);
        var bulk = Enumerable.Range(0, 8).Select(_ => session.Open()!).ToArray();
        var keys = session.Open()!;
        Frames.Sent(session);
        foreach (var stream in bulk)
            Frames.Receive(session, Frames.Update(stream.Id, 1 << 30, MuxFrameFlags.Ack));
        Frames.Receive(session, Frames.Ack(keys.Id));

        var shares = bulk.ToDictionary(s => s.Id, _ => 0L);
        var waited = -1L;
        var longest = 0L;
        for (var i = 0; i < 5000; i++)
        {
            foreach (var stream in bulk)
                MuxPair.Fill(session, stream, stream.Id % 4 == 1 ? 20_000 : int.MaxValue);
            // Not at the start, when the bulk streams are as new as this one: then it waits for one round.
            if (i % 37 == 36)
            {
                session.Send(keys, Frames.Slice(new byte[64]));
                waited = 0;
            }

            Assert.True(session.TryTakeFrame(out var frame));
            var header = MuxFrameHeader.Read(frame.Span);
            frame.Release();
            if (header.StreamId == keys.Id)
            {
                longest = Math.Max(longest, waited);
                waited = -1;
                continue;
            }

            shares[header.StreamId] += header.Length;
            if (waited >= 0)
                waited += header.Length;
        }

        Assert.True(longest <= Quantum, $"a keystroke waited for {longest} bytes");
        Assert.True(shares.Values.Max() - shares.Values.Min() <= 2 * Quantum, string.Join(' ', shares.Values));
    }

    [Fact]
    public void A_prioritised_stream_goes_first_and_needs_no_room_in_the_session_queue()
    {
        var session = new MuxSession(MuxRole.Dialer, new MuxOptions { MaxSendQueueBytes = 65_536 });
        var control = session.Open()!;
        session.Prioritize(control);
        var bulk = session.Open()!;
        MuxPair.Fill(session, bulk);
        Assert.True(session.SendAllowance(control) > 0);
        session.Send(control, Frames.Slice([1]));
        Assert.Throws<InvalidOperationException>(() => session.Prioritize(bulk));
        Assert.Equal(["window-update syn 1 0", "data - 1 1 01"], Frames.Sent(session)[..2]);
    }

    [Fact]
    public void The_sessions_queue_is_bounded_and_everyone_who_waits_for_it_gets_a_turn()
    {
        const int Count = 300;
        var session = new MuxSession(MuxRole.Dialer, new MuxOptions { MaxSendQueueBytes = 4 * 65_536 });
        var streams = Enumerable.Range(0, Count).Select(_ => session.Open()!).ToDictionary(s => s.Id);
        Frames.Sent(session);
        foreach (var id in streams.Keys)
            Frames.Receive(session, Frames.Update(id, 1 << 30, MuxFrameFlags.Ack));
        Frames.Happened(session);

        var sent = streams.Keys.ToDictionary(id => id, _ => 0L);
        foreach (var (id, stream) in streams)
            sent[id] += MuxPair.Fill(session, stream);
        for (var i = 0; i < Count * 20; i++)
        {
            Assert.True(session.QueuedBytes <= 4 * 65_536);
            Assert.True(session.TryTakeFrame(out var frame));
            frame.Release();
            foreach (var e in Frames.Events(session))
            {
                // Every third has nothing to send when it is woken.
                if (e.Kind == MuxEventKind.Writable && (e.Stream!.Id / 2 % 3 != 0 || sent[e.Stream.Id] == 0))
                    sent[e.Stream.Id] += MuxPair.Fill(session, e.Stream);
            }
        }

        var busy = sent.Where(s => s.Key / 2 % 3 != 0).Select(s => s.Value).ToList();
        Assert.All(sent.Values, bytes => Assert.True(bytes > 0));
        Assert.True(busy.Max() - busy.Min() <= 2 * Quantum, $"{busy.Min()} to {busy.Max()}");
    }

    [Fact]
    public void When_the_session_queue_has_drained_all_who_wait_are_told()
    {
        var session = new MuxSession(MuxRole.Dialer, new MuxOptions { MaxSendQueueBytes = 65_536 });
        var streams = Enumerable.Range(0, 10).Select(_ => session.Open()!).ToArray();
        Frames.Sent(session);
        MuxPair.Fill(session, streams[0]);
        foreach (var stream in streams[1..])
            Assert.Equal(0, session.SendAllowance(stream));

        session.Reset(streams[0]);
        Assert.Equal(streams[1..].Select(s => $"writable {s.Id}"), Frames.Happened(session));
    }

    [Fact]
    public void On_a_long_path_the_window_grows_until_it_no_longer_limits_and_keeps_to_the_bound()
    {
        var pair = new MuxPair(delay: TimeSpan.FromMilliseconds(50));
        var (stream, far) = pair.Open();
        pair.Dialer.SendPing();
        pair.Acceptor.SendPing();
        pair.Run();

        // The sender fills whatever credit there is, the reader takes everything: only the window limits.
        var step = TimeSpan.FromMilliseconds(1);
        var received = 0L;
        var lastSecond = 0L;
        for (var i = 0; i < 4000; i++)
        {
            if (i == 3000)
                lastSecond = received;
            while (MuxPair.Fill(pair.Dialer, stream) > 0)
                pair.Send();
            pair.Send();
            pair.Deliver(step);
            while (pair.Acceptor.TryTakeEvent(out var e))
            {
                received += e.Payload.Length;
                e.Payload.Release();
                if (e.Kind == MuxEventKind.Data)
                    pair.Acceptor.Consumed(far, e.Payload.Length);
            }

            while (pair.Dialer.TryTakeEvent(out _))
            {
            }
        }

        Assert.Equal(new MuxOptions().MaxStreamWindowBytes, far.ReceiveWindowBytes);
        var rate = (received - lastSecond) / 1e6;
        Assert.True(rate > 150, $"{rate:F0} MB/s in the last second");
        Assert.Equal(new MuxOptions().MaxStreamWindowBytes - Initial, pair.Acceptor.GrownWindowBytes);
        pair.Acceptor.Reset(far);
        Assert.Equal(0, pair.Acceptor.GrownWindowBytes);
    }

    [Fact]
    public void Small_messages_do_not_hold_on_to_the_large_chunk_they_arrived_in()
    {
        var session = new MuxSession(MuxRole.Acceptor);
        Frames.Receive(session, Frames.Syn(1));
        Frames.Events(session);
        var chunk = ByteChunk.Rent();
        var bytes = Frames.Data(1, 64).Concat(Frames.Data(1, 5000)).ToArray();
        bytes.CopyTo(chunk.Array.AsSpan(100));
        chunk.Retain();
        session.Receive(new ByteSlice(chunk, 100, bytes.Length));

        var events = Frames.Events(session);
        Assert.Equal([64, 5000], events.Select(e => e.Payload.Length));
        Assert.NotSame(chunk, events[0].Payload.Chunk);
        Assert.Equal(Frames.Pattern(64), events[0].Payload.Span);
        Assert.Same(chunk, events[1].Payload.Chunk);
        events.ForEach(e => e.Payload.Release());
        Assert.Equal(1, Frames.References(chunk));
        chunk.Release();
    }

    [Fact]
    public void Streams_that_move_bytes_measure_the_round_trip_again()
    {
        var session = new MuxSession(MuxRole.Acceptor) { Now = TimeSpan.FromSeconds(100) };
        Frames.Receive(session, Frames.Syn(1));
        var stream = Frames.Events(session)[0].Stream!;
        var pings = 0;
        for (var i = 0; i < 100; i++)
        {
            session.Now += TimeSpan.FromMilliseconds(100);
            Frames.Receive(session, Frames.Data(1, Initial / 2));
            Frames.Happened(session);
            session.Consumed(stream, Initial / 2);
            foreach (var frame in Frames.Sent(session).Where(f => f.StartsWith("ping syn", StringComparison.Ordinal)))
            {
                pings++;
                Frames.Receive(session, Frames.Ping(uint.Parse(frame.Split(' ')[^1], null), MuxFrameFlags.Ack));
            }
        }

        // Ten seconds, one every two.
        Assert.InRange(pings, 5, 6);
    }
}
