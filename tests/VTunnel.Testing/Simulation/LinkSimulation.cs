using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Link;

namespace VTunnel.Testing.Simulation;

/// <summary>How a run ended that kept all invariants.</summary>
public enum SimulationOutcome
{
    /// <summary>Everything was delivered.</summary>
    Completed,

    /// <summary>There was no carrier for longer than the resume window, and both sides ended for that.</summary>
    Expired,
}

/// <summary>
/// Two links over a network that breaks; each side writes a stream and ends it. Every byte arrives once and in order,
/// the end arrives after the last byte and only then, memory stays within its bounds, silence is found in time, the link
/// ends for no reason but its own end or the resume window, and once the network is calm everything completes.
/// </summary>
public static class LinkSimulation
{
    private static readonly LinkOptions Options = new()
    {
        InitialReplayWindowBytes = 256 * 1024,
        MaxReplayWindowBytes = 512 * 1024,
        ReceiveWindowBytes = 256 * 1024,
        MaxUnsentBytes = 64 * 1024,
    };

    /// <summary>Runs one seed.</summary>
    /// <exception cref="SimulationFailedException">An invariant did not hold.</exception>
    public static SimulationOutcome Run(int seed, Action<string>? log = null)
    {
        var world = new SimulationWorld(seed) { Log = log };
        var serverUsers = new List<StreamUser>();
        var clientUser = new StreamUser(world, "client", key: 1, peerKey: 2, DrawTotal(world));
        var network = new SimulatedNetwork(world, Options, clientUser, () =>
        {
            var user = new StreamUser(world, $"server {serverUsers.Count + 1}", key: 2, peerKey: 1, DrawTotal(world));
            serverUsers.Add(user);
            return user;
        });
        var faultTime = world.Between(TimeSpan.Zero, TimeSpan.FromSeconds(60));
        clientUser.Plan(faultTime, () => network.Client.Pump());
        network.Start(faultTime, world.Between(TimeSpan.FromMilliseconds(200), TimeSpan.FromSeconds(10)));

        // At the least rate and the smallest window there is still time enough; whatever is not done then never will be.
        var limit = faultTime + TimeSpan.FromMinutes(30);
        var isDone = world.Run(() => network.Client.Ended is not null && network.ServerLinks.All(link => link.Ended is not null), limit);
        var client = network.Client.Ended;
        world.Check(isDone, $"no progress though the network is calm: client {Describe(clientUser, network.Client)}; server {string.Join(", ", network.ServerLinks.Zip(serverUsers, (link, user) => Describe(user, link)))}");

        network.Dismantle();
        var server = network.Server?.Ended;
        if (client!.Value.End != LinkEnd.Completed && server?.End != LinkEnd.Completed)
            return SimulationOutcome.Expired;

        // One side may know that everything was delivered while the other had no time left to learn it.
        var user = serverUsers[network.ServerLinks.TakeWhile(link => link != network.Server).Count()];
        world.Check(clientUser.HasDelivered(user) && user.HasDelivered(clientUser), $"a link completed before everything was delivered: {Describe(clientUser, network.Client)}, {Describe(user, network.Server!)}");
        return SimulationOutcome.Completed;
    }

    private static long DrawTotal(SimulationWorld world) => world.Chance(0.05) ? 0 : world.Magnitude(1, 400_000);

    private static string Describe(StreamUser user, LinkDriver driver) =>
        $"{driver.Ended?.End.ToString() ?? (driver.Link.IsUp ? "up" : "down")}, wrote {user.Written}, read {user.Read}, replay {driver.Link.ReplayBufferedBytes}, unsent {driver.Link.UnsentBytes}";

    /// <summary>Writes a stream in slices of all sizes and checks the peer's.</summary>
    private sealed class StreamUser(SimulationWorld world, string name, int key, int peerKey, long total) : ILinkUser
    {
        private readonly long _total = total;
        // A few hundred writes show all that many thousands would.
        private readonly int _largest = world.Magnitude((int)(total / 100) + 1, 60_000);
        private readonly bool _isHasty = world.Chance(0.5);
        private long _allowed;
        private bool _isFinished;
        private bool _sawEnd;

        public long Written { get; private set; }

        public long Read { get; private set; }

        /// <summary>Lets the stream be written little by little over a time, or at once.</summary>
        public void Plan(TimeSpan time, Action pump)
        {
            if (_isHasty)
            {
                _allowed = _total;
                return;
            }

            var parts = world.Random.Next(2, 30);
            for (var i = 1; i <= parts; i++)
            {
                var until = _total * i / parts;
                world.After(world.Between(TimeSpan.Zero, time), () =>
                {
                    _allowed = Math.Max(_allowed, until);
                    pump();
                });
            }

            world.After(time, () =>
            {
                _allowed = _total;
                pump();
            });
        }

        public bool HasDelivered(StreamUser reader) => reader.Read == _total && reader._sawEnd;

        public void OnRead(ByteSlice bytes)
        {
            world.Check(!_sawEnd, $"{name}: bytes after the end");
            world.Check(SimulationPattern.Matches(bytes.Span, peerKey, Read), $"{name}: wrong bytes at {Read}");
            Read += bytes.Length;
            bytes.Release();
        }

        public void OnEvent(LinkEvent linkEvent)
        {
            if (linkEvent.Kind == LinkEventKind.Established && name != "client")
                _allowed = _total;
        }

        public bool TryWrite(LinkState link)
        {
            if (Written == _total)
            {
                if (!_isFinished)
                {
                    _isFinished = true;
                    link.Finish();
                    return true;
                }

                return false;
            }

            var length = (int)Math.Min(world.Magnitude(1, _largest), _allowed - Written);
            if (length <= 0)
                return false;
            // Some in chunks of their own size, some in the usual ones, some without room for headers.
            var offset = world.Chance(0.1) ? 3 : ByteChunk.Headroom;
            var chunk = world.Chance(0.5) ? ByteChunk.Rent(Math.Max(ByteChunk.DefaultSize, offset + length)) : ByteChunk.Rent(offset + length);
            SimulationPattern.Fill(chunk.Array.AsSpan(offset, length), key, Written);
            Written += length;
            link.Write(new ByteSlice(chunk, offset, length));
            return true;
        }

        public void OnSettled(LinkState link)
        {
            world.Check(link.ReadBytes == Read, $"{name}: the link says that {link.ReadBytes} bytes were read; it were {Read}");
            _sawEnd |= link.IsPeerFinished;
        }
    }
}
