using System.Buffers;
using System.Net.Sockets;
using System.Security.Cryptography;
using VTunnel.Endpoints;

namespace VTunnel.Proxy;

/// <summary>Moves bytes between two endpoints in both directions, where no tunnel is involved.</summary>
internal static class DirectRelay
{
    private const int BufferBytes = 64 * 1024;

    /// <summary>
    /// Two ends that are both faster than this would never let go of the thread, which may be the one that polls all sockets: it is
    /// given back after every mebibyte.
    /// </summary>
    private const int RoundsInARow = 16;

    /// <summary>Runs until both directions have ended, or one broke. Both endpoints are closed afterwards.</summary>
    /// <param name="first">One.</param>
    /// <param name="prefix">What was read from it before.</param>
    /// <param name="second">The other.</param>
    /// <returns>Bytes from the first to the second, and back.</returns>
    public static async Task<(long There, long Back)> RunAsync(StreamEndpoint first, ReadOnlyMemory<byte> prefix, StreamEndpoint second)
    {
        var there = CopyAsync(first, second, first, second, prefix);
        var back = CopyAsync(second, first, first, second);
        var moved = await Task.WhenAll(there, back).ConfigureAwait(false);
        first.Dispose();
        second.Dispose();
        return (moved[0], moved[1]);
    }

    private static async Task<long> CopyAsync(StreamEndpoint source, StreamEndpoint destination, StreamEndpoint first, StreamEndpoint second, ReadOnlyMemory<byte> prefix = default)
    {
        var moved = 0L;
        var drained = true;
        try
        {
            if (!prefix.IsEmpty)
            {
                await destination.SendAsync(prefix).ConfigureAwait(false);
                moved = prefix.Length;
            }

            for (var round = 1; ; round++)
            {
                if (round % RoundsInARow == 0)
                    await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);

                // Idle connections hold no buffer.
                if (drained)
                    await source.ReceiveAsync(Memory<byte>.Empty).ConfigureAwait(false);
                var buffer = ArrayPool<byte>.Shared.Rent(BufferBytes);
                try
                {
                    var count = await source.ReceiveAsync(buffer).ConfigureAwait(false);
                    if (count == 0)
                        break;
                    await destination.SendAsync(buffer.AsMemory(0, count)).ConfigureAwait(false);
                    moved += count;
                    drained = count < buffer.Length;
                }
                finally
                {
                    ArrayPool<byte>.Shared.Return(buffer);
                }
            }

            await destination.FinishSendingAsync().ConfigureAwait(false);
        }
        catch (Exception e) when (e is IOException or SocketException or ObjectDisposedException or InvalidOperationException or OperationCanceledException or CryptographicException)
        {
            // Broken at one end is broken at the other: a reset there becomes a reset here.
            first.Abort();
            second.Abort();
        }

        return moved;
    }
}
