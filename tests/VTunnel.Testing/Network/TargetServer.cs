using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;

namespace VTunnel.Testing.Network;

/// <summary>A TCP server on a loopback port: what clients forward to.</summary>
public sealed class TargetServer : IAsyncDisposable
{
    private readonly TcpListener _listener;
    private readonly Func<TcpClient, CancellationToken, Task> _serve;
    private readonly CancellationTokenSource _stopping = new();
    private readonly ConcurrentDictionary<Task, bool> _serving = new();
    private readonly Task _accepting;
    private Exception? _failure;
    private int _connectionCount;

    private TargetServer(Func<TcpClient, CancellationToken, Task> serve)
    {
        _serve = serve;
        _listener = new TcpListener(IPAddress.Loopback, 0);
        _listener.Start(512);
        Port = ((IPEndPoint)_listener.LocalEndpoint).Port;
        _accepting = AcceptAsync();
    }

    /// <summary>Where it listens.</summary>
    public int Port { get; }

    /// <summary>Connections so far.</summary>
    public int ConnectionCount => Volatile.Read(ref _connectionCount);

    /// <summary>Connections now.</summary>
    public int OpenCount => _serving.Count;

    /// <summary>Serves each connection by <paramref name="serve"/>, then closes it; a connection that breaks ends alone.</summary>
    public static TargetServer Start(Func<TcpClient, CancellationToken, Task> serve) => new(serve);

    /// <summary>Sends back what it gets, and its end.</summary>
    public static TargetServer StartEcho() => Start((client, cancellationToken) =>
        client.GetStream().CopyToAsync(client.GetStream(), cancellationToken));

    private async Task AcceptAsync()
    {
        try
        {
            while (true)
            {
                var client = await _listener.AcceptTcpClientAsync(_stopping.Token).ConfigureAwait(false);
                Interlocked.Increment(ref _connectionCount);
                var serving = ServeAsync(client);
                _serving[serving] = true;
                _ = serving.ContinueWith(
                    done => _serving.TryRemove(done, out _), CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
            }
        }
        catch (OperationCanceledException)
        {
            // Stopped.
        }
    }

    private async Task ServeAsync(TcpClient client)
    {
        await Task.Yield();
        using (client)
        {
            try
            {
                client.NoDelay = true;
                await _serve(client, _stopping.Token).ConfigureAwait(false);
            }
            catch (Exception e) when (e is IOException or SocketException or OperationCanceledException)
            {
                // The peer reset the connection, which many tests do, or the server was stopped.
            }
            catch (Exception e)
            {
                Interlocked.CompareExchange(ref _failure, e, null);
            }
        }
    }

    /// <summary>Stops.</summary>
    /// <exception cref="InvalidOperationException">Serving failed other than by a broken connection.</exception>
    public async ValueTask DisposeAsync()
    {
        // The listener stops when nobody accepts any more: between two calls, the loop would find it stopped.
        await _stopping.CancelAsync().ConfigureAwait(false);
        await _accepting.ConfigureAwait(false);
        _listener.Stop();
        await Task.WhenAll(_serving.Keys).ConfigureAwait(false);
        _stopping.Dispose();
        if (_failure is not null)
            throw new InvalidOperationException("a target failed to serve a connection", _failure);
    }
}
