using System.Net;
using System.Text;
using VTunnel.Routing;
using VTunnel.Streams;

namespace VTunnel.Targets.Http;

/// <summary>
/// The connections to the target that serve one visitor's HTTP connection, and nobody else's: a server that ties an
/// identity to a connection (NTLM, client certificates, rate limits) sees visitors as they are. Mostly it is exactly
/// one, the one that was dialled when the visitor came; when the target closes that, the next request dials again.
/// </summary>
internal sealed class TargetConnections : IDisposable
{
    private readonly Lock _gate = new();
    private readonly ForwardTarget _target;
    private readonly Func<ForwardTarget, CancellationToken, Task<DuplexStreamEndpoint>> _dial;
    private readonly Task _firstReady;
    private readonly HashSet<StreamEndpoint> _open = [];
    private StreamEndpoint? _first;
    private bool _disposed;

    /// <summary>Takes ownership of <paramref name="first"/>, which may be read from <paramref name="firstReady"/> on.</summary>
    public TargetConnections(
        ForwardTarget target,
        StreamEndpoint first,
        Task firstReady,
        Func<ForwardTarget, CancellationToken, Task<DuplexStreamEndpoint>> dial)
    {
        _target = target;
        _dial = dial;
        _first = first;
        _firstReady = firstReady;
        _open.Add(first);
        Client = new HttpMessageInvoker(new SocketsHttpHandler
        {
            ConnectCallback = ConnectAsync,
            // TLS is ours, and so are the timeouts of dialling.
            ConnectTimeout = Timeout.InfiniteTimeSpan,
            PooledConnectionIdleTimeout = Timeout.InfiniteTimeSpan,
            PooledConnectionLifetime = Timeout.InfiniteTimeSpan,
            // What follows makes it carry messages and touch nothing in them.
            UseProxy = false,
            UseCookies = false,
            AllowAutoRedirect = false,
            AutomaticDecompression = DecompressionMethods.None,
            ActivityHeadersPropagator = null,
#pragma warning disable CA2262 // 1024 KiB are meant: the limit protects a client from its server, and this is not the client.
            MaxResponseHeadersLength = HostRewriter.MaxHeaderBytes / 1024,
#pragma warning restore CA2262
            RequestHeaderEncodingSelector = static (_, _) => Encoding.Latin1,
            ResponseHeaderEncodingSelector = static (_, _) => Encoding.Latin1,
        });
    }

    /// <summary>Sends requests over these connections.</summary>
    public HttpMessageInvoker Client { get; }

    /// <summary>Called when no connection is open any more, on whatever thread closed the last one.</summary>
    public Action? AllClosed { get; init; }

    /// <summary>Ends the sending direction towards the target: after an upgrade the connection is the visitor's, half-close included.</summary>
    public async ValueTask FinishSendingAsync()
    {
        foreach (var connection in Open())
            await connection.FinishSendingAsync().ConfigureAwait(false);
    }

    /// <summary>Resets the connections.</summary>
    public void Abort()
    {
        foreach (var connection in Open())
            connection.Abort();
        Dispose();
    }

    /// <inheritdoc />
    public void Dispose()
    {
        lock (_gate)
        {
            if (_disposed)
                return;
            _disposed = true;
        }

        foreach (var connection in Open())
            connection.Dispose();
        Client.Dispose();
    }

    private StreamEndpoint[] Open()
    {
        lock (_gate)
            return [.. _open];
    }

    private async ValueTask<Stream> ConnectAsync(SocketsHttpConnectionContext context, CancellationToken cancellationToken)
    {
        if (Interlocked.Exchange(ref _first, null) is { } first)
            return new EndpointStream(first, _firstReady, Forget);

        var connection = await _dial(_target, cancellationToken).ConfigureAwait(false);
        lock (_gate)
        {
            if (!_disposed)
            {
                _open.Add(connection);
                return new EndpointStream(connection, closed: Forget);
            }
        }

        connection.Dispose();
        throw new ObjectDisposedException(nameof(TargetConnections));
    }

    private void Forget(StreamEndpoint connection)
    {
        lock (_gate)
        {
            _open.Remove(connection);
            if (_disposed || _open.Count > 0)
                return;
        }

        AllClosed?.Invoke();
    }
}
