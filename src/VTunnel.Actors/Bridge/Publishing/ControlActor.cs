using System.Net.WebSockets;
using Akka.Actor;
using Microsoft.Extensions.Logging;
using VTunnel.Bridge.Identity;
using VTunnel.Bridge.Relay;
using VTunnel.Bridge.Wire;
using VTunnel.Diagnostics;
using VTunnel.Options;

namespace VTunnel.Bridge.Publishing;

/// <summary>What a publisher's control connection tells its parent.</summary>
internal static class ControlProtocol
{
    /// <summary>The relay can reach the publisher.</summary>
    public sealed record Up
    {
        public static readonly Up Instance = new();
    }

    /// <summary>It cannot, and why; there will be another attempt.</summary>
    public sealed record Down(string Reason);

    /// <summary>A consumer waits at the relay.</summary>
    /// <param name="Stream">What to answer with.</param>
    /// <param name="Remote">Where it dialled from.</param>
    /// <param name="User">The fingerprint of whom the relay takes it for; null if it does not say.</param>
    public sealed record Incoming(string Stream, string Remote, string? User);
}

/// <summary>Stays connected with the relay, and hears from it which consumers wait. It dials from its start to its end.</summary>
internal sealed class ControlActor : UntypedActor, IWithTimers
{
    private static readonly TimeSpan StableAfter = TimeSpan.FromSeconds(10);

    private readonly RelayDialer _dialer;
    private readonly BridgeSessionOptions _options;
    private readonly Func<double> _random;
    private readonly ILogger _logger;
    private readonly CancellationTokenSource _stopping = new();
    private WebSocket? _socket;
    private int _failures;

    public ControlActor(RelayDialer dialer, BridgeSessionOptions options, Func<double> random, ILogger logger)
    {
        _dialer = dialer;
        _options = options;
        _random = random;
        _logger = logger;
    }

    public ITimerScheduler Timers { get; set; } = null!;

    /// <param name="dialer">Dials the relay.</param>
    /// <param name="options">How long to wait between attempts.</param>
    /// <param name="random">From 0 (included) to 1, for jitter.</param>
    /// <param name="logger">For log lines.</param>
    public static Props Props(RelayDialer dialer, BridgeSessionOptions options, Func<double> random, ILogger logger) =>
        Akka.Actor.Props.Create(() => new ControlActor(dialer, options, random, logger));

    private sealed record DialAgain
    {
        public static readonly DialAgain Instance = new();
    }

    private sealed record Stable
    {
        public static readonly Stable Instance = new();
    }

    private sealed record Connected(WebSocket Socket) : IDisposable
    {
        public void Dispose() => Socket.Dispose();
    }

    private sealed record Lost(string Reason);

    protected override void PreStart() => Dial();

    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case DialAgain:
                Dial();
                break;
            case Connected connected:
                OnConnected(connected.Socket);
                break;
            case Lost lost:
                OnLost(lost.Reason);
                break;
            case Stable:
                _failures = 0;
                break;
            default:
                Unhandled(message);
                break;
        }
    }

    private void Dial() =>
        _ = ConnectAsync(_dialer, _stopping.Token).PipeTo(Self, success: socket => new Connected(socket), failure: e => new Lost(e.Message));

    private static async Task<WebSocket> ConnectAsync(RelayDialer dialer, CancellationToken cancellationToken)
    {
        var socket = await dialer.DialAsync(AdmissionKind.Publish, null, cancellationToken).ConfigureAwait(false);
        if (!cancellationToken.IsCancellationRequested)
            return socket;
        socket.Dispose();
        throw new OperationCanceledException(cancellationToken);
    }

    private void OnConnected(WebSocket socket)
    {
        _socket = socket;
        Timers.StartSingleTimer("stable", Stable.Instance, StableAfter);
        _logger.PublisherConnected(_dialer.Name);
        Context.Parent.Tell(ControlProtocol.Up.Instance);
        _ = ListenAsync(socket, Context.Parent).PipeTo(Self, success: reason => new Lost(reason), failure: e => new Lost(e.GetBaseException().Message));
    }

    private void OnLost(string reason)
    {
        _socket?.Dispose();
        _socket = null;
        Timers.Cancel("stable");
        var delay = _options.ReconnectDelay(_failures++, _random());
        _logger.PublisherRetry(_dialer.Name, reason, delay);
        Context.Parent.Tell(new ControlProtocol.Down(reason));
        Timers.StartSingleTimer("dial", DialAgain.Instance, delay);
    }

    /// <summary>Reads what the relay says until the connection ends; gives the reason of the end.</summary>
    private static async Task<string> ListenAsync(WebSocket socket, IActorRef parent)
    {
        var buffer = new byte[RelayMessages.MaxBytes];
        var length = 0;
        while (true)
        {
            var received = await socket.ReceiveAsync(buffer.AsMemory(length), CancellationToken.None).ConfigureAwait(false);
            if (received.MessageType == WebSocketMessageType.Close)
                return socket.CloseStatusDescription is { Length: > 0 } reason ? $"the relay says: {reason}" : "the relay closed the connection";
            length += received.Count;
            if (!received.EndOfMessage)
            {
                if (length == buffer.Length)
                    return $"the relay sent a message of more than {buffer.Length} bytes";
                continue;
            }

            if (RelayMessages.Read(buffer.AsSpan(0, length)) is { Type: "incoming", Stream: { Length: > 0 and <= 64 } stream } message)
                parent.Tell(new ControlProtocol.Incoming(stream, Printable(message.Remote), message.User is { Length: > 0 and <= 64 } user ? user : null));
            length = 0;
        }
    }

    private static string Printable(string? remote) => remote is null ? "unknown" : string.Concat(remote.Take(100).Select(c => char.IsControl(c) ? '?' : c));

    protected override void PostStop()
    {
        _stopping.Cancel();
        _stopping.Dispose();
        _socket?.Dispose();
    }
}
