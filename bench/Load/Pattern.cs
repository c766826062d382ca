namespace VTunnel.Bench.Load;

/// <summary>
/// The bytes that bulk transfers carry. A sequence with a prime period, so that a lost or repeated piece of any usual size
/// puts it out of step, and with a different start for every stream, so that streams that were mixed up are seen.
/// </summary>
internal static class Pattern
{
    /// <summary>The most that <see cref="Slice"/> gives at once.</summary>
    public const int MaxSlice = 256 * 1024;

    private const int Period = 262_139;
    private static readonly byte[] Bytes = Make();

    /// <summary>The bytes of a stream from an offset on.</summary>
    public static ReadOnlySpan<byte> Slice(int stream, long offset, int length) => Bytes.AsSpan(Start(stream, offset), length);

    /// <inheritdoc cref="Slice"/>
    public static ReadOnlyMemory<byte> Memory(int stream, long offset, int length) => Bytes.AsMemory(Start(stream, offset), length);

    /// <summary>Whether bytes are those of the stream at this offset.</summary>
    public static bool Matches(int stream, long offset, ReadOnlySpan<byte> bytes)
    {
        while (!bytes.IsEmpty)
        {
            var part = bytes[..Math.Min(bytes.Length, MaxSlice)];
            if (!part.SequenceEqual(Slice(stream, offset, part.Length)))
                return false;
            offset += part.Length;
            bytes = bytes[part.Length..];
        }

        return true;
    }

    private static int Start(int stream, long offset) => (int)((offset + (stream * 7919L)) % Period);

    private static byte[] Make()
    {
        var bytes = new byte[Period + MaxSlice];
        new Random(20261122).NextBytes(bytes.AsSpan(0, Period));
        for (var done = Period; done < bytes.Length; done += Period)
            bytes.AsSpan(0, Math.Min(Period, bytes.Length - done)).CopyTo(bytes.AsSpan(done));
        return bytes;
    }
}
