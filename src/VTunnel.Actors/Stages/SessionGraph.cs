using Akka.Actor;
using Akka.Streams;
using Akka.Streams.Dsl;
using Microsoft.Extensions.Logging;
using VTunnel.Carriers;
using VTunnel.Diagnostics;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Link;
using VTunnel.Protocol.V2;
using VTunnel.Protocol.V1;

namespace VTunnel.Stages;

/// <summary>The graphs of a session, composed here and nowhere else.</summary>
internal static class SessionGraph
{
    private const string DispatcherId = "vtunnel.pump-dispatcher";

    /// <summary>Runs graphs as children of a session's actor, on the engine's own dispatcher where the system has it.</summary>
    public static IMaterializer CreateMaterializer(IActorContext session)
    {
        var settings = ActorMaterializerSettings.Create(session.System);
        return session.Materializer(session.System.Dispatchers.HasDispatcher(DispatcherId) ? settings.WithDispatcher(DispatcherId) : settings);
    }

    /// <summary>
    /// Protocol v1 over one carrier:
    /// <code><![CDATA[
    /// pump ──V1Message──> encoder ──text──> carrier
    ///   ^                                      │
    ///   └───V1Message──── decoder <───text─────┘
    /// ]]></code>
    /// </summary>
    public static ISessionPump RunV1(
        IMaterializer materializer,
        V1Session protocol,
        ICarrier carrier,
        int maxMessageBytes,
        IActorRef session,
        string sessionName,
        RoleMetrics metrics,
        ILogger logger)
    {
        var codec = BidiFlow.FromFlows(
            Flow.FromGraph(new V1EncoderStage()),
            Flow.FromGraph(new V1DecoderStage(logger, sessionName)));
        var wire = Flow.FromGraph(new CarrierStage(carrier, maxMessageBytes));
        return Flow.FromGraph(new SessionPumpStage<V1Message>(protocol, session, metrics, TimeProvider.System))
            .JoinMaterialized(codec.Join(wire), Keep.Left)
            .Run(materializer);
    }

    /// <summary>
    /// Protocol v2 over a link, which outlives its carriers:
    /// <code><![CDATA[
    /// pump ──mux frames──> link <──messages──> the carrier of the moment
    ///   ^                    │
    ///   └─────link bytes─────┘
    /// ]]></code>
    /// </summary>
    public static (ISessionPump Pump, ILinkPort Link) RunV2(
        IMaterializer materializer, V2Session protocol, LinkState link, IActorRef session, RoleMetrics metrics) =>
        Flow.FromGraph(new SessionPumpStage<ByteSlice>(protocol, session, metrics, TimeProvider.System))
            .JoinMaterialized(Flow.FromGraph(new LinkStage(link, () => protocol.IsInteractive, session, TimeProvider.System)), Keep.Both)
            .Run(materializer);
}
