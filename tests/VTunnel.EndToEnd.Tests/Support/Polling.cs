using VTunnel.Testing;

namespace VTunnel.EndToEnd.Tests.Support;

/// <summary>For what raises no event.</summary>
internal static class Polling
{
    /// <summary>Waits until it is so, for <see cref="TestTimeouts.Step"/> at most.</summary>
    public static async Task UntilAsync(Func<Task<bool>> condition)
    {
        using var clock = new PeriodicTimer(TimeSpan.FromMilliseconds(100));
        using var deadline = new CancellationTokenSource(TestTimeouts.Step);
        while (!await condition())
            await clock.WaitForNextTickAsync(deadline.Token);
    }
}
