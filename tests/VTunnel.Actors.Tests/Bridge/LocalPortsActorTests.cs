using System.Net;
using System.Net.Sockets;
using Akka.Actor;
using Akka.TestKit;
using Microsoft.Extensions.Time.Testing;
using VTunnel.Actors.Tests.Testing;
using VTunnel.Bridge.Consuming;
using VTunnel.Options;
using VTunnel.Protocol.Bridge;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.Actors.Tests.Bridge;

/// <summary>Local ports stay open whatever happens to the session, and who waits at them waits for so long and in such numbers.</summary>
public sealed class LocalPortsActorTests : VirtualTimeKit
{
    private static readonly BridgeSessionOptions Options = new() { MaxWaitingVisitors = 2, VisitorTimeout = TimeSpan.FromSeconds(60) };

    private readonly FakeTimeProvider _clock = new();
    private readonly TestProbe _parent;
    private readonly TestProbe _session;
    private readonly ListLogger _logger = new();

    public LocalPortsActorTests()
    {
        _parent = CreateTestProbe();
        _session = CreateTestProbe();
    }

    private static BridgeGrant Grant(int local, int port = 5432) => new(local, "127.0.0.1", port);

    private IActorRef Start(params BridgeGrant[] grants) => Start([], grants);

    private IActorRef Start(Dictionary<int, int> overrides, params BridgeGrant[] grants)
    {
        var ports = StartChild(LocalPortsActor.Props(Options, overrides, _clock, _logger), _parent);
        ports.Tell(new LocalPortsProtocol.Apply(grants));
        return ports;
    }

    private LocalPortsProtocol.State State(IActorRef ports)
    {
        ports.Tell(LocalPortsProtocol.GetState.Instance, TestActor);
        return ExpectMsg<LocalPortsProtocol.State>();
    }

    private async Task<TcpClient> VisitAsync(IActorRef ports, int port, int waiting)
    {
        var visitor = await Payload.ConnectAsync(port);
        AwaitCondition(() => State(ports).Waiting == waiting, TestTimeouts.Step);
        return visitor;
    }

    private static async Task<bool> IsClosedAsync(TcpClient visitor)
    {
        try
        {
            return await visitor.GetStream().ReadAsync(new byte[1]).AsTask().WaitAsync(TestTimeouts.Step) == 0;
        }
        catch (IOException)
        {
            return true;
        }
    }

    [Fact]
    public async Task Visitors_wait_for_a_session_in_their_order_and_one_too_many_is_turned_away()
    {
        var port = FreePorts.Next();
        var ports = Start(Grant(port));
        Assert.True(Assert.Single(_parent.ExpectMsg<LocalPortsProtocol.Settled>().Ports).IsOpen);
        using var first = await VisitAsync(ports, port, 1);
        using var second = await VisitAsync(ports, port, 2);
        using var third = await Payload.ConnectAsync(port);

        Assert.True(await IsClosedAsync(third));
        ports.Tell(new LocalPortsProtocol.Serve(_session));

        foreach (var visitor in new[] { first, second })
        {
            using var opened = _session.ExpectMsg<ConsumerSessionProtocol.OpenVisitor>();
            Assert.Equal((IPEndPoint)visitor.Client.LocalEndPoint!, opened.Socket.RemoteEndPoint);
        }

        Assert.Equal(0, State(ports).Waiting);
    }

    [Fact]
    public async Task A_visitor_waits_for_so_long_and_no_longer()
    {
        var port = FreePorts.Next();
        var ports = Start(Grant(port));
        _parent.ExpectMsg<LocalPortsProtocol.Settled>();
        using var early = await VisitAsync(ports, port, 1);
        _clock.Advance(TimeSpan.FromSeconds(30));
        using var late = await VisitAsync(ports, port, 2);

        _clock.Advance(TimeSpan.FromSeconds(30));
        Time.Advance(TimeSpan.FromSeconds(60));

        Assert.True(await IsClosedAsync(early));
        Assert.Equal(1, State(ports).Waiting);
        _clock.Advance(TimeSpan.FromSeconds(30));
        Time.Advance(TimeSpan.FromSeconds(30));
        Assert.True(await IsClosedAsync(late));
        Assert.Equal(0, State(ports).Waiting);
    }

    [Fact]
    public async Task A_port_stays_open_when_the_session_is_gone_and_closes_when_its_grant_is()
    {
        var ports = FreePorts.Next(2);
        var actor = Start(Grant(ports[0]));
        _parent.ExpectMsg<LocalPortsProtocol.Settled>();
        actor.Tell(new LocalPortsProtocol.Serve(_session));
        actor.Tell(new LocalPortsProtocol.Serve(null));
        using var waiting = await VisitAsync(actor, ports[0], 1);

        actor.Tell(new LocalPortsProtocol.Apply([Grant(ports[1])]));
        AwaitCondition(() => State(actor).Ports is [{ IsOpen: true } open] && open.Port == ports[1], TestTimeouts.Step);
        actor.Tell(new LocalPortsProtocol.Serve(_session));

        Assert.True(await IsClosedAsync(waiting));
        await Assert.ThrowsAsync<SocketException>(() => Payload.ConnectAsync(ports[0]));
        _session.ExpectNoMsg(TimeSpan.Zero);
    }

    [Fact]
    public void A_port_in_use_is_tried_again_once_the_others_are_open()
    {
        using var holder = new TcpListener(IPAddress.Loopback, 0);
        holder.Start();
        var taken = ((IPEndPoint)holder.LocalEndpoint).Port;
        var free = FreePorts.Next();
        var ports = Start(Grant(free));
        _parent.ExpectMsg<LocalPortsProtocol.Settled>();
        ports.Tell(new LocalPortsProtocol.Apply([Grant(free), Grant(taken)]));
        AwaitCondition(() => State(ports).Ports.Single(port => port.Port == taken).Problem is not null, TestTimeouts.Step);

        holder.Stop();
        Time.Advance(TimeSpan.FromSeconds(10));

        AwaitCondition(() => State(ports).Ports.All(port => port.IsOpen), TestTimeouts.Step);
    }

    [Fact]
    public void A_port_that_the_user_gives_to_another_grant_is_lost_to_its_own_and_both_say_so()
    {
        var (mapped, own) = (FreePorts.Next(), FreePorts.Next());
        var ports = Start(new Dictionary<int, int> { [mapped] = own }, Grant(own, 1), Grant(mapped, 2));
        var settled = _parent.ExpectMsg<LocalPortsProtocol.Settled>().Ports;
        Assert.Equal(2, settled.Count);
        Assert.True(Assert.Single(settled, port => port.Target == "127.0.0.1:2").IsOpen);
        var lost = Assert.Single(settled, port => !port.IsOpen);
        Assert.Equal((own, "127.0.0.1:1"), (lost.Port, lost.Target));
        Assert.StartsWith($"local port {own} leads to 127.0.0.1:2, as --map says; open another one for this: --map ", lost.Problem, StringComparison.Ordinal);
        Assert.Single(_logger.Lines, line => line.Text.Contains("127.0.0.1:1 cannot be opened", StringComparison.Ordinal));

        // The same grants once more are no news; once the other one is gone, the port is its own again.
        ports.Tell(new LocalPortsProtocol.Apply([Grant(own, 1), Grant(mapped, 2)]));
        ports.Tell(new LocalPortsProtocol.Apply([Grant(own, 1)]));
        AwaitCondition(() => State(ports).Ports is [{ IsOpen: true, Target: "127.0.0.1:1" }], TestTimeouts.Step);
        Assert.Single(_logger.Lines, line => line.Text.Contains("cannot be opened", StringComparison.Ordinal));
    }
}
