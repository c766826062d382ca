using System.Buffers.Binary;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Errors;

namespace VTunnel.Protocol.Mux;

/// <summary>What a mux frame is for. The numbers are those on the wire.</summary>
public enum MuxFrameType
{
    /// <summary>Payload of a stream; the length counts the bytes that follow the header.</summary>
    Data = 0,

    /// <summary>Credit for a stream; the length is the number of bytes added.</summary>
    WindowUpdate = 1,

    /// <summary>A ping (SYN) or its answer (ACK); the length is an opaque value.</summary>
    Ping = 2,

    /// <summary>The session ends; the length is a <see cref="MuxGoAwayCode"/>.</summary>
    GoAway = 3,
}

/// <summary>Flags of a frame. Bits that have no name here are ignored on input and zero on output.</summary>
[Flags]
public enum MuxFrameFlags
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>The first frame of a stream; a ping that wants an answer.</summary>
    Syn = 1,

    /// <summary>The stream is accepted; the answer to a ping.</summary>
    Ack = 2,

    /// <summary>The sender sends nothing further on this stream.</summary>
    Fin = 4,

    /// <summary>Both directions of the stream end at once.</summary>
    Rst = 8,
}

/// <summary>Why a session ends. The numbers are those on the wire.</summary>
public enum MuxGoAwayCode
{
    /// <summary>Orderly: no new streams; those that exist may finish.</summary>
    Normal = 0,

    /// <summary>The receiver of this frame broke the protocol.</summary>
    ProtocolError = 1,

    /// <summary>A fault of the sender of this frame.</summary>
    InternalError = 2,
}

/// <summary>
/// The 12 bytes that begin every frame: version (1, always 0), type (1), flags (2), stream id (4), length (4),
/// big endian.
/// </summary>
/// <param name="Type">What the frame is for.</param>
/// <param name="Flags">Its flags.</param>
/// <param name="StreamId">The stream; 0 for the session itself.</param>
/// <param name="Length">Payload bytes, credit, ping value or go-away code, by type.</param>
public readonly record struct MuxFrameHeader(MuxFrameType Type, MuxFrameFlags Flags, uint StreamId, uint Length)
{
    /// <summary>Bytes of a header: 12.</summary>
    public const int Size = 12;

    /// <summary>The only version there is: 0.</summary>
    public const byte Version = 0;

    /// <summary>Whether <paramref name="flag"/> is set.</summary>
    public bool Has(MuxFrameFlags flag) => (Flags & flag) != 0;

    /// <summary>Writes the header to the first <see cref="Size"/> bytes of <paramref name="destination"/>.</summary>
    public void Write(Span<byte> destination)
    {
        // One 32-bit store for version, type and flags, one 64-bit store for the rest.
        BinaryPrimitives.WriteUInt64BigEndian(destination[4..], ((ulong)StreamId << 32) | Length);
        BinaryPrimitives.WriteUInt32BigEndian(destination, ((uint)Type << 16) | (ushort)Flags);
    }

    /// <summary>
    /// Writes the header into the bytes right before <paramref name="payload"/> and gives both as one slice; the
    /// reference moves along. The caller made sure that those bytes are its own (<see cref="ByteChunk.Headroom"/>).
    /// </summary>
    public ByteSlice Prepend(ByteSlice payload)
    {
        var chunk = payload.Chunk ?? throw new ArgumentException("A header can only be put before a slice of a chunk.", nameof(payload));
        Write(chunk.Array.AsSpan(payload.Offset - Size, Size));
        return new ByteSlice(chunk, payload.Offset - Size, payload.Length + Size);
    }

    /// <summary>Reads a header from the first <see cref="Size"/> bytes of <paramref name="source"/>.</summary>
    /// <exception cref="SessionProtocolException">The version is not 0 or the type is unknown.</exception>
    public static MuxFrameHeader Read(ReadOnlySpan<byte> source)
    {
        var start = BinaryPrimitives.ReadUInt32BigEndian(source);
        var rest = BinaryPrimitives.ReadUInt64BigEndian(source[4..]);
        var type = start >> 16;
        if (type > (uint)MuxFrameType.GoAway)
            ThrowMalformed(type);

        return new MuxFrameHeader((MuxFrameType)type, (MuxFrameFlags)(start & 0xF), (uint)(rest >> 32), (uint)rest);
    }

    private static void ThrowMalformed(uint versionAndType)
    {
        var version = versionAndType >> 8;
        throw new SessionProtocolException(
            SessionError.ProtocolViolation,
            version != Version
                ? $"A mux frame has version {version}; this side speaks version 0."
                : $"A mux frame has type {versionAndType & 0xFF}; types 0 (data), 1 (window update), 2 (ping) and 3 (go-away) exist.");
    }
}
