using System.Globalization;
using System.Net;
using System.Net.NetworkInformation;
using System.Net.Sockets;
using System.Text;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Server.Kestrel.Transport.Sockets;
using VTunnel.Actors.Tests.Hosting;
using VTunnel.Endpoints;

namespace VTunnel.Actors.Tests.Endpoints;

/// <summary>On Linux, where a socket's congestion control can be chosen.</summary>
public sealed class SocketSettingsTests
{
    private const int TcpLevel = 6;
    private const int CongestionControl = 13;

    /// <summary>What any user may choose on this machine; Reno is always among it.</summary>
    private static readonly string[] Allowed =
        File.ReadAllText("/proc/sys/net/ipv4/tcp_allowed_congestion_control").Split([' ', '\n'], StringSplitOptions.RemoveEmptyEntries);

    /// <summary>What is to be replaced; where the machine does not offer it, what is put in its place.</summary>
    private static string Paced => Allowed.Contains("bbr") ? "bbr" : "reno";

    public static TheoryData<string> Algorithms => [.. Allowed];

    public static TheoryData<IPAddress> OwnAddresses =>
    [
        IPAddress.Loopback,
        IPAddress.Parse("127.0.0.5"),
        .. NetworkInterface.GetAllNetworkInterfaces()
            .SelectMany(each => each.GetIPProperties().UnicastAddresses)
            .Select(each => each.Address)
            .Where(each => each.AddressFamily == AddressFamily.InterNetwork && !IPAddress.IsLoopback(each)),
    ];

    [Theory]
    [MemberData(nameof(Algorithms))]
    public async Task Only_what_paces_is_replaced(string algorithm)
    {
        using var listener = Listen(IPAddress.Loopback);
        using var near = await ConnectAsync(listener);
        using var far = await listener.AcceptAsync();
        Choose(near, algorithm);
        SocketSettings.Apply(near);
        Assert.Equal(algorithm == "bbr" ? "reno" : algorithm, AlgorithmOf(near));
        Assert.True(near.NoDelay);
    }

    [Theory]
    [MemberData(nameof(Algorithms))]
    public async Task A_stream_is_not_paced_any_more_once_it_sends_bulk(string algorithm)
    {
        using var listener = Listen(IPAddress.Loopback);
        var near = await ConnectAsync(listener);
        using var far = await listener.AcceptAsync();
        Choose(near, algorithm);
        using var endpoint = new SocketEndpoint(near);
        Assert.True(near.NoDelay);
        await endpoint.SendAsync(new byte[1024]);
        Assert.Equal(algorithm, AlgorithmOf(near));
        await endpoint.SendAsync(new byte[64 * 1024]);
        Assert.Equal(algorithm == "bbr" ? "reno" : algorithm, AlgorithmOf(near));
    }

    [Theory]
    [MemberData(nameof(Algorithms))]
    public async Task What_a_listener_on_loopback_accepts_has_it_from_the_listener(string algorithm)
    {
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        Choose(listener, algorithm);
        SocketSettings.ApplyToListener(listener);
        listener.Listen();
        using var near = await ConnectAsync(listener);
        using var far = await listener.AcceptAsync();
        Assert.Equal(algorithm == "bbr" ? "reno" : algorithm, AlgorithmOf(far));
        Assert.NotEqual(0, far.GetSocketOption(SocketOptionLevel.Socket, SocketOptionName.KeepAlive));
        Assert.Equal(60, far.GetSocketOption(SocketOptionLevel.Tcp, SocketOptionName.TcpKeepAliveTime));
    }

    [Theory]
    [MemberData(nameof(Algorithms))]
    public void A_listener_on_any_address_keeps_what_it_has(string algorithm)
    {
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Any, 0));
        Choose(listener, algorithm);
        SocketSettings.ApplyToListener(listener);
        Assert.Equal(algorithm, AlgorithmOf(listener));
    }

    [Theory]
    [MemberData(nameof(OwnAddresses))]
    public async Task Each_address_of_this_machine_is_local_at_both_ends(IPAddress address)
    {
        using var listener = Listen(address);
        using var near = await ConnectAsync(listener);
        using var far = await listener.AcceptAsync();
        foreach (var end in new[] { near, far })
        {
            Choose(end, Paced);
            SocketSettings.Apply(end);
            Assert.Equal("reno", AlgorithmOf(end));
        }
    }

    [Theory]
    [InlineData("127.0.0.1", "127.0.0.1", true)]
    [InlineData("127.0.0.5", "127.0.0.1", true)]
    [InlineData("::ffff:127.0.0.5", "::ffff:127.0.0.1", true)]
    [InlineData("::1", "::1", true)]
    [InlineData("192.0.2.7", "192.0.2.7", true)]
    [InlineData("::ffff:192.0.2.7", "::ffff:192.0.2.7", true)]
    [InlineData("192.0.2.8", "192.0.2.7", false)]
    [InlineData("::ffff:192.0.2.8", "::ffff:192.0.2.7", false)]
    [InlineData("2001:db8::2", "2001:db8::1", false)]
    public void A_connection_is_local_if_it_cannot_leave_the_machine(string remote, string local, bool expected) =>
        Assert.Equal(expected, SocketSettings.IsLocal(IPAddress.Parse(remote), IPAddress.Parse(local)));

    /// <summary>The listener of the server has what is to be replaced, whatever the system's choice is; the client has the system's.</summary>
    [Fact]
    public async Task Both_ends_of_a_tunnel_on_one_machine_have_them()
    {
        await using var pair = await TunnelPair.StartAsync(configure: builder => builder.WebHost.UseSockets(sockets => sockets.CreateBoundListenSocket = address =>
        {
            var listener = SocketTransportOptions.CreateDefaultBoundListenSocket(address);
            Choose(listener, Paced);
            return listener;
        }));
        var ends = SocketsOfThisProcess().Where(socket => Ports(socket) is var (remote, local) && (remote == pair.Address.Port || local == pair.Address.Port)).ToList();
        Assert.Equal(2, ends.Count);
        Assert.All(ends, end => Assert.NotEqual("bbr", AlgorithmOf(end)));
        Assert.All(ends, end => Assert.True(end.NoDelay));
    }

    [Fact]
    public async Task The_connection_of_an_HTTP_client_has_the_settings()
    {
        NetworkStream? connection = null;
        using var listener = Listen(IPAddress.Loopback);
        using var client = new HttpMessageInvoker(new SocketsHttpHandler
        {
            ConnectCallback = async (context, cancellationToken) => connection = (NetworkStream)await SocketSettings.ConnectAsync(context, cancellationToken),
        });
        using var request = new HttpRequestMessage(HttpMethod.Get, $"http://127.0.0.1:{((IPEndPoint)listener.LocalEndPoint!).Port}/");
        var answering = client.SendAsync(request, CancellationToken.None);
        using var far = await listener.AcceptAsync();
        await far.SendAsync("HTTP/1.1 204 No Content\r\n\r\n"u8.ToArray());
        using var answer = await answering;
        Assert.Equal(HttpStatusCode.NoContent, answer.StatusCode);
        Assert.True(connection!.Socket.NoDelay);
        Assert.NotEqual("bbr", AlgorithmOf(connection.Socket));
    }

    [Fact]
    public async Task An_HTTP_client_that_finds_nobody_says_so()
    {
        int port;
        using (var listener = Listen(IPAddress.Loopback))
            port = ((IPEndPoint)listener.LocalEndPoint!).Port;
        using var client = new HttpMessageInvoker(new SocketsHttpHandler { ConnectCallback = SocketSettings.ConnectAsync });
        using var request = new HttpRequestMessage(HttpMethod.Get, $"http://127.0.0.1:{port}/");
        var e = await Assert.ThrowsAsync<HttpRequestException>(() => client.SendAsync(request, CancellationToken.None));
        Assert.Equal(SocketError.ConnectionRefused, Assert.IsType<SocketException>(e.InnerException).SocketErrorCode);
    }

    [Fact]
    public async Task A_connection_that_was_reset_meanwhile_is_no_fault()
    {
        using var listener = Listen(IPAddress.Loopback);
        using var near = await ConnectAsync(listener);
        using (var far = await listener.AcceptAsync())
            far.LingerState = new LingerOption(true, 0);
        await Assert.ThrowsAsync<SocketException>(async () => await near.ReceiveAsync(new byte[1]));
        SocketSettings.Apply(near);
        near.Dispose();
        SocketSettings.Apply(near);
    }

    /// <summary>By their descriptors, which stay their owners'.</summary>
    private static List<Socket> SocketsOfThisProcess()
    {
        var found = new List<Socket>();
        foreach (var file in Directory.EnumerateFileSystemEntries("/proc/self/fd"))
        {
            try
            {
                if (new FileInfo(file).LinkTarget?.StartsWith("socket:", StringComparison.Ordinal) == true)
                    found.Add(new Socket(new SafeSocketHandle(int.Parse(Path.GetFileName(file), CultureInfo.InvariantCulture), ownsHandle: false)));
            }
            catch (Exception e) when (e is SocketException or IOException or UnauthorizedAccessException)
            {
                // Another test's, closed meanwhile.
            }
        }

        return found;
    }

    /// <summary>Null where it is not connected, or is no TCP socket.</summary>
    private static (int Remote, int Local)? Ports(Socket socket)
    {
        try
        {
            return socket is { RemoteEndPoint: IPEndPoint remote, LocalEndPoint: IPEndPoint local } ? (remote.Port, local.Port) : null;
        }
        catch (Exception e) when (e is SocketException or NotSupportedException)
        {
            return null;
        }
    }

    private static Socket Listen(IPAddress address)
    {
        var listener = new Socket(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(address, 0));
        listener.Listen();
        return listener;
    }

    private static async Task<Socket> ConnectAsync(Socket listener)
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        await socket.ConnectAsync(listener.LocalEndPoint!);
        return socket;
    }

    private static void Choose(Socket socket, string algorithm) => socket.SetRawSocketOption(TcpLevel, CongestionControl, Encoding.ASCII.GetBytes(algorithm));

    private static string AlgorithmOf(Socket socket)
    {
        var name = new byte[16];
        socket.GetRawSocketOption(TcpLevel, CongestionControl, name);
        return Encoding.ASCII.GetString(name).TrimEnd('\0');
    }
}
