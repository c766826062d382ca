using Akka.Actor;
using VTunnel.Diagnostics;

namespace Extending;

/// <summary>Writes down who opened which port and who came, one line per event. A slow log slows nobody.</summary>
public sealed class AuditLogActor(ILogger<AuditLogActor> logger) : UntypedActor
{
    public static Props Props(ILogger<AuditLogActor> logger) => Akka.Actor.Props.Create(() => new AuditLogActor(logger));

    // The base type brings all of them; a more specific one, only those.
    protected override void PreStart() => Context.System.EventStream.Subscribe(Self, typeof(TunnelEvents.TunnelEvent));

    protected override void PostStop() => Context.System.EventStream.Unsubscribe(Self);

    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case TunnelEvents.SessionStarted started:
                logger.LogInformation("{Session}: {Identity} from {Remote}", started.Session, started.Identity ?? "anyone", started.Remote);
                break;
            case TunnelEvents.SessionEnded ended:
                logger.LogInformation("{Session}: over after {Duration}: {Reason}", ended.Session, ended.Duration, ended.Reason);
                break;
            case TunnelEvents.ListenerOpened opened:
                logger.LogInformation("{Session}: port {Port} leads to {Target}", opened.Session, opened.Port, opened.LocalAddr);
                break;
            case TunnelEvents.ListenerRefused refused:
                logger.LogWarning("{Session}: port {Port} refused: {Reason}", refused.Session, refused.Port, refused.Reason);
                break;
            case TunnelEvents.StreamFinished finished:
                logger.LogInformation(
                    "{Session}: a visitor of port {Port} sent {Sent} bytes and got {Got}", finished.Session, finished.Port, finished.BytesOut, finished.BytesIn);
                break;
            default:
                Unhandled(message);
                break;
        }
    }
}
