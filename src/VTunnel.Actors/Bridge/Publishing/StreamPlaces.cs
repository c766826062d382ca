namespace VTunnel.Bridge.Publishing;

/// <summary>How many streams a user may have in all its sessions together, which take and leave places from threads of their own.</summary>
internal sealed class StreamPlaces(int max)
{
    private int _taken;

    public bool TryTake()
    {
        if (Interlocked.Increment(ref _taken) <= max)
            return true;
        Leave();
        return false;
    }

    public void Leave(int count = 1) => Interlocked.Add(ref _taken, -count);
}
