using System.Net;
using System.Net.WebSockets;
using Akka.Actor;
using Akka.Hosting;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using VTunnel.Hosting;
using VTunnel.Options;
using VTunnel.Routing;
using VTunnel.Supervision;
using VTunnel.Testing;
using VTunnel.Testing.Diagnostics;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Support;

/// <summary>A tunnel server in the test's own process, at <c>/tunnel</c> of a loopback port, whose log the test can read.</summary>
public sealed class TunnelHost : IAsyncDisposable
{
    private readonly WebApplication _app;

    private TunnelHost(WebApplication app, CapturedLog log, KestrelHeartbeat heartbeat)
    {
        _app = app;
        Log = log;
        Heartbeat = heartbeat;
        var address = app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.Single();
        Address = new UriBuilder(address) { Scheme = "ws", Path = "/tunnel" }.Uri;
    }

    /// <summary>What clients dial.</summary>
    public Uri Address { get; }

    /// <summary>Where its HTTP proxy listens, if it has one.</summary>
    public IPEndPoint ProxyAddress => _app.Services.GetRequiredService<VTunnelProxy>().Address!;

    /// <summary>What the server logs, from Debug up.</summary>
    public CapturedLog Log { get; }

    /// <summary>Of the connections that clients make.</summary>
    public KestrelHeartbeat Heartbeat { get; }

    public static async Task<TunnelHost> StartAsync(Action<TunnelServerOptions>? server = null, Action<KestrelServerOptions>? kestrel = null, Action<WebApplicationBuilder>? extend = null)
    {
        var log = new CapturedLog();
        var heartbeat = new KestrelHeartbeat();
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.Logging.AddProvider(log).SetMinimumLevel(LogLevel.Debug).AddFilter("Microsoft", LogLevel.Warning);
        builder.WebHost.ConfigureKestrel(options =>
        {
            options.Listen(IPAddress.Loopback, 0, heartbeat.Watch);
            kestrel?.Invoke(options);
        });
        builder.AddVTunnelServer(server);
        extend?.Invoke(builder);
        var app = builder.Build();
        app.MapVTunnel("/tunnel");
        await app.StartAsync();
        return new TunnelHost(app, log, heartbeat);
    }

    /// <summary>The sessions and the ports they hold.</summary>
    public async Task<TunnelServerProtocol.ServerStatus> GetStatusAsync()
    {
        var server = await _app.Services.GetRequiredService<IRequiredActor<TunnelServerActor>>().GetAsync();
        return await server.Ask<TunnelServerProtocol.ServerStatus>(TunnelServerProtocol.GetStatus.Instance, TestTimeouts.Step);
    }

    /// <summary>Waits until there are as many sessions.</summary>
    public Task WaitForSessionsAsync(int count) => WaitForStatusAsync(status => status.Sessions.Count == count);

    /// <summary>Waits until the sessions are like this.</summary>
    public async Task WaitForStatusAsync(Func<TunnelServerProtocol.ServerStatus, bool> condition)
    {
        using var clock = new PeriodicTimer(TimeSpan.FromMilliseconds(20));
        using var deadline = new CancellationTokenSource(TestTimeouts.Step);
        while (!condition(await GetStatusAsync()))
            await clock.WaitForNextTickAsync(deadline.Token);
    }

    /// <summary>Stops as an application stops.</summary>
    public Task StopAsync() => _app.StopAsync();

    /// <summary>A client of this server, connected. The caller disposes it first.</summary>
    public async Task<TunnelClient> ConnectAsync(Action<TunnelClientOptions>? configure = null)
    {
        var options = new TunnelClientOptions { Server = Address, Protocol = ProtocolPreference.V1, DrainTimeout = TimeSpan.Zero };
        configure?.Invoke(options);
        var client = TunnelClient.Create(options, _app.Services.GetRequiredService<ILoggerFactory>());
        await client.ConnectAsync().WaitAsync(TestTimeouts.Step);
        return client;
    }

    /// <summary>A peer that speaks the protocol by hand, connected.</summary>
    public Task<HandPeer> ConnectByHandAsync(Action<ClientWebSocketOptions>? configure = null, int? receiveBufferBytes = null) =>
        HandPeer.ConnectAsync(Address, configure, receiveBufferBytes);

    public async ValueTask DisposeAsync()
    {
        await _app.DisposeAsync();
        Log.Dispose();
    }
}

/// <summary>A server and a client in the test's own process.</summary>
public sealed class TunnelPair : IAsyncDisposable
{
    private TunnelPair(TunnelHost host, TunnelClient client)
    {
        Host = host;
        Client = client;
    }

    public TunnelHost Host { get; }

    public TunnelClient Client { get; }

    public static async Task<TunnelPair> StartAsync(
        Action<TunnelServerOptions>? server = null, Action<TunnelClientOptions>? client = null, Action<KestrelServerOptions>? kestrel = null, Action<WebApplicationBuilder>? extend = null)
    {
        var host = await TunnelHost.StartAsync(server, kestrel);
        return new TunnelPair(host, await host.ConnectAsync(client));
    }

    /// <summary>Opens a port that leads to a loopback target, and gives its number.</summary>
    public Task<int> ForwardAsync(int targetPort) => Client.ForwardAsync(targetPort);

    public async ValueTask DisposeAsync()
    {
        await Client.DisposeAsync();
        await Host.DisposeAsync();
    }
}

public static class TunnelClientExtensions
{
    /// <summary>Opens a port that leads to a loopback target, and gives its number.</summary>
    public static async Task<int> ForwardAsync(this TunnelClient client, int targetPort)
    {
        var port = FreePorts.Next();
        await client.ListenAsync(new ForwardRule(port, new ForwardTarget(TargetScheme.Tcp, "127.0.0.1", targetPort))).WaitAsync(TestTimeouts.Step);
        return port;
    }
}
