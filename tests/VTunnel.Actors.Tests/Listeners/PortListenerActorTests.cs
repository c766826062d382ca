using System.Net;
using System.Net.Sockets;
using Akka.Actor;
using Akka.TestKit;
using VTunnel.Actors.Tests.Testing;
using VTunnel.Listeners;
using VTunnel.Testing.Network;

namespace VTunnel.Actors.Tests.Listeners;

public sealed class PortListenerActorTests : VirtualTimeKit
{
    private readonly TestProbe _parent;

    public PortListenerActorTests() => _parent = CreateTestProbe();

    private IActorRef Start(IPAddress address, int port, double retrySeconds = 2) =>
        StartChild(PortListenerActor.Props(address, port, TimeSpan.FromSeconds(retrySeconds), new ListLogger()), _parent);

    private static TcpListener Occupy(out int port)
    {
        var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        port = ((IPEndPoint)listener.LocalEndpoint).Port;
        return listener;
    }

    [Fact]
    public async Task A_visitor_is_accepted_and_passed_on()
    {
        var port = FreePorts.Next();
        Start(IPAddress.Loopback, port);
        Assert.Equal(port, _parent.ExpectMsg<ListenerProtocol.Listening>().Port);
        for (var i = 0; i < 3; i++)
        {
            using var visitor = new TcpClient(AddressFamily.InterNetwork);
            await visitor.ConnectAsync(IPAddress.Loopback, port);
            var accepted = _parent.ExpectMsg<ListenerProtocol.VisitorAccepted>();
            Assert.Equal(port, accepted.Port);
            Assert.Equal(visitor.Client.LocalEndPoint, accepted.Socket.RemoteEndPoint);
            accepted.Socket.Dispose();
        }
    }

    [Fact]
    public void A_port_in_use_is_tried_again_at_growing_intervals_until_it_is_free()
    {
        using var other = Occupy(out var port);
        var listener = Start(IPAddress.Loopback, port);
        foreach (var wait in new[] { 50, 100, 200 })
        {
            Settle(listener);
            Time.Advance(TimeSpan.FromMilliseconds(wait));
        }

        Settle(listener);
        _parent.ExpectNoMsg(TimeSpan.Zero);
        other.Stop();
        Time.Advance(TimeSpan.FromMilliseconds(400));
        _parent.ExpectMsg<ListenerProtocol.Listening>();
    }

    [Fact]
    public void A_port_that_stays_in_use_is_given_up_with_the_reason()
    {
        using var other = Occupy(out var port);
        var listener = Start(IPAddress.Loopback, port);

        // 50 + 100 + 200 + 400 + 800 + 800 reaches the two seconds.
        foreach (var wait in new[] { 50, 100, 200, 400, 800 })
        {
            Settle(listener);
            Time.Advance(TimeSpan.FromMilliseconds(wait));
        }

        Settle(listener);
        _parent.ExpectNoMsg(TimeSpan.Zero);
        Time.Advance(TimeSpan.FromMilliseconds(800));
        var failed = _parent.ExpectMsg<ListenerProtocol.ListenFailed>();
        Assert.Equal((port, $"port {port} on 127.0.0.1 is in use, by another program or by this server itself"), (failed.Port, failed.Reason));
        _parent.ExpectMsg<ParentActor.ChildGone>();
    }

    [Fact]
    public void An_address_that_the_machine_does_not_have_is_given_up_at_once()
    {
        Start(IPAddress.Parse("192.0.2.1"), FreePorts.Next());
        Assert.Equal("the server has no address 192.0.2.1", _parent.ExpectMsg<ListenerProtocol.ListenFailed>().Reason);
        _parent.ExpectMsg<ParentActor.ChildGone>();
    }

    [Fact]
    public async Task The_end_of_the_actor_closes_the_port()
    {
        var port = FreePorts.Next();
        var listener = Start(IPAddress.Loopback, port);
        _parent.ExpectMsg<ListenerProtocol.Listening>();
        Sys.Stop(listener);
        _parent.ExpectMsg<ParentActor.ChildGone>();
        using var visitor = new TcpClient(AddressFamily.InterNetwork);
        await Assert.ThrowsAsync<SocketException>(() => visitor.ConnectAsync(IPAddress.Loopback, port));
    }
}
