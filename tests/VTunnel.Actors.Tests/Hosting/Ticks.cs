namespace VTunnel.Actors.Tests.Hosting;

/// <summary>For polling what raises no event: a deadline in the caller bounds it.</summary>
internal static class Ticks
{
    private static readonly PeriodicTimer Timer = new(TimeSpan.FromMilliseconds(5));
    private static readonly SemaphoreSlim Turn = new(1, 1);

    public static async Task NextAsync()
    {
        await Turn.WaitAsync();
        try
        {
            await Timer.WaitForNextTickAsync();
        }
        finally
        {
            Turn.Release();
        }
    }
}
