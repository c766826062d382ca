using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace VTunnel.Protocol.Framing;

/// <summary>What a WebSocket frame is for. The numbers are those on the wire (RFC 6455, 5.2).</summary>
public enum WebSocketOpcode
{
    /// <summary>Goes on with the message that a frame before began.</summary>
    Continuation = 0x0,

    /// <summary>Begins a message of UTF-8 text.</summary>
    Text = 0x1,

    /// <summary>Begins a message of bytes.</summary>
    Binary = 0x2,

    /// <summary>A goodbye; its payload is empty, or two bytes of status and a reason.</summary>
    Close = 0x8,

    /// <summary>A sign of life is wanted; to be answered with the same payload.</summary>
    Ping = 0x9,

    /// <summary>The answer to a ping.</summary>
    Pong = 0xA,
}

/// <summary>
/// The 2 to 14 bytes that begin every WebSocket frame (RFC 6455, 5.2): flags and opcode (1), mask flag and length (1), a longer
/// length (0, 2 or 8, big endian), the masking key (0 or 4).
/// </summary>
/// <param name="Opcode">What the frame is for.</param>
/// <param name="IsFinal">Whether its message ends with it. Always so for control frames.</param>
/// <param name="Length">Bytes of payload, 0 to 2^63 - 1; at most <see cref="MaxControlBytes"/> for control frames.</param>
/// <param name="MaskKey">The key for <see cref="WebSocketMask"/>; null for a frame that is not masked.</param>
public readonly record struct WebSocketFrameHeader(WebSocketOpcode Opcode, bool IsFinal, long Length, uint? MaskKey)
{
    /// <summary>The longest header: 14 bytes.</summary>
    public const int MaxSize = 14;

    /// <summary>The longest payload of a control frame: 125 bytes.</summary>
    public const int MaxControlBytes = 125;

    private const byte FinalBit = 0x80;
    private const byte ReservedBits = 0x70;
    private const byte OpcodeBits = 0x0f;
    private const byte MaskBit = 0x80;
    private const byte LengthBits = 0x7f;
    private const byte Length16 = 126;
    private const byte Length64 = 127;

    /// <summary>Whether this is a close, ping or pong: those may come between the frames of a message.</summary>
    public bool IsControl => Opcode >= WebSocketOpcode.Close;

    /// <summary>Bytes of this header on the wire: 2 to 14.</summary>
    public int Size => 2 + (Length <= MaxControlBytes ? 0 : Length <= ushort.MaxValue ? 2 : 8) + (MaskKey is null ? 0 : 4);

    /// <summary>Writes the header to the first <see cref="Size"/> bytes of <paramref name="destination"/>, with the shortest form of the length.</summary>
    public void Write(Span<byte> destination)
    {
        var mask = MaskKey is null ? (byte)0 : MaskBit;
        destination[0] = (byte)((IsFinal ? FinalBit : 0) | (int)Opcode);
        int at;
        if (Length <= MaxControlBytes)
        {
            destination[1] = (byte)(mask | (byte)Length);
            at = 2;
        }
        else if (Length <= ushort.MaxValue)
        {
            destination[1] = (byte)(mask | Length16);
            BinaryPrimitives.WriteUInt16BigEndian(destination[2..], (ushort)Length);
            at = 4;
        }
        else
        {
            destination[1] = (byte)(mask | Length64);
            BinaryPrimitives.WriteInt64BigEndian(destination[2..], Length);
            at = 10;
        }

        if (MaskKey is { } key)
            MemoryMarshal.Write(destination[at..], key);
    }

    /// <summary>Reads a header from the start of <paramref name="source"/>.</summary>
    /// <param name="source">What has arrived.</param>
    /// <param name="header">The header, if it is whole.</param>
    /// <param name="size">The bytes that it took: more than <see cref="Size"/> where a length was written longer than need be.</param>
    /// <param name="error">What is wrong and what would be right; null otherwise.</param>
    /// <returns>False if it is not whole yet, and if it is wrong. What is wrong shows in the first two bytes, or in the length.</returns>
    public static bool TryRead(ReadOnlySpan<byte> source, out WebSocketFrameHeader header, out int size, out string? error)
    {
        header = default;
        size = 0;
        error = null;
        if (source.Length < 2)
            return false;

        var opcode = (WebSocketOpcode)(source[0] & OpcodeBits);
        var isFinal = (source[0] & FinalBit) != 0;
        var shortLength = source[1] & LengthBits;
        if ((source[0] & ReservedBits) != 0)
            error = $"a WebSocket frame begins with 0x{source[0]:x2}; no extension was agreed on that would use its reserved bits";
        else if (opcode is not (WebSocketOpcode.Continuation or WebSocketOpcode.Text or WebSocketOpcode.Binary or WebSocketOpcode.Close or WebSocketOpcode.Ping or WebSocketOpcode.Pong))
            error = $"a WebSocket frame has opcode 0x{(int)opcode:x}; 0x0 to 0x2 and 0x8 to 0xa exist";
        else if (opcode >= WebSocketOpcode.Close && !isFinal)
            error = $"a WebSocket control frame (opcode 0x{(int)opcode:x}) is in pieces; it comes whole";
        else if (opcode >= WebSocketOpcode.Close && shortLength > MaxControlBytes)
            error = $"a WebSocket control frame (opcode 0x{(int)opcode:x}) has more than {MaxControlBytes} bytes";
        if (error is not null)
            return false;

        var lengthBytes = shortLength switch { Length16 => 2, Length64 => 8, _ => 0 };
        var isMasked = (source[1] & MaskBit) != 0;
        if (source.Length < 2 + lengthBytes)
            return false;
        var length = lengthBytes switch
        {
            2 => BinaryPrimitives.ReadUInt16BigEndian(source[2..]),
            8 => BinaryPrimitives.ReadInt64BigEndian(source[2..]),
            _ => shortLength,
        };
        if (length < 0)
        {
            error = "a WebSocket frame has a length beyond 2^63 - 1";
            return false;
        }

        size = 2 + lengthBytes + (isMasked ? 4 : 0);
        if (source.Length < size)
        {
            size = 0;
            return false;
        }

        header = new WebSocketFrameHeader(opcode, isFinal, length, isMasked ? MemoryMarshal.Read<uint>(source[(size - 4)..]) : null);
        return true;
    }
}
