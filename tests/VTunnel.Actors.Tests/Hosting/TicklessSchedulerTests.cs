using Akka.Actor;
using Akka.TestKit.Xunit2;
using VTunnel.Hosting;
using VTunnel.Testing;

namespace VTunnel.Actors.Tests.Hosting;

/// <summary>The scheduler of actor systems that the engine makes itself.</summary>
public sealed class TicklessSchedulerTests : TestKit
{
    private static readonly TimeSpan Soon = TimeSpan.FromMilliseconds(20);

    public TicklessSchedulerTests()
        : base(EngineConfiguration.Akka)
    {
    }

    [Fact]
    public void The_engine_runs_on_it() => Assert.IsType<TicklessScheduler>(Sys.Scheduler);

    [Fact]
    public void What_is_due_later_comes_later_and_nothing_is_early()
    {
        var began = Sys.Scheduler.MonotonicClock;
        Sys.Scheduler.ScheduleTellOnce(Soon * 5, TestActor, "late", ActorRefs.NoSender);
        Sys.Scheduler.ScheduleTellOnce(Soon, TestActor, "early", ActorRefs.NoSender);

        ExpectMsg("early", TestTimeouts.Long);
        ExpectMsg("late", TestTimeouts.Long);
        Assert.True(Sys.Scheduler.MonotonicClock - began >= Soon * 5);
    }

    [Fact]
    public void What_repeats_comes_until_it_is_cancelled()
    {
        var cancelable = Sys.Scheduler.ScheduleTellRepeatedlyCancelable(TimeSpan.Zero, Soon, TestActor, "tick", ActorRefs.NoSender);
        for (var tick = 0; tick < 3; tick++)
            ExpectMsg("tick", TestTimeouts.Long);

        cancelable.Cancel();
        Sys.Scheduler.ScheduleTellOnce(Soon * 5, TestActor, "after", ActorRefs.NoSender);

        // One may have been under way.
        FishForMessage(message => message is "after", TestTimeouts.Long);
        ExpectNoMsg(Soon * 2);
    }

    [Fact]
    public void What_is_cancelled_before_it_is_due_does_not_come()
    {
        // Far enough away to be cancelled in time, however slow this thread is.
        var due = TimeSpan.FromSeconds(1);
        Sys.Scheduler.ScheduleTellOnceCancelable(due, TestActor, "never", ActorRefs.NoSender).Cancel();
        using var cancelled = new Cancelable(Sys.Scheduler);
        cancelled.Cancel();
        Sys.Scheduler.ScheduleTellOnce(due, TestActor, "never either", ActorRefs.NoSender, cancelled);
        Sys.Scheduler.ScheduleTellOnce(due * 1.5, TestActor, "after", ActorRefs.NoSender);

        ExpectMsg("after", TestTimeouts.Long);
    }

    [Fact]
    public void An_action_that_fails_takes_nothing_with_it()
    {
        Sys.Scheduler.Advanced.ScheduleRepeatedly(TimeSpan.Zero, Soon, () => throw new InvalidOperationException("expected by a test"));
        Sys.Scheduler.Advanced.ScheduleOnce(Soon * 3, () => TestActor.Tell("after"));

        ExpectMsg("after", TestTimeouts.Long);
    }

    [Fact]
    public async Task After_the_end_nothing_can_be_scheduled()
    {
        using var system = ActorSystem.Create("ends", EngineConfiguration.Akka);
        var scheduler = system.Scheduler;
        await system.Terminate();

        Assert.Throws<SchedulerException>(() => scheduler.ScheduleTellOnce(Soon, TestActor, "never", ActorRefs.NoSender));
    }
}
