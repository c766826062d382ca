using Akka.Actor;
using VTunnel.Diagnostics;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Streams;

namespace VTunnel.Stages;

/// <summary>
/// The pump of a session as actors see it. Every member may be called from any thread, returns at once, and does
/// nothing after the session's end (endpoints handed in then are aborted and their owners told).
/// </summary>
public interface ISessionPump
{
    /// <summary>Grows with every frame that arrives.</summary>
    long ReceivedFrames { get; }

    /// <summary>Whether reading from the session waits for a slow endpoint; silence means nothing meanwhile.</summary>
    bool IsReceivePaused { get; }

    /// <summary>Opens a stream for a visitor.</summary>
    /// <param name="request">What the peer is told.</param>
    /// <param name="endpoint">The visitor; the pump moves its bytes and closes it.</param>
    /// <param name="owner">Told <see cref="PumpEvents.StreamOpened"/> and <see cref="PumpEvents.StreamEnded"/>.</param>
    void Open(StreamRequest request, StreamEndpoint endpoint, IActorRef owner);

    /// <summary>Gives a stream that the peer opened its endpoint.</summary>
    void Attach(uint streamId, StreamEndpoint endpoint, IActorRef owner);

    /// <summary>Refuses a stream that the peer opened, or breaks one that exists.</summary>
    void Reset(uint streamId);

    /// <summary>Sends a message of the session.</summary>
    void SendControl(ControlMessage message);

    /// <summary>Asks the peer for a sign of life.</summary>
    void SendPing();

    /// <summary>Ends the session once what is queued has been sent: null for a normal end, else the reason that the peer is given.</summary>
    void Stop(Exception? reason);
}

/// <summary>What a pump tells actors.</summary>
public static class PumpEvents
{
    /// <summary>To the session: the peer sent a message of the session.</summary>
    public sealed record ControlReceived(ControlMessage Message);

    /// <summary>To the session: the peer opened a stream; answer with <see cref="ISessionPump.Attach"/> or <see cref="ISessionPump.Reset"/>.</summary>
    public sealed record StreamRequested(uint StreamId, StreamRequest Request);

    /// <summary>To the session: a requested stream broke before it was attached.</summary>
    public sealed record StreamCancelled(uint StreamId);

    /// <summary>To the session: nothing more comes or goes; streams that have been received whole are still being delivered.</summary>
    public sealed record SessionOver;

    /// <summary>To the session: the pump has ended. Null means in order.</summary>
    public sealed record PumpEnded(Exception? Cause);

    /// <summary>To the session: what carried the pump's frames has said its goodbyes and ended. Null means in order.</summary>
    public sealed record WireEnded(Exception? Cause);

    /// <summary>To the owner: the stream has this id now.</summary>
    public sealed record StreamOpened(uint StreamId);

    /// <summary>To the owner, last of all: the stream has ended and its endpoint is closed.</summary>
    /// <param name="End">How.</param>
    /// <param name="BytesIn">Bytes from the tunnel to the endpoint.</param>
    /// <param name="BytesOut">Bytes from the endpoint to the tunnel.</param>
    public sealed record StreamEnded(StreamEnd End, long BytesIn, long BytesOut);
}
