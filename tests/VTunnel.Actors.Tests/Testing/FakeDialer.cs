using System.Collections.Concurrent;
using VTunnel.Endpoints;
using VTunnel.Routing;
using VTunnel.Targets;

namespace VTunnel.Actors.Tests.Testing;

/// <summary>A dialer of targets whose attempts end as the test says.</summary>
internal sealed class FakeDialer : ITargetDialer
{
    private readonly BlockingCollection<TargetAttempt> _attempts = [];

    public Task<StreamEndpoint> DialAsync(ForwardTarget target, CancellationToken cancellationToken)
    {
        var attempt = new TargetAttempt(target, cancellationToken);
        _attempts.Add(attempt, CancellationToken.None);
        return attempt.Task;
    }

    /// <summary>The next attempt; waits for it.</summary>
    public TargetAttempt Next() =>
        _attempts.TryTake(out var attempt, TimeSpan.FromSeconds(20)) ? attempt : throw new TimeoutException("No target was dialled.");
}

/// <summary>One attempt to reach a target.</summary>
internal sealed class TargetAttempt(ForwardTarget target, CancellationToken cancellationToken)
{
    private readonly TaskCompletionSource<StreamEndpoint> _result = new(TaskCreationOptions.RunContinuationsAsynchronously);

    public ForwardTarget Target { get; } = target;

    public CancellationToken CancellationToken { get; } = cancellationToken;

    public Task<StreamEndpoint> Task => _result.Task;

    public void Succeed(StreamEndpoint endpoint) => _result.SetResult(endpoint);

    public void Fail(Exception error) => _result.SetException(error);
}
