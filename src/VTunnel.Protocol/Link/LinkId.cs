using System.Buffers.Binary;
using System.Globalization;

namespace VTunnel.Protocol.Link;

/// <summary>128 random bits that the server chose for a link. Not a secret: it may be logged, and knowing it gives no access.</summary>
public readonly record struct LinkId
{
    /// <summary>The length on the wire: 16 bytes.</summary>
    public const int Length = 16;

    private readonly UInt128 _value;

    private LinkId(UInt128 value) => _value = value;

    /// <summary>All zeros: no link. Never the id of one.</summary>
    public static LinkId None => default;

    /// <summary>Reads an id.</summary>
    /// <exception cref="ArgumentException">Not 16 bytes.</exception>
    public static LinkId FromBytes(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length != Length)
            throw new ArgumentException($"A link id has {Length} bytes, not {bytes.Length}.", nameof(bytes));
        return new LinkId(BinaryPrimitives.ReadUInt128BigEndian(bytes));
    }

    /// <summary>Writes the 16 bytes.</summary>
    public void CopyTo(Span<byte> destination) => BinaryPrimitives.WriteUInt128BigEndian(destination, _value);

    /// <summary>32 lower-case hexadecimal digits.</summary>
    public override string ToString() => _value.ToString("x32", CultureInfo.InvariantCulture);
}
