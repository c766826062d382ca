using System.Runtime.CompilerServices;

namespace VTunnel.Protocol.Buffers;

/// <summary>
/// A first-in first-out queue in one array that grows by doubling: no allocation in steady state, and none at all before
/// the first item. Its items can be reached by index; 0 is the oldest.
/// </summary>
internal sealed class RingQueue<T>
{
    private const int SmallCapacity = 4;
    private const int KeptCapacity = 1024;

    private T[] _items = [];
    private int _head;

    public int Count { get; private set; }

    /// <summary>An item in place.</summary>
    public ref T this[int index]
    {
        get
        {
            ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)index, (uint)Count, nameof(index));
            return ref _items[(_head + index) & (_items.Length - 1)];
        }
    }

    public void Enqueue(in T item)
    {
        if (Count == _items.Length)
            Grow();
        _items[(_head + Count) & (_items.Length - 1)] = item;
        Count++;
    }

    /// <summary>Removes the oldest item.</summary>
    /// <exception cref="InvalidOperationException">The queue is empty.</exception>
    public T Dequeue()
    {
        if (Count == 0)
            throw new InvalidOperationException("The queue is empty.");

        var item = _items[_head];
        if (RuntimeHelpers.IsReferenceOrContainsReferences<T>())
            _items[_head] = default!;
        _head = (_head + 1) & (_items.Length - 1);
        Count--;
        // A burst long ago must not cost memory for ever.
        if (Count == 0 && _items.Length > KeptCapacity)
            (_items, _head) = ([], 0);
        return item;
    }

    public void Clear()
    {
        while (Count > 0)
            Dequeue();
    }

    private void Grow()
    {
        var grown = new T[Math.Max(SmallCapacity, _items.Length * 2)];
        var first = Math.Min(Count, _items.Length - _head);
        Array.Copy(_items, _head, grown, 0, first);
        Array.Copy(_items, 0, grown, first, Count - first);
        _items = grown;
        _head = 0;
    }
}
