using System.Net.WebSockets;
using System.Threading.Channels;

namespace VTunnel.Bridge.Relay;

/// <summary>A WebSocket that came in by HTTP, whose request stays until the relay is through with it.</summary>
internal sealed class RelayedSocket(WebSocket socket, string remote) : IDisposable
{
    private readonly TaskCompletionSource _done = new(TaskCreationOptions.RunContinuationsAsynchronously);

    public WebSocket Socket { get; } = socket;

    public string Remote { get; } = remote;

    /// <summary>Completes when the relay is through with it.</summary>
    public Task Done => _done.Task;

    /// <summary>Breaks the connection. Idempotent.</summary>
    public void Dispose()
    {
        Socket.Abort();
        _done.TrySetResult();
    }

    /// <summary>Says why and closes; breaks the connection if the far end does not take it within a second. Never throws.</summary>
    public async Task RefuseAsync(string reason)
    {
        using var deadline = new CancellationTokenSource(TimeSpan.FromSeconds(1));
        try
        {
            await Socket.CloseOutputAsync(WebSocketCloseStatus.EndpointUnavailable, reason, deadline.Token).ConfigureAwait(false);

            // The far end reads the reason before the connection goes.
            var rest = new byte[1024];
            while ((await Socket.ReceiveAsync(rest.AsMemory(), deadline.Token).ConfigureAwait(false)).MessageType != WebSocketMessageType.Close)
            {
            }
        }
        catch (Exception e) when (e is WebSocketException or OperationCanceledException or IOException or ObjectDisposedException)
        {
            // It is gone already, or does not listen.
        }
        finally
        {
            Dispose();
        }
    }
}

/// <summary>A publisher's control connection: the relay says what happened, the publisher only shows that it lives.</summary>
internal sealed class RelayControl(RelayedSocket socket)
{
    /// <summary>What may wait for a publisher that does not read; one message more and it is given up.</summary>
    private const int MaxWaiting = 256;

    /// <summary>How long a publisher may take to go when it is told to.</summary>
    private static readonly TimeSpan Farewell = TimeSpan.FromSeconds(1);

    private readonly Channel<byte[]> _outgoing = Channel.CreateBounded<byte[]>(MaxWaiting);
    private string? _farewell;

    public RelayedSocket Socket { get; } = socket;

    /// <summary>Queues a message; false where the publisher is not to be reached.</summary>
    public bool TrySend(byte[] json)
    {
        if (_outgoing.Writer.TryWrite(json))
            return true;
        Socket.Dispose();
        return false;
    }

    /// <summary>Says why and closes; breaks the connection if the publisher does not take it within a second. Never throws.</summary>
    public async Task CloseAsync(string reason)
    {
        Volatile.Write(ref _farewell, reason);
        _outgoing.Writer.TryComplete();
        using var deadline = new CancellationTokenSource(Farewell);
        await using (deadline.Token.Register(Socket.Dispose).ConfigureAwait(false))
            await Socket.Done.ConfigureAwait(false);
    }

    /// <summary>Serves the connection until it ends. Never throws.</summary>
    public async Task RunAsync()
    {
        var sending = SendAsync();
        try
        {
            // Pongs are read here; a publisher has nothing else to say, and what it says all the same is not kept.
            var buffer = new byte[1024];
            while ((await Socket.Socket.ReceiveAsync(buffer.AsMemory(), CancellationToken.None).ConfigureAwait(false)).MessageType != WebSocketMessageType.Close)
            {
            }
        }
        catch (Exception e) when (e is WebSocketException or OperationCanceledException or IOException or ObjectDisposedException)
        {
            // It is gone; whoever watches is told by the end of this method.
        }

        _outgoing.Writer.TryComplete();
        Socket.Dispose();
        await sending.ConfigureAwait(false);
    }

    private async Task SendAsync()
    {
        try
        {
            await foreach (var message in _outgoing.Reader.ReadAllAsync().ConfigureAwait(false))
                await Socket.Socket.SendAsync(message, WebSocketMessageType.Text, true, CancellationToken.None).ConfigureAwait(false);
            if (Volatile.Read(ref _farewell) is { } reason)
                await Socket.Socket.CloseOutputAsync(WebSocketCloseStatus.PolicyViolation, reason, CancellationToken.None).ConfigureAwait(false);
        }
        catch (Exception e) when (e is WebSocketException or OperationCanceledException or IOException or ObjectDisposedException)
        {
            // As above.
            Socket.Dispose();
        }
    }
}
