using VTunnel.Protocol.Mux;

namespace VTunnel.Protocol.Tests.Mux;

public class DeficitRoundRobinTests
{
    private const int Quantum = 65_496;
    private readonly DeficitRoundRobin _scheduler = new(Quantum);

    [Fact]
    public void Streams_with_frames_of_different_sizes_get_equal_shares_within_a_quantum()
    {
        int[] sizes = [Quantum, Quantum, 50_000, 30_000, 16_384, 4_096, 1_500, 76];
        var streams = sizes.Select(size => new Source(_scheduler, size)).ToArray();

        for (var served = 0L; served < 1000L * Quantum;)
        {
            served += Take().Last;
            var shares = streams.Select(s => s.Sent).ToArray();
            Assert.True(shares.Max() - shares.Min() <= 2 * Quantum, $"after {served} bytes: {string.Join(' ', shares)}");
        }

        var fair = streams.Sum(s => s.Sent) / streams.Length;
        Assert.All(streams, s => Assert.InRange(s.Sent, fair - Quantum, fair + Quantum));
    }

    [Fact]
    public void A_small_write_beside_eight_bulk_streams_waits_at_most_one_frame()
    {
        var bulk = Enumerable.Range(0, 8).Select(_ => new Source(_scheduler, Quantum)).ToArray();
        var small = new Source(_scheduler, 76, backlog: 0);
        for (var i = 0; i < 100; i++)
            Take();

        for (var i = 0; i < 200; i++)
        {
            // Between two keystrokes, a part of a round to several rounds go by.
            for (var j = 0; j < i % 20; j++)
                Take();
            small.Offer(1);
            var waited = 0L;
            while (small.Backlog > 0)
                waited += Take() is var taken && taken != small ? taken.Last : 0;
            Assert.True(waited <= Quantum, $"the small write {i} waited for {waited} bytes");
        }

        Assert.Equal(200, small.Frames);
        Assert.True(bulk.Max(b => b.Sent) - bulk.Min(b => b.Sent) <= 2 * Quantum);
    }

    [Fact]
    public void A_stream_that_goes_quiet_after_each_frame_gets_no_more_than_its_share()
    {
        var steady = new Source(_scheduler, Quantum);
        var sly = new Source(_scheduler, Quantum, backlog: 0);
        for (var i = 0; i < 1000; i++)
        {
            if (sly.Backlog == 0 && i % 2 == 0)
                sly.Offer(1);
            Take();
        }

        Assert.InRange(sly.Sent, steady.Sent - 2 * Quantum, steady.Sent + 2 * Quantum);
    }

    [Fact]
    public void A_flood_of_new_streams_slows_an_old_one_down_and_does_not_starve_it()
    {
        var old = new Source(_scheduler, Quantum);
        for (var i = 0; i < 10; i++)
            Take();

        var before = old.Frames;
        for (var i = 0; i < 1000; i++)
        {
            new Source(_scheduler, 10_000, backlog: 0).Offer(3);
            Take();
        }

        // The new streams had at most 1000 frames of 10,000 bytes, and the old one a turn for every 16 quanta of them.
        var turns = 1000 * 10_000 / (16 * Quantum) - 1;
        Assert.True(old.Frames - before >= turns, $"the old stream got {old.Frames - before} of 1000 frames, not {turns}");
    }

    [Fact]
    public void Nothing_is_served_when_nobody_has_a_frame_and_an_entry_comes_back_after_it()
    {
        var one = new Source(_scheduler, 100, backlog: 0);
        Assert.Null(_scheduler.Next());
        one.Offer(2);
        Assert.Same(one, Take());
        Assert.Same(one, Take());
        Assert.Null(_scheduler.Next());
        Assert.Null(_scheduler.Next());
        one.Offer(1);
        Assert.Same(one, Take());
        Assert.Null(_scheduler.Next());
    }

    [Fact]
    public void A_removed_entry_is_never_served()
    {
        var sparse = new Source(_scheduler, 100);
        var other = new Source(_scheduler, Quantum);
        _scheduler.Remove(sparse);
        for (var i = 0; i < 10; i++)
            Assert.Same(other, Take());
        _scheduler.Remove(other);
        Assert.Null(_scheduler.Next());
    }

    [Fact]
    public void A_frame_larger_than_what_is_left_of_the_share_waits_for_the_next_round()
    {
        var mixed = new Source(_scheduler, 40_000);
        var other = new Source(_scheduler, 40_000);
        var order = Enumerable.Range(0, 12).Select(_ => Take() == mixed ? 'm' : 'o').ToArray();

        // 65,496 a round: one frame, then one and the rest of two shares makes two, ...
        Assert.Equal(6, order.Count(c => c == 'm'));
        Assert.DoesNotContain("mmm", new string(order), StringComparison.Ordinal);
        Assert.DoesNotContain("ooo", new string(order), StringComparison.Ordinal);
        Assert.Equal(other.Sent, mixed.Sent);
    }

    private Source Take()
    {
        var source = Assert.IsType<Source>(_scheduler.Next());
        source.Take();
        return source;
    }

    private sealed class Source : ScheduledEntry
    {
        private readonly DeficitRoundRobin _scheduler;
        private readonly int _size;
        private readonly bool _endless;

        public Source(DeficitRoundRobin scheduler, int size, int? backlog = null)
        {
            _scheduler = scheduler;
            _size = size;
            _endless = backlog is null;
            if (_endless)
                scheduler.Activate(this);
        }

        public long Backlog { get; private set; }

        public long Sent { get; private set; }

        public int Frames { get; private set; }

        public int Last { get; private set; }

        internal override int NextCost => _endless || Backlog > 0 ? _size : 0;

        public void Offer(int frames)
        {
            var idle = NextCost == 0;
            Backlog += frames;
            if (idle)
                _scheduler.Activate(this);
        }

        public void Take()
        {
            Assert.True(NextCost > 0);
            Last = _size;
            Sent += _size;
            Frames++;
            if (!_endless)
                Backlog--;
        }
    }
}
