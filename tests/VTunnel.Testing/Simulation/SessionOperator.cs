using VTunnel.Protocol.Mux;

namespace VTunnel.Testing.Simulation;

/// <summary>What the people and programs at both ends of a session do, at random, and how they come to an end.</summary>
internal sealed class SessionOperator(
    SimulationWorld world,
    SimulatedStreams streams,
    Func<(SessionUser Client, SessionUser? Server)> users)
{
    private const int MaxStreams = 24;
    private readonly int _operations = world.Magnitude(5, 200);
    private readonly bool _isLeisurely = world.Chance(0.3);
    private long _budget = world.Magnitude(10_000, 2_000_000);
    private int _stalled;

    /// <summary>Every stream is over that does not stall on purpose, and every control message has arrived.</summary>
    public bool IsSettled
    {
        get
        {
            var (client, server) = users();
            return server is not null && client.HasAllControlOf(server) && server.HasAllControlOf(client) && streams.All.All(stream => stream.IsOver || IsHeldUp(stream));
        }
    }

    /// <summary>Spreads operations over a time.</summary>
    public void Start(TimeSpan time)
    {
        for (var i = 0; i < _operations; i++)
            world.After(world.Between(TimeSpan.Zero, time), Operate);
    }

    /// <summary>Whatever was to be written has arrived, on streams that do not stall on purpose.</summary>
    public bool IsDrained
    {
        get
        {
            var (client, server) = users();
            return server is not null && client.HasAllControlOf(server) && server.HasAllControlOf(client)
                && streams.All.All(stream => IsHeldUp(stream) || stream.IsDrained);
        }
    }

    /// <summary>Readers go on, but for so many streams on which both stall. No stream ends, so that no end wakes anyone.</summary>
    public void Release(int leaveStalled) => Settle(leaveStalled, finish: false);

    /// <summary>Readers go on and every side finishes, but for so many streams on which both readers stall.</summary>
    public void Settle(int leaveStalled) => Settle(leaveStalled, finish: true);

    /// <summary>What is left, for the report of a failure.</summary>
    public string DescribeUnsettled()
    {
        var (client, server) = users();
        var control = server is null ? "no server" : $"control {(client.HasAllControlOf(server) && server.HasAllControlOf(client) ? "complete" : "incomplete")}";
        return $"{control}; {string.Join("; ", streams.All.Where(stream => !(stream.IsOver || IsHeldUp(stream))))}";
    }

    private void Settle(int leaveStalled, bool finish)
    {
        var (client, server) = users();
        _stalled = leaveStalled;
        foreach (var stream in streams.All.ToArray())
        {
            foreach (var role in new[] { MuxRole.Dialer, MuxRole.Acceptor })
            {
                stream[role].IsStalled = IsHeldUp(stream);
                stream[role].WantsFinish |= finish;
                if (leaveStalled > 0 && IsHeldUp(stream))
                    stream[role].ToWrite += Take(400_000);
                if ((role == MuxRole.Dialer ? client : server) is not { } user)
                    continue;
                user.Do(() => user.Read(stream));
                user.Do(() => user.Write(stream));
            }
        }
    }

    /// <summary>One of the first streams that were told to stall to the end.</summary>
    private bool IsHeldUp(SimulatedStream stream)
    {
        for (var i = 0; i < Math.Min(_stalled, streams.All.Count); i++)
        {
            if (streams.All[i] == stream)
                return true;
        }

        return false;
    }

    private void Operate()
    {
        var (client, server) = users();
        var (user, role) = server is not null && world.Chance(0.5) ? (server, MuxRole.Acceptor) : (client, MuxRole.Dialer);
        user.IsLeisurely = _isLeisurely;
        var known = streams.All.Where(stream => stream[role].IsKnown && !stream.IsOver).ToArray();
        if (known.Length == 0 || (world.Chance(0.15) && known.Length < MaxStreams))
        {
            user.Open();
            return;
        }

        var stream = known[world.Random.Next(known.Length)];
        var side = stream[role];
        switch (world.Random.Next(20))
        {
            case < 9:
                if (!side.WantsFinish)
                    side.ToWrite += Take(world.Magnitude(1, 400_000));
                user.Do(() => user.Write(stream));
                break;
            case < 11:
                // Some change their minds while they wait to write, and some end there, with their window used up.
                if (world.Chance(0.5))
                    side.ToWrite = 0;
                side.WantsFinish |= world.Chance(0.7);
                user.Do(() => user.Write(stream));
                break;
            case 11:
                user.Reset(stream);
                break;
            case < 15:
                side.IsStalled = !side.IsStalled;
                user.Do(() => user.Read(stream));
                break;
            case 15:
                Saturate(known, role, user);
                break;
            case 16:
                user.SendPing();
                break;
            default:
                user.SendControl();
                break;
        }
    }

    /// <summary>Everyone on this side stalls and writes more than any window takes; with both sides at it, both directions fill up.</summary>
    private void Saturate(SimulatedStream[] known, MuxRole role, SessionUser user)
    {
        foreach (var stream in known.Take(3))
        {
            var side = stream[role];
            side.IsStalled = true;
            if (!side.WantsFinish)
                side.ToWrite += Take(600_000);
            user.Do(() => user.Write(stream));
        }
    }

    /// <summary>So much of what a run may write in all.</summary>
    private long Take(long bytes)
    {
        bytes = Math.Min(bytes, _budget);
        _budget -= bytes;
        return bytes;
    }
}
