using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Link;
using VTunnel.Testing;
using static VTunnel.Protocol.Tests.Link.LinkTesting;

namespace VTunnel.Protocol.Tests.Link;

/// <summary>Keepalive, round trips, and windows that follow them, in virtual time.</summary>
public sealed class LinkTimeTests
{
    private static readonly LinkOptions Alive = new() { KeepAliveInterval = Seconds(10) };

    [Theory]
    [InlineData(LinkRole.Client)]
    [InlineData(LinkRole.Server)]
    public void A_half_open_carrier_is_found_by_either_side_within_two_intervals(LinkRole role)
    {
        var pair = Connected(Alive);
        var (link, carrier, events) = role == LinkRole.Client
            ? (pair.Client, pair.ClientCarrier, pair.ClientEvents)
            : (pair.Server, pair.ServerCarrier, pair.ServerEvents);

        pair.Pass(Seconds(20) - Ms(1), deliver: false);
        Assert.Equal((byte)LinkRecordType.Ping, link.Take(carrier, pair.Now)![0]);
        Assert.True(link.IsUp);
        pair.Pass(Ms(1), deliver: false);
        var lost = Assert.Single(events);
        Assert.Equal((LinkEventKind.CarrierLost, CarrierLoss.KeepAliveTimeout, carrier), (lost.Kind, lost.Loss, lost.Carrier));
        Assert.Equal(pair.Now + Seconds(30), link.NextDeadline);
    }

    [Fact]
    public void An_idle_carrier_that_answers_lives_on()
    {
        var pair = Connected(Alive);
        pair.Pass(TimeSpan.FromMinutes(10));
        Assert.Empty(pair.ClientEvents);
        Assert.Empty(pair.ServerEvents);
        Assert.InRange(pair.Sent(LinkRole.Client).Count(type => type == LinkRecordType.Ping), 50, 65);
    }

    [Fact]
    public void Any_record_counts_as_a_sign_of_life()
    {
        var pair = Connected(Alive);
        for (var i = 0; i < 10; i++)
        {
            pair.Pass(Seconds(9), deliver: false);
            pair.Client.Receive(pair.ClientCarrier, pair.Now, 0x80);
        }

        Assert.Empty(pair.ClientEvents);
        Assert.Null(pair.Client.Take(pair.ClientCarrier, pair.Now));
    }

    [Fact]
    public void Silence_while_nothing_is_read_is_not_the_peers()
    {
        var pair = Connected(Alive);
        for (var i = 0; i < 10; i++)
        {
            pair.Pass(Seconds(9), deliver: false);
            pair.Client.ExcuseSilence(pair.Now);
        }

        Assert.Empty(pair.ClientEvents);
        pair.Pass(Seconds(20), deliver: false);
        Assert.Equal(CarrierLoss.KeepAliveTimeout, Assert.Single(pair.ClientEvents).Loss);
    }

    [Theory]
    [InlineData(10, 60)]
    [InlineData(60, 10)]
    [InlineData(10, 0)]
    [InlineData(0, 10)]
    public void Both_sides_use_the_shorter_interval_that_is_not_zero(int client, int server)
    {
        var pair = Connected(Alive with { KeepAliveInterval = Seconds(client) }, Alive with { KeepAliveInterval = Seconds(server) });
        Assert.Equal(pair.Now + Seconds(10), pair.Client.NextDeadline);
        Assert.Equal(pair.Now + Seconds(10), pair.Server.NextDeadline);
    }

    [Fact]
    public void Without_an_interval_on_either_side_silence_is_borne()
    {
        var pair = Connected(Quiet);
        Assert.Null(pair.Client.NextDeadline);
        pair.Pass(TimeSpan.FromDays(1));
        pair.Client.Advance(pair.Now);
        Assert.True(pair.Client.IsUp);
    }

    [Fact]
    public void A_side_that_slept_asks_before_it_gives_up()
    {
        var pair = Connected(Alive);
        var now = pair.Now + TimeSpan.FromHours(8);
        pair.Client.Advance(now);
        Assert.True(pair.Client.IsUp);
        Assert.Equal((byte)LinkRecordType.Ping, pair.Client.Take(pair.ClientCarrier, now)![0]);
        pair.Client.Advance(now + Seconds(10));
        Assert.False(pair.Client.IsUp);
    }

    [Fact]
    public void A_carrier_lost_to_silence_without_a_resume_window_ends_the_link_for_that_reason()
    {
        var pair = Connected(Alive with { ResumeWindow = TimeSpan.Zero });
        pair.Pass(Seconds(20), deliver: false);
        var ended = pair.ClientEvents[^1];
        Assert.Equal((LinkEnd.CarrierLost, SessionError.KeepAliveTimeout), (ended.End, ended.Code));
    }

    [Fact]
    public void A_flood_of_pings_is_answered_once_with_the_newest()
    {
        var pair = Connected();
        for (var i = 1; i <= 1000; i++)
            pair.Client.Receive(pair.ClientCarrier, pair.Now, Record(LinkRecordType.Ping, i));
        Assert.Equal(Record(LinkRecordType.Pong, 1000), pair.Client.Take(pair.ClientCarrier, pair.Now));
        Assert.Null(pair.Client.Take(pair.ClientCarrier, pair.Now));
    }

    [Fact]
    public void The_round_trip_is_measured_on_each_carrier_and_smoothed()
    {
        var pair = new LinkPair(Quiet, Quiet);
        pair.Connect();
        Assert.Equal(TimeSpan.Zero, pair.Client.RoundTripTime);
        Assert.Equal(TimeSpan.Zero, pair.Server.RoundTripTime);

        pair.Dial();
        pair.DeliverToServer();
        pair.DeliverToClient();
        var ping = pair.Client.Take(pair.ClientCarrier, pair.Now)!;
        Assert.Equal((byte)LinkRecordType.Ping, ping[0]);
        var answered = pair.Now + Ms(80);
        pair.Client.Receive(pair.ClientCarrier, answered, Record(LinkRecordType.Pong, Number(ping) + 1));
        Assert.Equal(TimeSpan.Zero, pair.Client.RoundTripTime);
        pair.Client.Receive(pair.ClientCarrier, answered, Record(LinkRecordType.Pong, Number(ping)));
        Assert.Equal(Ms(10), pair.Client.RoundTripTime);
        pair.Client.Receive(pair.ClientCarrier, answered + Seconds(1), Record(LinkRecordType.Pong, Number(ping)));
        Assert.Equal(Ms(10), pair.Client.RoundTripTime);
    }

    [Fact]
    public void While_data_flows_the_round_trip_is_measured_every_second()
    {
        var pair = Connected(Quiet with { AckAfterBytes = 1 });
        for (var i = 0; i < 100; i++)
        {
            pair.Client.Write(Pattern(100));
            pair.Pump();
            pair.Pass(Ms(100));
        }

        Assert.InRange(pair.Sent(LinkRole.Client).Count(type => type == LinkRecordType.Ping), 9, 10);
        Assert.DoesNotContain(LinkRecordType.Ping, pair.Sent(LinkRole.Server));
    }

    [Fact]
    public void The_replay_window_grows_with_the_bandwidth_delay_product_up_to_its_bound()
    {
        // Whatever is written crosses in one round trip of 100 ms, without a limit of rate: only the window limits.
        var path = new Path(roundTrip: Ms(100), bytesPerSecond: long.MaxValue, new LinkOptions { MaxReplayWindowBytes = 16 << 20 });
        path.Run(Seconds(1.5));
        Assert.Equal(16 << 20, path.Sender.ReplayWindowBytes);
        var before = path.Delivered;
        path.Run(Seconds(1));
        Assert.InRange(path.Delivered - before, 140_000_000, 170_000_000);
    }

    [Fact]
    public void The_replay_window_stops_growing_where_the_path_limits_the_rate()
    {
        // 20 MB/s x 100 ms = 2 MB under way.
        var path = new Path(roundTrip: Ms(100), bytesPerSecond: 20_000_000, new LinkOptions());
        path.Run(Seconds(10));
        Assert.InRange(path.Sender.ReplayWindowBytes, 2_000_000, 4_500_000);
        Assert.InRange(path.Delivered, 170_000_000, 200_000_000);
    }

    [Fact]
    public void The_replay_window_shrinks_when_what_was_sent_waits_on_its_way_and_no_further_than_where_it_began()
    {
        var path = new Path(roundTrip: Ms(100), bytesPerSecond: long.MaxValue, new LinkOptions { MaxReplayWindowBytes = 16 << 20 });
        path.Run(Seconds(1.5));
        Assert.Equal(16 << 20, path.Sender.ReplayWindowBytes);

        // 5 MB/s x 100 ms = 0.5 MB is of use; what is beyond that lies in a queue.
        path.QueueBytesPerSecond = 5_000_000;
        path.Run(Seconds(20));
        Assert.InRange(path.Sender.ReplayWindowBytes, 500_000, 4_500_000);

        path.QueueBytesPerSecond = 500_000;
        path.Run(Seconds(60));
        Assert.Equal(new LinkOptions().InitialReplayWindowBytes, path.Sender.ReplayWindowBytes);
    }

    [Fact]
    public void The_replay_window_follows_a_path_that_becomes_longer()
    {
        // 50 MB/s x 10 ms = 0.5 MB under way, and 5 MB where the same carrier takes a way of 100 ms.
        var path = new Path(roundTrip: Ms(10), bytesPerSecond: 50_000_000, new LinkOptions());
        path.Run(Seconds(5));
        path.RoundTrip = Ms(100);
        path.Run(Seconds(15));
        var before = path.Delivered;
        path.Run(Seconds(20));
        Assert.InRange(path.Delivered - before, 950_000_000, 1_010_000_000);

        // And longer still; what is verified now and then in between costs little.
        path.RoundTrip = Ms(300);
        path.Run(Seconds(120));
        before = path.Delivered;
        path.Run(Seconds(100));
        Assert.InRange(path.Delivered - before, 4_800_000_000, 5_050_000_000);
    }

    [Fact]
    public void The_replay_window_stays_what_the_path_needs_where_every_measurement_meets_a_queue()
    {
        // 5 MB/s x 100 ms = 0.5 MB; all else that is under way lies in a queue and makes each answer later.
        var path = new Path(roundTrip: Ms(100), bytesPerSecond: long.MaxValue, new LinkOptions()) { QueueBytesPerSecond = 5_000_000 };
        path.Run(Seconds(10));
        var (before, greatest) = (path.Delivered, 0);
        for (var i = 0; i < 500; i++)
        {
            path.Run(Ms(100));
            greatest = Math.Max(greatest, path.Sender.ReplayWindowBytes);
        }

        Assert.InRange(greatest, 500_000, 3_000_000);
        Assert.InRange(path.Delivered - before, 242_000_000, 251_000_000);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(7)]
    [InlineData(10)]
    [InlineData(11)]
    public void A_rate_that_varies_does_not_keep_the_replay_window_large(int seed)
    {
        // 5 MB/s x 20 ms = 0.1 MB, more or less by half every 100 ms, as on a radio link that others share.
        var random = new Random(seed);
        var path = new Path(roundTrip: Ms(20), bytesPerSecond: long.MaxValue, new LinkOptions());
        var windows = new List<int>();
        for (var i = 0; i < 3000; i++)
        {
            path.QueueBytesPerSecond = 2_500_000 + random.Next(5_000_000);
            path.Run(Ms(100));
            windows.Add(path.Sender.ReplayWindowBytes);
        }

        // Taken for a longer path now and then, and not for long.
        Assert.InRange(windows.Max(), new LinkOptions().InitialReplayWindowBytes, 8 * new LinkOptions().InitialReplayWindowBytes);
        Assert.InRange(windows.Average(), new LinkOptions().InitialReplayWindowBytes, 2 * new LinkOptions().InitialReplayWindowBytes);
    }

    [Fact]
    public void A_trial_that_is_given_up_because_somebody_waits_leaves_the_replay_window_as_it_was()
    {
        var window = new ReplayWindow(512 * 1024, 256 * 1024, 64 << 20);
        var (now, roundTrip) = (TimeSpan.Zero, Ms(100));
        window.Restart(now);
        for (var i = 0; i < 50; i++)
            RunOneRoundTrip(now);
        var needed = window.Bytes;
        var lastShort = now;
        for (var i = 0; i < 102; i++)
            RunOneRoundTrip(lastShort);
        for (var burst = 0; burst < 8; burst++)
        {
            window.IsInteractive = true;
            RunOneRoundTrip(lastShort);
            RunOneRoundTrip(lastShort);
            Assert.Equal(needed, window.Bytes);
            window.IsInteractive = false;
            RunOneRoundTrip(lastShort);
        }

        // 40 MB/s x 100 ms = 4 MB under way.
        void RunOneRoundTrip(TimeSpan lastShort)
        {
            for (var i = 0; i < 10; i++)
            {
                now += roundTrip / 10;
                window.OnHeld(window.Bytes);
                window.OnAcknowledged(Math.Min(window.Bytes, 4 << 20) / 10, roundTrip, lastShort, now);
            }
        }
    }

    [Fact]
    public void A_burst_after_a_pause_is_not_taken_for_the_rate()
    {
        // A round trip far shorter than the pauses of a busy machine: what piles up meanwhile arrives in one moment.
        var path = new Path(roundTrip: Ms(2), bytesPerSecond: 40_000_000, new LinkOptions());
        path.Run(Seconds(1));
        for (var i = 0; i < 50; i++)
        {
            path.QueueBytesPerSecond = 0;
            path.Run(Ms(20));
            path.QueueBytesPerSecond = long.MaxValue;
            path.Run(Ms(20));
        }

        Assert.Equal(new LinkOptions().InitialReplayWindowBytes, path.Sender.ReplayWindowBytes);
    }

    [Fact]
    public void The_replay_window_is_half_as_large_while_somebody_waits_for_small_answers()
    {
        var path = new Path(roundTrip: Ms(2), bytesPerSecond: 40_000_000, new LinkOptions());
        path.Run(Seconds(1));
        Assert.Equal(new LinkOptions().InitialReplayWindowBytes, path.Sender.ReplayWindowBytes);

        path.Sender.IsInteractive = true;
        path.Run(Seconds(1));
        Assert.Equal(new LinkOptions().InteractiveReplayWindowBytes, path.Sender.ReplayWindowBytes);

        path.Sender.IsInteractive = false;
        Assert.Equal(new LinkOptions().InitialReplayWindowBytes, path.Sender.ReplayWindowBytes);
    }

    [Fact]
    public void Small_answers_do_not_keep_the_replay_window_from_growing_to_what_the_path_needs()
    {
        var path = new Path(roundTrip: Ms(100), bytesPerSecond: long.MaxValue, new LinkOptions { MaxReplayWindowBytes = 16 << 20 });
        path.Sender.IsInteractive = true;
        path.Run(Seconds(2));
        Assert.Equal(16 << 20, path.Sender.ReplayWindowBytes);
    }

    [Fact]
    public void A_hello_announces_the_least_window_so_that_acks_come_often_enough_when_a_grown_one_has_shrunk()
    {
        var path = new Path(roundTrip: Ms(100), bytesPerSecond: long.MaxValue, new LinkOptions { MaxReplayWindowBytes = 16 << 20 });
        path.Run(Seconds(1.5));
        Assert.Equal(16 << 20, path.Sender.ReplayWindowBytes);
        Assert.Equal(new LinkOptions().InteractiveReplayWindowBytes, path.Redial().ReplayWindowBytes);
    }

    [Fact]
    public void A_bound_below_the_first_window_is_the_window()
    {
        var pair = Connected(Quiet with { MaxReplayWindowBytes = 1000 });
        Assert.Equal(1000, pair.Client.ReplayWindowBytes);
        Assert.Equal(1000, pair.Client.WritableBytes);
    }

    [Fact]
    public void The_replay_window_does_not_grow_for_a_writer_that_leaves_it_empty()
    {
        var path = new Path(roundTrip: Ms(100), bytesPerSecond: long.MaxValue, new LinkOptions()) { WriteLimit = 60_000 };
        path.Run(Seconds(10));
        Assert.Equal(new LinkOptions().InitialReplayWindowBytes, path.Sender.ReplayWindowBytes);
    }

    [Fact]
    public void A_handshake_that_hangs_costs_the_carrier()
    {
        var pair = new LinkPair(Quiet, Quiet);
        pair.Dial();
        Assert.Equal(pair.Now + Seconds(10), pair.Client.NextDeadline);
        pair.Pass(Seconds(10), deliver: false);
        Assert.Equal(CarrierLoss.HandshakeTimeout, Assert.Single(pair.ClientEvents).Loss);
        Assert.True(pair.Client.NeedsCarrier);
    }

    /// <summary>A client that always writes, over a path with a delay and a rate, to a server that always reads.</summary>
    private sealed class Path
    {
        private static readonly TimeSpan Step = Ms(1);

        private readonly LinkState _receiver;
        private readonly int _senderCarrier;
        private readonly int _receiverCarrier;
        private TimeSpan _delay;
        private readonly Queue<(TimeSpan At, byte[] Message)> _there = new();
        private readonly Queue<(TimeSpan At, byte[] Message)> _back = new();
        private readonly byte[] _chunk = new byte[65_000];
        private readonly long _bytesPerStep;
        private long _budget;
        private long _queueBudget;
        private TimeSpan _now;

        public Path(TimeSpan roundTrip, long bytesPerSecond, LinkOptions options)
        {
            options = options with { KeepAliveInterval = TimeSpan.Zero, ReceiveWindowBytes = 1 << 30 };
            (_delay, _bytesPerStep) = (roundTrip / 2, PerStep(bytesPerSecond));
            Sender = LinkState.CreateClient(options);
            _receiver = LinkState.CreateServer(options, LinkPair.Id, LinkPair.Secret);
            _senderCarrier = Sender.AttachCarrier(_now);
            Assert.True(LinkAcceptor.TryRead(Sender.Take(_senderCarrier, _now), [], out var hello, out _));
            Assert.True(_receiver.TryAttachCarrier(hello, _now + _delay, out _receiverCarrier, out _));
        }

        public LinkState Sender { get; }

        public long Delivered { get; private set; }

        public long WriteLimit { get; init; } = long.MaxValue;

        /// <summary>What leaves the queue on the way to the receiver, which takes whatever it is given.</summary>
        public long QueueBytesPerSecond { get; set; } = long.MaxValue;

        /// <summary>From now on, as where packets take another way.</summary>
        public TimeSpan RoundTrip
        {
            set => _delay = value / 2;
        }

        /// <summary>The sender comes back on another carrier: what it says there.</summary>
        public LinkHello Redial()
        {
            Assert.True(LinkAcceptor.TryRead(Sender.Take(Sender.AttachCarrier(_now), _now), [], out var hello, out _));
            return hello;
        }

        public void Run(TimeSpan time)
        {
            for (var until = _now + time; _now < until; _now += Step)
            {
                Sender.Advance(_now);
                _receiver.Advance(_now);
                _queueBudget = Math.Min(0, _queueBudget) + PerStep(QueueBytesPerSecond);
                Deliver(_there, _receiver, _receiverCarrier, ref _queueBudget);
                while (_receiver.TryRead(out var slice))
                {
                    Delivered += slice.Length;
                    slice.Release();
                }

                while (_receiver.Take(_receiverCarrier, _now) is { } answer)
                    _back.Enqueue((_now + _delay, answer));
                var unlimited = long.MaxValue;
                Deliver(_back, Sender, _senderCarrier, ref unlimited);

                _budget = Math.Min(0, _budget) + _bytesPerStep;
                while (_budget > 0)
                {
                    if (Sender.WritableBytes > 0 && Sender.WrittenBytes - Delivered < WriteLimit)
                        Sender.Write(_chunk);
                    if (Sender.Take(_senderCarrier, _now) is not { } message)
                        break;
                    _budget -= message.Length;
                    _there.Enqueue((_now + _delay, message));
                }
            }
        }

        private static long PerStep(long bytesPerSecond) => bytesPerSecond == long.MaxValue ? long.MaxValue : bytesPerSecond / 1000;

        private void Deliver(Queue<(TimeSpan At, byte[] Message)> queue, LinkState to, int carrier, ref long budget)
        {
            while (budget > 0 && queue.TryPeek(out var head) && head.At <= _now)
            {
                queue.Dequeue();
                budget -= head.Message.Length;
                to.Receive(carrier, _now, head.Message);
            }
        }
    }
}
