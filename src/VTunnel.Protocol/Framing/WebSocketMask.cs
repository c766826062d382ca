using System.Numerics;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

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
        ArgumentOutOfRangeException.ThrowIfLessThan(destination.Length, source.Length, nameof(destination));
        key = Turn(key, (int)(position & 3));
        ref var from = ref MemoryMarshal.GetReference(source);
        ref var to = ref MemoryMarshal.GetReference(destination);
        var at = 0;

        // Where the processor, or the compiler, knows no vectors of this width, this is several of the next smaller one in a row.
        var wide = Vector512.Create(key).AsByte();
        for (; at <= source.Length - Vector512<byte>.Count; at += Vector512<byte>.Count)
            (Vector512.LoadUnsafe(ref from, (nuint)at) ^ wide).StoreUnsafe(ref to, (nuint)at);
        var narrow = Vector128.Create(key).AsByte();
        for (; at <= source.Length - Vector128<byte>.Count; at += Vector128<byte>.Count)
            (Vector128.LoadUnsafe(ref from, (nuint)at) ^ narrow).StoreUnsafe(ref to, (nuint)at);

        // Vectors are multiples of the key, so that the rest begins with the key's first byte again.
        var bytes = MemoryMarshal.AsBytes(new ReadOnlySpan<uint>(ref key));
        for (var i = 0; at < source.Length; at++, i++)
            destination[at] = (byte)(source[at] ^ bytes[i & 3]);
    }

    /// <summary>The key with the byte first that is <paramref name="count"/> bytes into it.</summary>
    private static uint Turn(uint key, int count) =>
        BitConverter.IsLittleEndian ? BitOperations.RotateRight(key, count * 8) : BitOperations.RotateLeft(key, count * 8);
}
