using VTunnel.Protocol.Control;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Routing;
using VTunnel.Sessions;
using VTunnel.Web;

namespace VTunnel.Proxy;

/// <summary>
/// HTTP clients whose connections are tunnelled streams, one for each route and protocol, so that a connection is never used for
/// another route. Those of routes that are gone are disposed; their requests under way end with their session.
/// </summary>
internal sealed class TunnelClients(TunnelConnector tunnels) : IDisposable
{
    private readonly Lock _gate = new();
    private readonly Dictionary<(ProxyRoute Route, string Speaks), HttpMessageInvoker> _clients = [];

    public HttpMessageInvoker For(ProxyRoute route, string speaks)
    {
        lock (_gate)
        {
            if (_clients.TryGetValue((route, speaks), out var client))
                return client;
            client = RequestRelay.CreateClient((context, cancellationToken) => ConnectAsync(route, speaks, context, cancellationToken));
            _clients.Add((route, speaks), client);
            return client;
        }
    }

    /// <summary>Forgets all routes but these.</summary>
    public void Keep(IEnumerable<ProxyRoute> routes)
    {
        var kept = routes.ToHashSet();
        lock (_gate)
        {
            foreach (var key in _clients.Keys.Where(key => !kept.Contains(key.Route)).ToArray())
            {
                _clients.Remove(key, out var client);
                client!.Dispose();
            }
        }
    }

    public void Dispose() => Keep([]);

    private async ValueTask<Stream> ConnectAsync(ProxyRoute route, string speaks, SocketsHttpConnectionContext context, CancellationToken cancellationToken)
    {
        // Of IPv6 addresses the client knows them without brackets.
        var host = $"{HostName.Bracketed(context.DnsEndPoint.Host.Trim('[', ']'))}:{context.DnsEndPoint.Port}";
        var stream = await tunnels.OpenAsync(route, null, new ProxyVisit(host, speaks), cancellationToken).ConfigureAwait(false);
        var pair = new DuplexPair();
        if (!stream.Activate(pair.Endpoint, ReadOnlyMemory<byte>.Empty))
            throw new LegFailedException(502, $"{host} cannot be reached: its client gave the connection up");
        return pair.Stream;
    }
}
