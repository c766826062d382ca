using System.Runtime.CompilerServices;

namespace VTunnel.Protocol.Mux;

/// <summary>A first-in first-out queue in one array that grows by doubling and never shrinks: no allocation in steady state.</summary>
internal sealed class Ring<T>
{
    private T[] _items = [];
    private int _head;

    public int Count { get; private set; }

    public void Enqueue(in T item)
    {
        if (Count == _items.Length)
            Grow();
        _items[(_head + Count) & (_items.Length - 1)] = item;
        Count++;
    }

    /// <summary>The oldest item, in place; only while <see cref="Count"/> is above zero.</summary>
    public ref T Peek() => ref _items[_head];

    /// <summary>Removes the oldest item; only while <see cref="Count"/> is above zero.</summary>
    public T Dequeue()
    {
        if (Count == 0)
            throw new InvalidOperationException("The queue is empty.");

        var item = _items[_head];
        if (RuntimeHelpers.IsReferenceOrContainsReferences<T>())
            _items[_head] = default!;
        _head = (_head + 1) & (_items.Length - 1);
        Count--;
        return item;
    }

    public void Clear()
    {
        while (Count > 0)
            Dequeue();
    }

    private void Grow()
    {
        var grown = new T[Math.Max(4, _items.Length * 2)];
        var first = Math.Min(Count, _items.Length - _head);
        Array.Copy(_items, _head, grown, 0, first);
        Array.Copy(_items, 0, grown, first, Count - first);
        _items = grown;
        _head = 0;
    }
}
