using Akka.Actor;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using VTunnel.Carriers;
using VTunnel.Options;
using VTunnel.Routing;
using VTunnel.Diagnostics;
using VTunnel.Extensions;
using VTunnel.Supervision;
using VTunnel.Targets;

namespace VTunnel.Hosting;

/// <summary>A tunnel client for applications. All members are thread-safe.</summary>
/// <example>
/// <code>
/// await using var client = TunnelClient.Create(new TunnelClientOptions { Server = new Uri("wss://tunnel.example.com/"), AutoReconnect = true });
/// await client.ConnectAsync();
/// await client.ListenAsync(ForwardRule.Parse("9000=localhost:3000"));
/// </code>
/// </example>
public sealed class TunnelClient : IAsyncDisposable
{
    private static readonly TimeSpan StopGrace = TimeSpan.FromSeconds(5);

    private readonly TunnelClientOptions _options;
    private readonly ActorSystem _system;
    private readonly bool _ownsSystem;
    private readonly WebSocketConnector _connector;
    private readonly TargetDialer _dialer;
    private readonly IActorRef _actor;
    private readonly TaskCompletionSource _completion = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly ILogger _logger;
    private readonly Once? _preparation;
    private TunnelExtensions _extensions;
    private readonly CancellationTokenSource _over = new();
    private TunnelConnectException? _failure;
    private int _isStopTold;
    private int _disposed;
    private volatile int _state = (int)TunnelClientState.Disconnected;

    private TunnelClient(
        ActorSystem system,
        bool ownsSystem,
        TunnelClientOptions options,
        TunnelExtensions? extensions,
        ILoggerFactory? loggerFactory,
        TunnelMetrics? metrics,
        Func<Task<TunnelExtensions>>? prepare = null)
    {
        Validate(options);
        loggerFactory ??= NullLoggerFactory.Instance;
        _options = options = options.Copy();
        _extensions = extensions ?? TunnelExtensions.None;
        if (prepare is not null)
            _preparation = new Once(async () => Volatile.Write(ref _extensions, await prepare().ConfigureAwait(false)));
        _system = system;
        _ownsSystem = ownsSystem;
        _logger = loggerFactory.CreateLogger("VTunnel.Client");
        _connector = new WebSocketConnector(options);
        _dialer = new TargetDialer(options.TargetConnectTimeout, options.TargetTls, loggerFactory);
        var observer = system.ActorOf(Props.Create(() => new ObserverActor(OnStateChanged)));
        _actor = system.ActorOf(TunnelClientActor.Props(
            options,
            _connector,
            _dialer,
            () => Volatile.Read(ref _extensions),
            metrics ?? TunnelMetrics.Shared,
            observer,
            Random.Shared.NextDouble,
            _logger));
        observer.Tell(new ObserverActor.Watch(_actor));
        _ = WatchSystemAsync();

        // Whoever does not look at Completion must not be told of it by the finaliser.
        _ = _completion.Task.ContinueWith(
            task => _ = task.Exception, CancellationToken.None, TaskContinuationOptions.OnlyOnFaulted, TaskScheduler.Default);
    }

    /// <summary>Makes a client with an actor system of its own.</summary>
    /// <param name="options">Where to dial and what to forward.</param>
    /// <param name="loggerFactory">Where to log, what Akka logs of the actor system included; null for nowhere.</param>
    /// <exception cref="OptionsValidationException">The options are invalid; every fault is named.</exception>
    public static TunnelClient Create(TunnelClientOptions options, ILoggerFactory? loggerFactory = null)
    {
        Validate(options);
        var system = EngineConfiguration.CreateSystem("vtunnel-client", loggerFactory);
        try
        {
            return new TunnelClient(system, ownsSystem: true, options, null, loggerFactory, null);
        }
        catch
        {
            // A file of trusted certificates, for example, may be unusable.
            _ = system.Terminate();
            throw;
        }
    }

    private static void Validate(TunnelClientOptions options)
    {
        var validation = new TunnelClientOptionsValidator().Validate(null, options);
        if (validation.Failed)
            throw new OptionsValidationException(nameof(TunnelClientOptions), typeof(TunnelClientOptions), validation.Failures);
    }

    /// <summary>Makes a client in an actor system that exists.</summary>
    /// <param name="system">Where its actors live; it outlives the client.</param>
    /// <param name="options">Where to dial and what to forward.</param>
    /// <param name="extensions">An authoriser and middleware; null for none.</param>
    /// <param name="loggerFactory">Where to log; null for nowhere.</param>
    /// <param name="metrics">What counts; null for the process's own meter.</param>
    /// <exception cref="OptionsValidationException">The options are invalid; every fault is named.</exception>
    public static TunnelClient Create(
        ActorSystem system,
        TunnelClientOptions options,
        TunnelExtensions? extensions = null,
        ILoggerFactory? loggerFactory = null,
        TunnelMetrics? metrics = null) =>
        new(system, ownsSystem: false, options, extensions, loggerFactory, metrics);

    /// <summary>Makes a client whose extensions are not there yet; it asks for them once, before it connects.</summary>
    internal static TunnelClient CreateHosted(
        ActorSystem system, TunnelClientOptions options, Func<Task<TunnelExtensions>> prepare, ILoggerFactory loggerFactory, TunnelMetrics metrics) =>
        new(system, ownsSystem: false, options, null, loggerFactory, metrics, prepare);

    /// <summary>Where the client is in its life.</summary>
    public TunnelClientState State => (TunnelClientState)_state;

    /// <summary>
    /// Completes when the client has stopped for good; faults with <see cref="TunnelConnectException"/> when it gave up
    /// because reconnecting is off.
    /// </summary>
    public Task Completion => _completion.Task;

    /// <summary>Raised in order, on a thread that nothing else waits for.</summary>
    public event EventHandler<TunnelClientStateChangedEventArgs>? StateChanged;

    /// <summary>Connects, and completes when the first session is up. With auto-reconnect a failed attempt is repeated until <paramref name="cancellationToken"/>; the client goes on trying after that.</summary>
    /// <exception cref="OperationCanceledException">Cancelled: before the call, then nothing is dialled; later, then only the waiting ends.</exception>
    /// <exception cref="TunnelConnectException">No connection and auto-reconnect is off.</exception>
    public async Task ConnectAsync(CancellationToken cancellationToken = default)
    {
        if (await AskAsync(TunnelClientProtocol.Connect.Instance, cancellationToken).ConfigureAwait(false) is TunnelClientProtocol.Failed failed)
            throw failed.Cause;
    }

    /// <summary>Connects without waiting.</summary>
    /// <exception cref="ObjectDisposedException">The client has been disposed of.</exception>
    public void Start()
    {
        ObjectDisposedException.ThrowIf(Volatile.Read(ref _disposed) != 0, this);

        // Nearly always done already: the host prepares the client before it starts it.
        if (PrepareAsync() is { IsCompletedSuccessfully: false } preparing)
            _ = StartAfterAsync(preparing);
        else
            _actor.Tell(TunnelClientProtocol.Connect.Instance, ActorRefs.NoSender);
    }

    /// <summary>
    /// Forwards a port of the server, now and after every reconnect. Completes when the server listens; while there is
    /// no connection, that is when there is one again.
    /// </summary>
    /// <param name="rule">What to forward; it takes the place of one of the same port.</param>
    /// <param name="cancellationToken">Ends the waiting. The forward stays, and is open sooner or later.</param>
    /// <exception cref="ArgumentException">The rule is invalid; every fault is named.</exception>
    /// <exception cref="OperationCanceledException">Cancelled; where it was before the call, nothing is forwarded.</exception>
    /// <exception cref="ListenRefusedException">The server refused; the message is its reason. With auto-reconnect it is asked again from time to time all the same.</exception>
    /// <exception cref="TunnelConnectException">The client has stopped.</exception>
    public async Task ListenAsync(ForwardRule rule, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(rule);
        var faults = TunnelClientOptionsValidator.Check(rule);
        if (faults.Count > 0)
            throw new ArgumentException(string.Join("; ", faults.Select(fault => fault.Value is null ? fault.Problem : $"{fault.Value}: {fault.Problem}")), nameof(rule));
        switch (await AskAsync(new TunnelClientProtocol.Listen(rule), cancellationToken).ConfigureAwait(false))
        {
            case TunnelClientProtocol.ListenRefused refused:
                throw new ListenRefusedException(rule, refused.Port, refused.Reason);
            case TunnelClientProtocol.Failed failed:
                throw failed.Cause;
        }
    }

    /// <summary>Whether it is connected, what it forwards, and what it carries. May be asked at any time, before it connects and after its end, too.</summary>
    /// <param name="cancellationToken">Ends the waiting.</param>
    public async Task<TunnelClientProtocol.ClientStatus> GetStatusAsync(CancellationToken cancellationToken = default)
    {
        if (!_over.IsCancellationRequested)
        {
            // An actor that is gone answers nothing.
            using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, _over.Token);
            try
            {
                return await _actor.Ask<TunnelClientProtocol.ClientStatus>(TunnelClientProtocol.GetStatus.Instance, Timeout.InfiniteTimeSpan, either.Token)
                    .ConfigureAwait(false);
            }
            catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
            {
                // It has stopped meanwhile.
            }
        }

        cancellationToken.ThrowIfCancellationRequested();
        return new TunnelClientProtocol.ClientStatus(
            TunnelClientState.Stopped, _options.Server?.GetLeftPart(UriPartial.Path) ?? "", _failure?.Message ?? "the client was stopped", [], null);
    }

    /// <summary>
    /// Lets streams finish for <see cref="TunnelClientOptions.DrainTimeout"/> at most, then ends the session and frees everything.
    /// Handlers of <see cref="StateChanged"/> have been told of the end then, unless one of them blocks.
    /// </summary>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _disposed, 1) != 0)
        {
            await _completion.Task.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            return;
        }

        if (!_over.IsCancellationRequested)
        {
            try
            {
                using var patience = CancellationTokenSource.CreateLinkedTokenSource(_over.Token);
                await _actor.Ask<TunnelClientProtocol.Stopped>(TunnelClientProtocol.Stop.Instance, _options.DrainTimeout + StopGrace, patience.Token)
                    .ConfigureAwait(false);
            }
            catch (Exception e) when (e is AskTimeoutException or OperationCanceledException)
            {
                // Streams that do not end are cut by the actor's stop; or all is over already.
            }
        }

        _system.Stop(_actor);
        await _completion.Task.WaitAsync(StopGrace).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (_ownsSystem)
            await _system.Terminate().ConfigureAwait(false);
        TellOfEnd("stopped");
        _connector.Dispose();
        await _dialer.DisposeAsync().ConfigureAwait(false);
        _completion.TrySetResult();
    }

    /// <summary>Completes when the client may connect: when its extensions are there.</summary>
    internal Task PrepareAsync() => _preparation?.RunAsync() ?? Task.CompletedTask;

    private async Task StartAfterAsync(Task preparing)
    {
        // Where it fails, the host does not start and says why.
        await preparing.ConfigureAwait(false);
        _actor.Tell(TunnelClientProtocol.Connect.Instance, ActorRefs.NoSender);
    }

    private async Task<object> AskAsync(object question, CancellationToken cancellationToken)
    {
        ObjectDisposedException.ThrowIf(Volatile.Read(ref _disposed) != 0, this);
        cancellationToken.ThrowIfCancellationRequested();
        await PrepareAsync().WaitAsync(cancellationToken).ConfigureAwait(false);

        // An actor that is gone answers nothing.
        using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, _over.Token);
        try
        {
            return await _actor.Ask<object>(question, Timeout.InfiniteTimeSpan, either.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            return new TunnelClientProtocol.Failed(_failure ?? new TunnelConnectException(ConnectError.Stopped, "the client was stopped"));
        }
    }

    /// <summary>With its actor system the observer is gone as well, maybe before it was told.</summary>
    private async Task WatchSystemAsync()
    {
        try
        {
            await _system.WhenTerminated.WaitAsync(_over.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            return;
        }

        TellOfEnd("the actor system has ended");
    }

    /// <summary>In place of the observer; where that has told it already, nothing happens.</summary>
    private void TellOfEnd(string reason)
    {
        try
        {
            OnStateChanged(new TunnelClientProtocol.StateChanged(TunnelClientState.Stopped, reason, null));
        }
        catch (Exception)
        {
            // It is a handler's, which is to harm nobody else; the supervisor of an observer would only log it.
        }
    }

    private void OnStateChanged(TunnelClientProtocol.StateChanged change)
    {
        if (change.State == TunnelClientState.Stopped)
        {
            if (Interlocked.Exchange(ref _isStopTold, 1) != 0)
                return;
            _failure = change.Failure;
        }

        _state = (int)change.State;
        if (change.State == TunnelClientState.Stopped)
            _ = _over.CancelAsync();
        try
        {
            StateChanged?.Invoke(this, new TunnelClientStateChangedEventArgs(change.State, change.Reason));
        }
        finally
        {
            if (change.State == TunnelClientState.Stopped)
            {
                if (change.Failure is { } failure)
                    _completion.TrySetException(failure);
                else
                    _completion.TrySetResult();
            }
        }
    }

    /// <summary>Runs the application's handlers, so that one that blocks or throws harms no tunnel.</summary>
    private sealed class ObserverActor(Action<TunnelClientProtocol.StateChanged> handler) : UntypedActor
    {
        /// <summary>The client's actor; its end without a word is the end of the client, too.</summary>
        public sealed record Watch(IActorRef Client);

        protected override void OnReceive(object message)
        {
            var change = message switch
            {
                TunnelClientProtocol.StateChanged told => told,
                Terminated => new TunnelClientProtocol.StateChanged(TunnelClientState.Stopped, "the client failed", null),
                _ => null,
            };
            if (change is null)
            {
                if (message is Watch watch)
                    Context.Watch(watch.Client);
                else
                    Unhandled(message);
                return;
            }

            // The last change is the last message: nothing of the client stays in a system that outlives it.
            if (change.State == TunnelClientState.Stopped)
                Context.Stop(Self);
            handler(change);
        }
    }
}

/// <summary>A client's new state.</summary>
public sealed class TunnelClientStateChangedEventArgs(TunnelClientState state, string? reason) : EventArgs
{
    /// <summary>The state.</summary>
    public TunnelClientState State { get; } = state;

    /// <summary>Why, in words, where there is a reason.</summary>
    public string? Reason { get; } = reason;
}

/// <summary>The server refused to listen.</summary>
public sealed class ListenRefusedException(ForwardRule rule, int port, string reason) : Exception(reason)
{
    /// <summary>What was asked for.</summary>
    public ForwardRule Rule { get; } = rule;

    /// <summary>The port that was asked for; above 65535 where it was a domain.</summary>
    public int Port { get; } = port;
}
