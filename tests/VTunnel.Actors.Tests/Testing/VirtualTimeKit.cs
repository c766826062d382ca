using Akka.Actor;
using Akka.Configuration;
using Akka.Streams;
using Akka.TestKit;
using Akka.TestKit.Xunit2;

namespace VTunnel.Actors.Tests.Testing;

/// <summary>A test kit whose actors' timers run when the test says so, and never else.</summary>
public abstract class VirtualTimeKit : TestKit
{
    private static readonly Config VirtualTime = ConfigurationFactory.ParseString(
        """
        akka {
          stdout-loglevel = OFF
          loglevel = OFF
          log-dead-letters = off
          log-dead-letters-during-shutdown = off
          scheduler.implementation = "Akka.TestKit.TestScheduler, Akka.TestKit"
          test.single-expect-default = 20s
        }
        """);

    protected VirtualTimeKit()
        : base(VirtualTime)
    {
    }

    protected TestScheduler Time => (TestScheduler)Sys.Scheduler;

    /// <summary>A materializer whose graphs run on the thread that wakes them: when a call returns, all its effects are there.</summary>
    protected IMaterializer CallingThreadMaterializer() => ActorMaterializer.Create(
        Sys, ActorMaterializerSettings.Create(Sys).WithDispatcher(CallingThreadDispatcher.Id));

    /// <summary>Lets time pass in steps, for timers that come again: the scheduler fires each once per step.</summary>
    protected void Pass(TimeSpan time, TimeSpan step)
    {
        for (var passed = TimeSpan.Zero; passed < time; passed += step)
            Time.Advance(step);
    }

    /// <summary>Starts an actor whose parent tells <paramref name="parent"/> what it says, and its end.</summary>
    protected IActorRef StartChild(Props props, IActorRef parent)
    {
        var probe = CreateTestProbe();
        Sys.ActorOf(ParentActor.Props(props, parent)).Tell(ParentActor.GetChild.Instance, probe);
        return probe.ExpectMsg<IActorRef>();
    }

    /// <summary>Waits until an actor has dealt with everything that it was sent before.</summary>
    protected void Settle(IActorRef actor)
    {
        var probe = CreateTestProbe();
        actor.Tell(new Identify(null), probe);
        probe.ExpectMsg<ActorIdentity>();
    }
}
