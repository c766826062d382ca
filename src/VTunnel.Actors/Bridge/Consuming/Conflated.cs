namespace VTunnel.Bridge.Consuming;

/// <summary>
/// Hands on one value at a time, and of those that come meanwhile only the newest: for a state that somebody else sends as often
/// as it likes and that takes time to take over.
/// </summary>
/// <param name="begin">Begins with a value; <see cref="Done"/> is to be called when it is over.</param>
internal sealed class Conflated<T>(Action<T> begin)
    where T : class
{
    private bool _isBusy;
    private T? _next;

    public void Offer(T value)
    {
        if (_isBusy)
        {
            _next = value;
            return;
        }

        _isBusy = true;
        begin(value);
    }

    public void Done()
    {
        _isBusy = false;
        if (_next is not { } next)
            return;
        _next = null;
        Offer(next);
    }
}
