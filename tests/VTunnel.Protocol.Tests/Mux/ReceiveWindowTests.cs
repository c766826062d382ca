using VTunnel.Protocol.Mux;

namespace VTunnel.Protocol.Tests.Mux;

public class ReceiveWindowTests
{
    private const int Initial = MuxOptions.InitialWindowBytes;
    private static readonly TimeSpan RoundTrip = TimeSpan.FromMilliseconds(100);
    private readonly MuxOptions _options = new();
    private readonly WindowBudget _budget = new(64L * 1024 * 1024);
    private TimeSpan _now = TimeSpan.FromSeconds(5);

    [Fact]
    public void Credit_is_returned_when_half_of_the_initial_window_was_consumed()
    {
        var window = new ReceiveWindow(_now);
        Assert.True(window.TryReceive(Initial));
        _now += RoundTrip * 2;
        Assert.False(Consume(ref window, Initial / 2 - 1));
        Assert.True(Consume(ref window, 1));
        Assert.Equal((uint)Initial / 2, window.TakeCredit());
        Assert.Equal(0u, window.TakeCredit());
        Assert.Equal(Initial, window.Exposure);
    }

    [Fact]
    public void A_byte_more_than_the_credit_is_refused()
    {
        var window = new ReceiveWindow(_now);
        Assert.False(window.TryReceive(Initial + 1));
        Assert.True(window.TryReceive(Initial));
        Assert.False(window.TryReceive(1));
        Assert.False(window.TryReceive(uint.MaxValue));
    }

    [Fact]
    public void A_window_that_is_used_up_each_round_trip_doubles_up_to_its_limit()
    {
        var window = new ReceiveWindow(_now);
        var sizes = new List<int>();
        for (var i = 0; i < 20; i++)
        {
            _now += RoundTrip;
            UseUp(ref window, steps: 16);
            sizes.Add(window.Target);
        }

        Assert.Equal(_options.MaxStreamWindowBytes, window.Target);
        Assert.Equal(_options.MaxStreamWindowBytes - Initial, _budget.Used);
        Assert.True(sizes.Zip(sizes.Skip(1)).All(pair => pair.Second >= pair.First));
        Assert.True(sizes.IndexOf(_options.MaxStreamWindowBytes) <= 7, $"after 8 round trips: {string.Join(' ', sizes)}");
    }

    [Fact]
    public void A_window_that_takes_three_round_trips_to_use_up_stays_as_it_is()
    {
        var window = new ReceiveWindow(_now);
        for (var i = 0; i < 50; i++)
        {
            // Evenly: a tenth at a time.
            for (var j = 0; j < 10; j++)
            {
                _now += RoundTrip * 3 / 10;
                Assert.True(window.TryReceive(Initial / 10));
                if (Consume(ref window, Initial / 10))
                    window.TakeCredit();
            }
        }

        Assert.Equal(Initial, window.Target);
        Assert.Equal(0, _budget.Used);
    }

    [Fact]
    public void A_window_that_carries_bulk_holds_two_of_the_largest_frames_and_does_not_grow_further_while_the_round_trip_is_unknown()
    {
        var window = new ReceiveWindow(_now);
        for (var i = 0; i < 10; i++)
        {
            Assert.True(window.TryReceive(Initial));
            window.Consume(Initial, _now, TimeSpan.Zero, _budget, _options);
            window.TakeCredit();
        }

        Assert.Equal(2 * Initial, window.Target);
        Assert.Equal(Initial, _budget.Used);
    }

    [Fact]
    public void Bulk_gets_no_more_than_the_bounds_of_stream_and_session()
    {
        foreach (var (options, budget) in new[] { (new MuxOptions { MaxStreamWindowBytes = Initial }, _budget), (_options, new WindowBudget(0)) })
        {
            var window = new ReceiveWindow(_now);
            Assert.True(window.TryReceive(Initial));
            window.Consume(Initial, _now, TimeSpan.Zero, budget, options);
            Assert.Equal(Initial, window.Target);
            Assert.Equal(0, budget.Used);
        }
    }

    [Fact]
    public void A_stalled_reader_is_granted_nothing()
    {
        var window = new ReceiveWindow(_now);
        Assert.True(window.TryReceive(Initial));
        _now += TimeSpan.FromHours(1);
        Assert.Equal(0u, window.TakeCredit());
        Assert.Equal(0, window.Credit);
    }

    [Fact]
    public void Large_windows_return_credit_in_smaller_parts_than_half()
    {
        var window = Grown();
        Assert.Equal(1024 * 1024, window.UpdateThreshold);
        Assert.Equal(Initial / 2, new ReceiveWindow(_now).UpdateThreshold);
    }

    [Fact]
    public void The_session_bound_limits_the_sum_and_leaves_room_for_streams_that_come_later()
    {
        var budget = new WindowBudget(10_000_000);
        var windows = new ReceiveWindow[20];
        for (var i = 0; i < windows.Length; i++)
        {
            windows[i] = new ReceiveWindow(_now);
            for (var j = 0; j < 20; j++)
            {
                Assert.True(windows[i].TryReceive((uint)windows[i].Credit));
                windows[i].Consume(windows[i].Buffered, _now, RoundTrip, budget, _options);
                windows[i].TakeCredit();
            }

            Assert.True(budget.Used <= budget.Limit);
        }

        Assert.True(windows[0].Target > 4_000_000);
        Assert.True(windows[1].Target > Initial);
        Assert.Equal(budget.Used, windows.Sum(w => w.Target - (long)Initial));

        foreach (ref var window in windows.AsSpan())
            window.Release(budget);
        Assert.Equal(0, budget.Used);
    }

    [Fact]
    public void An_idle_window_shrinks_by_granting_nothing_and_gives_its_budget_back_as_it_is_used_up()
    {
        var window = Grown();
        var granted = window.Credit;
        Assert.Equal(_options.MaxStreamWindowBytes, granted);

        _now += _options.IdleWindowTimeout;
        var before = _budget.Used;
        // What was granted cannot be taken back; it stays charged until the peer has used it up.
        var used = 0L;
        while (window.Credit > Initial / 2)
        {
            Assert.True(window.TryReceive(65_536));
            used += 65_536;
            _now += RoundTrip * 3;
            if (Consume(ref window, 65_536))
                break;
            Assert.Equal(Initial, window.Target);
            Assert.Equal(Math.Max(0, before - used), _budget.Used);
        }

        Assert.Equal(0, _budget.Used);
        Assert.Equal(granted - Initial / 2, used);
        Assert.Equal((uint)Initial / 2, window.TakeCredit());
    }

    [Fact]
    public void After_the_end_of_the_peer_nothing_is_granted_and_consuming_the_rest_frees_the_budget()
    {
        var window = Grown();
        Assert.True(window.TryReceive(4_000_000));
        window.Finish(_budget);
        Assert.Equal(4_000_000 - Initial, _budget.Used);
        Assert.False(Consume(ref window, 3_900_000));
        Assert.Equal(0, _budget.Used);
        Assert.False(Consume(ref window, 100_000));
        Assert.Equal(0u, window.TakeCredit());
        window.Release(_budget);
        Assert.Equal(0, _budget.Used);
    }

    private ReceiveWindow Grown()
    {
        var window = new ReceiveWindow(_now);
        while (window.Target < _options.MaxStreamWindowBytes)
            UseUp(ref window, steps: 1);
        window.TakeCredit();
        return window;
    }

    private void UseUp(ref ReceiveWindow window, int steps)
    {
        var credit = window.Credit;
        for (var i = 1; i <= steps; i++)
        {
            var part = credit * i / steps - credit * (i - 1) / steps;
            Assert.True(window.TryReceive((uint)part));
            if (Consume(ref window, part))
                window.TakeCredit();
        }
    }

    private bool Consume(ref ReceiveWindow window, long bytes) => window.Consume(bytes, _now, RoundTrip, _budget, _options);
}
