namespace VTunnel.Hosting;

/// <summary>Something that is done with the first call and for all callers. No lock is held meanwhile.</summary>
internal sealed class Once(Func<Task> action)
{
    private readonly TaskCompletionSource _done = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _isBegun;

    public bool IsBegun => Volatile.Read(ref _isBegun) != 0;

    public Task RunAsync()
    {
        if (Interlocked.Exchange(ref _isBegun, 1) == 0)
            _ = BeginAsync();
        return _done.Task;
    }

    private async Task BeginAsync()
    {
        try
        {
            await action().ConfigureAwait(false);
            _done.SetResult();
        }
        catch (Exception e)
        {
            // It is the callers'.
            _done.SetException(e);
        }
    }
}
