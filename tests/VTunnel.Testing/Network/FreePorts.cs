using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;

namespace VTunnel.Testing.Network;

/// <summary>Port numbers for what must be told a number: the ports that clients ask for, and other people's programs.</summary>
/// <remarks>
/// Taken from below the range that systems give to outgoing connections. A number that was found by binding port 0 lies in
/// that range, and one of the hundreds of connections of a test may get it before the program that was to listen there.
/// </remarks>
public static class FreePorts
{
    private const int First = 10_000;
    private const int End = 32_000;
    private static readonly ConcurrentDictionary<int, bool> Given = new();

    /// <summary>A port that nobody listens on now and that this process has not been given before.</summary>
    public static int Next()
    {
        while (true)
        {
            var port = Random.Shared.Next(First, End);
            if (Given.TryAdd(port, true) && IsFree(port))
                return port;
        }
    }

    /// <summary>As many ports as asked for.</summary>
    public static int[] Next(int count) => [.. Enumerable.Range(0, count).Select(_ => Next())];

    private static bool IsFree(int port)
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        try
        {
            socket.Bind(new IPEndPoint(IPAddress.Any, port));
            return true;
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.AddressAlreadyInUse)
        {
            return false;
        }
    }
}
