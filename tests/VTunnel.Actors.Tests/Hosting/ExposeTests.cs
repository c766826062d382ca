using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;

namespace VTunnel.Actors.Tests.Hosting;

public sealed class ExposeTests
{
    [Fact]
    public async Task Bytes_pass_both_ways_unchanged()
    {
        await using var target = EchoServer.Start();
        await using var pair = await TunnelPair.StartAsync();
        var port = await pair.ForwardAsync(target.Port);

        var sent = RandomNumberGenerator.GetBytes(4 * 1024 * 1024 + 17);
        using var visitor = new TcpClient();
        await visitor.ConnectAsync(IPAddress.Loopback, port);
        var stream = visitor.GetStream();
        var received = new byte[sent.Length];
        var writing = stream.WriteAsync(sent).AsTask();
        await stream.ReadExactlyAsync(received).AsTask().WaitAsync(TestTimeouts.Long);
        await writing;
        Assert.Equal(SHA256.HashData(sent), SHA256.HashData(received));
    }

    [Fact]
    public async Task Two_hundred_visitors_at_once_are_served()
    {
        await using var target = EchoServer.Start();
        await using var pair = await TunnelPair.StartAsync();
        var port = await pair.ForwardAsync(target.Port);

        await Task.WhenAll(Enumerable.Range(0, 200).Select(async number =>
        {
            using var visitor = new TcpClient();
            await visitor.ConnectAsync(IPAddress.Loopback, port);
            var stream = visitor.GetStream();
            var sent = RandomNumberGenerator.GetBytes(10_000 + number);
            var received = new byte[sent.Length];
            var writing = stream.WriteAsync(sent).AsTask();
            await stream.ReadExactlyAsync(received);
            await writing;
            Assert.Equal(sent, received);
        })).WaitAsync(TestTimeouts.Long);
    }
}

/// <summary>Sends back what it gets, and its end.</summary>
public sealed class EchoServer : IAsyncDisposable
{
    private readonly TcpListener _listener;
    private readonly Task _accepting;

    private EchoServer(TcpListener listener)
    {
        _listener = listener;
        _accepting = AcceptAsync();
    }

    public int Port => ((IPEndPoint)_listener.LocalEndpoint).Port;

    public static EchoServer Start()
    {
        var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start(512);
        return new EchoServer(listener);
    }

    private async Task AcceptAsync()
    {
        var serving = new List<Task>();
        try
        {
            while (true)
                serving.Add(EchoAsync(await _listener.AcceptTcpClientAsync()));
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // Stopped.
        }

        await Task.WhenAll(serving);
    }

    private static async Task EchoAsync(TcpClient client)
    {
        using (client)
        {
            try
            {
                await client.GetStream().CopyToAsync(client.GetStream());
            }
            catch (IOException)
            {
                // The peer reset the connection; some tests do.
            }
        }
    }

    public async ValueTask DisposeAsync()
    {
        _listener.Stop();
        await _accepting;
    }
}
