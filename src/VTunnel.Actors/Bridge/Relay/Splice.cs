using System.Buffers;
using System.Net.WebSockets;
using System.Threading.RateLimiting;

namespace VTunnel.Bridge.Relay;

/// <summary>What a publisher and its users have moved.</summary>
internal sealed class TrafficCount
{
    private long _fromConsumers;
    private long _fromPublisher;

    public long FromConsumers => Interlocked.Read(ref _fromConsumers);

    public long FromPublisher => Interlocked.Read(ref _fromPublisher);

    public void Add(bool fromConsumer, int bytes)
    {
        if (fromConsumer)
            Interlocked.Add(ref _fromConsumers, bytes);
        else
            Interlocked.Add(ref _fromPublisher, bytes);
    }
}

/// <summary>
/// Passes messages between two WebSockets as they come. What is read is written before more is read, so a slow reader slows
/// its writer and nobody else, and the relay holds one buffer per direction.
/// </summary>
internal sealed class Splice(RelayedSocket consumer, RelayedSocket publisher, TrafficCount traffic, RateLimiter? limiter, RelayOptions options)
{
    private const int BufferBytes = 64 * 1024;

    /// <summary>How long one direction may go on when the other has ended.</summary>
    private static readonly TimeSpan Farewell = TimeSpan.FromSeconds(2);

    private long _moved;

    /// <summary>Whether anything has moved since this was asked last.</summary>
    public bool TakeMoved() => Interlocked.Exchange(ref _moved, 0) != 0;

    /// <summary>Runs until both directions have ended; then both connections are closed. Never throws.</summary>
    public async Task RunAsync()
    {
        var up = PassAsync(consumer, publisher, fromConsumer: true);
        var down = PassAsync(publisher, consumer, fromConsumer: false);
        await Task.WhenAny(up, down).ConfigureAwait(false);
        using (var deadline = new CancellationTokenSource(Farewell))
        await using (deadline.Token.Register(Abort).ConfigureAwait(false))
            await Task.WhenAll(up, down).ConfigureAwait(false);
        Abort();
    }

    /// <summary>Breaks both connections.</summary>
    public void Abort()
    {
        consumer.Dispose();
        publisher.Dispose();
    }

    private async Task PassAsync(RelayedSocket from, RelayedSocket to, bool fromConsumer)
    {
        var buffer = ArrayPool<byte>.Shared.Rent(BufferBytes);
        try
        {
            while (true)
            {
                var received = await from.Socket.ReceiveAsync(buffer.AsMemory(0, BufferBytes), CancellationToken.None).ConfigureAwait(false);
                if (received.MessageType != WebSocketMessageType.Binary)
                    break;
                Interlocked.Exchange(ref _moved, 1);
                traffic.Add(fromConsumer, received.Count);
                if (limiter is not null)
                    await LimitAsync(received.Count).ConfigureAwait(false);
                if (options.Tap is { } tap)
                {
                    foreach (var message in tap(fromConsumer, buffer.AsMemory(0, received.Count)))
                        await to.Socket.SendAsync(message, WebSocketMessageType.Binary, true, CancellationToken.None).ConfigureAwait(false);
                }
                else
                {
                    await to.Socket.SendAsync(buffer.AsMemory(0, received.Count), WebSocketMessageType.Binary, received.EndOfMessage, CancellationToken.None)
                        .ConfigureAwait(false);
                }

                Interlocked.Exchange(ref _moved, 1);
            }
        }
        catch (Exception e) when (e is WebSocketException or OperationCanceledException or IOException or ObjectDisposedException or InvalidOperationException)
        {
            // One of the two is gone, which happens all the time; the other learns it by the close below.
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }

        try
        {
            await to.Socket.CloseOutputAsync(WebSocketCloseStatus.NormalClosure, null, CancellationToken.None).ConfigureAwait(false);
        }
        catch (Exception e) when (e is WebSocketException or OperationCanceledException or IOException or ObjectDisposedException or InvalidOperationException)
        {
            // It is gone, too.
        }
    }

    private async Task LimitAsync(int bytes)
    {
        using var lease = await limiter!.AcquireAsync(Kilobytes(bytes)).ConfigureAwait(false);
        if (!lease.IsAcquired)
            throw new IOException("The relay has ended the limit of this publisher.");
    }

    private static int Kilobytes(int bytes) => (bytes + 1023) / 1024;
}
