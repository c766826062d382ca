using System.Collections.Concurrent;
using VTunnel.Carriers;

namespace VTunnel.Actors.Tests.Testing;

/// <summary>A connector whose attempts end as the test says.</summary>
internal sealed class FakeConnector : ICarrierConnector
{
    private readonly BlockingCollection<DialAttempt> _attempts = [];

    /// <summary>Whether there is an attempt that the test has not taken.</summary>
    public bool HasAttempt => _attempts.Count > 0;

    public Task<ICarrier> ConnectAsync(CancellationToken cancellationToken)
    {
        var attempt = new DialAttempt(cancellationToken);
        _attempts.Add(attempt, CancellationToken.None);
        return attempt.Task;
    }

    /// <summary>The next attempt; waits for it.</summary>
    public DialAttempt Next() =>
        _attempts.TryTake(out var attempt, TimeSpan.FromSeconds(20)) ? attempt : throw new TimeoutException("Nobody dialled.");
}

/// <summary>One attempt to connect.</summary>
internal sealed class DialAttempt(CancellationToken cancellationToken)
{
    private readonly TaskCompletionSource<ICarrier> _result = new(TaskCreationOptions.RunContinuationsAsynchronously);

    public Task<ICarrier> Task => _result.Task;

    public CancellationToken CancellationToken { get; } = cancellationToken;

    /// <summary>Connects; the test plays the server at the other end.</summary>
    public MemoryCarrierPair Succeed()
    {
        var pair = new MemoryCarrierPair();
        _result.SetResult(pair.Client);
        return pair;
    }

    public void Fail(ConnectError code = ConnectError.Unreachable, string message = "nobody there") =>
        _result.SetException(new TunnelConnectException(code, message));
}
