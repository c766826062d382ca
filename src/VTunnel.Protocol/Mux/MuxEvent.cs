using VTunnel.Protocol.Buffers;

namespace VTunnel.Protocol.Mux;

/// <summary>What a <see cref="MuxEvent"/> says.</summary>
public enum MuxEventKind
{
    /// <summary>The peer opened the stream.</summary>
    Opened,

    /// <summary>The peer accepted the stream that this side opened.</summary>
    Accepted,

    /// <summary>Payload arrived; the reference is the receiver's.</summary>
    Data,

    /// <summary>The peer will send no more on this stream; all its data came before.</summary>
    Finished,

    /// <summary>The peer reset the stream; it is gone.</summary>
    Reset,

    /// <summary><see cref="MuxSession.SendAllowance"/> was 0 and no longer is.</summary>
    Writable,

    /// <summary>The peer ends the session in order: nothing can be opened any more. Has no stream.</summary>
    GoAway,
}

/// <summary>One thing that happened on a mux session.</summary>
public readonly record struct MuxEvent(MuxEventKind Kind, MuxStream? Stream, ByteSlice Payload = default);
