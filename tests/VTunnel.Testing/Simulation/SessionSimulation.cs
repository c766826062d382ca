using VTunnel.Protocol.Control;
using VTunnel.Protocol.Link;
using VTunnel.Protocol.Mux;

namespace VTunnel.Testing.Simulation;

/// <summary>
/// The whole stack: two v2 sessions over two links over a network that breaks, with random streams that open, write,
/// half-close, reset, stall and exhaust their windows. Every byte of every stream arrives once and in order, no end is
/// lost or early, no reset comes out of nowhere, windows and buffers stay within bounds, a stalled stream holds up no
/// other, no stream outlives its session, and once the network is calm everything completes.
/// </summary>
public static class SessionSimulation
{
    private static readonly LinkOptions Options = new()
    {
        InitialReplayWindowBytes = 512 * 1024,
        MaxReplayWindowBytes = 1024 * 1024,
        ReceiveWindowBytes = 1024 * 1024,
        MaxUnsentBytes = 128 * 1024,
    };

    /// <summary>Runs one seed.</summary>
    /// <exception cref="SimulationFailedException">An invariant did not hold.</exception>
    public static SimulationOutcome Run(int seed, Action<string>? log = null)
    {
        var world = new SimulationWorld(seed) { Log = log };
        var streams = new SimulatedStreams();
        var muxOptions = DrawMuxOptions(world);
        var serverUsers = new List<SessionUser>();
        var clientUser = new SessionUser(world, streams, MuxRole.Dialer, muxOptions);
        var network = new SimulatedNetwork(world, Options, clientUser, () =>
        {
            serverUsers.Add(new SessionUser(world, streams, MuxRole.Acceptor, muxOptions));
            return serverUsers[^1];
        });
        clientUser.Pump = network.Client.Pump;

        var faultTime = world.Between(TimeSpan.Zero, TimeSpan.FromSeconds(60));
        var operator_ = new SessionOperator(world, streams, () => LiveUsers(network, clientUser, serverUsers));
        operator_.Start(faultTime);
        network.Start(faultTime, world.Between(TimeSpan.FromMilliseconds(200), TimeSpan.FromSeconds(10)));

        var isPlayed = world.Run(() => network.IsCalm || network.Client.Ended is not null, faultTime + TimeSpan.FromSeconds(1));
        world.Check(isPlayed, $"the network never became calm");

        // Everyone reads, but for a few who go on stalling: they must not hold up the others. Then everyone finishes.
        var stalled = world.Chance(0.5) ? 2 : 0;
        operator_.Release(stalled);
        Complete(() => operator_.IsDrained, "after readers went on");
        operator_.Settle(stalled);
        Complete(() => operator_.IsSettled, "while some streams stall");
        operator_.Settle(leaveStalled: 0);
        Complete(() => operator_.IsSettled, "after all readers went on and all writers finished");

        if (network.Client.Ended is null && network.Server?.Ended is null)
        {
            streams.CheckAllOver(world);
            var server = UserOf(network, network.Server!, serverUsers);
            world.Check(clientUser.StreamCount == 0 && server.StreamCount == 0, $"all streams are over, but the sessions still have {clientUser.StreamCount} and {server.StreamCount}");
            world.Check(clientUser.QueuedBytes == 0 && server.QueuedBytes == 0, $"all streams are over, but {clientUser.QueuedBytes} and {server.QueuedBytes} bytes are queued");
            clientUser.CheckControl(server);
            server.CheckControl(clientUser);
            network.Client.Link.Finish();
            network.Server!.Link.Finish();
            network.Pump();
        }

        var limit = world.Now + TimeSpan.FromMinutes(5);
        var isEnded = world.Run(() => network.Client.Ended is not null && network.ServerLinks.All(link => link.Ended is not null), limit);
        world.Check(isEnded, $"a link did not end: client {network.Client.Ended?.End}, server {network.Server?.Ended?.End}");
        var outcome = network.Client.Ended!.Value.End == LinkEnd.Completed || network.Server?.Ended!.Value.End == LinkEnd.Completed
            ? SimulationOutcome.Completed
            : SimulationOutcome.Expired;
        if (outcome == SimulationOutcome.Completed)
            streams.CheckAllOver(world);
        network.Dismantle();
        return outcome;

        void Complete(Func<bool> isComplete, string when)
        {
            var isDone = world.Run(
                () => network.Client.Ended is not null || network.Server?.Ended is not null || (network.Server is not null && isComplete()),
                world.Now + TimeSpan.FromMinutes(30));
            world.Check(isDone, $"no progress {when}, though the network is calm: {operator_.DescribeUnsettled()}");
        }
    }

    private static (SessionUser Client, SessionUser? Server) LiveUsers(SimulatedNetwork network, SessionUser client, List<SessionUser> servers) =>
        (client, network.Server is { } server ? UserOf(network, server, servers) : null);

    private static SessionUser UserOf(SimulatedNetwork network, LinkDriver driver, List<SessionUser> users)
    {
        var user = users[network.ServerLinks.TakeWhile(link => link != driver).Count()];
        user.Pump ??= driver.Pump;
        return user;
    }

    private static MuxOptions DrawMuxOptions(SimulationWorld world)
    {
        var quantum = world.Pick(4096, 16_384, 65_472);
        return new MuxOptions
        {
            SendQuantumBytes = quantum,
            InteractiveQuantumBytes = world.Pick(4096, 8192, 131_008),
            InteractiveHold = TimeSpan.FromMilliseconds(world.Pick(0, 10, 250)),
            MaxSendQueueBytes = quantum * world.Random.Next(1, 10),
            MaxSessionWindowBytes = world.Pick(0, 300_000, 64 << 20),
            MaxStreamWindowBytes = world.Pick(MuxOptions.InitialWindowBytes, 1_000_000),
            CopyBelowBytes = world.Pick(0, 2048),
            IdleWindowTimeout = TimeSpan.FromMilliseconds(world.Pick(50, 10_000)),
        };
    }
}
