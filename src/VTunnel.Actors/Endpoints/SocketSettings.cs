using System.Net;
using System.Net.Http;
using System.Net.Sockets;

namespace VTunnel.Endpoints;

/// <summary>What is set on every TCP connection of a tunnel, whoever opened it.</summary>
internal static class SocketSettings
{
    /// <summary>From Linux' tcp.h; .NET has no names for them.</summary>
    private const int TcpLevel = 6;
    private const int CongestionControl = 13;
    private const int MaxNameBytes = 16;
    private const int KeepAliveSeconds = 60;

    /// <summary>
    /// Small writes leave at once. And where both ends are on this machine, nothing is paced: BBR, which many servers have as
    /// their default, spreads what it sends over time by timers, which loopback pays for with more than half of its rate
    /// (docs/performance.md). Any user may choose Reno.
    /// </summary>
    /// <param name="socket">Connected.</param>
    public static void Apply(Socket socket)
    {
        SendAtOnce(socket);
        StopPacingLocally(socket);
    }

    /// <summary>The half of <see cref="Apply"/> that every connection needs.</summary>
    public static void SendAtOnce(Socket socket)
    {
        try
        {
            socket.NoDelay = true;
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // It is gone already, which whoever uses it next will find.
        }
    }

    /// <summary>The half of <see cref="Apply"/> that one which says only a few words does not need, and would pay for with a twentieth of its time.</summary>
    public static void StopPacingLocally(Socket socket)
    {
        try
        {
            if (socket.RemoteEndPoint is IPEndPoint remote && socket.LocalEndPoint is IPEndPoint local && IsLocal(remote.Address, local.Address))
                StopPacing(socket);
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // As above.
        }
    }

    /// <summary>
    /// The same for all that will be accepted, where that can be told by the address. And a visitor who has vanished without a
    /// word, as one whose power failed, is found: after a minute of silence and five questions without an answer.
    /// </summary>
    /// <param name="socket">Bound.</param>
    public static void ApplyToListener(Socket socket)
    {
        socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.KeepAlive, true);
        socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveTime, KeepAliveSeconds);
        socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveInterval, KeepAliveSeconds / 6);
        socket.SetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveRetryCount, 5);
        if (socket.LocalEndPoint is IPEndPoint local && IsLoopback(local.Address))
            StopPacing(socket);
    }

    /// <summary>Connects as <see cref="SocketsHttpHandler"/> does by itself, with these settings.</summary>
    public static async ValueTask<Stream> ConnectAsync(SocketsHttpConnectionContext context, CancellationToken cancellationToken)
    {
        var socket = new Socket(SocketType.Stream, ProtocolType.Tcp);
        try
        {
            await socket.ConnectAsync(context.DnsEndPoint, cancellationToken).ConfigureAwait(false);
            Apply(socket);
            return new NetworkStream(socket, ownsSocket: true);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <summary>Who connects to an address of this machine has that address himself.</summary>
    internal static bool IsLocal(IPAddress remote, IPAddress local) => IsLoopback(remote) || remote.Equals(local);

    private static bool IsLoopback(IPAddress address) => IPAddress.IsLoopback(address.IsIPv4MappedToIPv6 ? address.MapToIPv4() : address);

    private static void StopPacing(Socket socket)
    {
        if (!OperatingSystem.IsLinux())
            return;
        try
        {
            Span<byte> name = stackalloc byte[MaxNameBytes];
            if (name[..socket.GetRawSocketOption(TcpLevel, CongestionControl, name)].StartsWith("bbr"u8))
                socket.SetRawSocketOption(TcpLevel, CongestionControl, "reno"u8);
        }
        catch (SocketException)
        {
            // A kernel without the choice is merely slower.
        }
    }
}
