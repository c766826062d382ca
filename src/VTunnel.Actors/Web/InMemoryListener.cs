using System.Net;
using System.Threading.Channels;
using Microsoft.AspNetCore.Connections;

namespace VTunnel.Web;

/// <summary>A transport without a port: the web server accepts the connections that <see cref="ConnectAsync"/> gives it.</summary>
internal sealed class InMemoryListener : IConnectionListenerFactory, IConnectionListener
{
    private const int Backlog = 128;

    private readonly Channel<ConnectionContext> _waiting = Channel.CreateBounded<ConnectionContext>(Backlog);

    /// <inheritdoc />
    public EndPoint EndPoint { get; } = new InMemoryEndPoint();

    /// <summary>Hands <paramref name="connection"/> to the server.</summary>
    /// <exception cref="ChannelClosedException">The server has stopped.</exception>
    public ValueTask ConnectAsync(ConnectionContext connection) => _waiting.Writer.WriteAsync(connection);

    /// <inheritdoc />
    public ValueTask<IConnectionListener> BindAsync(EndPoint endpoint, CancellationToken cancellationToken = default) => new(this);

    /// <inheritdoc />
    public async ValueTask<ConnectionContext?> AcceptAsync(CancellationToken cancellationToken = default)
    {
        while (await _waiting.Reader.WaitToReadAsync(cancellationToken).ConfigureAwait(false))
        {
            if (_waiting.Reader.TryRead(out var connection))
                return connection;
        }

        return null;
    }

    /// <inheritdoc />
    public ValueTask UnbindAsync(CancellationToken cancellationToken = default)
    {
        _waiting.Writer.TryComplete();
        return ValueTask.CompletedTask;
    }

    /// <inheritdoc />
    public ValueTask DisposeAsync() => UnbindAsync();

    private sealed class InMemoryEndPoint : EndPoint
    {
        public override string ToString() => "memory";
    }
}
