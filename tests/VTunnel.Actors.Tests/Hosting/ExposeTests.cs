using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.Actors.Tests.Hosting;

public sealed class ExposeTests
{
    [Fact]
    public async Task Bytes_pass_both_ways_unchanged()
    {
        await using var target = TargetServer.StartEcho();
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
        await using var target = TargetServer.StartEcho();
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
