using System.Net;
using Microsoft.AspNetCore.Connections;

namespace VTunnel.Web;

/// <summary>Two transports without ports: one for connections of HTTP/1.1, one for those of HTTP/2, which no server tells apart without TLS.</summary>
internal sealed class MemoryTransport : IConnectionListenerFactory
{
    public InMemoryListener Http1 { get; } = new();

    public InMemoryListener Http2 { get; } = new();

    /// <inheritdoc />
    public ValueTask<IConnectionListener> BindAsync(EndPoint endpoint, CancellationToken cancellationToken = default) =>
        ReferenceEquals(endpoint, Http1.EndPoint) ? Http1.BindAsync(endpoint, cancellationToken) : Http2.BindAsync(endpoint, cancellationToken);
}
