using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Link;
using VTunnel.Testing;
using static VTunnel.Protocol.Tests.Link.LinkTesting;

namespace VTunnel.Protocol.Tests.Link;

/// <summary>Carriers come and go: resuming, replaying, refusing, expiring.</summary>
public sealed class LinkResumeTests
{
    [Fact]
    public void Both_sides_replay_at_the_same_time_from_what_the_other_has()
    {
        var pair = Connected();
        pair.Client.Write(Pattern(1000));
        pair.Server.Write(Pattern(2000, 5));
        pair.Pump();

        // Sent, but lost with the carrier; and written during the gap.
        pair.Client.Write(Pattern(500, 1000));
        pair.Server.Write(Pattern(500, 2005));
        Assert.NotNull(pair.Client.Take(pair.ClientCarrier, pair.Now));
        Assert.NotNull(pair.Server.Take(pair.ServerCarrier, pair.Now));
        pair.Cut();
        pair.Client.Write(Pattern(100, 1500));
        pair.Pass(Seconds(3));
        pair.Delivered.Clear();
        pair.Connect();

        Assert.Equal(Pattern(1600), pair.ServerRead);
        Assert.Equal(Pattern(2500, 5), pair.ClientRead);
        Assert.Equal([LinkEventKind.CarrierLost, LinkEventKind.Resumed], pair.ClientEvents.Select(linkEvent => linkEvent.Kind));
        Assert.Equal([LinkEventKind.CarrierLost, LinkEventKind.Resumed], pair.ServerEvents.Select(linkEvent => linkEvent.Kind));
        Assert.Equal(Seconds(3), pair.ClientEvents[1].Gap);
        Assert.Equal(Seconds(3), pair.ServerEvents[1].Gap);

        // What had arrived is not sent again.
        var replayed = pair.Delivered.Where(message => message.Message[0] == (byte)LinkRecordType.Data).ToList();
        Assert.Equal(600, replayed.Where(message => message.From == LinkRole.Client).Sum(message => message.Message.Length - 1));
        Assert.Equal(500, replayed.Where(message => message.From == LinkRole.Server).Sum(message => message.Message.Length - 1));
    }

    [Fact]
    public void The_server_does_not_wait_for_the_client_before_it_replays()
    {
        var pair = Connected();
        pair.Server.Write(Pattern(10));
        Assert.NotNull(pair.Server.Take(pair.ServerCarrier, pair.Now));
        pair.Cut();
        pair.Dial();
        Assert.True(pair.DeliverToServer());
        pair.Delivered.Clear();
        while (pair.DeliverToClient())
        {
        }

        Assert.Equal([LinkRecordType.Hello, LinkRecordType.Ping, LinkRecordType.Data], pair.Sent(LinkRole.Server));
        Assert.Equal(Pattern(10), pair.ClientRead);
    }

    [Fact]
    public void Both_streams_move_again_within_two_round_trips_of_the_new_carrier()
    {
        var pair = Connected();
        pair.Client.Write(Pattern(10));
        pair.Server.Write(Pattern(20));
        pair.Client.Take(pair.ClientCarrier, pair.Now);
        pair.Server.Take(pair.ServerCarrier, pair.Now);
        pair.Cut();

        // One flight each: whatever a side can send before it hears anything new.
        pair.Dial();
        Fly(pair.DeliverToServer);
        Fly(pair.DeliverToClient);
        Assert.Equal(Pattern(20), pair.ClientRead);
        Fly(pair.DeliverToServer);
        Assert.Equal(Pattern(10), pair.ServerRead);

        static void Fly(Func<bool> deliver)
        {
            while (deliver())
            {
            }
        }
    }

    [Theory]
    [InlineData(1)]
    [InlineData(9_999)]
    [InlineData(10_000)]
    [InlineData(10_001)]
    [InlineData(59_999)]
    public void Replay_begins_at_any_byte_even_in_the_middle_of_a_record(int acknowledged)
    {
        var pair = Connected();
        for (var i = 0; i < 6; i++)
            pair.Client.Write(Pattern(10_000, i * 10_000));
        while (pair.Client.Take(pair.ClientCarrier, pair.Now) is not null)
        {
        }

        // As a server would that took the carrier's bytes up to there.
        pair.Server.Receive(pair.ServerCarrier, pair.Now, [3, .. Pattern(acknowledged)]);
        pair.Cut();
        pair.Connect();
        Assert.Equal(Pattern(60_000), pair.ServerRead);
    }

    [Fact]
    public void An_ack_in_the_middle_of_a_record_frees_nothing_of_it_and_loses_nothing()
    {
        var pair = Connected();
        pair.Client.Write(Pattern(10_000));
        pair.Client.Write(Pattern(10_000, 10_000));
        while (pair.Client.Take(pair.ClientCarrier, pair.Now) is not null)
        {
        }

        pair.Server.Receive(pair.ServerCarrier, pair.Now, [3, .. Pattern(15_000)]);
        pair.Client.Receive(pair.ClientCarrier, pair.Now, Record(LinkRecordType.Ack, 15_000));
        pair.Cut();
        pair.Connect();
        Assert.Equal(Pattern(20_000), pair.ServerRead);
    }

    [Fact]
    public void What_is_replayed_is_a_copy_and_a_send_still_under_way_keeps_its_bytes()
    {
        var pair = Connected();
        pair.Client.Write(Pattern(5000));
        pair.Client.Write(Pattern(50, 5000));
        var underWay = new List<ByteSlice>();
        while (pair.Client.TryTakeMessage(pair.ClientCarrier, pair.Now, out var message))
            underWay.Add(message);
        var before = underWay.Select(message => message.Span.ToArray()).ToList();
        Assert.Equal(2, underWay.Count);

        // The server had the first 100 bytes, so the second carrier's header falls into the first record's payload.
        pair.Server.Receive(pair.ServerCarrier, pair.Now, [3, .. Pattern(100)]);
        pair.Cut();
        pair.Dial();
        pair.DeliverToServer();
        pair.DeliverToClient();
        while (pair.Client.TryTakeMessage(pair.ClientCarrier, pair.Now, out var message))
        {
            Assert.DoesNotContain(underWay, old => old.Chunk == message.Chunk);
            message.Chunk!.Array.AsSpan(message.Offset - LinkRecord.CarrierHeadroomBytes, LinkRecord.CarrierHeadroomBytes).Fill(0xee);
            pair.Server.Receive(pair.ServerCarrier, ByteChunk.Copy(message.Span), pair.Now);
            message.Release();
        }

        pair.Drain();
        Assert.Equal(Pattern(5050), pair.ServerRead);
        Assert.Equal(before, underWay.Select(message => message.Span.ToArray()));
        underWay.ForEach(message => message.Release());
    }

    [Fact]
    public void Bytes_written_in_the_gap_go_from_where_they_lie_after_the_replay()
    {
        var pair = Connected();
        pair.Client.Write(Pattern(5000));
        pair.Client.Take(pair.ClientCarrier, pair.Now);
        pair.Cut();
        var fresh = ByteChunk.Copy(Pattern(6000, 5000));
        pair.Client.Write(fresh);
        pair.Dial();
        pair.DeliverToServer();
        pair.DeliverToClient();
        var messages = new List<ByteSlice>();
        while (pair.Client.TryTakeMessage(pair.ClientCarrier, pair.Now, out var message))
            messages.Add(message);
        var data = messages.Where(message => message.Span[0] == (byte)LinkRecordType.Data).ToList();
        Assert.Equal(2, data.Count);
        Assert.Same(fresh.Chunk, data[1].Chunk);
        messages.ForEach(message => message.Release());
    }

    [Fact]
    public void A_link_survives_many_cuts_in_a_row_even_during_replay()
    {
        var pair = Connected();
        for (var i = 0; i < 20; i++)
        {
            pair.Client.Write(Pattern(7000, i * 7000));
            pair.Server.Write(Pattern(3, i * 3));
            pair.Dial();
            for (var j = 0; j < i % 5; j++)
            {
                pair.DeliverToServer();
                pair.DeliverToClient();
            }

            if (i % 3 == 0)
                pair.Cut();
        }

        pair.Connect();
        Assert.Equal(Pattern(140_000), pair.ServerRead);
        Assert.Equal(Pattern(60), pair.ClientRead);
    }

    [Fact]
    public void An_ack_that_was_lost_with_its_carrier_is_sent_again()
    {
        var pair = Connected(Quiet, Quiet with { ReceiveWindowBytes = 1000, AckAfterBytes = 500 });
        pair.Client.Write(Pattern(1000));
        pair.DeliverToServer();
        Assert.Equal(Record(LinkRecordType.Ack, 1000), pair.Server.Take(pair.ServerCarrier, pair.Now));
        pair.Cut();
        pair.Client.Write(Pattern(1000, 1000));
        pair.Connect();
        Assert.Equal(Pattern(2000), pair.ServerRead);
    }

    [Fact]
    public void An_end_is_replayed_like_data()
    {
        var pair = Connected();
        pair.Client.Write(Pattern(10));
        pair.Client.Finish();
        Assert.NotNull(pair.Client.Take(pair.ClientCarrier, pair.Now));
        Assert.Equal(Record(LinkRecordType.End, 10), pair.Client.Take(pair.ClientCarrier, pair.Now));
        pair.Cut();
        Assert.False(pair.Server.IsPeerFinished);
        pair.Connect();
        Assert.True(pair.Server.IsPeerFinished);
        Assert.Equal(Pattern(10), pair.ServerRead);
    }

    [Fact]
    public void An_end_that_arrived_is_not_sent_again()
    {
        var pair = Connected();
        pair.Client.Write(Pattern(10));
        pair.Client.Finish();
        pair.DeliverToServer();
        pair.DeliverToServer();
        pair.Cut();
        Assert.True(pair.Server.IsPeerFinished);
        pair.Delivered.Clear();
        pair.Connect();
        Assert.DoesNotContain(LinkRecordType.End, pair.Sent(LinkRole.Client));
        Assert.DoesNotContain(LinkRecordType.Data, pair.Sent(LinkRole.Client));

        pair.Server.Finish();
        pair.Pump();
        AssertEnded(pair.ClientEvents, LinkEnd.Completed);
        AssertEnded(pair.ServerEvents, LinkEnd.Completed);
    }

    [Fact]
    public void A_link_cut_after_everything_was_sent_does_not_look_complete_before_it_is()
    {
        var pair = Connected();
        pair.Client.Write(Pattern(10));
        pair.Client.Finish();
        pair.Server.Finish();
        while (pair.Client.Take(pair.ClientCarrier, pair.Now) is not null)
        {
        }

        while (pair.DeliverToClient())
        {
        }

        pair.Cut();
        Assert.True(pair.Client.IsPeerFinished);
        Assert.False(pair.Client.IsEnded || pair.Server.IsEnded);
        pair.Pass(Seconds(40));
        AssertEnded(pair.ClientEvents, LinkEnd.ResumeWindowExpired);
        AssertEnded(pair.ServerEvents, LinkEnd.ResumeWindowExpired);
        Assert.Empty(pair.ServerRead);
    }

    [Fact]
    public void A_bye_that_was_lost_is_made_up_for_on_the_next_carrier()
    {
        var pair = Connected();
        pair.Client.Finish();
        pair.Server.Finish();
        DeliverEndsAndAcks(pair);

        // Both have everything and say so, but the carrier takes that along.
        Assert.Equal([8, 0, 0], pair.Client.Take(pair.ClientCarrier, pair.Now));
        Assert.Equal([8, 0, 0], pair.Server.Take(pair.ServerCarrier, pair.Now));
        pair.Cut();
        Assert.False(pair.Client.IsEnded || pair.Server.IsEnded);
        pair.Connect();
        AssertEnded(pair.ClientEvents, LinkEnd.Completed);
        AssertEnded(pair.ServerEvents, LinkEnd.Completed);
    }

    [Fact]
    public void A_side_that_knows_that_everything_was_delivered_completes_though_the_peer_is_gone()
    {
        var pair = Connected();
        pair.Client.Finish();
        pair.Server.Finish();
        DeliverEndsAndAcks(pair);

        pair.Cut();
        pair.Dial();
        pair.Client.Receive(pair.ClientCarrier, LinkRefusal.UnknownLink.ToMessage(), pair.Now);
        pair.Drain();
        AssertEnded(pair.ClientEvents, LinkEnd.Completed);
        pair.Pass(Seconds(30));
        AssertEnded(pair.ServerEvents, LinkEnd.Completed);
    }

    [Fact]
    public void A_link_without_a_carrier_ends_after_the_resume_window_and_not_before()
    {
        var pair = Connected();
        pair.Cut();
        Assert.Equal(pair.Now + Seconds(30), pair.Client.NextDeadline);
        Assert.Equal(pair.Now + Seconds(30), pair.Server.NextDeadline);
        pair.Pass(Seconds(30) - Ms(1));
        Assert.False(pair.Client.IsEnded || pair.Server.IsEnded);
        pair.Pass(Ms(1));
        AssertEnded(pair.ClientEvents, LinkEnd.ResumeWindowExpired);
        var end = AssertEnded(pair.ServerEvents, LinkEnd.ResumeWindowExpired);
        Assert.Equal(SessionError.ConnectionLost, end.Code);
        Assert.Throws<InvalidOperationException>(() => pair.Client.AttachCarrier(pair.Now));
    }

    [Fact]
    public void The_shorter_resume_window_of_both_is_used()
    {
        var pair = Connected(Quiet, Quiet with { ResumeWindow = Seconds(5) });
        pair.Cut();
        Assert.Equal(pair.Now + Seconds(5), pair.Client.NextDeadline);
        Assert.Equal(pair.Now + Seconds(5), pair.Server.NextDeadline);
    }

    [Theory]
    [InlineData(0, 30)]
    [InlineData(30, 0)]
    public void A_resume_window_of_zero_on_either_side_ends_the_link_with_its_carrier(int client, int server)
    {
        var pair = Connected(Quiet with { ResumeWindow = Seconds(client) }, Quiet with { ResumeWindow = Seconds(server) });
        pair.Cut();
        AssertEnded(pair.ClientEvents, LinkEnd.CarrierLost);
        AssertEnded(pair.ServerEvents, LinkEnd.CarrierLost);
    }

    [Fact]
    public void A_client_that_never_had_a_link_may_dial_for_as_long_as_it_likes()
    {
        var pair = new LinkPair(Quiet, Quiet);
        for (var i = 0; i < 10; i++)
        {
            pair.Dial();
            pair.Pass(Seconds(9), deliver: false);
            pair.Client.DetachCarrier(pair.ClientCarrier, "no answer", pair.Now);
        }

        Assert.Null(pair.Client.NextDeadline);
        pair.Connect();
        Assert.Contains(pair.ClientEvents, linkEvent => linkEvent.Kind == LinkEventKind.Established);
    }

    [Fact]
    public void Carriers_that_never_get_through_the_handshake_do_not_extend_the_resume_window()
    {
        var pair = Connected();
        pair.Cut();
        pair.Pass(Seconds(25));
        pair.Dial();
        Assert.Equal(pair.Now + Seconds(10), pair.Client.NextDeadline);

        // The attempt that is under way may finish; after it there is no time left.
        pair.Pass(Seconds(10) - Ms(1), deliver: false);
        Assert.False(pair.Client.IsEnded);
        pair.Pass(Ms(1), deliver: false);
        var lost = Assert.Single(pair.ClientEvents, linkEvent => linkEvent.Loss == CarrierLoss.HandshakeTimeout);
        Assert.Equal(pair.ClientCarrier, lost.Carrier);
        AssertEnded(pair.ClientEvents, LinkEnd.ResumeWindowExpired);
    }

    [Fact]
    public void A_server_that_resumes_too_late_says_that_it_knows_no_such_link()
    {
        var pair = Connected(Quiet with { ResumeWindow = Seconds(60) }, Quiet with { ResumeWindow = Seconds(60) });
        pair.Server.DetachCarrier(pair.ServerCarrier, "cut", pair.Now);
        pair.Pass(Seconds(59), deliver: false);
        pair.Client.DetachCarrier(pair.ClientCarrier, "cut", pair.Now);
        pair.Pass(Seconds(1), deliver: false);
        AssertEnded(pair.ServerEvents, LinkEnd.ResumeWindowExpired);
        pair.Connect();
        Assert.Equal(LinkRefusal.UnknownLink, pair.Refusal);
        Assert.Equal(LinkRefusalCode.UnknownLink, Assert.Single(pair.ClientEvents, linkEvent => linkEvent.Kind == LinkEventKind.Refused).Refusal);
        var end = AssertEnded(pair.ClientEvents, LinkEnd.Refused);
        Assert.Equal(SessionError.ConnectionLost, end.Code);
    }

    [Fact]
    public void A_new_carrier_replaces_a_ghost_at_once_and_nothing_of_the_ghost_gets_through()
    {
        var pair = Connected();
        pair.Client.Write(Pattern(100));
        var late = pair.Client.Take(pair.ClientCarrier, pair.Now)!;
        var ghost = pair.ServerCarrier;

        // The client's network moved: it knows, the server does not.
        pair.Client.DetachCarrier(pair.ClientCarrier, "network changed", pair.Now);
        pair.Connect();
        var lost = Assert.Single(pair.ServerEvents, linkEvent => linkEvent.Kind == LinkEventKind.CarrierLost);
        Assert.Equal((ghost, CarrierLoss.Replaced), (lost.Carrier, lost.Loss));
        Assert.Equal(TimeSpan.Zero, Assert.Single(pair.ServerEvents, linkEvent => linkEvent.Kind == LinkEventKind.Resumed).Gap);
        Assert.Equal(Pattern(100), pair.ServerRead);

        pair.Server.Receive(ghost, pair.Now, late);
        pair.Server.Receive(ghost, pair.Now, 0x42);
        pair.Server.DetachCarrier(ghost, "closed at last", pair.Now);
        Assert.Null(pair.Server.Take(ghost, pair.Now));
        pair.Pump();
        Assert.Equal(Pattern(100), pair.ServerRead);
        Assert.True(pair.Server.IsUp);
    }

    [Fact]
    public void A_client_may_change_carriers_without_losing_the_old_one_first()
    {
        var pair = Connected();
        var old = pair.ClientCarrier;
        pair.Connect();
        Assert.Equal(CarrierLoss.Replaced, Assert.Single(pair.ClientEvents, linkEvent => linkEvent.Carrier == old).Loss);
        pair.Client.Write(Pattern(10));
        pair.Pump();
        Assert.Equal(Pattern(10), pair.ServerRead);
    }

    [Fact]
    public void A_late_hello_of_a_carrier_that_was_given_up_cannot_push_a_newer_one_aside()
    {
        var pair = Connected();
        pair.Cut();
        pair.Dial();
        var late = pair.Client.Take(pair.ClientCarrier, pair.Now)!;
        pair.Connect();

        Assert.True(LinkHello.TryRead(late, out var hello, out _));
        Assert.False(pair.Server.TryAttachCarrier(hello, pair.Now, out var carrier, out var refusal));
        Assert.Equal(LinkRefusalCode.Stale, refusal!.Code);
        Assert.Equal(0, carrier);
        Assert.True(refusal.IsTemporary);

        // The same for one who recorded a HELLO that was accepted: each works once.
        pair.Client.Write(Pattern(10));
        pair.Pump();
        Assert.Equal(Pattern(10), pair.ServerRead);
    }

    [Fact]
    public void A_stale_or_unavailable_answer_costs_the_carrier_and_not_the_link()
    {
        foreach (var code in new[] { LinkRefusalCode.Stale, LinkRefusalCode.Unavailable })
        {
            var pair = Connected();
            pair.Cut();
            pair.Dial();
            pair.Client.Receive(pair.ClientCarrier, new LinkRefusal(code, "not now").ToMessage(), pair.Now);
            pair.Drain();
            Assert.Equal(code, Assert.Single(pair.ClientEvents, linkEvent => linkEvent.Kind == LinkEventKind.Refused).Refusal);
            Assert.Equal(CarrierLoss.Refused, pair.ClientEvents[^1].Loss);
            Assert.True(pair.Client.NeedsCarrier);
            pair.Connect();
            Assert.True(pair.Client.IsUp);
        }
    }

    [Fact]
    public void A_new_link_that_is_refused_for_now_may_be_asked_for_again()
    {
        var pair = new LinkPair(Quiet, Quiet);
        pair.Dial();
        pair.Client.Receive(pair.ClientCarrier, new LinkRefusal(LinkRefusalCode.Unavailable, "full").ToMessage(), pair.Now);
        Assert.True(pair.Client.NeedsCarrier);
        pair.Connect();
        Assert.True(pair.Client.IsUp);
    }

    [Fact]
    public void An_unknown_id_and_a_wrong_proof_get_the_same_answer_and_change_nothing()
    {
        var pair = Connected();
        var stranger = new LinkHello { IsResume = true, LinkId = LinkPair.Id, Attempt = 100, ReplayWindowBytes = 1, ReceiveWindowBytes = 1 };
        var other = new LinkHello { IsResume = true, LinkId = LinkId.FromBytes("fedcba9876543210"u8), Attempt = 100, ReplayWindowBytes = 1, ReceiveWindowBytes = 1 };

        var refusals = new List<LinkRefusal>
        {
            Attach(stranger, new LinkSecret(new byte[32])),
            Attach(other, LinkPair.Secret),
            LinkRefusal.UnknownLink,
        };
        Assert.Single(refusals.Distinct());
        Assert.Empty(pair.ServerEvents);

        // Not even the attempt number was taken.
        pair.Connect();
        Assert.True(pair.Client.IsUp && pair.Server.IsUp);

        LinkRefusal Attach(LinkHello hello, LinkSecret secret)
        {
            var message = hello.ToClientMessage(secret, out _);
            Assert.True(LinkAcceptor.TryRead(message.Span, [], out var read, out _));
            message.Release();
            Assert.False(pair.Server.TryAttachCarrier(read, pair.Now, out _, out var refusal));
            return refusal!;
        }
    }

    [Fact]
    public void A_server_that_cannot_prove_that_it_holds_the_link_loses_the_carrier_only()
    {
        var pair = Connected();
        pair.Cut();
        pair.Dial();
        Assert.True(LinkHello.TryRead(pair.Client.Take(pair.ClientCarrier, pair.Now), out var asked, out _));
        var impostor = new LinkHello { Role = LinkRole.Server, IsResume = true, LinkId = LinkPair.Id, Attempt = asked.Attempt, ReplayWindowBytes = 1, ReceiveWindowBytes = 1 };
        pair.Client.Receive(pair.ClientCarrier, impostor.ToServerMessage(new LinkSecret(new byte[32]), asked.Proof.Span), pair.Now);
        pair.Drain();
        Assert.Equal(CarrierLoss.HandshakeFailed, pair.ClientEvents[^1].Loss);
        Assert.Contains("did not prove", pair.ClientEvents[^1].Text, StringComparison.Ordinal);

        pair.Connect();
        Assert.True(pair.Client.IsUp);
    }

    [Theory]
    [InlineData(new byte[0], "an empty message")]
    [InlineData(new byte[] { 3, 1 }, "not DATA")]
    [InlineData(new byte[] { 1, 2, 3, 4, 5, 6 }, "another protocol")]
    [InlineData(new byte[] { (byte)'H', (byte)'T', (byte)'T', (byte)'P' }, "unknown type 0x48")]
    public void An_answer_that_is_no_hello_costs_the_carrier_only(byte[] answer, string text)
    {
        var pair = new LinkPair(Quiet, Quiet);
        pair.Dial();
        pair.Client.Receive(pair.ClientCarrier, pair.Now, answer);
        pair.Drain();
        var lost = Assert.Single(pair.ClientEvents);
        Assert.Equal(CarrierLoss.HandshakeFailed, lost.Loss);
        Assert.Contains(text, lost.Text, StringComparison.Ordinal);
        Assert.True(pair.Client.NeedsCarrier);
    }

    [Fact]
    public void An_answer_to_another_hello_costs_the_carrier_only()
    {
        var pair = Connected();
        pair.Cut();
        pair.Dial();
        pair.Client.Receive(pair.ClientCarrier, pair.Now, LinkGoldenTests.Golden("hello_server_new"));
        pair.Drain();
        Assert.Equal(CarrierLoss.HandshakeFailed, pair.ClientEvents[^1].Loss);
    }

    [Fact]
    public void A_client_that_asks_for_bytes_that_are_gone_ends_the_link_on_both_sides()
    {
        var pair = Connected();
        pair.Server.Write(Pattern(100));
        pair.Pump();
        pair.Server.Receive(pair.ServerCarrier, pair.Now, Record(LinkRecordType.Ack, 100));
        pair.Cut();
        var hello = new LinkHello { IsResume = true, LinkId = LinkPair.Id, Attempt = 9, NextOffset = 99, ReplayWindowBytes = 1, ReceiveWindowBytes = 1 };
        var message = hello.ToClientMessage(LinkPair.Secret, out _);
        Assert.True(LinkHello.TryRead(message.Span, out var read, out _));
        message.Release();
        Assert.False(pair.Server.TryAttachCarrier(read, pair.Now, out _, out var refusal));
        Assert.Equal(LinkRefusalCode.OffsetUnavailable, refusal!.Code);
        Assert.Equal("offset 99 was asked for; 100 to 100 are held", refusal.Text);
        pair.Drain();
        AssertEnded(pair.ServerEvents, LinkEnd.Refused);

        pair.Dial();
        pair.Client.Receive(pair.ClientCarrier, refusal.ToMessage(), pair.Now);
        pair.Drain();
        AssertEnded(pair.ClientEvents, LinkEnd.Refused);
    }

    [Fact]
    public void A_server_that_asks_for_bytes_that_were_never_sent_is_refused()
    {
        var pair = Connected();
        pair.Cut();
        pair.Dial();
        Assert.True(LinkHello.TryRead(pair.Client.Take(pair.ClientCarrier, pair.Now), out var asked, out _));
        var wrong = new LinkHello { Role = LinkRole.Server, IsResume = true, LinkId = LinkPair.Id, Attempt = asked.Attempt, NextOffset = 5, ReplayWindowBytes = 1, ReceiveWindowBytes = 1 };
        pair.Client.Receive(pair.ClientCarrier, wrong.ToServerMessage(LinkPair.Secret, asked.Proof.Span), pair.Now);
        pair.Drain();
        AssertEnded(pair.ClientEvents, LinkEnd.Refused);
        Assert.Equal((byte)LinkRecordType.Refuse, pair.Client.Take(pair.ClientCarrier, pair.Now)![0]);
    }

    [Fact]
    public void Unknown_optional_features_are_ignored_in_both_directions()
    {
        var options = Quiet with { Features = [new LinkFeature(0x7777, IsMandatory: false, new byte[] { 1, 2 })] };
        var pair = Connected(options, options);
        Assert.True(pair.Client.IsUp && pair.Server.IsUp);
    }

    [Fact]
    public void An_unknown_mandatory_feature_of_the_client_refuses_the_link_with_a_reason_on_both_sides()
    {
        var feature = new LinkFeature(0x7777, IsMandatory: true);
        var pair = new LinkPair(Quiet with { Features = [feature] }, Quiet);
        pair.Connect();
        Assert.Equal(LinkRefusalCode.UnsupportedFeature, pair.Refusal!.Code);
        Assert.Contains("0x7777", pair.Refusal.Text, StringComparison.Ordinal);
        Assert.Contains("0x7777", AssertEnded(pair.ClientEvents, LinkEnd.Refused).Text, StringComparison.Ordinal);

        Connected(Quiet with { Features = [feature] }, Quiet with { KnownFeatures = [0x7777] });
    }

    [Fact]
    public void An_unknown_mandatory_feature_of_the_server_refuses_the_link_with_a_reason_on_both_sides()
    {
        var feature = new LinkFeature(0x7777, IsMandatory: true);
        var pair = new LinkPair(Quiet, Quiet with { Features = [feature] });
        pair.Connect();
        foreach (var events in new[] { pair.ClientEvents, pair.ServerEvents })
        {
            Assert.Equal(LinkRefusalCode.UnsupportedFeature, Assert.Single(events, linkEvent => linkEvent.Kind == LinkEventKind.Refused).Refusal);
            Assert.Contains("0x7777", AssertEnded(events, LinkEnd.Refused).Text, StringComparison.Ordinal);
        }

        Connected(Quiet with { KnownFeatures = [0x7777] }, Quiet with { Features = [feature] });
    }

    [Fact]
    public void Another_version_is_refused_with_a_reason_on_both_sides()
    {
        var hello = LinkGoldenTests.Golden("hello_client_new");
        hello[5] = 2;
        Assert.False(LinkAcceptor.TryRead(hello, [], out _, out var refusal));
        Assert.Equal(LinkRefusalCode.UnsupportedVersion, refusal.Code);

        var pair = new LinkPair(Quiet, Quiet);
        pair.Dial();
        pair.Client.Receive(pair.ClientCarrier, refusal.ToMessage(), pair.Now);
        pair.Drain();
        Assert.Equal("link version 2 is not spoken here, only 1", AssertEnded(pair.ClientEvents, LinkEnd.Refused).Text);
    }

    [Fact]
    public void The_two_roles_are_attached_in_their_own_way()
    {
        var pair = Connected();
        Assert.Throws<InvalidOperationException>(() => pair.Server.AttachCarrier(pair.Now));
        Assert.True(LinkHello.TryRead(LinkGoldenTests.Golden("hello_client_new"), out var hello, out _));
        Assert.Throws<InvalidOperationException>(() => pair.Client.TryAttachCarrier(hello, pair.Now, out _, out _));
        Assert.Throws<InvalidOperationException>(() => pair.Server.TryAttachCarrier(hello, pair.Now, out _, out _));
        Assert.Throws<ArgumentException>(() => LinkState.CreateServer(Quiet, LinkId.None, LinkPair.Secret));
    }

    private static void DeliverEndsAndAcks(LinkPair pair)
    {
        for (var i = 0; i < 2; i++)
        {
            pair.DeliverToServer();
            pair.DeliverToClient();
        }

        pair.DeliverToServer();
        Assert.Equal([LinkRecordType.End, LinkRecordType.Ack], pair.Sent(LinkRole.Client));
        Assert.Equal([LinkRecordType.Ack, LinkRecordType.End], pair.Sent(LinkRole.Server));
    }

    private static LinkEvent AssertEnded(List<LinkEvent> events, LinkEnd end)
    {
        var ended = Assert.Single(events, linkEvent => linkEvent.Kind == LinkEventKind.Ended);
        Assert.Equal(ended, events[^1]);
        Assert.Equal(end, ended.End);
        return ended;
    }
}
