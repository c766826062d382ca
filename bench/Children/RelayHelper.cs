using System.Buffers;
using System.Net;
using System.Net.Sockets;

namespace VTunnel.Bench.Children;

/// <summary>
/// One hop of the baseline: accepts, dials, and copies both ways in plain asynchronous loops over pooled buffers of 64 KiB.
/// With a fault it is the tunnel that the bench must not be taken in by.
/// </summary>
internal static class RelayHelper
{
    private const int BufferBytes = 64 * 1024;

    /// <param name="targetPort">Where connections go, on 127.0.0.1.</param>
    /// <param name="listenPort">Where they come from; 0 for any.</param>
    /// <param name="fault">What it does wrong on its way to the visitor.</param>
    /// <param name="at">After how many bytes of a connection.</param>
    public static async Task<int> RunAsync(int targetPort, int listenPort, RelayFault fault, long at)
    {
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.ReuseAddress, true);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, listenPort));
        listener.Listen(4096);
        Console.WriteLine($"listening on {((IPEndPoint)listener.LocalEndPoint!).Port}");
        var target = new IPEndPoint(IPAddress.Loopback, targetPort);
        while (true)
        {
            var visitor = await listener.AcceptAsync();
            _ = ServeAsync(visitor, target, fault, at);
        }
    }

    private static async Task ServeAsync(Socket visitor, IPEndPoint target, RelayFault fault, long at)
    {
        using var near = visitor;
        using var far = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        try
        {
            near.NoDelay = far.NoDelay = true;
            await far.ConnectAsync(target);
            await Task.WhenAll(CopyAsync(near, far, RelayFault.None, 0), CopyAsync(far, near, fault, at));
        }
        catch (SocketException)
        {
            // Either end is gone: both are closed.
        }
    }

    private static async Task CopyAsync(Socket from, Socket to, RelayFault fault, long at)
    {
        var buffer = ArrayPool<byte>.Shared.Rent(BufferBytes);
        var copied = 0L;
        try
        {
            while (await from.ReceiveAsync(buffer.AsMemory(0, BufferBytes), SocketFlags.None) is > 0 and var count)
            {
                var bytes = buffer.AsMemory(0, count);
                if (fault != RelayFault.None && copied <= at && copied + count > at)
                {
                    if (fault == RelayFault.Flip)
                        buffer[at - copied] ^= 1;
                    else if (fault == RelayFault.Drop)
                        bytes = bytes[..(count - 1)];
                    else
                        to.Shutdown(SocketShutdown.Send);
                }

                copied += count;
                if (fault != RelayFault.Cut || copied <= at)
                    await to.SendAsync(bytes, SocketFlags.None);
            }

            if (fault != RelayFault.Cut || copied <= at)
                to.Shutdown(SocketShutdown.Send);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }
}

/// <summary>What a relay does wrong, once in every connection.</summary>
internal enum RelayFault
{
    /// <summary>Nothing.</summary>
    None,

    /// <summary>One bit is turned.</summary>
    Flip,

    /// <summary>One byte is left out.</summary>
    Drop,

    /// <summary>It ends too early, in good order.</summary>
    Cut,
}
