using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Control;

namespace VTunnel.Protocol.Multiplexing;

/// <summary>
/// Many streams over one session, as a state machine without sockets, clock or threads: v1 and v2 are two of them.
/// The caller serialises all calls, drains <see cref="TryTakeEvent"/> after every call that may raise one, and sends
/// what <see cref="TryTakeFrame"/> gives whenever the layer below can take a frame.
/// </summary>
/// <typeparam name="TFrame">What the layer below carries.</typeparam>
public interface IMultiplexer<TFrame>
{
    /// <summary>
    /// False while data that the peer sent waits for a reader beyond what may be held: read nothing further from the
    /// layer below until it is true again (it changes in <see cref="Consumed"/>, <see cref="Finish"/> and <see cref="Reset"/>).
    /// A protocol with credit is always true.
    /// </summary>
    bool CanReceive { get; }

    /// <summary>Whether <see cref="Finish"/> leaves the other direction open; where not, it ends the stream.</summary>
    bool HasHalfClose { get; }

    /// <summary>The time, since any origin; never goes back. Set it before calls, for what the protocol measures.</summary>
    TimeSpan Now { get; set; }

    /// <summary>The number of streams that exist.</summary>
    int StreamCount { get; }

    /// <summary>
    /// Opens a stream; data may be sent at once, within <see cref="SendAllowance"/>. 0 when there can be no more: the
    /// session is ending or at its limit.
    /// </summary>
    uint Open(StreamRequest request);

    /// <summary>Says that the target of a stream which the peer opened is connected.</summary>
    void Accept(uint streamId);

    /// <summary>
    /// Payload bytes that may be handed to <see cref="Send"/> now. After 0, <see cref="StreamEventKind.Writable"/>
    /// says when to ask again. 0 for a stream that does not exist or cannot send any more.
    /// </summary>
    int SendAllowance(uint streamId);

    /// <summary>
    /// Queues payload; takes the reference. The slice is at most <see cref="SendAllowance"/> long and has
    /// <see cref="ByteChunk.Headroom"/> writable bytes before it. Dropped in silence if the stream is gone.
    /// </summary>
    void Send(uint streamId, ByteSlice payload);

    /// <summary>No more data will be sent; what is queued goes first. (v1 has no half-close: this ends both directions.)</summary>
    void Finish(uint streamId);

    /// <summary>Ends both directions at once and drops what is queued.</summary>
    void Reset(uint streamId);

    /// <summary>The reader has taken <paramref name="bytes"/> of what <see cref="StreamEventKind.Data"/> delivered.</summary>
    void Consumed(uint streamId, int bytes);

    /// <summary>Queues a message of the session; it goes ahead of payload.</summary>
    /// <exception cref="Errors.SessionProtocolException">The peer has left too many unread; the session must end.</exception>
    void SendControl(ControlMessage message);

    /// <summary>Queues a keepalive request, at most one at a time.</summary>
    void SendPing();

    /// <summary>Takes a frame from the layer below, and its reference.</summary>
    /// <exception cref="Errors.SessionProtocolException">The peer broke the protocol; the session must end.</exception>
    void Receive(TFrame frame);

    /// <summary>The next frame to send, if any: control first, then streams in fair turns.</summary>
    bool TryTakeFrame(out TFrame frame);

    /// <summary>The next thing that happened, if any.</summary>
    bool TryTakeEvent(out StreamEvent streamEvent);

    /// <summary>Releases everything that is queued. Nothing may be called afterwards.</summary>
    void Abandon();
}


/// <summary>What a <see cref="StreamEvent"/> says.</summary>
public enum StreamEventKind
{
    /// <summary>The peer opened a stream: <see cref="StreamEvent.Request"/>.</summary>
    Opened,

    /// <summary>The peer's target is connected (v2 only).</summary>
    Accepted,

    /// <summary>Payload arrived; the reference in <see cref="StreamEvent.Payload"/> is the receiver's.</summary>
    Data,

    /// <summary>The peer will send no more on this stream; the other direction goes on.</summary>
    Finished,

    /// <summary>The peer ended both directions in order: deliver what came before, then close. The stream is gone.</summary>
    Closed,

    /// <summary>The stream broke: both directions end at once. The stream is gone.</summary>
    Reset,

    /// <summary><see cref="IMultiplexer{TFrame}.SendAllowance"/> is above zero again.</summary>
    Writable,

    /// <summary>A message of the session arrived: <see cref="StreamEvent.Control"/>.</summary>
    Control,
}

/// <summary>One thing that happened on a session.</summary>
public readonly record struct StreamEvent(
    StreamEventKind Kind,
    uint StreamId = 0,
    ByteSlice Payload = default,
    StreamRequest Request = default,
    ControlMessage? Control = null);
