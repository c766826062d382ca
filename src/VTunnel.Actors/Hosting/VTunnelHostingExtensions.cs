using System.Diagnostics.Metrics;
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
using VTunnel.Diagnostics;
using VTunnel.Extensions;
using VTunnel.Proxy;
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
        AddMetrics(services);
        ActorParts(builder).Engine.Add((akka, provider) => akka.WithActors((system, registry) =>
        {
            var options = provider.GetRequiredService<IOptions<TunnelServerOptions>>().Value;
            var loggerFactory = provider.GetRequiredService<ILoggerFactory>();
            var server = system.ActorOf(
                TunnelServerActor.Props(
                    options,
                    ExtensionsFrom(provider, registry),
                    provider.GetRequiredService<TunnelMetrics>(),
                    loggerFactory.CreateLogger("VTunnel.Server"),
                    options.Proxy is { } proxy ? HttpProxyActor.Props(proxy, options.ResumeWindow, loggerFactory, TimeProvider.System) : null),
                "tunnel-server");
            registry.Register<TunnelServerActor>(server);
        }));
        services.AddHostedService<TunnelServerDrain>();
        services.TryAddSingleton<VTunnelProxy>();
        services.AddHostedService(provider => provider.GetRequiredService<VTunnelProxy>());
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
        AddMetrics(services);
        ActorParts(builder);
        services.TryAddSingleton(provider => TunnelClient.Create(
            provider.GetRequiredService<ActorSystem>(),
            provider.GetRequiredService<IOptions<TunnelClientOptions>>().Value,
            ExtensionsFrom(provider, ActorRegistry.For(provider.GetRequiredService<ActorSystem>())),
            provider.GetRequiredService<ILoggerFactory>(),
            provider.GetRequiredService<TunnelMetrics>()));
        services.AddHostedService<TunnelClientRunner>();
        return builder;
    }

    /// <summary>
    /// Configures the actor system that the tunnel runs in: add actors, subscribe them to <see cref="TunnelEvents"/>. Actions
    /// run in the order of the calls, and all of them before the tunnel's own actors start, wherever the call stands.
    /// </summary>
    public static TBuilder ConfigureVTunnelActors<TBuilder>(this TBuilder builder, Action<AkkaConfigurationBuilder, IServiceProvider> configure)
        where TBuilder : IHostApplicationBuilder
    {
        ArgumentNullException.ThrowIfNull(configure);
        ActorParts(builder).Added.Add(configure);
        return builder;
    }

    /// <summary>
    /// Adds an actor beside the tunnel's, e.g. one that subscribes to <see cref="TunnelEvents"/>. It runs before the tunnel
    /// does, so it misses nothing.
    /// </summary>
    /// <param name="builder">The application.</param>
    /// <param name="name">Unique, in kebab case: the actor is <c>/user/NAME</c>.</param>
    /// <param name="actor">How to make it.</param>
    public static TBuilder AddVTunnelActor<TBuilder>(this TBuilder builder, string name, Func<IServiceProvider, Props> actor)
        where TBuilder : IHostApplicationBuilder
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        ArgumentNullException.ThrowIfNull(actor);
        return builder.ConfigureVTunnelActors((akka, provider) => akka.WithActors((system, _) => system.ActorOf(actor(provider), name)));
    }

    /// <summary>
    /// Adds an actor that decides on listens and connects: it is asked what <see cref="AuthorizationProtocol"/> says, and its
    /// silence denies. There can be one.
    /// </summary>
    /// <param name="builder">The application.</param>
    /// <param name="authorizer">How to make the actor.</param>
    public static TBuilder AddVTunnelAuthorizer<TBuilder>(this TBuilder builder, Func<IServiceProvider, Props> authorizer)
        where TBuilder : IHostApplicationBuilder
    {
        ArgumentNullException.ThrowIfNull(authorizer);
        return builder.ConfigureVTunnelActors((akka, provider) => akka.WithActors((system, registry) =>
            registry.Register<TunnelAuthorizer>(system.ActorOf(authorizer(provider), "tunnel-authorizer"))));
    }

    /// <summary>
    /// Puts something into the path of every stream. The first one added is closest to the socket. The actor system is
    /// there when it is made, so it may bring actors of its own.
    /// </summary>
    public static TBuilder AddVTunnelMiddleware<TBuilder>(this TBuilder builder, Func<IServiceProvider, IStreamMiddleware> middleware)
        where TBuilder : IHostApplicationBuilder
    {
        ArgumentNullException.ThrowIfNull(middleware);
        builder.Services.AddSingleton(middleware);
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

    private static void AddMetrics(IServiceCollection services)
    {
        services.AddMetrics();
        services.TryAddSingleton(provider => new TunnelMetrics(provider.GetRequiredService<IMeterFactory>()));
    }

    /// <summary>One actor system serves a server and a client of the same host.</summary>
    private static ActorSystemParts ActorParts(IHostApplicationBuilder builder)
    {
        var known = builder.Services.FirstOrDefault(service => service.ServiceType == typeof(ActorSystemParts));
        if (known?.ImplementationInstance is ActorSystemParts parts)
            return parts;

        parts = new ActorSystemParts();
        builder.Services.AddSingleton(parts);
        builder.Services.AddAkka("vtunnel", (akka, provider) =>
        {
            akka.AddHocon(EngineConfiguration.Akka, HoconAddMode.Append);
            akka.ConfigureLoggers(loggers =>
            {
                loggers.ClearLoggers();
                loggers.AddLoggerFactory();
            });
            foreach (var part in parts.Added.Concat(parts.Engine))
                part(akka, provider);
        });
        return parts;
    }

    private sealed class ActorSystemParts
    {
        public List<Action<AkkaConfigurationBuilder, IServiceProvider>> Added { get; } = [];

        public List<Action<AkkaConfigurationBuilder, IServiceProvider>> Engine { get; } = [];
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
