namespace VTunnel.Protocol.Mux;

/// <summary>
/// Which ids the peer has used, in constant memory: ids may come a little out of order (some implementations open
/// streams from many threads), and none twice.
/// </summary>
internal sealed class StreamIdHistory
{
    private const int Span = 1024;
    private readonly ulong[] _used = new ulong[Span / 64];
    private long _highest = -1;

    /// <summary>False if the id was used before, or is so far below the highest that it may have been.</summary>
    public bool TryAdd(uint id)
    {
        // Ids of one side have one parity, so every second number is one.
        var index = (long)(id >> 1);
        if (index <= _highest - Span)
            return false;

        if (index > _highest)
        {
            if (index - _highest >= Span)
            {
                Array.Clear(_used);
            }
            else
            {
                for (var skipped = _highest + 1; skipped < index; skipped++)
                    Word(skipped) &= ~Bit(skipped);
            }

            _highest = index;
        }
        else if ((Word(index) & Bit(index)) != 0)
        {
            return false;
        }

        Word(index) |= Bit(index);
        return true;
    }

    /// <summary>Whether a stream with this id was opened, as far as is remembered: old ids all count as used.</summary>
    public bool WasUsed(uint id)
    {
        var index = (long)(id >> 1);
        return index <= _highest && (index <= _highest - Span || (Word(index) & Bit(index)) != 0);
    }

    private ref ulong Word(long index) => ref _used[index % Span / 64];

    private static ulong Bit(long index) => 1UL << (int)(index % 64);
}
