using Akka.Actor;
using VTunnel.Diagnostics;
using VTunnel.Endpoints;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Multiplexing;

namespace VTunnel.Stages;

/// <summary>
/// A stream of a session, unmistakably: a protocol may give an id to another stream when the first one is gone, but a
/// serial is used once. What comes late for the first one must not reach the second.
/// </summary>
/// <param name="Id">The id on the wire, for logs.</param>
/// <param name="Serial">From 1 up within the session.</param>
public readonly record struct StreamKey(uint Id, long Serial);

/// <summary>
/// The pump of a session as actors see it. Every member may be called from any thread, returns at once, and does
/// nothing after the session's end (endpoints handed in then are aborted and their owners told).
/// </summary>
public interface ISessionPump
{
    /// <summary>Whether reading from the session waits for a slow endpoint or for the session's actor; silence means nothing meanwhile.</summary>
    bool IsReceivePaused { get; }

    /// <summary>Payload of all streams since the beginning, from the tunnel to endpoints.</summary>
    long BytesIn { get; }

    /// <summary>Payload of all streams since the beginning, from endpoints to the tunnel.</summary>
    long BytesOut { get; }

    /// <summary>Opens a stream for a visitor.</summary>
    /// <param name="request">What the peer is told.</param>
    /// <param name="endpoint">The visitor; the pump moves its bytes and closes it.</param>
    /// <param name="owner">Told <see cref="PumpEvents.StreamOpened"/> and <see cref="PumpEvents.StreamEnded"/>.</param>
    void Open(StreamRequest request, StreamEndpoint endpoint, IActorRef owner);

    /// <summary>Gives a stream that the peer opened its endpoint.</summary>
    /// <param name="key">From <see cref="PumpEvents.StreamRequested"/>.</param>
    /// <param name="endpoint">The target; the pump moves its bytes and closes it.</param>
    /// <param name="owner">Told <see cref="PumpEvents.StreamEnded"/>.</param>
    void Attach(StreamKey key, StreamEndpoint endpoint, IActorRef owner);

    /// <summary>Refuses a stream that the peer opened, or breaks one that exists; nothing where it is gone.</summary>
    void Reset(StreamKey key);

    /// <summary>
    /// To be called by the session's actor after each <see cref="PumpEvents.ICausedByPeer"/> that it has dealt with: what a peer
    /// asks for waits in the actor's mailbox, so the peer is read no further while too much of it waits there.
    /// </summary>
    void ConfirmHandled();

    /// <summary>Sends a message of the session.</summary>
    void SendControl(ControlMessage message);

    /// <summary>Asks the peer for a sign of life.</summary>
    void SendPing();

    /// <summary>
    /// Ends the session in order: streams that still run are broken, what streams have left behind is sent, then the peer is
    /// told the reason (null is a normal end). A peer that does not read holds this up for a few seconds at most.
    /// </summary>
    void Stop(Exception? reason);
}

/// <summary>What a pump tells actors.</summary>
public static class PumpEvents
{
    /// <summary>What a peer can cause as often as it likes: the session confirms each by <see cref="ISessionPump.ConfirmHandled"/>.</summary>
    public interface ICausedByPeer;

    /// <summary>To the session: the peer sent a message of the session.</summary>
    public sealed record ControlReceived(ControlMessage Message) : ICausedByPeer;

    /// <summary>To the session: the peer opened a stream; answer with <see cref="ISessionPump.Attach"/> or <see cref="ISessionPump.Reset"/>.</summary>
    public sealed record StreamRequested(StreamKey Key, StreamRequest Request) : ICausedByPeer;

    /// <summary>To the session: a requested stream broke before it was attached.</summary>
    public sealed record StreamCancelled(StreamKey Key) : ICausedByPeer;

    /// <summary>
    /// To the session: nothing more comes or goes, and why (null means in order); streams that have been received whole are
    /// still being delivered, which may take as long as their endpoints like.
    /// </summary>
    public sealed record SessionOver(Exception? Cause);

    /// <summary>To the session: the pump has ended. Null means in order.</summary>
    public sealed record PumpEnded(Exception? Cause);

    /// <summary>To the owner: the stream exists.</summary>
    public sealed record StreamOpened(StreamKey Key);

    /// <summary>To the owner, last of all: the stream has ended and its endpoint is closed.</summary>
    /// <param name="End">How.</param>
    /// <param name="BytesIn">Bytes from the tunnel to the endpoint.</param>
    /// <param name="BytesOut">Bytes from the endpoint to the tunnel.</param>
    public sealed record StreamEnded(StreamEnd End, long BytesIn, long BytesOut);
}
