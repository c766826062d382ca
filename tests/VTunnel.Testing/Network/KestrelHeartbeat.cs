using System.Collections.Concurrent;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Connections.Features;

namespace VTunnel.Testing.Network;

/// <summary>
/// Kestrel's own clock: once a second it looks whether a connection has been too slow. What must not be taken for slow is
/// shown to be left alone by waiting for this and not for a time.
/// </summary>
public sealed class KestrelHeartbeat
{
    private Action<object>? _beats;

    /// <summary>Makes the connections of an endpoint tell.</summary>
    public void Watch(IConnectionBuilder endpoint) => endpoint.Use(next => connection =>
    {
        connection.Features.Get<IConnectionHeartbeatFeature>()!.OnHeartbeat(state => _beats?.Invoke(state), connection);
        return next(connection);
    });

    /// <summary>
    /// Completes when some connection has been looked at so many times from now on. All others of this server have been, too,
    /// and with one time more also those of any other server.
    /// </summary>
    public async Task WaitAsync(int count)
    {
        var done = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var seen = new ConcurrentDictionary<object, int>();
        Action<object> beat = connection =>
        {
            if (seen.AddOrUpdate(connection, 1, (_, times) => times + 1) >= count)
                done.TrySetResult();
        };
        Interlocked.Exchange(ref _beats, beat);
        await done.Task.WaitAsync(TestTimeouts.Step).ConfigureAwait(false);
    }
}
