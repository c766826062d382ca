using Microsoft.Extensions.Time.Testing;
using VTunnel.Cli.Hosting;

namespace VTunnel.EndToEnd.Tests.CommandLine;

/// <summary>When the program gives memory back.</summary>
public sealed class IdleMemoryTests : IDisposable
{
    private readonly FakeTimeProvider _clock = new();
    private readonly IdleMemory _memory;
    private TimeSpan _used;
    private long _allocated;
    private int _collections;

    public IdleMemoryTests() => _memory = new IdleMemory(_clock, () => _used, () => _allocated, () => _collections++);

    public void Dispose() => _memory.Dispose();

    [Fact]
    public void An_idle_program_collects_once_what_was_allocated()
    {
        Pass(busy: TimeSpan.FromSeconds(1), allocated: 10_000_000);
        Assert.Equal(0, _collections);
        Pass();
        Assert.Equal(1, _collections);
        Pass();
        Pass();
        Assert.Equal(1, _collections);
    }

    [Fact]
    public void A_program_at_work_is_left_alone_even_if_it_allocates_nothing()
    {
        _allocated = 10_000_000;
        for (var i = 0; i < 10; i++)
            Pass(busy: IdleMemory.MostUsed + TimeSpan.FromTicks(1));
        Assert.Equal(0, _collections);
    }

    [Fact]
    public void A_little_is_not_worth_it_until_it_adds_up()
    {
        Pass(allocated: IdleMemory.LeastAllocated - 1);
        Assert.Equal(0, _collections);
        Pass(allocated: 1);
        Assert.Equal(1, _collections);
        Pass(allocated: IdleMemory.LeastAllocated - 1);
        Assert.Equal(1, _collections);
    }

    [Fact]
    public void Nothing_happens_after_the_end()
    {
        _memory.Dispose();
        Pass(allocated: 10_000_000);
        Assert.Equal(0, _collections);
    }

    private void Pass(TimeSpan busy = default, long allocated = 0)
    {
        _used += busy;
        _allocated += allocated;
        _clock.Advance(IdleMemory.Interval);
    }
}
