namespace VTunnel.Protocol.Link;

/// <summary>An extension that a HELLO declares.</summary>
/// <param name="Id">Which one. None is assigned in version 1.</param>
/// <param name="IsMandatory">Whether a peer that does not know it must refuse the link; otherwise it ignores it.</param>
/// <param name="Value">At most 255 bytes, whose meaning belongs to the feature.</param>
public sealed record LinkFeature(ushort Id, bool IsMandatory, ReadOnlyMemory<byte> Value = default)
{
    /// <summary>The longest value: 255 bytes.</summary>
    public const int MaxValueBytes = 255;

    /// <inheritdoc />
    public override string ToString() => $"feature 0x{Id:x4}{(IsMandatory ? " (mandatory)" : "")}";
}
