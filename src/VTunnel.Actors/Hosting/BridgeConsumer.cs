using System.Security.Cryptography.X509Certificates;
using Akka.Actor;
using Microsoft.Extensions.Logging;
using VTunnel.Bridge;
using VTunnel.Bridge.Consuming;
using VTunnel.Bridge.State;
using VTunnel.Bridge.Wire;
using VTunnel.Diagnostics;
using VTunnel.Options;
using VTunnel.Protocol.Bridge;

namespace VTunnel.Hosting;

/// <summary>The consuming side of a bridge, running: what <c>vtunnel connect</c> is. All members are thread-safe.</summary>
public sealed class BridgeConsumer : IAsyncDisposable
{
    private static readonly TimeSpan AskTimeout = TimeSpan.FromSeconds(30);

    private readonly ActorSystem _system;
    private readonly IActorRef _actor;
    private readonly RelayDialer _dialer;
    private readonly X509Certificate2 _user;
    private readonly TimeSpan _drain;
    private int _isDisposed;

    private BridgeConsumer(ActorSystem system, IActorRef actor, RelayDialer dialer, X509Certificate2 user, TimeSpan drain)
    {
        _system = system;
        _actor = actor;
        _dialer = dialer;
        _user = user;
        _drain = drain;
    }

    /// <summary>Makes the consumer of a context; nothing is opened yet.</summary>
    /// <param name="state">Where the context is.</param>
    /// <param name="context">Its name.</param>
    /// <param name="portOverrides">Local ports to open under another number: from the publisher's to yours.</param>
    /// <param name="options">How it behaves; null for the defaults.</param>
    /// <param name="loggers">Where to log; null for nowhere.</param>
    /// <param name="clock">Null for the system's.</param>
    /// <exception cref="BridgeException">The context cannot be used.</exception>
    public static BridgeConsumer Create(
        StateDirectory state,
        string context,
        IReadOnlyDictionary<int, int>? portOverrides = null,
        BridgeSessionOptions? options = null,
        ILoggerFactory? loggers = null,
        TimeProvider? clock = null)
    {
        ArgumentNullException.ThrowIfNull(state);
        options ??= new BridgeSessionOptions();
        clock ??= TimeProvider.System;
        var logger = loggers?.CreateLogger("VTunnel.Consumer") ?? Microsoft.Extensions.Logging.Abstractions.NullLogger.Instance;
        var known = state.Load(context);
        var user = state.LoadUser(context);
        var dialer = new RelayDialer(state.Relay(context), known.Publisher, user, TimeSpan.FromSeconds(15), clock);
        var parts = new ConsumerParts(
            known.User!,
            user,
            known.Publisher,
            known.PublisherName,
            known.Grants ?? [],
            portOverrides ?? new Dictionary<int, int>(),
            dialer,
            options,
            grants => state.SaveGrants(context, grants),
            TunnelMetrics.Shared,
            clock,
            Random.Shared.NextDouble,
            logger);
        var system = EngineConfiguration.CreateSystem("vtunnel-consumer", loggers);
        return new BridgeConsumer(system, system.ActorOf(ConsumerActor.Props(parts), "consumer"), dialer, user, options.DrainTimeout);
    }

    /// <summary>Makes a consumer that opens no ports and keeps nothing: only to find out whether there is a way to the publisher.</summary>
    /// <exception cref="BridgeException">The context cannot be used.</exception>
    public static BridgeConsumer CreateProbe(StateDirectory state, string context)
    {
        ArgumentNullException.ThrowIfNull(state);
        var known = state.Load(context);
        var user = state.LoadUser(context);
        var dialer = new RelayDialer(state.Relay(context), known.Publisher, user, TimeSpan.FromSeconds(15), TimeProvider.System);
        var options = new BridgeSessionOptions();
        var parts = new ConsumerParts(
            known.User!,
            user,
            known.Publisher,
            known.PublisherName,
            [],
            new Dictionary<int, int>(),
            dialer,
            options,
            null,
            TunnelMetrics.Shared,
            TimeProvider.System,
            Random.Shared.NextDouble,
            Microsoft.Extensions.Logging.Abstractions.NullLogger.Instance) { OpensPorts = false };
        var system = EngineConfiguration.CreateSystem("vtunnel-consumer", null);
        return new BridgeConsumer(system, system.ActorOf(ConsumerActor.Props(parts), "consumer"), dialer, user, TimeSpan.Zero);
    }

    /// <summary>Completes when a first probe has passed, or a first attempt has failed.</summary>
    public Task<ConsumerState> WaitForProbeAsync(CancellationToken cancellationToken) =>
        _actor.Ask<ConsumerState>(ConsumerProtocol.WaitForProbe.Instance, Timeout.InfiniteTimeSpan, cancellationToken);

    /// <summary>Opens the local ports, all or none, and begins to connect.</summary>
    /// <returns>The ports; those that could not be opened have a problem, and then nothing was started.</returns>
    public async Task<IReadOnlyList<LocalPortState>> StartAsync() =>
        await _actor.Ask<object>(ConsumerProtocol.Start.Instance, AskTimeout).ConfigureAwait(false) switch
        {
            ConsumerProtocol.Started started => started.Ports,
            ConsumerProtocol.PortsInUse failed => failed.Failed,
            var other => throw new InvalidOperationException($"{other} is no answer to a start."),
        };

    /// <summary>Completes when the consumer is over for good: with the publisher's reason if it is not admitted (any more), else with null.</summary>
    public async Task<string?> WaitForEndAsync(CancellationToken cancellationToken) =>
        (await _actor.Ask<ConsumerProtocol.Ended>(ConsumerProtocol.WaitForEnd.Instance, Timeout.InfiniteTimeSpan, cancellationToken).ConfigureAwait(false)).NotAdmitted;

    /// <summary>How it is.</summary>
    /// <param name="probe">Whether to ask the publisher first.</param>
    public Task<ConsumerState> GetStateAsync(bool probe = true) => _actor.Ask<ConsumerState>(new ConsumerProtocol.GetState(probe), AskTimeout);

    /// <summary>Has the publisher connect to a target; null if it could, else why not.</summary>
    public async Task<string?> CheckAsync(BridgeGrant grant) =>
        (await _actor.Ask<ConsumerProtocol.Checked>(new ConsumerProtocol.Check(grant), AskTimeout).ConfigureAwait(false)).Problem;

    /// <summary>Lets streams finish for <see cref="BridgeSessionOptions.DrainTimeout"/>, then ends everything.</summary>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _isDisposed, 1) != 0)
            return;
        try
        {
            await _actor.Ask<ConsumerProtocol.Ended>(ConsumerProtocol.Stop.Instance, _drain + TimeSpan.FromSeconds(5)).ConfigureAwait(false);
        }
        catch (AskTimeoutException)
        {
            // What does not end is cut by the end of the actor system.
        }

        await _system.Terminate().ConfigureAwait(false);
        _dialer.Dispose();
        _user.Dispose();
    }
}
