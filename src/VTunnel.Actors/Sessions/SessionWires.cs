using System.Reflection;
using System.Security.Cryptography;
using VTunnel.Carriers;
using VTunnel.Options;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Link;
using VTunnel.Protocol.Mux;
using VTunnel.Protocol.V2;
using VTunnel.Protocol.V1;

namespace VTunnel.Sessions;

/// <summary>Makes the wire of a session from options.</summary>
internal static class SessionWires
{
    private static readonly Hello Self = new(
        "vtunnel", typeof(SessionWires).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion ?? "0", [ProxyCapability]);

    /// <summary>What a client says that forwards domains, answers proxied streams with a line, and takes plain HTTP for any target.</summary>
    internal const string ProxyCapability = "proxy";

    /// <summary>A v1 client's connection.</summary>
    public static SessionWire ForServer(TunnelServerOptions options, ICarrier carrier) => new V1Wire(
        carrier,
        V1Role.Server,
        new V1SessionOptions { StreamBufferBytes = options.StreamBufferBytes, MaxStreams = options.MaxStreamsPerSession },
        options.MaxMessageBytes,
        Positive(options.IdleTimeout));

    /// <summary>A v2 client's first connection; the link gets a fresh id and secret.</summary>
    public static SessionWire ForServer(TunnelServerOptions options, ICarrier carrier, LinkHello hello, out LinkId id)
    {
        id = LinkId.FromBytes(RandomNumberGenerator.GetBytes(LinkId.Length));
        var secret = new LinkSecret(RandomNumberGenerator.GetBytes(LinkSecret.Length));
        var link = LinkState.CreateServer(
            LinkOptionsFor(options.ResumeWindow, Positive(options.IdleTimeout) / 2, options.HandshakeTimeout, options.MaxSessionWindowBytes), id, secret);
        var mux = MuxOptionsFor(options.MaxStreamWindowBytes, options.MaxSessionWindowBytes, options.MaxStreamsPerSession);
        return new V2Wire(carrier, hello, link, () => new V2Session(MuxRole.Acceptor, Self, mux));
    }

    /// <summary>A connection to a v1 server.</summary>
    public static SessionWire ForV1Client(TunnelClientOptions options, ICarrier carrier) => new V1Wire(
        carrier,
        V1Role.Client,
        new V1SessionOptions { StreamBufferBytes = options.StreamBufferBytes, MaxStreams = options.MaxStreams },
        options.MaxMessageBytes,
        Positive(options.PingInterval) * 2);

    /// <summary>The first connection to a v2 server.</summary>
    public static SessionWire ForV2Client(TunnelClientOptions options, ICarrier carrier)
    {
        var link = LinkState.CreateClient(LinkOptionsFor(
            options.ResumeWindow, Positive(options.PingInterval), options.ConnectTimeout, options.MaxSessionWindowBytes));
        var mux = MuxOptionsFor(options.MaxStreamWindowBytes, options.MaxSessionWindowBytes, options.MaxStreams);
        return new V2Wire(carrier, null, link, () => new V2Session(MuxRole.Dialer, Self, mux));
    }

    /// <summary>The publisher's side of the bridge: a consumer's first connection; the link gets a fresh id and secret.</summary>
    public static SessionWire ForPublisher(BridgeSessionOptions options, ICarrier carrier, LinkHello hello, out LinkId id)
    {
        id = LinkId.FromBytes(RandomNumberGenerator.GetBytes(LinkId.Length));
        var secret = new LinkSecret(RandomNumberGenerator.GetBytes(LinkSecret.Length));
        var link = LinkState.CreateServer(LinkOptionsFor(options), id, secret);
        var mux = MuxOptionsFor(options.MaxStreamWindowBytes, options.MaxSessionWindowBytes, options.MaxStreams);
        return new V2Wire(carrier, hello, link, () => new V2Session(MuxRole.Acceptor, Self, mux));
    }

    /// <summary>The consumer's side of the bridge: the first connection to the publisher.</summary>
    public static SessionWire ForConsumer(BridgeSessionOptions options, ICarrier carrier)
    {
        var link = LinkState.CreateClient(LinkOptionsFor(options));
        var mux = MuxOptionsFor(options.MaxStreamWindowBytes, options.MaxSessionWindowBytes, options.MaxStreams);
        return new V2Wire(carrier, null, link, () => new V2Session(MuxRole.Dialer, Self, mux));
    }

    private static LinkOptions LinkOptionsFor(BridgeSessionOptions options) =>
        LinkOptionsFor(options.ResumeWindow, Positive(options.KeepAliveInterval), options.HandshakeTimeout, options.MaxSessionWindowBytes);

    /// <summary>Zero disables; so does anything below it, as options say.</summary>
    private static TimeSpan Positive(TimeSpan time) => time > TimeSpan.Zero ? time : TimeSpan.Zero;

    private static LinkOptions LinkOptionsFor(TimeSpan resumeWindow, TimeSpan keepAlive, TimeSpan handshake, int windowBytes) => new()
    {
        ResumeWindow = resumeWindow,
        KeepAliveInterval = keepAlive,
        HandshakeTimeout = handshake,
        MaxReplayWindowBytes = windowBytes,
        ReceiveWindowBytes = windowBytes,
    };

    /// <summary>
    /// The session's actors hold the limit; this one is for a peer that goes beyond it, and leaves room for the control
    /// stream and for streams that have ended here and not yet there.
    /// </summary>
    /// <remarks>
    /// The quantum is the largest frame: 256 KiB, headroom included, cost a quarter of the system calls and wake-ups of 64 KiB,
    /// and a keystroke does not wait for more than one of them.
    /// </remarks>
    private static MuxOptions MuxOptionsFor(int streamWindowBytes, int sessionWindowBytes, int maxStreams) => new()
    {
        SendQuantumBytes = (256 * 1024) - ByteChunk.Headroom,
        MaxStreamWindowBytes = streamWindowBytes,
        MaxSessionWindowBytes = sessionWindowBytes,
        MaxStreams = (int)Math.Min(int.MaxValue, maxStreams + (maxStreams / 8L) + 16),
    };
}
