using VTunnel.Testing;

namespace VTunnel.Actors.Tests.Hosting;

/// <summary>For polling what raises no event.</summary>
internal static class Ticks
{
    private static readonly PeriodicTimer Timer = new(TimeSpan.FromMilliseconds(5));
    private static readonly SemaphoreSlim Turn = new(1, 1);

    /// <summary>Waits until it is so, for <see cref="TestTimeouts.Step"/> at most.</summary>
    public static async Task UntilAsync(Func<Task<bool>> condition)
    {
        using var deadline = new CancellationTokenSource(TestTimeouts.Step);
        while (!await condition())
            await NextAsync().WaitAsync(deadline.Token);
    }

    /// <summary>A deadline in the caller bounds what it waits for.</summary>
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
