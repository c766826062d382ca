using Akka.Actor;
using Akka.Event;

namespace VTunnel.Supervision;

/// <summary>
/// Disposes what messages of the engine carry (an accepted socket, a dialled connection) when they find their receiver
/// gone. Without it a visitor who came at the wrong moment would wait until the garbage collector finds the socket.
/// </summary>
internal sealed class OrphanActor : UntypedActor
{
    public static Props Props() => Akka.Actor.Props.Create(() => new OrphanActor());

    protected override void PreStart() => Context.System.EventStream.Subscribe(Self, typeof(DeadLetter));

    protected override void OnReceive(object message)
    {
        if (message is DeadLetter { Message: IDisposable orphan } && orphan.GetType().Assembly == typeof(OrphanActor).Assembly)
            orphan.Dispose();
    }

    protected override void PostStop() => Context.System.EventStream.Unsubscribe(Self);
}
