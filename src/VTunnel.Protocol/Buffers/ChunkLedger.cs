namespace VTunnel.Protocol.Buffers;

/// <summary>
/// Counts the chunks that the current thread rents while the ledger is open, until their last reference is dropped
/// (on whichever thread). What a test closes its books with: <c>using var ledger = ChunkLedger.Open(); … Outstanding == 0</c>.
/// </summary>
/// <remarks>Per thread, so that tests which run side by side do not count each other's chunks.</remarks>
internal sealed class ChunkLedger : IDisposable
{
    [ThreadStatic]
    private static ChunkLedger? _current;

    private readonly ChunkLedger? _outer;
    private int _rented;
    private int _released;

    private ChunkLedger(ChunkLedger? outer) => _outer = outer;

    /// <summary>The open ledger of this thread, if any.</summary>
    public static ChunkLedger? Current => _current;

    /// <summary>Chunks rented so far.</summary>
    public int Rented => Volatile.Read(ref _rented);

    /// <summary>Chunks rented and not yet released by all who held them.</summary>
    public int Outstanding => Volatile.Read(ref _rented) - Volatile.Read(ref _released);

    /// <summary>Opens a ledger on this thread; the inner one of two counts.</summary>
    public static ChunkLedger Open() => _current = new ChunkLedger(_current);

    /// <summary>Notes a chunk that was rented.</summary>
    public void NoteRented() => Interlocked.Increment(ref _rented);

    /// <summary>Notes that a chunk's last reference was dropped.</summary>
    public void NoteReleased() => Interlocked.Increment(ref _released);

    /// <summary>Closes the ledger; call it on the thread that opened it.</summary>
    public void Dispose() => _current = _outer;
}
