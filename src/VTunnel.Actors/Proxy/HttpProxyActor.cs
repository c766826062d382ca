using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using Akka.Actor;
using Microsoft.Extensions.Logging;
using VTunnel.Diagnostics;
using VTunnel.Endpoints;
using VTunnel.Options;
using VTunnel.Sessions;
using VTunnel.Web;

namespace VTunnel.Proxy;

/// <summary>The proxy: owns the listening socket, the connections and the table of routes.</summary>
public sealed class HttpProxyActor : UntypedActor, IWithTimers
{
    private const int Backlog = 512;
    private static readonly TimeSpan AcceptRetry = TimeSpan.FromMilliseconds(100);

    private readonly ProxyOptions _options;
    private readonly Func<SslStreamCertificateContext>? _certificate;
    private readonly ILogger _logger;
    private readonly ILoggerFactory _loggerFactory;
    private readonly ProxyApplication _application;
    private readonly CancellationTokenSource _stopping = new();
    private readonly HashSet<IActorRef> _connections = [];
    private readonly List<IActorRef> _askers = [];
    private object? _address;
    private Socket? _socket;
    private WebServer? _server;
    private bool _accepting;

    /// <inheritdoc cref="Props"/>
    public HttpProxyActor(ProxyOptions options, TimeSpan resumeWindow, ILoggerFactory loggerFactory, TimeProvider timeProvider)
    {
        _options = options;
        _certificate = options.CertificateSelector ?? Fixed(options);
        _loggerFactory = loggerFactory;
        _logger = loggerFactory.CreateLogger("VTunnel.Proxy");
        _application = new ProxyApplication(options, resumeWindow, loggerFactory, timeProvider);
    }

    private static Func<SslStreamCertificateContext>? Fixed(ProxyOptions options)
    {
        if (options.Certificate is not { } certificate)
            return null;
        var context = SslStreamCertificateContext.Create(certificate, options.CertificateChain, offline: true);
        return () => context;
    }

    /// <inheritdoc />
    public ITimerScheduler Timers { get; set; } = null!;

    /// <param name="options">Validated.</param>
    /// <param name="resumeWindow">How long a session may be without a connection.</param>
    /// <param name="loggerFactory">Where to log.</param>
    /// <param name="timeProvider">The clock of timeouts and certificates.</param>
    public static Props Props(ProxyOptions options, TimeSpan resumeWindow, ILoggerFactory loggerFactory, TimeProvider timeProvider) =>
        Akka.Actor.Props.Create(() => new HttpProxyActor(options, resumeWindow, loggerFactory, timeProvider));

    private sealed record ServerStarted(WebServer Server);

    private sealed record ServerFailed(Exception Cause);

    private sealed record Accepted(Socket Socket) : IDisposable
    {
        public void Dispose() => Socket.Dispose();
    }

    private sealed record AcceptFailed(Exception Cause);

    private sealed record AcceptNext
    {
        public static readonly AcceptNext Instance = new();
    }

    /// <summary>A connection that fails takes nothing with it.</summary>
    protected override SupervisorStrategy SupervisorStrategy() => new OneForOneStrategy(e =>
    {
        _logger.ChildFailed(e, "the proxy");
        return Directive.Stop;
    });

    /// <inheritdoc />
    protected override void PreStart()
    {
        try
        {
            _socket = new Socket(_options.Address.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
            if (_options.Address.Equals(IPAddress.IPv6Any))
                _socket.DualMode = true;
            _socket.Bind(new IPEndPoint(_options.Address, _options.Port));
            SocketSettings.ApplyToListener(_socket);
            _socket.Listen(Backlog);
        }
        catch (SocketException e)
        {
            Answer(new ProxyProtocol.ListenFailed(e));
            return;
        }

        _ = WebServer.StartAsync(_application, _loggerFactory, kestrel =>
        {
            kestrel.Limits.RequestHeadersTimeout = _options.HeaderTimeout;
            kestrel.Limits.KeepAliveTimeout = _options.KeepAliveTimeout;
        }).PipeTo(Self, success: server => new ServerStarted(server), failure: e => new ServerFailed(e));
    }

    /// <inheritdoc />
    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case ServerStarted started:
                _server = started.Server;
                _application.UseServer(started.Server);
                Answer(new ProxyProtocol.Listening((IPEndPoint)_socket!.LocalEndPoint!));
                Accept();
                break;
            case ServerFailed failed:
                Answer(new ProxyProtocol.ListenFailed(failed.Cause));
                break;
            case Accepted accepted:
                _accepting = false;
                _connections.Add(Context.Watch(Context.ActorOf(ProxyConnectionActor.Props(accepted.Socket, _options, _certificate, _server!, _logger))));
                Accept();
                break;
            case AcceptFailed failed:
                // Out of file descriptors, or a visitor who left at once: the port stays open.
                _accepting = false;
                if (_stopping.IsCancellationRequested)
                    break;
                _logger.AcceptFailed(_options.Port, OpenFiles.Explain(failed.Cause));
                Timers.StartSingleTimer("accept", AcceptNext.Instance, AcceptRetry);
                break;
            case AcceptNext:
                Accept();
                break;
            case Terminated terminated:
                _connections.Remove(terminated.ActorRef);
                Accept();
                break;
            case ProxyProtocol.SetRoutes set:
                _application.Use(set.Routes);
                Sender.Tell(SessionProtocol.RoutesTaken.Instance);
                break;
            case ProxyProtocol.StopAccepting:
                _stopping.Cancel();
                _socket?.Dispose();
                break;
            case ProxyProtocol.GetAddress:
                if (_address is { } known)
                    Sender.Tell(known);
                else
                    _askers.Add(Sender);
                break;
            default:
                Unhandled(message);
                break;
        }
    }

    private void Answer(object address)
    {
        _address = address;
        foreach (var asker in _askers)
            asker.Tell(address);
        _askers.Clear();
    }

    private void Accept()
    {
        if (_accepting || _stopping.IsCancellationRequested || _server is null || _connections.Count >= _options.MaxConnections)
            return;
        _accepting = true;
        _ = _socket!.AcceptAsync(_stopping.Token).AsTask().PipeTo(Self, success: socket => new Accepted(socket), failure: e => new AcceptFailed(e));
    }

    /// <inheritdoc />
    protected override void PostStop()
    {
        _stopping.Cancel();
        _socket?.Dispose();
        _stopping.Dispose();
        _ = EndAsync(_server, _application, _logger);
    }

    private static async Task EndAsync(WebServer? server, ProxyApplication application, ILogger logger)
    {
        try
        {
            if (server is not null)
                await server.DisposeAsync().ConfigureAwait(false);
            application.Dispose();
        }
        catch (Exception e)
        {
            // The actor is gone, so there is nobody else to tell.
            logger.ChildFailed(e, "the proxy");
        }
    }
}
