using System.Net;
using System.Net.Sockets;
using Akka.Actor;
using Microsoft.Extensions.Logging;
using VTunnel.Diagnostics;
using VTunnel.Endpoints;

namespace VTunnel.Listeners;

/// <summary>What a port listener tells its parent.</summary>
public static class ListenerProtocol
{
    /// <summary>The port is open.</summary>
    public sealed record Listening(int Port);

    /// <summary>The port could not be opened; the listener stops.</summary>
    public sealed record ListenFailed(int Port, string Reason);

    /// <summary>A visitor came; the receiver owns the socket. Disposing the message is for those who find no receiver.</summary>
    public sealed record VisitorAccepted(int Port, Socket Socket) : IDisposable
    {
        /// <summary>Closes the visitor's connection.</summary>
        public void Dispose() => Socket.Dispose();
    }
}

/// <summary>One listened port: owns the listening socket and accepts visitors. A port in use is tried again with backoff.</summary>
internal sealed class PortListenerActor : UntypedActor, IWithTimers
{
    private const int Backlog = 512;
    private static readonly TimeSpan FirstRetry = TimeSpan.FromMilliseconds(50);
    private static readonly TimeSpan MaxRetry = TimeSpan.FromMilliseconds(800);
    private static readonly TimeSpan AcceptRetry = TimeSpan.FromMilliseconds(100);

    private readonly IPAddress _address;
    private readonly int _port;
    private readonly TimeSpan _retryTimeout;
    private readonly ILogger _logger;
    private readonly CancellationTokenSource _stopping = new();

    private Socket? _socket;
    private TimeSpan _nextRetry = FirstRetry;
    private TimeSpan _waited;

    public PortListenerActor(IPAddress address, int port, TimeSpan retryTimeout, ILogger logger)
    {
        _address = address;
        _port = port;
        _retryTimeout = retryTimeout;
        _logger = logger;
    }

    public ITimerScheduler Timers { get; set; } = null!;

    /// <param name="address">Where to listen.</param>
    /// <param name="port">1 to 65535.</param>
    /// <param name="retryTimeout">How long a port in use is tried again.</param>
    /// <param name="logger">For what goes wrong while accepting.</param>
    public static Props Props(IPAddress address, int port, TimeSpan retryTimeout, ILogger logger) =>
        Akka.Actor.Props.Create(() => new PortListenerActor(address, port, retryTimeout, logger));

    private sealed record TryListen
    {
        public static readonly TryListen Instance = new();
    }

    private sealed record AcceptNext
    {
        public static readonly AcceptNext Instance = new();
    }

    private sealed record Accepted(Socket Socket) : IDisposable
    {
        public void Dispose() => Socket.Dispose();
    }

    private sealed record AcceptFailed(Exception Cause);

    protected override void PreStart() => Listen();

    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case TryListen:
                Listen();
                break;
            case AcceptNext:
                Accept();
                break;
            case Accepted accepted:
                Context.Parent.Tell(new ListenerProtocol.VisitorAccepted(_port, accepted.Socket));
                Accept();
                break;
            case AcceptFailed failed:
                // Out of file descriptors, or a visitor who left at once: the port stays open.
                _logger.AcceptFailed(_port, OpenFiles.Explain(failed.Cause));
                Timers.StartSingleTimer("accept", AcceptNext.Instance, AcceptRetry);
                break;
            default:
                Unhandled(message);
                break;
        }
    }

    private void Listen()
    {
        Socket? socket = null;
        try
        {
            socket = new Socket(_address.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
            socket.Bind(new IPEndPoint(_address, _port));
            SocketSettings.ApplyToListener(socket);
            socket.Listen(Backlog);
        }
        catch (SocketException e)
        {
            socket?.Dispose();
            if (e.SocketErrorCode == SocketError.AddressAlreadyInUse && _waited < _retryTimeout)
            {
                _waited += _nextRetry;
                Timers.StartSingleTimer("listen", TryListen.Instance, _nextRetry);
                _nextRetry = _nextRetry * 2 < MaxRetry ? _nextRetry * 2 : MaxRetry;
                return;
            }

            Context.Parent.Tell(new ListenerProtocol.ListenFailed(_port, Explain(e)));
            Context.Stop(Self);
            return;
        }

        _socket = socket;
        Context.Parent.Tell(new ListenerProtocol.Listening(_port));
        Accept();
    }

    private string Explain(SocketException e) => e.SocketErrorCode switch
    {
        SocketError.AddressAlreadyInUse => $"port {_port} on {_address} is in use, by another program or by this server itself",
        SocketError.AccessDenied => $"the server may not open port {_port}: ports below 1024 need a privilege",
        SocketError.AddressNotAvailable => $"the server has no address {_address}",
        _ => $"cannot listen on {_address}:{_port}: {e.Message}",
    };

    private void Accept() =>
        _ = _socket!.AcceptAsync(_stopping.Token).AsTask().PipeTo(Self, success: socket => new Accepted(socket), failure: e => new AcceptFailed(e));

    protected override void PostStop()
    {
        _stopping.Cancel();
        _socket?.Dispose();
        _stopping.Dispose();
    }
}
