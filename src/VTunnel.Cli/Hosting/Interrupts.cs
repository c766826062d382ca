using System.Runtime.InteropServices;

namespace VTunnel.Cli.Hosting;

/// <summary>
/// Ctrl-C, SIGTERM, SIGHUP and SIGQUIT ask for an orderly end; another Ctrl-C ends the program at once. Taken over before anything is started,
/// so that a signal is never lost between two steps of starting.
/// </summary>
internal sealed class Interrupts : IDisposable
{
    /// <summary>Wrappers such as timeout(1) and npm pass on a signal that the program has got already: that is no second wish.</summary>
    private static readonly TimeSpan Echo = TimeSpan.FromMilliseconds(300);

    private readonly CancellationTokenSource _stopping = new();
    private readonly PosixSignalRegistration[] _registrations;
    private readonly Lock _lock = new();
    private long? _first;

    public Interrupts() => _registrations =
    [
        PosixSignalRegistration.Create(PosixSignal.SIGINT, Handle),
        PosixSignalRegistration.Create(PosixSignal.SIGTERM, Handle),

        // The terminal was closed, or the network login lost: nothing else would let connections finish.
        PosixSignalRegistration.Create(PosixSignal.SIGHUP, Handle),

        // Ctrl-\, which hosts of .NET take over without ending for it.
        PosixSignalRegistration.Create(PosixSignal.SIGQUIT, Handle),
    ];

    /// <summary>Cancelled by the first signal.</summary>
    public CancellationToken Stopping => _stopping.Token;

    /// <summary>Completes with the first signal.</summary>
    public async Task WaitAsync()
    {
        var stopped = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using (_stopping.Token.Register(stopped.SetResult))
            await stopped.Task;
    }

    public void Dispose()
    {
        foreach (var registration in _registrations)
            registration.Dispose();
        _stopping.Dispose();
    }

    private void Handle(PosixSignalContext context)
    {
        context.Cancel = true;
        lock (_lock)
        {
            if (_first is { } first)
            {
                if (context.Signal == PosixSignal.SIGINT && TimeProvider.System.GetElapsedTime(first) > Echo)
                    Environment.Exit(ExitCodes.Interrupted);
                return;
            }

            _first = TimeProvider.System.GetTimestamp();
        }

        _stopping.Cancel();
    }
}
