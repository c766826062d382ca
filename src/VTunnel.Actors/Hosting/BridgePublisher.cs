using Akka.Actor;
using Microsoft.Extensions.Logging;
using VTunnel.Bridge.Publishing;
using VTunnel.Bridge.State;
using VTunnel.Bridge.Wire;
using VTunnel.Diagnostics;
using VTunnel.Options;
using VTunnel.Targets;

namespace VTunnel.Hosting;

/// <summary>The publishing side of a bridge, running: what <c>vtunnel serve</c> is. All members are thread-safe.</summary>
public sealed class BridgePublisher : IAsyncDisposable
{
    private static readonly TimeSpan AskTimeout = TimeSpan.FromSeconds(5);

    private readonly ActorSystem _system;
    private readonly IActorRef _actor;
    private readonly PublisherParts _parts;
    private readonly TargetDialer _targets;
    private int _isDisposed;

    private BridgePublisher(ActorSystem system, IActorRef actor, PublisherParts parts, TargetDialer targets)
    {
        _system = system;
        _actor = actor;
        _parts = parts;
        _targets = targets;
    }

    /// <summary>Starts the publisher of a context.</summary>
    /// <exception cref="VTunnel.Bridge.BridgeException">Its state cannot be used.</exception>
    public static BridgePublisher Start(
        StateDirectory state, string context, BridgeSessionOptions? options = null, ILoggerFactory? loggers = null, TimeProvider? clock = null)
    {
        ArgumentNullException.ThrowIfNull(state);
        options ??= new BridgeSessionOptions();
        clock ??= TimeProvider.System;
        var logger = loggers?.CreateLogger("VTunnel.Publisher") ?? Microsoft.Extensions.Logging.Abstractions.NullLogger.Instance;
        var identity = state.LoadPublisher(context);
        var dialer = new RelayDialer(state.Relay(context), identity.Fingerprint, identity.Certificate, TimeSpan.FromSeconds(15), clock)
        {
            ControlKeepAlive = options.KeepAliveInterval,
        };
        var targets = new TargetDialer(options.TargetConnectTimeout, new TlsTrustOptions(), loggers);
        var parts = new PublisherParts(
            identity, state.OpenPublisherStore(context), dialer, targets, options, TunnelMetrics.Shared, clock, Random.Shared.NextDouble, logger);
        var system = EngineConfiguration.CreateSystem("vtunnel-publisher", loggers);
        return new BridgePublisher(system, system.ActorOf(PublisherActor.Props(parts), "publisher"), parts, targets);
    }

    /// <summary>How it is.</summary>
    public Task<PublisherState> GetStateAsync() => _actor.Ask<PublisherState>(PublisherProtocol.GetState.Instance, AskTimeout);

    /// <summary>Lets streams finish for <see cref="BridgeSessionOptions.DrainTimeout"/>, then ends everything.</summary>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _isDisposed, 1) != 0)
            return;
        try
        {
            await _actor.Ask<PublisherProtocol.Stopped>(PublisherProtocol.Stop.Instance, _parts.Options.DrainTimeout + AskTimeout).ConfigureAwait(false);
        }
        catch (AskTimeoutException)
        {
            // What does not end is cut by the end of the actor system.
        }

        await _system.Terminate().ConfigureAwait(false);
        await _targets.DisposeAsync().ConfigureAwait(false);
        _parts.Dialer.Dispose();
        _parts.Store.Dispose();
        _parts.Identity.Dispose();
    }
}
