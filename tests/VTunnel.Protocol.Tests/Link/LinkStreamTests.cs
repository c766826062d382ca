using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Link;
using VTunnel.Testing;
using static VTunnel.Protocol.Tests.Link.LinkTesting;

namespace VTunnel.Protocol.Tests.Link;

/// <summary>The stream on one carrier: data, acknowledgements, windows, ends.</summary>
public sealed class LinkStreamTests
{
    [Fact]
    public void A_first_carrier_establishes_the_link_on_both_sides()
    {
        var pair = new LinkPair(Quiet, Quiet);
        Assert.True(pair.Client.NeedsCarrier);
        pair.Connect();

        Assert.Equal(LinkEventKind.Established, Assert.Single(pair.ClientEvents).Kind);
        Assert.Equal(LinkEventKind.Established, Assert.Single(pair.ServerEvents).Kind);
        Assert.Equal(LinkPair.Id, pair.Client.Id);
        Assert.True(pair.Client.IsUp && pair.Server.IsUp);
        Assert.False(pair.Client.NeedsCarrier);
        foreach (var role in new[] { LinkRole.Client, LinkRole.Server })
        {
            Assert.Equal(LinkRecordType.Hello, pair.Sent(role).First());
            Assert.Equal(
                [LinkRecordType.Hello, .. Enumerable.Repeat(LinkRecordType.Ping, 8), .. Enumerable.Repeat(LinkRecordType.Pong, 8)], pair.Sent(role).Order());
        }
    }

    [Fact]
    public void Bytes_arrive_in_order_in_both_directions()
    {
        var pair = Connected();
        for (var i = 0; i < 50; i++)
        {
            pair.Client.Write(Pattern(i * 100 + 1, i));
            pair.Server.Write(Pattern(7, i));
            if (i % 3 == 0)
                pair.Pump();
        }

        pair.Pump();
        Assert.Equal(Enumerable.Range(0, 50).SelectMany(i => Pattern(i * 100 + 1, i)), pair.ServerRead);
        Assert.Equal(Enumerable.Range(0, 50).SelectMany(i => Pattern(7, i)), pair.ClientRead);
        Assert.Equal(pair.ServerRead.Count, pair.Client.WrittenBytes);
        Assert.Equal(pair.ServerRead.Count, pair.Server.ReadBytes);
    }

    [Fact]
    public void What_is_written_before_the_first_carrier_waits_for_it()
    {
        var pair = new LinkPair(Quiet, Quiet);
        pair.Client.Write(Pattern(100));
        pair.Connect();
        Assert.Equal(Pattern(100), pair.ServerRead);
    }

    [Fact]
    public void A_client_says_nothing_but_hello_until_the_server_has_answered()
    {
        var pair = new LinkPair(Quiet, Quiet);
        pair.Client.Write(Pattern(100));
        pair.Dial();
        Assert.True(LinkHello.IsHello(pair.Client.Take(pair.ClientCarrier, pair.Now)));
        Assert.Null(pair.Client.Take(pair.ClientCarrier, pair.Now));
    }

    [Fact]
    public void A_large_slice_is_sent_from_where_it_lies_and_read_from_where_it_arrived()
    {
        var pair = Connected();
        var written = ByteChunk.Copy(Pattern(60_000));
        pair.Client.Write(written);
        Assert.True(pair.Client.TryTakeMessage(pair.ClientCarrier, pair.Now, out var message));
        Assert.Same(written.Chunk, message.Chunk);
        Assert.Equal((written.Offset - 1, 60_001), (message.Offset, message.Length));
        Assert.Equal((byte)LinkRecordType.Data, message.Span[0]);

        var received = ByteChunk.Copy(message.Span);
        pair.Server.Receive(pair.ServerCarrier, received, pair.Now);
        Assert.True(pair.Server.TryRead(out var read));
        Assert.Same(received.Chunk, read.Chunk);
        Assert.Equal(Pattern(60_000), read.Span.ToArray());
        read.Release();
        message.Release();
    }

    [Fact]
    public void A_slice_without_room_for_headers_is_sent_from_a_copy()
    {
        var pair = Connected();
        var chunk = ByteChunk.Rent(8192);
        Pattern(8192).CopyTo(chunk.Array, 0);
        pair.Client.Write(new ByteSlice(chunk, LinkRecord.HeadroomBytes - 1, 8000));
        Assert.True(pair.Client.TryTakeMessage(pair.ClientCarrier, pair.Now, out var message));
        Assert.NotSame(chunk, message.Chunk);
        Assert.True(message.Offset >= LinkRecord.CarrierHeadroomBytes);
        Assert.Equal(Pattern(8000, LinkRecord.HeadroomBytes - 1), message.Span[1..].ToArray());
        Assert.Equal(Pattern(8192), chunk.Array[..8192]);
        message.Release();
    }

    [Fact]
    public void Small_writes_that_wait_together_go_in_one_record()
    {
        var pair = Connected();
        for (var i = 0; i < 1000; i++)
            pair.Client.Write(Pattern(12, i * 12));
        pair.Pump();
        Assert.Equal([LinkRecordType.Data], pair.Sent(LinkRole.Client));
        Assert.Equal(Pattern(12_000), pair.ServerRead);
    }

    [Fact]
    public void A_record_of_small_writes_stays_near_64_KiB_and_has_room_for_the_carriers_header()
    {
        var pair = Connected(Quiet with { MaxUnsentBytes = 1 << 20 });
        for (var i = 0; i < 100; i++)
            pair.Client.Write(Pattern(3000, i * 3000));
        while (pair.Client.TryTakeMessage(pair.ClientCarrier, pair.Now, out var message))
        {
            Assert.InRange(message.Length, 1, ByteChunk.DefaultSize);
            Assert.True(message.Offset >= LinkRecord.CarrierHeadroomBytes);
            // A carrier may write there; nothing of the stream may suffer.
            message.Chunk!.Array.AsSpan(message.Offset - LinkRecord.CarrierHeadroomBytes, LinkRecord.CarrierHeadroomBytes).Fill(0xee);
            pair.Server.Receive(pair.ServerCarrier, ByteChunk.Copy(message.Span), pair.Now);
            message.Release();
            pair.Drain();
        }

        Assert.Equal(Pattern(300_000), pair.ServerRead);
    }

    [Fact]
    public void A_carriers_header_in_front_of_a_small_record_does_not_touch_the_one_before_it()
    {
        var pair = Connected();
        var messages = new List<ByteSlice>();
        for (var i = 0; i < 20; i++)
        {
            pair.Client.Write(Pattern(100, i * 100));
            Assert.True(pair.Client.TryTakeMessage(pair.ClientCarrier, pair.Now, out var message));
            message.Chunk!.Array.AsSpan(message.Offset - LinkRecord.CarrierHeadroomBytes, LinkRecord.CarrierHeadroomBytes).Fill(0xee);
            messages.Add(message);
        }

        // None was delivered; all of it is replayed on the next carrier.
        pair.Cut();
        pair.Connect();
        Assert.Equal(Pattern(2000), pair.ServerRead);
        for (var i = 0; i < messages.Count; i++)
        {
            Assert.Equal(Pattern(100, i * 100), messages[i].Span[1..].ToArray());
            messages[i].Release();
        }
    }

    [Fact]
    public void A_slice_longer_than_a_record_is_split()
    {
        var pair = Connected(Quiet with { MaxUnsentBytes = 4 << 20, InitialReplayWindowBytes = 8 << 20 });
        pair.Client.Write(Pattern(LinkRecord.MaxBytes + 5));
        pair.Pump();
        Assert.All(pair.Delivered, message => Assert.True(message.Message.Length <= LinkRecord.MaxBytes));
        Assert.Equal(Pattern(LinkRecord.MaxBytes + 5), pair.ServerRead);
    }

    [Fact]
    public void A_full_replay_buffer_pauses_the_writer_until_an_ack_comes_and_nothing_else()
    {
        var options = new LinkOptions { InitialReplayWindowBytes = 200_000, MaxReplayWindowBytes = 200_000, MaxUnsentBytes = 1 << 20 };
        var pair = Connected(options);
        var written = 0;
        while (pair.Client.WritableBytes > 0)
        {
            pair.Client.Write(Pattern(10_000, written));
            written += 10_000;
        }

        Assert.True(pair.Client.ReplayBufferedBytes <= 200_000 + 20_000, $"{pair.Client.ReplayBufferedBytes}");
        Assert.Throws<InvalidOperationException>(() => pair.Client.Write(Pattern(1)));

        // The peer answers PINGs but takes a minute to acknowledge: the link bears it.
        var now = pair.Now;
        var held = new List<byte[]>();
        for (var second = 0; second < 60; second++)
        {
            while (pair.Client.Take(pair.ClientCarrier, now) is { } message)
            {
                if (message[0] == (byte)LinkRecordType.Ping)
                    pair.Client.Receive(pair.ClientCarrier, now, [(byte)LinkRecordType.Pong, .. message[1..]]);
                else
                    held.Add(message);
            }

            now += Seconds(1);
            pair.Client.Advance(now);
            Assert.Equal(0, pair.Client.WritableBytes);
            Assert.True(pair.Client.IsUp);
        }

        foreach (var message in held)
            pair.Server.Receive(pair.ServerCarrier, now, message);
        pair.Drain();
        Assert.Equal(Pattern(written), pair.ServerRead);
        var ack = pair.Server.Take(pair.ServerCarrier, now)!;
        pair.Client.Receive(pair.ClientCarrier, now, ack);
        Assert.Equal(Record(LinkRecordType.Ack, written), ack);
        Assert.Equal(200_000, pair.Client.WritableBytes);
    }

    [Fact]
    public void Tiny_writes_do_not_hold_more_memory_than_the_window()
    {
        var pair = Connected(Quiet with { InitialReplayWindowBytes = 256 * 1024, MaxReplayWindowBytes = 256 * 1024 });
        var writes = 0;
        while (pair.Client.WritableBytes > 0)
        {
            // Each is taken at once, so that none is gathered with the next.
            var chunk = ByteChunk.Rent();
            pair.Client.Write(new ByteSlice(chunk, ByteChunk.Headroom, 1));
            pair.Client.Take(pair.ClientCarrier, pair.Now);
            writes++;
        }

        // 64 KiB chunks of one byte each would have been 250 MiB.
        Assert.InRange(pair.Client.ReplayBufferedBytes, 256 * 1024, 256 * 1024 + 100);
        Assert.InRange(writes, 2000, 10_000);
    }

    [Fact]
    public void Unsent_bytes_are_bounded_so_that_urgent_frames_do_not_wait_behind_bulk()
    {
        var pair = Connected(Quiet with { MaxUnsentBytes = 100_000 });
        while (pair.Client.WritableBytes > 0)
            pair.Client.Write(Pattern(10_000));
        Assert.Equal(100_000, pair.Client.UnsentBytes);
        pair.Client.Take(pair.ClientCarrier, pair.Now);
        Assert.InRange(pair.Client.WritableBytes, 1, 100_000);
    }

    [Theory]
    [InlineData(14_001)]
    [InlineData(60_000)]
    [InlineData(10_001)]
    public void A_sender_keeps_within_the_receive_window_of_its_peer_to_the_byte(int slice)
    {
        var pair = Connected(Quiet, Quiet with { ReceiveWindowBytes = 10_000, AckAfterBytes = 1 << 20 });
        pair.Client.Write(Pattern(slice));
        var sent = new List<byte>();
        while (pair.Client.Take(pair.ClientCarrier, pair.Now) is { } message)
            sent.AddRange(message[1..]);
        Assert.Equal(Pattern(10_000), sent);

        pair.Client.Receive(pair.ClientCarrier, pair.Now, Record(LinkRecordType.Ack, 4_000));
        Assert.Equal(Pattern(Math.Min(4_000, slice - 10_000), 10_000), pair.Client.Take(pair.ClientCarrier, pair.Now)![1..]);
        Assert.Null(pair.Client.Take(pair.ClientCarrier, pair.Now));
    }

    [Fact]
    public void Data_beyond_the_receive_window_ends_the_link()
    {
        var pair = Connected(Quiet, Quiet with { ReceiveWindowBytes = 1000 });
        pair.Server.Receive(pair.ServerCarrier, pair.Now, [3, .. new byte[1000]]);
        Assert.False(pair.Server.IsEnded);
        pair.Server.Receive(pair.ServerCarrier, pair.Now, [3, 0]);
        AssertViolation(pair, "receive window of 1000 bytes");
    }

    [Fact]
    public void An_ack_is_due_at_once_after_256_KiB_and_goes_ahead_of_data()
    {
        var pair = Connected(Quiet with { InitialReplayWindowBytes = 1 << 20, InteractiveReplayWindowBytes = 1 << 20 });
        pair.Server.Write(Pattern(5000));
        pair.Server.Receive(pair.ServerCarrier, pair.Now, [3, .. new byte[262_143]]);
        pair.Drain();
        Assert.Equal((byte)LinkRecordType.Data, pair.Server.Take(pair.ServerCarrier, pair.Now)![0]);

        pair.Server.Write(Pattern(5000));
        pair.Server.Receive(pair.ServerCarrier, pair.Now, 3, 0);
        pair.Drain();
        Assert.Equal(Record(LinkRecordType.Ack, 262_144), pair.Server.Take(pair.ServerCarrier, pair.Now));
        Assert.Equal((byte)LinkRecordType.Data, pair.Server.Take(pair.ServerCarrier, pair.Now)![0]);
    }

    [Fact]
    public void An_ack_is_due_at_once_after_a_quarter_of_a_small_replay_window()
    {
        var pair = Connected(Quiet with { InitialReplayWindowBytes = 4000 }, Quiet);
        pair.Server.Receive(pair.ServerCarrier, pair.Now, [3, .. new byte[999]]);
        pair.Drain();
        Assert.Null(pair.Server.Take(pair.ServerCarrier, pair.Now));
        pair.Server.Receive(pair.ServerCarrier, pair.Now, 3, 0);
        pair.Drain();
        Assert.Equal(Record(LinkRecordType.Ack, 1000), pair.Server.Take(pair.ServerCarrier, pair.Now));
    }

    [Fact]
    public void A_few_bytes_are_acknowledged_after_the_ack_delay()
    {
        var pair = Connected(Quiet with { AckDelay = Ms(25) });
        pair.Client.Write(Pattern(10));
        pair.Pump();
        Assert.Equal(pair.Now + Ms(25), pair.Server.NextDeadline);
        pair.Pass(Ms(10));
        pair.Client.Write(Pattern(10));
        pair.Pump();
        pair.Pass(Ms(14));
        Assert.DoesNotContain(LinkRecordType.Ack, pair.Sent(LinkRole.Server));
        pair.Pass(Ms(1));
        Assert.Equal(Record(LinkRecordType.Ack, 20), pair.Delivered.Last(message => message.From == LinkRole.Server).Message);
        Assert.Null(pair.Server.NextDeadline);
        Assert.Equal(0, pair.Client.ReplayBufferedBytes);
    }

    [Fact]
    public void Bytes_that_nobody_read_are_not_acknowledged()
    {
        var pair = Connected(Quiet with { AckAfterBytes = 1 });
        pair.Server.Receive(pair.ServerCarrier, pair.Now, 3, 1, 2, 3);
        Assert.Null(pair.Server.Take(pair.ServerCarrier, pair.Now));
        Assert.True(pair.Server.TryRead(out var read));
        read.Release();
        Assert.Equal(Record(LinkRecordType.Ack, 3), pair.Server.Take(pair.ServerCarrier, pair.Now));
    }

    [Theory]
    [InlineData(101)]
    [InlineData(long.MaxValue)]
    public void An_ack_of_bytes_that_were_not_sent_ends_the_link(long offset)
    {
        var pair = Connected();
        pair.Server.Write(Pattern(100));
        pair.Pump();
        pair.Server.Receive(pair.ServerCarrier, pair.Now, Record(LinkRecordType.Ack, offset));
        AssertViolation(pair, $"ACK of {offset}; between 0 and 100 would be right");
    }

    [Fact]
    public void An_ack_that_goes_back_ends_the_link()
    {
        var pair = Connected();
        pair.Server.Write(Pattern(100));
        pair.Pump();
        pair.Server.Receive(pair.ServerCarrier, pair.Now, Record(LinkRecordType.Ack, 50));
        pair.Server.Receive(pair.ServerCarrier, pair.Now, Record(LinkRecordType.Ack, 49));
        AssertViolation(pair, "ACK of 49; between 50 and 100 would be right");
    }

    [Fact]
    public void The_end_of_one_direction_leaves_the_other_open()
    {
        var pair = Connected();
        pair.Client.Write(Pattern(10));
        pair.Client.Finish();
        pair.Client.Finish();
        pair.Pump();
        Assert.True(pair.Server.IsPeerFinished);
        Assert.Equal(10, pair.Server.ReadBytes);
        Assert.Equal([LinkRecordType.Data, LinkRecordType.End], pair.Sent(LinkRole.Client));
        Assert.Equal(Record(LinkRecordType.End, 10), pair.Delivered.Last(message => message.From == LinkRole.Client).Message);

        for (var i = 0; i < 20; i++)
        {
            pair.Server.Write(Pattern(20_000, i * 20_000));
            pair.Pump();
        }

        Assert.Equal(Pattern(400_000), pair.ClientRead);
        Assert.False(pair.Client.IsEnded || pair.Server.IsEnded);
        Assert.Equal(0, pair.Client.WritableBytes);
        Assert.Throws<InvalidOperationException>(() => pair.Client.Write(Pattern(1)));
    }

    [Fact]
    public void The_end_is_not_seen_before_the_bytes_that_came_before_it()
    {
        var pair = Connected();
        pair.Server.Receive(pair.ServerCarrier, pair.Now, 3, 1, 2);
        pair.Server.Receive(pair.ServerCarrier, pair.Now, Record(LinkRecordType.End, 2));
        Assert.False(pair.Server.IsPeerFinished);
        Assert.True(pair.Server.TryRead(out var read));
        read.Release();
        Assert.True(pair.Server.IsPeerFinished);
        Assert.Equal(Record(LinkRecordType.Ack, 3), pair.Server.Take(pair.ServerCarrier, pair.Now));
    }

    [Fact]
    public void A_link_whose_streams_have_both_ended_completes_on_both_sides()
    {
        var pair = Connected();
        pair.Client.Write(Pattern(10));
        pair.Client.Finish();
        pair.Pump();
        pair.Server.Write(Pattern(20));
        pair.Server.Finish();
        pair.Pump();

        Assert.Equal(Pattern(10), pair.ServerRead);
        Assert.Equal(Pattern(20), pair.ClientRead);
        AssertEnded(pair.ClientEvents, LinkEnd.Completed, SessionError.None);
        AssertEnded(pair.ServerEvents, LinkEnd.Completed, SessionError.None);
        Assert.False(pair.Client.NeedsCarrier);
        Assert.Null(pair.Client.NextDeadline);
    }

    [Fact]
    public void Nothing_is_taken_from_a_peer_after_its_end()
    {
        var pair = Connected();
        pair.Server.Receive(pair.ServerCarrier, pair.Now, Record(LinkRecordType.End, 0));
        pair.Server.Receive(pair.ServerCarrier, pair.Now, 3, 1);
        AssertViolation(pair, "DATA after END");

        pair = Connected();
        pair.Server.Receive(pair.ServerCarrier, pair.Now, Record(LinkRecordType.End, 0));
        pair.Server.Receive(pair.ServerCarrier, pair.Now, Record(LinkRecordType.End, 0));
        AssertViolation(pair, "END twice");
    }

    [Fact]
    public void An_end_at_any_offset_but_the_next_ends_the_link()
    {
        var pair = Connected();
        pair.Server.Receive(pair.ServerCarrier, pair.Now, 3, 1, 2);
        pair.Server.Receive(pair.ServerCarrier, pair.Now, Record(LinkRecordType.End, 3));
        AssertViolation(pair, "END at 3 where 2 bytes have arrived");
    }

    [Fact]
    public void An_orderly_bye_before_both_ends_is_a_violation()
    {
        var pair = Connected();
        pair.Server.Receive(pair.ServerCarrier, pair.Now, 8, 0, 0);
        AssertViolation(pair, "BYE without an error before both streams ended");
    }

    [Fact]
    public void An_abort_reaches_the_peer_with_its_reason()
    {
        var pair = Connected();
        pair.Client.Write(Pattern(100));
        pair.Client.Abort(SessionError.ShuttingDown, "closing time");
        pair.Pump();
        AssertEnded(pair.ClientEvents, LinkEnd.Aborted, SessionError.ShuttingDown);
        var end = AssertEnded(pair.ServerEvents, LinkEnd.EndedByPeer, SessionError.ShuttingDown);
        Assert.Equal("closing time", end.Text);
        Assert.Empty(pair.ServerRead);
        Assert.Equal(0, pair.Client.ReplayBufferedBytes);

        pair.Client.Write(Pattern(100));
        Assert.Equal(0, pair.Client.ReplayBufferedBytes);
        Assert.Throws<ArgumentException>(() => pair.Client.Abort(SessionError.None, ""));
    }

    [Theory]
    [InlineData(new byte[0], "an empty message")]
    [InlineData(new byte[] { 0x42, 1 }, "unknown type 0x42")]
    [InlineData(new byte[] { 4, 1 }, "ACK with 1 bytes")]
    [InlineData(new byte[] { 3 }, "DATA without payload")]
    [InlineData(new byte[] { 1, 2, 3 }, "HELLO where the carrier had begun")]
    public void A_record_that_breaks_the_rules_ends_the_link_and_says_so_on_both_sides(byte[] record, string text)
    {
        var pair = Connected();
        pair.Server.Receive(pair.ServerCarrier, pair.Now, record);
        AssertViolation(pair, text);
    }

    [Fact]
    public void An_unknown_record_type_from_0x80_up_is_skipped()
    {
        var pair = Connected();
        pair.Server.Receive(pair.ServerCarrier, pair.Now, 0x80);
        pair.Server.Receive(pair.ServerCarrier, pair.Now, 0xff, 1, 2, 3);
        pair.Client.Write(Pattern(10));
        pair.Pump();
        Assert.Equal(Pattern(10), pair.ServerRead);
        Assert.Empty(pair.ServerEvents);
    }

    [Fact]
    public void Abandoning_a_link_says_nothing_and_ends_it()
    {
        var pair = Connected();
        pair.Client.Write(Pattern(100));
        pair.Client.Abandon();
        Assert.Null(pair.Client.Take(pair.ClientCarrier, pair.Now));
        Assert.True(pair.Client.IsEnded);
        Assert.Null(pair.Client.NextDeadline);
        Assert.Equal(0, pair.Client.ReplayBufferedBytes);
    }

    [Fact]
    public void Options_that_are_wrong_are_all_named_at_once()
    {
        var errors = new LinkOptions
        {
            ResumeWindow = Seconds(-1),
            KeepAliveInterval = TimeSpan.FromDays(30),
            HandshakeTimeout = TimeSpan.Zero,
            AckDelay = Seconds(2),
            InitialReplayWindowBytes = 0,
            InteractiveReplayWindowBytes = 0,
            MaxReplayWindowBytes = -1,
            ReceiveWindowBytes = 0,
            MaxUnsentBytes = 0,
            AckAfterBytes = 0,
            Features = [new LinkFeature(1, false, new byte[256]), .. Enumerable.Range(2, 20).Select(id => new LinkFeature((ushort)id, false, new byte[255]))],
        }.GetErrors();
        Assert.Equal(12, errors.Count);
        var exception = Assert.Throws<ArgumentException>(() => LinkState.CreateClient(new LinkOptions { AckAfterBytes = 0, MaxUnsentBytes = 0 }));
        Assert.Contains("AckAfterBytes", exception.Message, StringComparison.Ordinal);
        Assert.Contains("MaxUnsentBytes", exception.Message, StringComparison.Ordinal);
        Assert.Empty(new LinkOptions().GetErrors());
    }

    private static void AssertViolation(LinkPair pair, string text)
    {
        pair.Pump();
        var end = AssertEnded(pair.ServerEvents, LinkEnd.ProtocolViolation, SessionError.ProtocolViolation);
        Assert.Contains(text, end.Text, StringComparison.Ordinal);
        end = AssertEnded(pair.ClientEvents, LinkEnd.EndedByPeer, SessionError.ProtocolViolation);
        Assert.Contains(text, end.Text, StringComparison.Ordinal);
    }

    private static LinkEvent AssertEnded(List<LinkEvent> events, LinkEnd end, SessionError code)
    {
        var ended = Assert.Single(events, linkEvent => linkEvent.Kind == LinkEventKind.Ended);
        Assert.Equal(ended, events[^1]);
        Assert.Equal((end, code), (ended.End, ended.Code));
        return ended;
    }
}
