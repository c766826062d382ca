using System.Net;
using Akka.Actor;
using Akka.Hosting;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Options;
using VTunnel.Options;
using VTunnel.Proxy;
using VTunnel.Supervision;

namespace VTunnel.Hosting;

/// <summary>The server's HTTP proxy as its host sees it: the host does not start before the proxy listens, or fails as it does.</summary>
public sealed class VTunnelProxy : IHostedService
{
    private static readonly TimeSpan StartTimeout = TimeSpan.FromSeconds(30);

    private readonly IRequiredActor<TunnelServerActor> _server;
    private readonly bool _isWanted;

    /// <summary>Made by the host.</summary>
    public VTunnelProxy(IRequiredActor<TunnelServerActor> server, IOptions<TunnelServerOptions> options)
    {
        ArgumentNullException.ThrowIfNull(options);
        _server = server;
        _isWanted = options.Value.Proxy is not null;
    }

    /// <summary>Where the proxy listens; null where there is none, and before the host has started.</summary>
    public IPEndPoint? Address { get; private set; }

    /// <inheritdoc />
    /// <exception cref="ProxyListenException">The proxy cannot listen.</exception>
    public async Task StartAsync(CancellationToken cancellationToken)
    {
        if (!_isWanted)
            return;
        var actor = await _server.GetAsync(cancellationToken).ConfigureAwait(false);
        var answer = await actor.Ask<object>(ProxyProtocol.GetAddress.Instance, StartTimeout, cancellationToken).ConfigureAwait(false);
        if (answer is ProxyProtocol.ListenFailed failed)
            throw new ProxyListenException(failed.Cause);
        Address = ((ProxyProtocol.Listening)answer).Address;
    }

    /// <inheritdoc />
    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
}

/// <summary>The proxy's address cannot be listened on; the inner exception says why.</summary>
public sealed class ProxyListenException(Exception cause) : IOException($"The proxy cannot listen: {cause?.Message}", cause);
