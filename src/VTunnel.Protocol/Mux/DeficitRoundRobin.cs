namespace VTunnel.Protocol.Mux;

/// <summary>Something that takes turns in a <see cref="DeficitRoundRobin"/>.</summary>
public abstract class ScheduledEntry
{
    private protected ScheduledEntry() => Node = new LinkedListNode<ScheduledEntry>(this);

    /// <summary>What the next frame costs, in bytes; 0 when there is none.</summary>
    internal abstract int NextCost { get; }

    internal LinkedListNode<ScheduledEntry> Node { get; }

    internal int Deficit { get; set; }

    internal bool TurnBegun { get; set; }
}

/// <summary>
/// Deficit round robin: entries with much to send get equal shares by bytes, whatever the size of their frames.
/// Entries that used less than their share since their last turn go first, so that a keystroke does not queue behind
/// eight downloads. Constant time and no allocation per frame.
/// </summary>
/// <remarks>
/// Two lists, as in DRR++: entries that have just begun to send (or have most of their share of this round unused) are
/// in the sparse list, all others take turns. Serving an entry from the sparse list uses up its share of the round, so
/// the order changes but the shares do not. While both lists have work, at least one frame of the turns is served for
/// every sixteen quanta of sparse bytes: a flood of new streams slows the old ones down but does not starve them.
/// </remarks>
internal sealed class DeficitRoundRobin
{
    private const int MaxSparseRun = 16;

    private readonly LinkedList<ScheduledEntry> _sparse = new();
    private readonly LinkedList<ScheduledEntry> _turns = new();
    private long _sparseRun;

    /// <param name="quantum">The share of an entry in each round, in bytes; at least the largest cost.</param>
    public DeficitRoundRobin(int quantum)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(quantum, 1);
        Quantum = quantum;
    }

    public int Quantum { get; }

    /// <summary>Call when an entry's <see cref="ScheduledEntry.NextCost"/> rose from 0.</summary>
    public void Activate(ScheduledEntry entry)
    {
        var list = entry.Node.List;
        if (list is null)
        {
            entry.Deficit = Quantum;
            _sparse.AddLast(entry.Node);
        }
        else if (list == _turns && !entry.TurnBegun && entry.Deficit >= Quantum - Quantum / 4 && entry.NextCost <= entry.Deficit)
        {
            // It ran dry with most of its share of the round unused: it may use the rest now.
            _turns.Remove(entry.Node);
            _sparse.AddLast(entry.Node);
        }
    }

    /// <summary>Forgets an entry.</summary>
    public void Remove(ScheduledEntry entry)
    {
        if (entry.Node.List is { } list)
            (list == _sparse ? _sparse : _turns).Remove(entry.Node);
        entry.TurnBegun = false;
        entry.Deficit = 0;
    }

    /// <summary>The entry whose next frame is to be sent now, already charged for it; null when nobody has one.</summary>
    public ScheduledEntry? Next()
    {
        while (true)
        {
            if (_sparse.First is { } sparse && (_turns.First is null || _sparseRun < MaxSparseRun * (long)Quantum))
            {
                var entry = sparse.Value;
                var cost = entry.NextCost;
                if (cost != 0 && cost <= entry.Deficit)
                {
                    entry.Deficit -= cost;
                    _sparseRun = _turns.First is null ? 0 : _sparseRun + cost;
                    return entry;
                }

                // Empty or out of share. It keeps its place in the round, so that it cannot collect a new share by
                // going quiet for a moment.
                _sparse.Remove(sparse);
                _turns.AddLast(sparse);
                continue;
            }

            if (_turns.First is not { } turn)
            {
                _sparseRun = 0;
                return null;
            }

            if (TakeTurn(turn.Value))
            {
                _sparseRun = 0;
                return turn.Value;
            }
        }
    }

    private bool TakeTurn(ScheduledEntry entry)
    {
        var cost = entry.NextCost;
        if (!entry.TurnBegun)
        {
            if (cost == 0)
            {
                Remove(entry);
                return false;
            }

            // Less than one largest frame is left over from the last round, so twice the quantum is never exceeded
            // by an entry that always has work; the bound is for those that had not.
            entry.Deficit = Math.Min(entry.Deficit + Quantum, 2 * Quantum);
            entry.TurnBegun = true;
        }

        if (cost != 0 && cost <= entry.Deficit)
        {
            entry.Deficit -= cost;
            return true;
        }

        entry.TurnBegun = false;
        if (cost == 0)
            entry.Deficit = Math.Min(entry.Deficit, Quantum);
        _turns.Remove(entry.Node);
        _turns.AddLast(entry.Node);
        return false;
    }
}
