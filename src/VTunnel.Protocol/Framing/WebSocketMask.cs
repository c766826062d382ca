using System.Numerics;
using System.Runtime.InteropServices;

namespace VTunnel.Protocol.Framing;

/// <summary>
/// The masking of a WebSocket client's payload (RFC 6455, 5.3): each byte is XORed with one of the key's four in turn. The key is
/// the four bytes as they stand on the wire, taken as an integer of this machine.
/// </summary>
public static class WebSocketMask
{
    /// <summary>Masks, or unmasks, which is the same.</summary>
    /// <param name="payload">Bytes of a payload, in place.</param>
    /// <param name="key">The frame's key.</param>
    /// <param name="position">Where in the payload these bytes begin.</param>
    public static void Apply(Span<byte> payload, uint key, long position) => Copy(payload, payload, key, position);

    /// <summary>Masks from one place to another, in one pass.</summary>
    /// <param name="source">Bytes of a payload.</param>
    /// <param name="destination">At least as long; the same place, or one that does not overlap.</param>
    /// <param name="key">The frame's key.</param>
    /// <param name="position">Where in the payload these bytes begin.</param>
    public static void Copy(ReadOnlySpan<byte> source, Span<byte> destination, uint key, long position)
    {
        key = Turn(key, (int)(position & 3));
        var at = 0;
        if (source.Length >= Vector<byte>.Count)
        {
            var keys = Vector.AsVectorByte(new Vector<uint>(key));
            for (; at <= source.Length - Vector<byte>.Count; at += Vector<byte>.Count)
                (new Vector<byte>(source[at..]) ^ keys).CopyTo(destination[at..]);
        }

        // A vector is a multiple of the key, so that the rest begins with the key's first byte again.
        var bytes = MemoryMarshal.AsBytes(new ReadOnlySpan<uint>(ref key));
        for (var i = 0; at < source.Length; at++, i++)
            destination[at] = (byte)(source[at] ^ bytes[i & 3]);
    }

    /// <summary>The key with the byte first that is <paramref name="count"/> bytes into it.</summary>
    private static uint Turn(uint key, int count) =>
        BitConverter.IsLittleEndian ? BitOperations.RotateRight(key, count * 8) : BitOperations.RotateLeft(key, count * 8);
}
