using System.Net.Sockets;
using Akka.Actor;
using VTunnel.Bridge.Publishing;
using VTunnel.Diagnostics;
using VTunnel.Endpoints;
using VTunnel.Extensions;
using VTunnel.Options;
using VTunnel.Protocol.Bridge;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Errors;
using VTunnel.Sessions;
using VTunnel.Stages;
using VTunnel.Streams;

namespace VTunnel.Bridge.Consuming;

/// <summary>What a consumer's session is told and says besides <see cref="SessionProtocol"/>.</summary>
internal static class ConsumerSessionProtocol
{
    /// <summary>To the session: carry this visitor. The session owns the socket.</summary>
    public sealed record OpenVisitor(BridgeGrant Grant, Socket Socket) : IDisposable
    {
        public void Dispose() => Socket.Dispose();
    }

    /// <summary>To the session: ask the publisher something; it answers on the control stream.</summary>
    public sealed record Ask(BridgeMessage Message);

    /// <summary>To the parent: the publisher said something.</summary>
    public sealed record Heard(BridgeMessage Message);

    /// <summary>Answered with <see cref="SessionState"/>.</summary>
    public sealed record GetState
    {
        public static readonly GetState Instance = new();
    }

    /// <summary>How the session is.</summary>
    public sealed record SessionState(bool IsConnected, int Streams, TimeSpan Age, TimeSpan? RoundTrip, long BytesIn, long BytesOut);
}

/// <summary>The end-to-end session at the consumer: carries visitors of local ports to targets at the publisher.</summary>
internal sealed class ConsumerSessionActor : SessionActor
{
    private readonly BridgeSessionOptions _options;
    private readonly TrafficMeter _traffic;

    public ConsumerSessionActor(SessionContext session, BridgeSessionOptions options, TrafficMeter traffic)
        : base(session)
    {
        _options = options;
        _traffic = traffic;
    }

    public static Props Props(SessionContext session, BridgeSessionOptions options, TrafficMeter traffic) =>
        Akka.Actor.Props.Create(() => new ConsumerSessionActor(session, options, traffic));

    protected override TunnelRole Role => TunnelRole.Client;

    protected override void OnCarrierUp(LinkEvents.CarrierUp up)
    {
        base.OnCarrierUp(up);
        Context.Parent.Tell(new SessionProtocol.CarrierAttached(up.Gap));
    }

    protected override void OnCarrierLost(LinkEvents.CarrierLost lost)
    {
        base.OnCarrierLost(lost);
        Context.Parent.Tell(new SessionProtocol.NeedsCarrier(lost.Reason));
    }

    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case ConsumerSessionProtocol.OpenVisitor visitor:
                OnVisitor(visitor);
                break;
            case ConsumerSessionProtocol.Ask ask:
                Pump.SendControl(ask.Message.ToLine());
                break;
            case ConsumerSessionProtocol.GetState:
                var (bytesIn, bytesOut) = _traffic.Of(Session.Name);
                Sender.Tell(new ConsumerSessionProtocol.SessionState(
                    Session.Wire.Carrier is not null, StreamCount, Age, Session.Wire.RoundTripTime, bytesIn, bytesOut));
                break;
            default:
                base.OnReceive(message);
                break;
        }
    }

    protected override void OnControl(ControlMessage message)
    {
        if (message is not BridgeLine line)
            return;
        try
        {
            if (BridgeMessage.Read(line) is { } heard)
                Context.Parent.Tell(new ConsumerSessionProtocol.Heard(heard));
        }
        catch (SessionProtocolException e)
        {
            EndSession(e);
        }
    }

    private void OnVisitor(ConsumerSessionProtocol.OpenVisitor visitor)
    {
        var endpoint = new SocketEndpoint(visitor.Socket);
        if (IsClosing || StreamCount >= _options.MaxStreams)
        {
            endpoint.Abort();
            return;
        }

        var info = new StreamInfo(Session.Name, null, visitor.Grant.Port, endpoint.RemoteEndPoint?.ToString(), visitor.Grant.Host) { Role = Role };
        StartStream(StreamActor.ForVisitor(StreamServices, info, endpoint));
    }

    /// <summary>A publisher opens nothing here.</summary>
    protected override void OnStreamRequested(PumpEvents.StreamRequested requested) => Pump.Reset(requested.Key);

    protected override void OnDraining()
    {
        // The parent closes the ports.
    }
}
