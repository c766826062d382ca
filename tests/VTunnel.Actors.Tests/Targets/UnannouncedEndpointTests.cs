using System.Text;
using VTunnel.Endpoints;
using VTunnel.Protocol.Control;
using VTunnel.Targets;
using VTunnel.Web;

namespace VTunnel.Actors.Tests.Targets;

public sealed class UnannouncedEndpointTests
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    [Theory]
    [InlineData("\u0016\u0003\u0001 hello", ProxyVisit.Tls)]
    [InlineData("GET / HTTP/1.1\r\nHost: a\r\n\r\n", ProxyVisit.Http1)]
    [InlineData("PROPFIND /a HTTP/1.1\r\n", ProxyVisit.Http1)]
    [InlineData("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ProxyVisit.Http2)]
    [InlineData("SSH-2.0-visitor\r\n", ProxyVisit.Tcp)]
    public async Task What_the_visitor_speaks_is_seen_however_his_bytes_are_cut_and_all_of_them_reach_the_target(string text, string expected)
    {
        var bytes = Encoding.Latin1.GetBytes(text);
        for (var cut = 1; cut <= bytes.Length; cut++)
        {
            var pair = new DuplexPair();
            var spoken = new List<string>();
            using var endpoint = new UnannouncedEndpoint((speaks, _) =>
            {
                spoken.Add(speaks);
                return Task.FromResult<StreamEndpoint>(pair.Endpoint);
            });
            foreach (var piece in bytes.Chunk(cut))
                await endpoint.SendAsync(piece).AsTask().WaitAsync(Patience);
            Assert.Equal([expected], spoken);
            await pair.Stream.WriteAsync("answer"u8.ToArray());
            var answer = new byte[6];
            Assert.Equal(6, await endpoint.ReceiveAsync(answer).AsTask().WaitAsync(Patience));

            await endpoint.FinishSendingAsync();
            using var all = new MemoryStream();
            await pair.Stream.CopyToAsync(all).WaitAsync(Patience);
            Assert.Equal(text, Encoding.Latin1.GetString(all.ToArray()));
        }
    }

    [Fact]
    public async Task An_end_before_anything_is_clear_reaches_the_target_with_what_came()
    {
        var pair = new DuplexPair();
        using var endpoint = new UnannouncedEndpoint((_, _) => Task.FromResult<StreamEndpoint>(pair.Endpoint));
        await endpoint.SendAsync("GE"u8.ToArray());
        await endpoint.FinishSendingAsync().AsTask().WaitAsync(Patience);
        using var all = new MemoryStream();
        await pair.Stream.CopyToAsync(all).WaitAsync(Patience);
        Assert.Equal("GE", Encoding.ASCII.GetString(all.ToArray()));
    }

    [Fact]
    public async Task One_who_leaves_while_the_target_is_connected_takes_the_connection_with_him()
    {
        var connected = new TaskCompletionSource<StreamEndpoint>();
        var token = default(CancellationToken);
        var endpoint = new UnannouncedEndpoint((_, cancel) =>
        {
            token = cancel;
            return connected.Task;
        });
        var receiving = endpoint.ReceiveAsync(new byte[1]).AsTask();
        var sending = endpoint.SendAsync("SSH-"u8.ToArray()).AsTask();
        endpoint.Abort();
        Assert.True(token.IsCancellationRequested);
        await Assert.ThrowsAnyAsync<ObjectDisposedException>(() => receiving.WaitAsync(Patience));

        var pair = new DuplexPair();
        connected.SetResult(pair.Endpoint);
        await Assert.ThrowsAnyAsync<ObjectDisposedException>(() => sending.WaitAsync(Patience));
        await Assert.ThrowsAsync<IOException>(() => pair.Stream.ReadAsync(new byte[1]).AsTask().WaitAsync(Patience));
    }

    [Fact]
    public async Task A_target_that_cannot_be_reached_is_a_broken_connection()
    {
        using var endpoint = new UnannouncedEndpoint((_, _) => throw new TargetException(TargetError.ConnectionRefused, "refused"));
        var receiving = endpoint.ReceiveAsync(new byte[1]).AsTask();
        await Assert.ThrowsAsync<TargetException>(() => endpoint.SendAsync("SSH-"u8.ToArray()).AsTask().WaitAsync(Patience));
        await Assert.ThrowsAsync<IOException>(() => receiving.WaitAsync(Patience));
    }
}
