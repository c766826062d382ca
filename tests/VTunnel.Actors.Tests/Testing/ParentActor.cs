using Akka.Actor;

namespace VTunnel.Actors.Tests.Testing;

/// <summary>Stands in for the parent of an actor under test: tells an observer what the child says, and its end.</summary>
internal sealed class ParentActor : UntypedActor
{
    private readonly Props _childProps;
    private readonly IActorRef _observer;
    private IActorRef? _child;

    public ParentActor(Props childProps, IActorRef observer)
    {
        _childProps = childProps;
        _observer = observer;
    }

    public static Props Props(Props childProps, IActorRef observer) => Akka.Actor.Props.Create(() => new ParentActor(childProps, observer));

    /// <summary>The child under test, asked for with <see cref="GetChild"/>.</summary>
    public sealed record GetChild
    {
        public static readonly GetChild Instance = new();
    }

    /// <summary>To the observer: the child has stopped.</summary>
    public sealed record ChildGone
    {
        public static readonly ChildGone Instance = new();
    }

    protected override void PreStart() => _child = Context.Watch(Context.ActorOf(_childProps));

    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case GetChild:
                Sender.Tell(_child);
                break;
            case Terminated:
                _observer.Tell(ChildGone.Instance);
                break;
            default:
                _observer.Tell(message, Sender);
                break;
        }
    }
}
