using Akka.Actor;
using Akka.Hosting;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using VTunnel.Options;
using VTunnel.Streams;
using VTunnel.Supervision;

namespace VTunnel.Hosting;

/// <summary>Adds a tunnel server or client to a host.</summary>
public static class VTunnelHostingExtensions
{
    /// <summary>
    /// Adds a tunnel server; map it with <see cref="MapVTunnel"/>. When the host stops, sessions drain for
    /// <see cref="TunnelServerOptions.DrainTimeout"/> before Kestrel closes.
    /// </summary>
    /// <param name="builder">The application.</param>
    /// <param name="configure">Applied after the configuration section <see cref="TunnelServerOptions.SectionName"/> of whoever bound it.</param>
    /// <exception cref="OptionsValidationException">At start, naming every invalid option.</exception>
    public static TBuilder AddVTunnelServer<TBuilder>(this TBuilder builder, Action<TunnelServerOptions>? configure = null)
        where TBuilder : IHostApplicationBuilder
    {
        var services = builder.Services;
        services.AddOptions<TunnelServerOptions>().Configure(options => configure?.Invoke(options)).ValidateOnStart();
        services.TryAddEnumerable(ServiceDescriptor.Singleton<IValidateOptions<TunnelServerOptions>, TunnelServerOptionsValidator>());
        services.TryAddSingleton<TunnelEndpoint>();
        services.AddRouting();
        builder.ConfigureVTunnelActors((akka, provider) => akka.WithActors((system, registry) =>
        {
            var server = system.ActorOf(
                TunnelServerActor.Props(
                    provider.GetRequiredService<IOptions<TunnelServerOptions>>().Value,
                    ExtensionsFrom(provider, registry),
                    provider.GetRequiredService<ILoggerFactory>().CreateLogger("VTunnel.Server")),
                "tunnel-server");
            registry.Register<TunnelServerActor>(server);
        }));
        services.AddHostedService<TunnelServerDrain>();
        return builder;
    }

    /// <summary>
    /// Adds a tunnel client, <see cref="TunnelClient"/>, that connects when the host has started and drains when it stops.
    /// </summary>
    public static TBuilder AddVTunnelClient<TBuilder>(this TBuilder builder, Action<TunnelClientOptions>? configure = null)
        where TBuilder : IHostApplicationBuilder
    {
        var services = builder.Services;
        services.AddOptions<TunnelClientOptions>().Configure(options => configure?.Invoke(options)).ValidateOnStart();
        services.TryAddEnumerable(ServiceDescriptor.Singleton<IValidateOptions<TunnelClientOptions>, TunnelClientOptionsValidator>());
        builder.ConfigureVTunnelActors((_, _) => { });
        services.TryAddSingleton(provider => TunnelClient.Create(
            provider.GetRequiredService<ActorSystem>(),
            provider.GetRequiredService<IOptions<TunnelClientOptions>>().Value,
            ExtensionsFrom(provider, ActorRegistry.For(provider.GetRequiredService<ActorSystem>())),
            provider.GetRequiredService<ILoggerFactory>()));
        services.AddHostedService<TunnelClientRunner>();
        return builder;
    }

    /// <summary>
    /// Configures the actor system that the tunnel runs in: add actors, subscribe to <see cref="Diagnostics.TunnelEvents"/>,
    /// register an authoriser under <see cref="TunnelAuthorizer"/>. Actions run in the order of the calls, before the
    /// tunnel's own actors start if they were added before them.
    /// </summary>
    public static TBuilder ConfigureVTunnelActors<TBuilder>(this TBuilder builder, Action<AkkaConfigurationBuilder, IServiceProvider> configure)
        where TBuilder : IHostApplicationBuilder
    {
        var known = builder.Services.FirstOrDefault(service => service.ServiceType == typeof(ActorSystemParts));
        if (known?.ImplementationInstance is ActorSystemParts parts)
        {
            parts.Configure.Add(configure);
            return builder;
        }

        parts = new ActorSystemParts();
        parts.Configure.Add(configure);
        builder.Services.AddSingleton(parts);
        builder.Services.AddAkka("vtunnel", (akka, provider) =>
        {
            akka.AddHocon(EngineConfiguration.Akka, HoconAddMode.Append);
            akka.ConfigureLoggers(loggers =>
            {
                loggers.ClearLoggers();
                loggers.AddLoggerFactory();
            });
            foreach (var part in parts.Configure)
                part(akka, provider);
        });
        return builder;
    }

    /// <summary>Maps the endpoint that clients dial. The WebSocket middleware is part of it.</summary>
    /// <param name="endpoints">Where to map it.</param>
    /// <param name="pattern">The path, e.g. <c>/tunnel</c>.</param>
    public static IEndpointConventionBuilder MapVTunnel(this IEndpointRouteBuilder endpoints, string pattern = "/")
    {
        ArgumentNullException.ThrowIfNull(endpoints);
        var endpoint = endpoints.ServiceProvider.GetService<TunnelEndpoint>()
            ?? throw new InvalidOperationException("MapVTunnel needs builder.AddVTunnelServer() first.");
        var pipeline = endpoints.CreateApplicationBuilder();
        pipeline.Use(next => context => endpoint.GuardAsync(context, next));
        pipeline.UseWebSockets(new WebSocketOptions { KeepAliveInterval = TimeSpan.Zero });
        pipeline.Run(endpoint.AcceptAsync);
        return endpoints.Map(pattern, pipeline.Build()).WithDisplayName("VTunnel");
    }

    private static TunnelExtensions ExtensionsFrom(IServiceProvider provider, IActorRegistry registry) => new(
        registry.TryGet<TunnelAuthorizer>(out var authorizer) ? authorizer : null,
        [.. provider.GetServices<IStreamMiddleware>()]);

    private sealed class ActorSystemParts
    {
        public List<Action<AkkaConfigurationBuilder, IServiceProvider>> Configure { get; } = [];
    }
}

/// <summary>The key under which an authoriser is registered: <c>registry.Register&lt;TunnelAuthorizer&gt;(actorRef)</c>.</summary>
public sealed class TunnelAuthorizer
{
    private TunnelAuthorizer()
    {
    }
}

/// <summary>Lets sessions finish while Kestrel is still there.</summary>
internal sealed class TunnelServerDrain(IRequiredActor<TunnelServerActor> server, IOptions<TunnelServerOptions> options) : IHostedLifecycleService
{
    /// <summary>What an orderly end may take beyond the drain itself.</summary>
    private static readonly TimeSpan Grace = TimeSpan.FromSeconds(5);

    public Task StartingAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StartedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public async Task StoppingAsync(CancellationToken cancellationToken)
    {
        var actor = await server.GetAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            await actor.Ask<TunnelServerProtocol.Drained>(
                TunnelServerProtocol.Drain.Instance, options.Value.DrainTimeout + Grace, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (e is AskTimeoutException or OperationCanceledException)
        {
            // The host's patience is at an end; what is left is cut when the actor system stops.
        }
    }

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StoppedAsync(CancellationToken cancellationToken) => Task.CompletedTask;
}

/// <summary>Starts the client after the host and stops it before.</summary>
internal sealed class TunnelClientRunner(TunnelClient client) : IHostedLifecycleService
{
    public Task StartingAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StartedAsync(CancellationToken cancellationToken)
    {
        client.Start();
        return Task.CompletedTask;
    }

    public async Task StoppingAsync(CancellationToken cancellationToken) => await client.DisposeAsync().ConfigureAwait(false);

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StoppedAsync(CancellationToken cancellationToken) => Task.CompletedTask;
}
