using Akka.Actor;
using Akka.Streams;
using VTunnel.Carriers;
using VTunnel.Protocol.Link;
using VTunnel.Protocol.V1;
using VTunnel.Protocol.V2;
using VTunnel.Stages;

namespace VTunnel.Sessions;

/// <summary>What a session speaks and over what: the difference between v1 and v2 as a session's actor sees it.</summary>
internal abstract class SessionWire
{
    /// <summary><c>v1</c> or <c>v2</c>.</summary>
    public abstract string Protocol { get; }

    /// <summary>The far end as logs name it.</summary>
    public abstract string RemoteName { get; }

    /// <summary>How long the session's actor lets the far end be silent; zero where the protocol sees to that itself.</summary>
    public abstract TimeSpan IdleTimeout { get; }

    /// <summary>The connection of the moment; null during a gap.</summary>
    public abstract ICarrier? Carrier { get; }

    /// <summary>The smoothed round trip, where the protocol measures it.</summary>
    public virtual TimeSpan? RoundTripTime => null;

    /// <summary>Materialises the session's graph.</summary>
    public abstract ISessionPump Start(IMaterializer materializer, IActorRef session, SessionContext context);

    /// <summary>Goes on over another connection.</summary>
    public abstract void Attach(ICarrier carrier, LinkHello? hello);

    /// <summary>Drops the connection without a goodbye, for good.</summary>
    public abstract void Abort();
}

/// <summary>Protocol v1: one carrier, and the session ends with it.</summary>
internal sealed class V1Wire(ICarrier carrier, V1Role role, V1SessionOptions options, int maxMessageBytes, TimeSpan idleTimeout) : SessionWire
{
    public override string Protocol => "v1";

    public override string RemoteName => carrier.RemoteName;

    public override TimeSpan IdleTimeout => idleTimeout;

    public override ICarrier Carrier => carrier;

    public override ISessionPump Start(IMaterializer materializer, IActorRef session, SessionContext context) =>
        SessionGraph.RunV1(materializer, new V1Session(role, options), carrier, maxMessageBytes, session, context.Name, context.Metrics, context.Logger);

    public override void Attach(ICarrier carrier, LinkHello? hello) =>
        throw new NotSupportedException("A v1 session ends with its connection.");

    public override void Abort()
    {
        carrier.Abort();

        // Disposing a carrier does not wait for anything, so the task is complete by now.
        _ = carrier.DisposeAsync().AsTask();
    }
}

/// <summary>Protocol v2: a link that outlives its carriers, and a mux on top of it.</summary>
internal sealed class V2Wire(ICarrier firstCarrier, LinkHello? firstHello, LinkState link, Func<V2Session> protocol) : SessionWire
{
    private ILinkPort? _port;

    public override string Protocol => "v2";

    public override string RemoteName => firstCarrier.RemoteName;

    public override TimeSpan IdleTimeout => TimeSpan.Zero;

    public override ICarrier? Carrier => _port?.Carrier;

    public override TimeSpan? RoundTripTime => _port?.RoundTripTime;

    public override ISessionPump Start(IMaterializer materializer, IActorRef session, SessionContext context)
    {
        (var pump, _port) = SessionGraph.RunV2(materializer, protocol(), link, session, context.Metrics);
        _port.Attach(firstCarrier, firstHello);
        return pump;
    }

    public override void Attach(ICarrier carrier, LinkHello? hello) => _port!.Attach(carrier, hello);

    public override void Abort() => _port?.Carrier?.Abort();
}
