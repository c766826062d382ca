namespace VTunnel.Protocol.Tests;

/// <summary>What a hot path allocates, once it is warm.</summary>
internal static class Allocations
{
    private const int Frames = 1000;

    /// <summary>Bytes on this thread for each frame. The pools belong to the whole process, which can only add: the least of some rounds counts.</summary>
    /// <param name="round">Moves so many frames, and gives how many it moved.</param>
    public static double LeastPerFrame(Func<int, int> round)
    {
        round(Frames / 2);
        var least = double.MaxValue;
        for (var i = 0; i < 10 && least > 0; i++)
        {
            var before = GC.GetAllocatedBytesForCurrentThread();
            Assert.Equal(Frames, round(Frames));
            least = Math.Min(least, (GC.GetAllocatedBytesForCurrentThread() - before) / (double)Frames);
        }

        return least;
    }
}
