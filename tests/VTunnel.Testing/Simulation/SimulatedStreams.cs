using VTunnel.Protocol.Mux;

namespace VTunnel.Testing.Simulation;

/// <summary>What both sides of every stream have done and seen: the truth that sessions are held against.</summary>
public sealed class SimulatedStreams
{
    private readonly Dictionary<uint, SimulatedStream> _streams = [];
    private readonly List<SimulatedStream> _inOrder = [];

    /// <summary>All of them, oldest first.</summary>
    public IReadOnlyList<SimulatedStream> All => _inOrder;

    /// <summary>A stream was opened by one side.</summary>
    public SimulatedStream Add(uint id, MuxRole openedBy)
    {
        var stream = new SimulatedStream(id);
        stream[openedBy].IsKnown = true;
        _streams.Add(id, stream);
        _inOrder.Add(stream);
        return stream;
    }

    /// <summary>One that exists, or null.</summary>
    public SimulatedStream? Find(uint id) => _streams.GetValueOrDefault(id);

    /// <summary>Every stream came to its right end.</summary>
    public void CheckAllOver(SimulationWorld world)
    {
        ArgumentNullException.ThrowIfNull(world);
        foreach (var stream in _inOrder)
        {
            var (dialer, acceptor) = (stream[MuxRole.Dialer], stream[MuxRole.Acceptor]);
            world.Check(stream.IsOver, $"{stream} is not over");
            if (dialer.WasReset || acceptor.WasReset)
                continue;
            world.Check(dialer.Received == acceptor.Written && acceptor.Received == dialer.Written, $"{stream} ended without all of its bytes");
        }
    }
}

/// <summary>One stream, both sides.</summary>
public sealed class SimulatedStream(uint id)
{
    private readonly StreamSide _dialer = new();
    private readonly StreamSide _acceptor = new();

    /// <summary>Its number in the session.</summary>
    public uint Id => id;

    /// <summary>What one side has done and seen.</summary>
    public StreamSide this[MuxRole role] => role == MuxRole.Dialer ? _dialer : _acceptor;

    /// <summary>
    /// Both sides finished and saw the other finish; or a reset reached both, unless a side never knew the stream or was
    /// through with it before.
    /// </summary>
    public bool IsOver => _dialer.WasReset || _acceptor.WasReset
        ? IsRid(_dialer) && IsRid(_acceptor)
        : _dialer is { IsFinished: true, SawFinish: true } && _acceptor is { IsFinished: true, SawFinish: true };

    /// <summary>Both sides have got all that the other was to write; or the stream was reset, or the far side never knew it.</summary>
    public bool IsDrained => _dialer.WasReset || _acceptor.WasReset
        || (_dialer.ToWrite == 0 && _acceptor.ToWrite == 0 && _dialer.Received == _acceptor.Written && _acceptor.Received == _dialer.Written);

    /// <summary>The key of the bytes that a side writes.</summary>
    public int KeyOf(MuxRole writer) => (int)(id * 2) + (writer == MuxRole.Dialer ? 0 : 1);

    /// <inheritdoc />
    public override string ToString() => $"stream {id} (dialer {_dialer}; acceptor {_acceptor})";

    private static bool IsRid(StreamSide side) => side.WasReset || !side.IsKnown || side is { IsFinished: true, SawFinish: true };
}

/// <summary>One side of a stream.</summary>
public sealed class StreamSide
{
    /// <summary>This side opened it, or heard that it was opened.</summary>
    public bool IsKnown { get; set; }

    /// <summary>Bytes given to the session.</summary>
    public long Written { get; set; }

    /// <summary>Bytes still to be given to it.</summary>
    public long ToWrite { get; set; }

    /// <summary>To be finished once everything is written.</summary>
    public bool WantsFinish { get; set; }

    /// <summary>Finish was called.</summary>
    public bool IsFinished { get; set; }

    /// <summary>Bytes that arrived.</summary>
    public long Received { get; set; }

    /// <summary>Bytes that arrived and that the reader has not taken.</summary>
    public long Unread { get; set; }

    /// <summary>The far side's end arrived.</summary>
    public bool SawFinish { get; set; }

    /// <summary>Reset was called here.</summary>
    public bool DidReset { get; set; }

    /// <summary>The far side's reset arrived.</summary>
    public bool SawReset { get; set; }

    /// <summary>The reader takes nothing.</summary>
    public bool IsStalled { get; set; }

    /// <summary>Told that nothing can be sent: the session will say when.</summary>
    public bool WaitsForWritable { get; set; }

    /// <summary>The stream is over for this side, by a reset.</summary>
    public bool WasReset => DidReset || SawReset;

    /// <inheritdoc />
    public override string ToString() =>
        $"wrote {Written} of {Written + ToWrite}{(IsFinished ? " and finished" : "")}, received {Received}{(SawFinish ? " and the end" : "")}, unread {Unread}"
        + $"{(IsKnown ? "" : ", unknown")}{(IsStalled ? ", stalled" : "")}{(DidReset ? ", reset" : "")}{(SawReset ? ", was reset" : "")}";
}
