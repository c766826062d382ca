using System.Net;
using System.Net.Sockets;
using VTunnel.Endpoints;
using VTunnel.Web;

namespace VTunnel.Proxy;

/// <summary>A connection to the proxy as requests see it: a feature of their connection.</summary>
/// <param name="endpoint">The bytes.</param>
/// <param name="connection">The web server's view of it.</param>
/// <param name="socket">The socket below, where nothing stands between it and the requests.</param>
/// <param name="interceptedHost">The host that a CONNECT named whose TLS ends here; null on the proxy's own port.</param>
/// <param name="interceptedPort">Its port.</param>
internal sealed class Visitor(StreamEndpoint endpoint, WebConnection connection, Socket? socket, string? interceptedHost = null, int interceptedPort = 0)
{
    public EndPoint? Remote => endpoint.RemoteEndPoint;

    public string? InterceptedHost => interceptedHost;

    public int InterceptedPort => interceptedPort;

    /// <summary>Takes the connection from the web server; see <see cref="WebConnection.Detach"/>.</summary>
    public (StreamEndpoint Endpoint, ReadOnlyMemory<byte> Prefix) Detach() => (endpoint, connection.Detach());

    /// <summary>
    /// Aborts a request without a body when its visitor leaves before the answer. The server reads nothing while it waits for an
    /// application, so it cannot know.
    /// </summary>
    public async Task WatchAsync(Action gone, CancellationToken requestEnded)
    {
        if (socket is null)
            return;
        try
        {
            await socket.ReceiveAsync(Memory<byte>.Empty, SocketFlags.None, requestEnded).ConfigureAwait(false);
            if (!requestEnded.IsCancellationRequested && socket.Available == 0)
                gone();
        }
        catch (Exception e) when (e is OperationCanceledException or SocketException or ObjectDisposedException)
        {
            // The request has ended, or the connection broke, which whoever writes next finds out.
            if (e is SocketException && !requestEnded.IsCancellationRequested)
                gone();
        }
    }
}

/// <summary>An endpoint that says when it has ended.</summary>
internal sealed class WatchedEndpoint(StreamEndpoint inner) : DelegatingEndpoint(inner)
{
    private readonly TaskCompletionSource _closed = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Completes when it was aborted or disposed.</summary>
    public Task Closed => _closed.Task;

    public override void Abort()
    {
        base.Abort();
        _closed.TrySetResult();
    }

    protected override void Dispose(bool disposing)
    {
        base.Dispose(disposing);
        _closed.TrySetResult();
    }
}

/// <summary>An endpoint on which somebody waits for data already: the first receive begins with that wait.</summary>
internal sealed class WaitingEndpoint : DelegatingEndpoint
{
    private Task? _waiting;

    public WaitingEndpoint(StreamEndpoint inner, Task waiting)
        : base(inner)
    {
        _waiting = waiting;

        // If nobody receives any more, its failure is no news to anyone.
        _ = waiting.ContinueWith(static task => _ = task.Exception, default, TaskContinuationOptions.OnlyOnFaulted, TaskScheduler.Default);
    }

    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer) =>
        _waiting is { } waiting ? ReceiveAfterAsync(waiting, buffer) : base.ReceiveAsync(buffer);

    private async ValueTask<int> ReceiveAfterAsync(Task waiting, Memory<byte> buffer)
    {
        await waiting.ConfigureAwait(false);
        _waiting = null;
        return buffer.IsEmpty ? 0 : await base.ReceiveAsync(buffer).ConfigureAwait(false);
    }
}

/// <summary>Moves bytes between two endpoints in both directions, where no tunnel is involved.</summary>
internal static class DirectRelay
{
    private const int BufferBytes = 64 * 1024;

    /// <summary>Runs until both directions have ended, or one broke. Both endpoints are closed afterwards.</summary>
    /// <returns>Bytes from the first to the second, and back.</returns>
    public static async Task<(long There, long Back)> RunAsync(StreamEndpoint first, StreamEndpoint second)
    {
        var there = CopyAsync(first, second, first, second);
        var back = CopyAsync(second, first, first, second);
        var moved = await Task.WhenAll(there, back).ConfigureAwait(false);
        first.Dispose();
        second.Dispose();
        return (moved[0], moved[1]);
    }

    private static async Task<long> CopyAsync(StreamEndpoint source, StreamEndpoint destination, StreamEndpoint first, StreamEndpoint second)
    {
        var moved = 0L;
        var drained = true;
        try
        {
            while (true)
            {
                // Idle connections hold no buffer.
                if (drained)
                    await source.ReceiveAsync(Memory<byte>.Empty).ConfigureAwait(false);
                var buffer = System.Buffers.ArrayPool<byte>.Shared.Rent(BufferBytes);
                try
                {
                    var count = await source.ReceiveAsync(buffer).ConfigureAwait(false);
                    if (count == 0)
                        break;
                    await destination.SendAsync(buffer.AsMemory(0, count)).ConfigureAwait(false);
                    moved += count;
                    drained = count < buffer.Length;
                }
                finally
                {
                    System.Buffers.ArrayPool<byte>.Shared.Return(buffer);
                }
            }

            await destination.FinishSendingAsync().ConfigureAwait(false);
        }
        catch (Exception e) when (e is IOException or SocketException or ObjectDisposedException or InvalidOperationException or OperationCanceledException)
        {
            // Broken at one end is broken at the other: a reset there becomes a reset here.
            first.Abort();
            second.Abort();
        }

        return moved;
    }
}

/// <summary>The two bodies of a CONNECT request of HTTP/2 as an endpoint.</summary>
internal sealed class BodyEndpoint(Microsoft.AspNetCore.Http.HttpContext context) : StreamEndpoint
{
    private readonly EndPoint? _remote = context.Connection.RemoteIpAddress is { } address ? new IPEndPoint(address, context.Connection.RemotePort) : null;
    private int _ended;

    public override EndPoint? RemoteEndPoint => _remote;

    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer) => context.Request.Body.ReadAsync(buffer);

    public override async ValueTask SendAsync(ReadOnlyMemory<byte> buffer)
    {
        await context.Response.Body.WriteAsync(buffer).ConfigureAwait(false);
        await context.Response.Body.FlushAsync().ConfigureAwait(false);
    }

    public override ValueTask FinishSendingAsync() => new(context.Response.CompleteAsync());

    public override void Abort()
    {
        if (Interlocked.Exchange(ref _ended, 1) == 0)
            context.Abort();
    }

    protected override void Dispose(bool disposing) => Interlocked.Exchange(ref _ended, 1);
}
