using System.Net;
using System.Net.Sockets;
using VTunnel.Endpoints;

namespace VTunnel.Actors.Tests.Endpoints;

public sealed class SocketEndpointTests
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    [Fact]
    public async Task Send_that_the_far_end_is_slow_to_take_completes_when_all_of_it_is_taken()
    {
        var (near, far) = await ConnectAsync();
        using var endpoint = new SocketEndpoint(near);
        using var peer = far;
        var sent = new byte[64 * 1024 * 1024];
        new Random(1).NextBytes(sent);

        var sending = endpoint.SendAsync(sent);
        Assert.False(sending.IsCompleted);
        var received = await ReceiveAsync(peer, sent.Length);
        await sending.AsTask().WaitAsync(Patience);

        Assert.True(received.AsSpan().SequenceEqual(sent));
    }

    [Fact]
    public async Task Many_endpoints_that_send_at_once_do_not_mix_what_they_send()
    {
        const int Count = 40;
        await Task.WhenAll(Enumerable.Range(0, Count).Select(async number =>
        {
            var (near, far) = await ConnectAsync();
            using var endpoint = new SocketEndpoint(near);
            using var peer = far;
            var part = Enumerable.Repeat((byte)number, 300_000).ToArray();
            var receiving = ReceiveAsync(peer, part.Length * 10);
            for (var i = 0; i < 10; i++)
                await endpoint.SendAsync(part).AsTask().WaitAsync(Patience);
            Assert.Equal(-1, (await receiving).AsSpan().IndexOfAnyExcept((byte)number));
        }));
    }

    [Fact]
    public async Task Send_under_way_fails_when_the_endpoint_is_aborted()
    {
        var (near, far) = await ConnectAsync();
        using var peer = far;
        var endpoint = new SocketEndpoint(near);
        var sending = endpoint.SendAsync(new byte[64 * 1024 * 1024]).AsTask();
        Assert.False(sending.IsCompleted);

        endpoint.Abort();

        await Assert.ThrowsAsync<SocketException>(() => sending.WaitAsync(Patience));
    }

    [Fact]
    public async Task Send_to_a_far_end_that_has_reset_fails()
    {
        var (near, far) = await ConnectAsync();
        using var endpoint = new SocketEndpoint(near);
        far.LingerState = new LingerOption(true, 0);
        far.Dispose();

        await Assert.ThrowsAsync<SocketException>(async () =>
        {
            while (true)
                await endpoint.SendAsync(new byte[64 * 1024]).AsTask().WaitAsync(Patience);
        });
    }

    private static async Task<(Socket Near, Socket Far)> ConnectAsync()
    {
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen(1);
        var near = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        await near.ConnectAsync(listener.LocalEndPoint!);
        return (near, await listener.AcceptAsync());
    }

    private static async Task<byte[]> ReceiveAsync(Socket socket, int length)
    {
        using var patience = new CancellationTokenSource(Patience);
        var bytes = new byte[length];
        for (var got = 0; got < length;)
        {
            var count = await socket.ReceiveAsync(bytes.AsMemory(got), patience.Token);
            Assert.NotEqual(0, count);
            got += count;
        }

        return bytes;
    }
}
