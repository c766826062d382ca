using System.Diagnostics.Metrics;

namespace VTunnel.Diagnostics;

/// <summary>Which end of a tunnel something is about: a process may be both.</summary>
public enum TunnelRole
{
    /// <summary>The end that listens; in the bridge the publisher.</summary>
    Server,

    /// <summary>The end that dials and has the targets; in the bridge the consumer.</summary>
    Client,
}

/// <summary>
/// The engine's instruments, on the meter <see cref="MeterName"/>. Every measurement has the tag <c>role</c>
/// (<c>server</c> or <c>client</c>).
/// <list type="table">
/// <item><term><c>vtunnel.sessions</c></term><description>Sessions that are up.</description></item>
/// <item><term><c>vtunnel.listeners</c></term><description>Ports that are open for clients.</description></item>
/// <item><term><c>vtunnel.streams</c></term><description>Connections that are carried.</description></item>
/// <item><term><c>vtunnel.stream.bytes</c></term><description>Payload; tag <c>direction</c>: <c>in</c> from the tunnel to the
/// local connection, <c>out</c> the other way.</description></item>
/// <item><term><c>vtunnel.streams.ended</c></term><description>Connections that ended; tag <c>end</c> is a
/// <see cref="StreamEnd"/> in snake case.</description></item>
/// </list>
/// </summary>
public sealed class TunnelMetrics
{
    /// <summary>The name of the meter: <c>VTunnel</c>.</summary>
    public const string MeterName = "VTunnel";

    private readonly RoleMetrics _server;
    private readonly RoleMetrics _client;

    /// <summary>Instruments of a host; the factory owns the meter.</summary>
    public TunnelMetrics(IMeterFactory factory)
        : this((factory ?? throw new ArgumentNullException(nameof(factory))).Create(MeterName))
    {
    }

    private TunnelMetrics(Meter meter)
    {
        var instruments = new TunnelInstruments(meter);
        _server = new RoleMetrics(instruments, "server");
        _client = new RoleMetrics(instruments, "client");

        // Asked for, so that a listener that comes late sees what there is and not only what changes.
        Level("vtunnel.sessions", "{session}", "Sessions that are up.", static role => role.Sessions);
        Level("vtunnel.listeners", "{listener}", "Ports that are open for clients.", static role => role.Listeners);
        Level("vtunnel.streams", "{stream}", "Connections that are carried.", static role => role.Streams);

        void Level(string name, string unit, string description, Func<RoleMetrics, long> level) =>
            meter.CreateObservableUpDownCounter(name, () => new[] { _server.Measure(level), _client.Measure(level) }, unit, description);
    }

    /// <summary>Instruments of the process, for clients without a host.</summary>
    public static TunnelMetrics Shared { get; } = new(new Meter(MeterName));

    internal RoleMetrics For(TunnelRole role) => role == TunnelRole.Server ? _server : _client;
}

/// <summary>The instruments that count what happens; one of each per meter.</summary>
internal sealed class TunnelInstruments(Meter meter)
{
    public Counter<long> StreamBytes { get; } = meter.CreateCounter<long>("vtunnel.stream.bytes", "By", "Payload carried.");

    public Counter<long> StreamsEnded { get; } = meter.CreateCounter<long>("vtunnel.streams.ended", "{stream}", "Connections that ended, by how.");
}

/// <summary>The instruments as one end of a tunnel uses them. Safe for use by many threads; allocates nothing.</summary>
internal sealed class RoleMetrics(TunnelInstruments instruments, string role)
{
    private static readonly KeyValuePair<string, object?> In = new("direction", "in");
    private static readonly KeyValuePair<string, object?> Out = new("direction", "out");
    private static readonly KeyValuePair<string, object?>[] Ends =
    [
        .. Enum.GetValues<StreamEnd>().Select(end => new KeyValuePair<string, object?>("end", Name(end))),
    ];

    private readonly KeyValuePair<string, object?> _role = new("role", role);
    private long _sessions;
    private long _listeners;
    private long _streams;

    public long Sessions => Volatile.Read(ref _sessions);

    public long Listeners => Volatile.Read(ref _listeners);

    public long Streams => Volatile.Read(ref _streams);

    public void SessionStarted() => Interlocked.Increment(ref _sessions);

    public void SessionEnded() => Interlocked.Decrement(ref _sessions);

    public void ListenerOpened() => Interlocked.Increment(ref _listeners);

    public void ListenerClosed() => Interlocked.Decrement(ref _listeners);

    public void StreamStarted() => Interlocked.Increment(ref _streams);

    public void StreamEnded(StreamEnd end)
    {
        Interlocked.Decrement(ref _streams);
        instruments.StreamsEnded.Add(1, _role, Ends[(int)end]);
    }

    public Measurement<long> Measure(Func<RoleMetrics, long> level) => new(level(this), _role);

    public void BytesIn(int count) => instruments.StreamBytes.Add(count, _role, In);

    public void BytesOut(int count) => instruments.StreamBytes.Add(count, _role, Out);

    /// <summary>The name of an end as a tag: <c>peer_reset</c>.</summary>
    public static string Name(StreamEnd end) => end switch
    {
        StreamEnd.Completed => "completed",
        StreamEnd.EndpointReset => "endpoint_reset",
        StreamEnd.PeerReset => "peer_reset",
        StreamEnd.Cancelled => "cancelled",
        StreamEnd.SessionEnded => "session_ended",
        _ => throw new ArgumentOutOfRangeException(nameof(end), end, null),
    };
}
