namespace VTunnel.Protocol.Link;

/// <summary>A queue over a growing array whose elements can be reached by index; 0 is the oldest.</summary>
internal sealed class RingQueue<T>
{
    private const int SmallCapacity = 16;
    private const int KeptCapacity = 1024;

    private T[] _items = new T[SmallCapacity];
    private int _head;

    public int Count { get; private set; }

    public ref T this[int index]
    {
        get
        {
            ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)index, (uint)Count, nameof(index));
            return ref _items[(_head + index) & (_items.Length - 1)];
        }
    }

    public void Enqueue(T item)
    {
        if (Count == _items.Length)
        {
            var larger = new T[_items.Length * 2];
            for (var i = 0; i < Count; i++)
                larger[i] = _items[(_head + i) & (_items.Length - 1)];
            _items = larger;
            _head = 0;
        }

        _items[(_head + Count) & (_items.Length - 1)] = item;
        Count++;
    }

    public T Dequeue()
    {
        var item = this[0];
        _items[_head] = default!;
        _head = (_head + 1) & (_items.Length - 1);
        Count--;
        // A burst long ago must not cost memory for ever.
        if (Count == 0 && _items.Length > KeptCapacity)
            (_items, _head) = (new T[SmallCapacity], 0);
        return item;
    }
}
