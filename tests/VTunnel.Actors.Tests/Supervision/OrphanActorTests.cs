using System.Net;
using System.Net.Sockets;
using Akka.Actor;
using VTunnel.Actors.Tests.Hosting;
using VTunnel.Actors.Tests.Testing;
using VTunnel.Listeners;
using VTunnel.Supervision;
using VTunnel.Testing;

namespace VTunnel.Actors.Tests.Supervision;

public sealed class OrphanActorTests : VirtualTimeKit
{
    [Fact]
    public async Task A_visitor_whose_session_has_just_gone_is_closed_at_once()
    {
        Settle(Sys.ActorOf(OrphanActor.Props()));
        var gone = Sys.ActorOf(ParentActor.Props(Props.Empty, ActorRefs.Nobody));
        Watch(gone);
        Sys.Stop(gone);
        ExpectTerminated(gone);

        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        using var visitor = new TcpClient();
        var connecting = visitor.ConnectAsync((IPEndPoint)listener.LocalEndpoint);
        gone.Tell(new ListenerProtocol.VisitorAccepted(9000, await listener.AcceptSocketAsync()));
        await connecting;
        Assert.Equal(0, await visitor.GetStream().ReadAsync(new byte[1]).AsTask().WaitAsync(TestTimeouts.Long));
    }

    [Fact]
    public void What_belongs_to_others_is_left_alone()
    {
        var orphans = Sys.ActorOf(OrphanActor.Props());
        Settle(orphans);
        using var foreign = new Foreign();
        Sys.DeadLetters.Tell(foreign);
        Settle(orphans);
        Assert.False(foreign.IsDisposed);
    }

    private sealed class Foreign : IDisposable
    {
        public bool IsDisposed { get; private set; }

        public void Dispose() => IsDisposed = true;
    }
}
