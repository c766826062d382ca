using Akka.Actor;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.FileProviders;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using VTunnel.Bridge.Relay;
using VTunnel.Bridge.State;

namespace VTunnel.Hosting;

/// <summary>A relay inside an ASP.NET Core application: what <c>vtunnel relay</c> is.</summary>
public static class RelayHostingExtensions
{
    /// <summary>Adds a relay with this state; the store stays the caller's. Use it with <see cref="UseVTunnelRelay"/>.</summary>
    public static TBuilder AddVTunnelRelay<TBuilder>(this TBuilder builder, RelayStore store, RelayOptions? options = null)
        where TBuilder : IHostApplicationBuilder
    {
        ArgumentNullException.ThrowIfNull(store);
        builder.Services.AddSingleton(provider => new BridgeRelay(
            store, options ?? new RelayOptions(), provider.GetService<TimeProvider>() ?? TimeProvider.System, provider.GetRequiredService<ILoggerFactory>()));
        return builder;
    }

    /// <summary>
    /// Answers every request of the application from here on: admitted ones with the relay, all others with 404 or with the
    /// files of a folder.
    /// </summary>
    /// <param name="app">The application.</param>
    /// <param name="cover">A folder with a web site to show to everybody else; null for 404.</param>
    public static void UseVTunnelRelay(this WebApplication app, string? cover = null)
    {
        ArgumentNullException.ThrowIfNull(app);
        var relay = app.Services.GetService<BridgeRelay>()
            ?? throw new InvalidOperationException("UseVTunnelRelay needs builder.AddVTunnelRelay() first.");
        var webSockets = ((IApplicationBuilder)app).New();
        webSockets.UseWebSockets(new WebSocketOptions { KeepAliveInterval = TimeSpan.Zero });
        webSockets.Run(relay.Endpoint.AcceptAsync);
        var admitted = webSockets.Build();

        var site = ((IApplicationBuilder)app).New();
        if (cover is not null)
        {
            var files = new PhysicalFileProvider(Path.GetFullPath(cover));
            site.UseDefaultFiles(new DefaultFilesOptions { FileProvider = files });
            site.UseStaticFiles(new StaticFileOptions { FileProvider = files });
        }

        site.Run(static context =>
        {
            context.Response.StatusCode = StatusCodes.Status404NotFound;
            return Task.CompletedTask;
        });
        var otherwise = site.Build();
        // A connection that was upgraded would hold up the end of the host.
        app.Lifetime.ApplicationStopping.Register(relay.Stop);
        app.Run(context => relay.Endpoint.HandleAsync(context, admitted, otherwise));
    }
}

/// <summary>A relay, running.</summary>
public sealed class BridgeRelay : IAsyncDisposable
{
    private readonly ActorSystem _system;
    private readonly IActorRef _actor;

    internal BridgeRelay(RelayStore store, RelayOptions options, TimeProvider clock, ILoggerFactory loggers)
    {
        var logger = loggers.CreateLogger("VTunnel.Relay");
        _system = EngineConfiguration.CreateSystem("vtunnel-relay", loggers);
        _actor = _system.ActorOf(RelayActor.Props(store, options, logger), "relay");
        Endpoint = new RelayEndpoint(store, options, clock, _actor, logger);
    }

    internal RelayEndpoint Endpoint { get; }

    /// <summary>Who is connected now.</summary>
    public Task<RelayStatus> GetStatusAsync() => _actor.Ask<RelayStatus>(RelayProtocol.GetStatus.Instance, TimeSpan.FromSeconds(5));

    /// <summary>Begins to cut every connection.</summary>
    internal void Stop() => _ = _system.Terminate();

    /// <summary>Cuts every connection.</summary>
    public async ValueTask DisposeAsync()
    {
        _ = _system.Terminate();
        await _system.WhenTerminated.ConfigureAwait(false);
        Endpoint.Dispose();
    }
}
