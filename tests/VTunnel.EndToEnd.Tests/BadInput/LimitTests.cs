using System.Net;
using System.Net.Sockets;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.BadInput;

public sealed class LimitTests
{
    [Fact]
    public async Task One_listener_beyond_the_limit_is_refused()
    {
        await using var host = await TunnelHost.StartAsync(server => server.MaxListenersPerSession = 1);
        await using var peer = await host.ConnectByHandAsync();
        var first = await peer.ListenAsync();
        await peer.SendListenAsync(FreePorts.Next());

        var answer = await peer.ReceiveAsync();
        Assert.Equal(("listen_err", "the session is at its limit of 1 listened ports"), (answer.Type, answer.Error));
        await peer.SendListenAsync(first);
        Assert.Equal("listen_ok", (await peer.ReceiveAsync()).Type);
    }

    [Fact]
    public async Task One_stream_beyond_the_limit_is_reset_until_one_has_ended()
    {
        await using var echo = TargetServer.StartEcho();
        await using var pair = await TunnelPair.StartAsync(server => server.MaxStreamsPerSession = 1);
        var port = await pair.ForwardAsync(echo.Port);
        using (var first = await Payload.ConnectAsync(port))
        {
            await Payload.EchoAsync(first.GetStream(), 100).WaitAsync(TestTimeouts.Step);
            await AssertResetAsync(port);
            await pair.Host.Log.Lines.WaitForAsync($"session-1 is at its limit of 1 streams: visitors of port {port} are reset");
            await Payload.EchoAsync(first.GetStream(), 100).WaitAsync(TestTimeouts.Step);
        }

        await pair.Host.Log.Lines.WaitForAsync("session-1 stream 1 ends");
        await EchoWhenFreeAsync(port);
        Assert.Equal(0, pair.Host.Log.Lines.CountOf("down after"));
    }

    [Fact]
    public async Task Streams_that_the_client_has_not_been_told_of_count_and_end_nothing()
    {
        await using var host = await TunnelHost.StartAsync(server => server.MaxStreamsPerSession = 2);
        await using var peer = await host.ConnectByHandAsync();
        var port = await peer.ListenAsync();
        using var visitor = await Payload.ConnectAsync(port);
        var writer = StallingWriter.Start(visitor);
        await writer.WaitForStallAsync();

        // The way to the client is full, so it cannot be told of these visitors' coming, nor of their going.
        for (var i = 0; i < 20; i++)
        {
            await PassByAsync(port);
        }

        visitor.Client.Close();
        await Assert.ThrowsAnyAsync<Exception>(() => writer.StopAsync());
        PeerMessage message;
        do
        {
            message = await peer.ReceiveAsync();
        }
        while (message.Type != "close");
        Assert.Equal(0, host.Log.Lines.CountOf("down after"));
    }

    private static async Task AssertResetAsync(int port)
    {
        using var visitor = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        var broken = await Assert.ThrowsAsync<SocketException>(async () =>
        {
            // The reset may come before the connect has returned.
            await visitor.ConnectAsync(IPAddress.Loopback, port);
            await visitor.ReceiveAsync(new byte[1]).WaitAsync(TestTimeouts.Step);
        });
        Assert.Equal(SocketError.ConnectionReset, broken.SocketErrorCode);
    }

    private static async Task PassByAsync(int port)
    {
        using var visitor = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        try
        {
            await visitor.ConnectAsync(IPAddress.Loopback, port);
            visitor.Shutdown(SocketShutdown.Send);
            await visitor.ReceiveAsync(new byte[1]).WaitAsync(TestTimeouts.Step);
        }
        catch (SocketException)
        {
            // Reset: beyond the limit.
        }
    }

    private static async Task EchoWhenFreeAsync(int port)
    {
        using var deadline = new CancellationTokenSource(TestTimeouts.Step);
        while (true)
        {
            try
            {
                await Payload.EchoOnceAsync(port, 100).WaitAsync(TestTimeouts.Step);
                return;
            }
            catch (Exception e) when (e is IOException or SocketException && !deadline.IsCancellationRequested)
            {
                // The place is free a moment after the end.
            }
        }
    }
}
