namespace VTunnel.Testing.Simulation;

/// <summary>Endless streams of bytes that differ by key and can be checked from any offset on, fast.</summary>
public static class SimulationPattern
{
    // A prime, so that no power of two and no window is a whole number of periods.
    private const int Period = 65_521;
    private static readonly byte[] Table = Build();

    /// <summary>Writes what stream <paramref name="key"/> has at <paramref name="offset"/>.</summary>
    public static void Fill(Span<byte> destination, int key, long offset)
    {
        while (!destination.IsEmpty)
        {
            var part = At(key, offset, destination.Length);
            part.CopyTo(destination);
            destination = destination[part.Length..];
            offset += part.Length;
        }
    }

    /// <summary>Whether <paramref name="bytes"/> are what stream <paramref name="key"/> has at <paramref name="offset"/>.</summary>
    public static bool Matches(ReadOnlySpan<byte> bytes, int key, long offset)
    {
        while (!bytes.IsEmpty)
        {
            var part = At(key, offset, bytes.Length);
            if (!bytes[..part.Length].SequenceEqual(part))
                return false;
            bytes = bytes[part.Length..];
            offset += part.Length;
        }

        return true;
    }

    private static ReadOnlySpan<byte> At(int key, long offset, int length)
    {
        var start = (int)(((key * 7919L) + offset) % Period);
        return Table.AsSpan(start, Math.Min(length, Period - start));
    }

    private static byte[] Build()
    {
        var table = new byte[Period];
        new Random(20261122).NextBytes(table);
        return table;
    }
}
