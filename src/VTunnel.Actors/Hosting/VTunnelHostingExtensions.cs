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
    private const string ServerName = "tunnel-server";
    private const string AuthorizerName = "tunnel-authorizer";

    /// <summary>
    /// Adds a tunnel server; map it with <see cref="MapVTunnel"/>. When the host stops, sessions drain for
    /// <see cref="TunnelServerOptions.DrainTimeout"/> before Kestrel closes.
    /// </summary>
    /// <param name="builder">The application.</param>
    /// <param name="configure">Sets options.</param>
    /// <exception cref="OptionsValidationException">At start, naming every invalid option.</exception>
    /// <exception cref="InvalidOperationException">The host has a tunnel server already, or an actor system of its own.</exception>
    public static TBuilder AddVTunnelServer<TBuilder>(this TBuilder builder, Action<TunnelServerOptions>? configure = null)
        where TBuilder : IHostApplicationBuilder
    {
        var services = builder.Services;
        var parts = ActorParts(builder);
        parts.Claim(ServerName, "AddVTunnelServer was called before; a host has one tunnel server.");
        services.AddOptions<TunnelServerOptions>().Configure(options => configure?.Invoke(options)).ValidateOnStart();
        services.TryAddEnumerable(ServiceDescriptor.Singleton<IValidateOptions<TunnelServerOptions>, TunnelServerOptionsValidator>());
        services.TryAddEnumerable(ServiceDescriptor.Singleton<IValidateOptions<TunnelServerOptions>, BoundOptionsRefusal<TunnelServerOptions>>());
        services.TryAddSingleton<ServerOptions>();
        services.TryAddSingleton<TunnelEndpoint>();
        services.AddRouting();
        AddMetrics(services);
        parts.Engine.Add((akka, provider) => akka.WithActors((system, registry) =>
        {
            var options = provider.GetRequiredService<ServerOptions>().Value;
            var loggerFactory = provider.GetRequiredService<ILoggerFactory>();
            var server = system.ActorOf(
                TunnelServerActor.Props(
                    options,
                    ExtensionsFrom(provider, registry, parts),
                    provider.GetRequiredService<TunnelMetrics>(),
                    loggerFactory.CreateLogger("VTunnel.Server"),
                    options.Proxy is { } proxy ? HttpProxyActor.Props(proxy, options.ResumeWindow, loggerFactory, TimeProvider.System) : null),
                ServerName);
            registry.Register<TunnelServerActor>(server);
        }));
        services.AddHostedService<TunnelServerDrain>();
        services.TryAddSingleton<VTunnelServer>();
        services.TryAddSingleton<VTunnelProxy>();
        services.AddHostedService(provider => provider.GetRequiredService<VTunnelProxy>());
        return builder;
    }

    /// <summary>
    /// Adds a tunnel server whose options stand in configuration, e.g. <c>VTunnel:Server</c> of <c>appsettings.json</c>:
    /// every property under its name, durations as <c>2s</c> or <c>00:00:02</c>, addresses as text, tokens as in a token file.
    /// </summary>
    /// <param name="builder">The application.</param>
    /// <param name="section">Where they stand. Read once, at start.</param>
    /// <param name="configure">Sets further options, after those of the section.</param>
    /// <exception cref="OptionsValidationException">At start, naming every key that is not known, every value that is not understood, and every invalid option.</exception>
    /// <exception cref="InvalidOperationException">The host has a tunnel server already, or an actor system of its own.</exception>
    public static TBuilder AddVTunnelServer<TBuilder>(this TBuilder builder, IConfiguration section, Action<TunnelServerOptions>? configure = null)
        where TBuilder : IHostApplicationBuilder
    {
        ArgumentNullException.ThrowIfNull(section);
        return builder.AddVTunnelServer(options =>
        {
            OptionSections.Read(section, options);
            configure?.Invoke(options);
        });
    }

    /// <summary>
    /// Adds a tunnel client, <see cref="TunnelClient"/>, that connects when the host has started and drains when it stops.
    /// Services of the host may connect it earlier, in their <c>StartAsync</c>.
    /// </summary>
    /// <exception cref="OptionsValidationException">At start, naming every invalid option.</exception>
    /// <exception cref="InvalidOperationException">The host has a tunnel client already, or an actor system of its own.</exception>
    public static TBuilder AddVTunnelClient<TBuilder>(this TBuilder builder, Action<TunnelClientOptions>? configure = null)
        where TBuilder : IHostApplicationBuilder
    {
        var services = builder.Services;
        var parts = ActorParts(builder);
        if (services.Any(service => service.ServiceType == typeof(TunnelClient)))
            throw new InvalidOperationException("AddVTunnelClient was called before; a host has one tunnel client. Make others with TunnelClient.Create.");
        services.AddOptions<TunnelClientOptions>().Configure(options => configure?.Invoke(options)).ValidateOnStart();
        services.TryAddEnumerable(ServiceDescriptor.Singleton<IValidateOptions<TunnelClientOptions>, TunnelClientOptionsValidator>());
        services.TryAddEnumerable(ServiceDescriptor.Singleton<IValidateOptions<TunnelClientOptions>, BoundOptionsRefusal<TunnelClientOptions>>());
        AddMetrics(services);

        // Made with the services of the host, when no actor runs yet: so it asks for extensions when it is used.
        services.AddSingleton(provider => TunnelClient.CreateHosted(
            provider.GetRequiredService<ActorSystem>(),
            provider.GetRequiredService<IOptions<TunnelClientOptions>>().Value,
            async () =>
            {
                await provider.GetRequiredService<EngineService>().StartActorsAsync().ConfigureAwait(false);
                return ExtensionsFrom(provider, ActorRegistry.For(provider.GetRequiredService<ActorSystem>()), parts);
            },
            provider.GetRequiredService<ILoggerFactory>(),
            provider.GetRequiredService<TunnelMetrics>()));
        services.AddHostedService<TunnelClientRunner>();
        return builder;
    }

    /// <summary>
    /// Adds a tunnel client whose options stand in configuration, e.g. <c>VTunnel:Client</c> of <c>appsettings.json</c>:
    /// every property under its name, durations as <c>2s</c> or <c>00:00:02</c>, forwards as <c>9000=localhost:3000</c>.
    /// </summary>
    /// <param name="builder">The application.</param>
    /// <param name="section">Where they stand. Read once, at start.</param>
    /// <param name="configure">Sets further options, after those of the section.</param>
    /// <exception cref="OptionsValidationException">At start, naming every key that is not known, every value that is not understood, and every invalid option.</exception>
    /// <exception cref="InvalidOperationException">The host has a tunnel client already, or an actor system of its own.</exception>
    public static TBuilder AddVTunnelClient<TBuilder>(this TBuilder builder, IConfiguration section, Action<TunnelClientOptions>? configure = null)
        where TBuilder : IHostApplicationBuilder
    {
        ArgumentNullException.ThrowIfNull(section);
        return builder.AddVTunnelClient(options =>
        {
            OptionSections.Read(section, options);
            configure?.Invoke(options);
        });
    }

    /// <summary>
    /// Configures the actor system that the tunnel runs in: add actors, subscribe them to <see cref="TunnelEvents"/>. Actions
    /// run in the order of the calls, and all of them before the tunnel's own actors start, wherever the call stands. The
    /// actors start before any service of the host does. It takes the place of <c>AddAkka</c>: a host has one actor system.
    /// </summary>
    /// <exception cref="InvalidOperationException">The host has an actor system of its own.</exception>
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
    /// <exception cref="ArgumentException">The name is taken, or none that an actor may have.</exception>
    public static TBuilder AddVTunnelActor<TBuilder>(this TBuilder builder, string name, Func<IServiceProvider, Props> actor)
        where TBuilder : IHostApplicationBuilder
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        ArgumentNullException.ThrowIfNull(actor);
        if (!ActorPath.IsValidPathElement(name))
            throw new ArgumentException($"'{name}' is no name for an actor; use letters, digits and hyphens, such as audit-log.", nameof(name));
        if (name is ServerName or AuthorizerName)
            throw new ArgumentException($"'{name}' is the name of an actor of the tunnel's own; use another.", nameof(name));
        if (!ActorParts(builder).Names.Add(name))
            throw new ArgumentException($"An actor '{name}' was added before; give each a name of its own.", nameof(name));
        return builder.ConfigureVTunnelActors((akka, provider) => akka.WithActors((system, _) => system.ActorOf(actor(provider), name)));
    }

    /// <summary>
    /// Adds an actor that decides on listens and connects: it is asked what <see cref="AuthorizationProtocol"/> says, and its
    /// silence denies. There can be one.
    /// </summary>
    /// <param name="builder">The application.</param>
    /// <param name="authorizer">How to make the actor.</param>
    /// <exception cref="InvalidOperationException">There is an authoriser already.</exception>
    public static TBuilder AddVTunnelAuthorizer<TBuilder>(this TBuilder builder, Func<IServiceProvider, Props> authorizer)
        where TBuilder : IHostApplicationBuilder
    {
        ArgumentNullException.ThrowIfNull(authorizer);
        ActorParts(builder).Claim(AuthorizerName, "AddVTunnelAuthorizer was called before; there can be one authoriser, which may ask others.");
        return builder.ConfigureVTunnelActors((akka, provider) => akka.WithActors((system, registry) =>
            registry.Register<TunnelAuthorizer>(system.ActorOf(authorizer(provider), AuthorizerName))));
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

    private static TunnelExtensions ExtensionsFrom(IServiceProvider provider, IActorRegistry registry, ActorSystemParts parts)
    {
        var isThere = registry.TryGet<TunnelAuthorizer>(out var authorizer);

        // Without the authoriser that somebody relies on, everything would be allowed.
        if (!isThere && parts.Names.Contains(AuthorizerName))
            throw new InvalidOperationException("The authoriser has not started, so nothing may be connected.");
        return new TunnelExtensions(isThere ? authorizer : null, [.. provider.GetServices<IStreamMiddleware>()]);
    }

    private static void AddMetrics(IServiceCollection services)
    {
        services.AddMetrics();
        services.TryAddSingleton(provider => new TunnelMetrics(provider.GetRequiredService<IMeterFactory>()));
    }

    /// <summary>One actor system serves a server and a client of the same host.</summary>
    private static ActorSystemParts ActorParts(IHostApplicationBuilder builder)
    {
        var services = builder.Services;
        var known = services.FirstOrDefault(service => service.ServiceType == typeof(ActorSystemParts));
        if (known?.ImplementationInstance is ActorSystemParts parts)
            return parts;

        parts = new ActorSystemParts(services);
        if (parts.ActorSystems > 0)
            throw new InvalidOperationException(ActorSystemParts.OneSystem);
        services.AddSingleton(parts);
        services.AddAkka("vtunnel", (akka, provider) =>
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

        // Akka's service starts actors in its turn among the host's services; the engine's starts them before all others.
        var akkas = services.Single(service => service.ServiceType == typeof(IHostedService) && service.ImplementationType == typeof(AkkaHostedService));
        services.Remove(akkas);
        services.AddSingleton<EngineService>();
        services.AddHostedService(provider => provider.GetRequiredService<EngineService>());
        return parts;
    }
}

/// <summary>The server's options as they were at the start: whoever has the instance can set it at any time.</summary>
internal sealed class ServerOptions(IOptions<TunnelServerOptions> options)
{
    public TunnelServerOptions Value { get; } = options.Value.Copy();
}

/// <summary>
/// Refuses options that .NET's binder has read (<c>services.Configure(section)</c>, <c>BindConfiguration</c>): it leaves out what it
/// cannot read, tokens among it, and a server without tokens is open.
/// </summary>
internal sealed class BoundOptionsRefusal<TOptions>(IEnumerable<IOptionsChangeTokenSource<TOptions>> sources) : IValidateOptions<TOptions>
    where TOptions : class
{
    // Whoever binds options to a section has this registered with it.
    private readonly bool _isBound = sources.Any();

    public ValidateOptionsResult Validate(string? name, TOptions options) => _isBound
        ? ValidateOptionsResult.Fail(
            $"{typeof(TOptions).Name}: bound to configuration with .NET's binder, which leaves out what it cannot read; give the section to AddVTunnelServer or AddVTunnelClient instead")
        : ValidateOptionsResult.Success;
}

/// <summary>What the actor system of a host is made of.</summary>
internal sealed class ActorSystemParts(IServiceCollection services)
{
    public const string OneSystem =
        "The host has an actor system of its own (AddAkka), and it can have one only: add its actors to the tunnel's with builder.ConfigureVTunnelActors instead.";

    public List<Action<AkkaConfigurationBuilder, IServiceProvider>> Added { get; } = [];

    public List<Action<AkkaConfigurationBuilder, IServiceProvider>> Engine { get; } = [];

    /// <summary>The names below <c>/user</c> that are taken.</summary>
    public HashSet<string> Names { get; } = new(StringComparer.Ordinal);

    /// <summary>How many there are in the host; it may have been added to since.</summary>
    public int ActorSystems => services.Count(service => service.ServiceType == typeof(ActorSystem));

    public void Claim(string name, string otherwise)
    {
        if (!Names.Add(name))
            throw new InvalidOperationException(otherwise);
    }
}

/// <summary>
/// Starts the actors of a host before its services, so that none of these can connect while extensions are not there yet, and
/// ends them in the order of the services.
/// </summary>
internal sealed class EngineService : IHostedLifecycleService
{
    private readonly Lazy<AkkaHostedService> _akka;
    private readonly Once _start;

    public EngineService(IServiceProvider provider, ActorSystemParts parts)
    {
        // The last one added would be everybody's, without the actors of the other.
        if (parts.ActorSystems != 1)
            throw new InvalidOperationException(ActorSystemParts.OneSystem);
        _akka = new Lazy<AkkaHostedService>(() => ActivatorUtilities.CreateInstance<AkkaHostedService>(provider));
        _start = new Once(() => _akka.Value.StartAsync(CancellationToken.None));
    }

    /// <summary>Completes when all actors have started; they start with the first call.</summary>
    public Task StartActorsAsync() => _start.RunAsync();

    public Task StartingAsync(CancellationToken cancellationToken) => StartActorsAsync();

    public Task StartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StartedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StoppingAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StopAsync(CancellationToken cancellationToken) =>
        _start.IsBegun ? _akka.Value.StopAsync(cancellationToken) : Task.CompletedTask;

    public Task StoppedAsync(CancellationToken cancellationToken) => Task.CompletedTask;
}

/// <summary>Lets sessions finish while Kestrel is still there.</summary>
internal sealed class TunnelServerDrain(IRequiredActor<TunnelServerActor> server, ServerOptions options) : IHostedLifecycleService
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

    public async Task StartedAsync(CancellationToken cancellationToken)
    {
        // The host fails as the extensions do.
        await client.PrepareAsync().ConfigureAwait(false);
        client.Start();
    }

    public async Task StoppingAsync(CancellationToken cancellationToken) => await client.DisposeAsync().ConfigureAwait(false);

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StoppedAsync(CancellationToken cancellationToken) => Task.CompletedTask;
}
