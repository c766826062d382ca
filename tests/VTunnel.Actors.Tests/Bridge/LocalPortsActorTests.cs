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

    /// <summary>Without it a look is taken every tenth of the patience.</summary>
    private static readonly TimeSpan Poll = TimeSpan.FromMilliseconds(20);

    private readonly FakeTimeProvider _clock = new();
    private readonly TestProbe _parent;
    private readonly TestProbe _session;
    private readonly ListLogger _logger = new();

    public LocalPortsActorTests()
    {
        _parent = CreateTestProbe();
        _parent.IgnoreMessages<LocalPortsProtocol.Applied>();
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
        AwaitCondition(() => State(ports).Waiting == waiting, TestTimeouts.Step, Poll);
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
        AwaitCondition(() => State(actor).Ports is [{ IsOpen: true } open] && open.Port == ports[1], TestTimeouts.Step, Poll);
        actor.Tell(new LocalPortsProtocol.Serve(_session));

        Assert.True(await IsClosedAsync(waiting));
        await Assert.ThrowsAsync<SocketException>(() => Payload.ConnectAsync(ports[0]));
        State(actor);
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
        AwaitCondition(() => State(ports).Ports.Single(port => port.Port == taken).Problem is not null, TestTimeouts.Step, Poll);

        holder.Stop();
        Time.Advance(TimeSpan.FromSeconds(10));

        AwaitCondition(() => State(ports).Ports.All(port => port.IsOpen), TestTimeouts.Step, Poll);
    }

    [Fact]
    public void A_port_that_the_user_gives_to_another_grant_is_lost_to_the_one_that_proposes_it_which_says_so()
    {
        var own = FreePorts.Next();
        var mapped = FreePorts.Next();
        Start(new Dictionary<int, int> { [mapped] = own }, Grant(own, 1), Grant(mapped, 2));

        var settled = _parent.ExpectMsg<LocalPortsProtocol.Settled>().Ports;
        Assert.Equal([(own, "127.0.0.1:2", true), (own, "127.0.0.1:1", false)], settled.Select(port => (port.Port, port.Target, port.IsOpen)));
        Assert.Matches(
            $"^local port {own} leads to 127.0.0.1:2, by --map {own}:{mapped}, and not to 127.0.0.1:1; open another one for that: --map [0-9]+:{own}$",
            settled[1].Problem);
    }

    [Fact]
    public void The_port_that_is_suggested_is_wanted_by_no_other_grant()
    {
        var own = FreePorts.Next();
        var next = own + 10_000 <= 65_535 ? own + 10_000 : own - 10_000;
        var far = FreePorts.Next();
        Start(new Dictionary<int, int> { [far] = own }, Grant(own, 1), Grant(far, 2), Grant(next, 3));

        var lost = Assert.Single(_parent.ExpectMsg<LocalPortsProtocol.Settled>().Ports, port => port.Target == "127.0.0.1:1");
        Assert.EndsWith($":{own}", lost.Problem, StringComparison.Ordinal);
        Assert.DoesNotContain($"--map {next}:", lost.Problem, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Visitors_of_a_port_do_not_reach_the_grant_that_takes_it_over_and_the_log_tells_of_it_once()
    {
        var (own, mapped) = (FreePorts.Next(), FreePorts.Next());
        var ports = Start(new Dictionary<int, int> { [mapped] = own }, Grant(own, 1));
        _parent.ExpectMsg<LocalPortsProtocol.Settled>();
        using var waiting = await VisitAsync(ports, own, 1);

        ports.Tell(new LocalPortsProtocol.Apply([Grant(own, 1), Grant(mapped, 2)]));
        ports.Tell(new LocalPortsProtocol.Apply([Grant(own, 1), Grant(mapped, 2)]));

        Assert.True(await IsClosedAsync(waiting));
        Assert.Equal(0, State(ports).Waiting);
        Assert.Equal(["127.0.0.1:2", "127.0.0.1:1"], State(ports).Ports.Select(port => port.Target));
        var lost = Assert.Single(_logger.Lines, line => line.Text.Contains("127.0.0.1:1 cannot be opened", StringComparison.Ordinal));
        Assert.Contains("127.0.0.1:2", lost.Text, StringComparison.Ordinal);
        Assert.Single(_logger.Lines, line => line.Text == $"Local port {own} leads to 127.0.0.1:2");

        // Once the other grant is withdrawn, the port is its own again.
        ports.Tell(new LocalPortsProtocol.Apply([Grant(own, 1)]));
        var back = Assert.Single(State(ports).Ports);
        Assert.Equal((own, "127.0.0.1:1", true, null), (back.Port, back.Target, back.IsOpen, back.Problem));
    }

    [Fact]
    public void Two_grants_for_one_port_of_which_neither_is_mapped_are_told_too_and_the_same_one_twice_is_not()
    {
        var port = FreePorts.Next();
        Start(Grant(port, 1), Grant(port, 1), Grant(port, 2));

        var lost = Assert.Single(_parent.ExpectMsg<LocalPortsProtocol.Settled>().Ports, each => !each.IsOpen);
        Assert.Equal($"local port {port} leads to 127.0.0.1:1, and not to 127.0.0.1:2; the publisher has to grant one of them with another local port", lost.Problem);
    }

    [Fact]
    public void A_port_that_is_mapped_and_that_no_grant_has_is_told_of_once()
    {
        var (granted, mapped) = (FreePorts.Next(), FreePorts.Next());
        var ports = Start(new Dictionary<int, int> { [5432] = mapped }, Grant(granted, 80));
        _parent.ExpectMsg<LocalPortsProtocol.Settled>();
        var told = $"Local port {mapped} is not opened in place of 5432: no grant has that local port; granted is {granted}:127.0.0.1:80";
        Assert.Equal(told, Assert.Single(_logger.Lines, line => line.Id == 748).Text);

        ports.Tell(new LocalPortsProtocol.Apply([Grant(granted, 80)]));
        ports.Tell(new LocalPortsProtocol.Apply([Grant(5432)]));
        AwaitCondition(() => State(ports).Ports is [{ IsOpen: true } only] && only.Port == mapped, TestTimeouts.Step, Poll);
        Assert.Single(_logger.Lines, line => line.Id == 748);

        ports.Tell(new LocalPortsProtocol.Apply([]));
        State(ports);
        Assert.EndsWith("granted is nothing", _logger.Lines.Last(line => line.Id == 748).Text, StringComparison.Ordinal);
    }
}
