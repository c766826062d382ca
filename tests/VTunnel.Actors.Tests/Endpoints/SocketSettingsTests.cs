using System.Net;
using System.Net.NetworkInformation;
using System.Net.Sockets;
using System.Text;
using VTunnel.Endpoints;

namespace VTunnel.Actors.Tests.Endpoints;

/// <summary>On Linux, where a socket's congestion control can be chosen.</summary>
public sealed class SocketSettingsTests
{
    private const int TcpLevel = 6;
    private const int CongestionControl = 13;

    /// <summary>What any user may choose on this machine; Reno is always among it.</summary>
    public static TheoryData<string> Algorithms => [.. File.ReadAllText("/proc/sys/net/ipv4/tcp_allowed_congestion_control").Split([' ', '\n'], StringSplitOptions.RemoveEmptyEntries)];

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
        SocketSettings.Apply(near);
        SocketSettings.Apply(far);
        Assert.NotEqual("bbr", AlgorithmOf(near));
        Assert.NotEqual("bbr", AlgorithmOf(far));
    }

    [Fact]
    public async Task The_connection_of_an_HTTP_client_has_the_settings()
    {
        using var listener = Listen(IPAddress.Loopback);
        using var client = new HttpMessageInvoker(new SocketsHttpHandler { ConnectCallback = SocketSettings.ConnectAsync });
        using var request = new HttpRequestMessage(HttpMethod.Get, $"http://127.0.0.1:{((IPEndPoint)listener.LocalEndPoint!).Port}/");
        var answering = client.SendAsync(request, CancellationToken.None);
        using var far = await listener.AcceptAsync();
        await far.SendAsync("HTTP/1.1 204 No Content\r\n\r\n"u8.ToArray());
        using var answer = await answering;
        Assert.Equal(HttpStatusCode.NoContent, answer.StatusCode);
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
