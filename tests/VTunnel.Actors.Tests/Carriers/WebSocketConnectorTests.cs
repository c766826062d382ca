using System.Net;
using System.Net.Sockets;
using System.Text;
using VTunnel.Carriers;
using VTunnel.Options;
using VTunnel.Testing;

namespace VTunnel.Actors.Tests.Carriers;

public sealed class WebSocketConnectorTests
{
    private const string TlsAlert = "\u0015\u0003\u0003\0\u0002\u0002\u0028";

    [Theory]
    [InlineData("wss", "HTTP/1.1 400 Bad Request\r\n\r\n", ConnectError.TlsFailed, "TLS with the server failed: ", "; the URL of one without TLS begins with ws://")]
    [InlineData("https", "HTTP/1.1 400 Bad Request\r\n\r\n", ConnectError.TlsFailed, "TLS with the server failed: ", "; the URL of one without TLS begins with ws://")]
    [InlineData("ws", "", ConnectError.Unreachable, "the server closed the connection without an answer", "; the URL of one with TLS begins with wss://")]
    [InlineData("ws", TlsAlert, ConnectError.Unreachable, "the server closed the connection without an answer", "; the URL of one with TLS begins with wss://")]
    [InlineData("ws", "SSH-2.0-OpenSSH_9.2\r\n", ConnectError.Refused, "the server does not answer in HTTP: ", "")]
    [InlineData("ws", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ConnectError.Refused, "the server answered 200 instead of upgrading to a WebSocket", "")]
    [InlineData("wss", TlsAlert, ConnectError.TlsFailed, "TLS with the server failed: ", "")]
    [InlineData("wss", "", ConnectError.Unreachable, "the server cannot be reached: ", "")]
    public async Task Whoever_answers_otherwise_is_named_for_what_he_is(string scheme, string answer, ConnectError code, string start, string end)
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        using var over = new CancellationTokenSource();
        var answering = AnswerAsync(listener, answer, over.Token);
        var url = new Uri($"{scheme}://127.0.0.1:{((IPEndPoint)listener.LocalEndpoint).Port}/");
        using var connector = new WebSocketConnector(new TunnelClientOptions { Server = url });

        var e = await Assert.ThrowsAsync<TunnelConnectException>(() => connector.ConnectAsync(default).WaitAsync(TestTimeouts.Long));

        Assert.Equal(code, e.Code);
        Assert.StartsWith(start, e.Message, StringComparison.Ordinal);
        Assert.EndsWith(end, e.Message, StringComparison.Ordinal);
        Assert.Equal(end.Length > 0, e.Message.Contains("begins with", StringComparison.Ordinal));
        Assert.DoesNotContain("inner exception", e.Message, StringComparison.Ordinal);
        await over.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => answering.WaitAsync(TestTimeouts.Long));
    }

    /// <summary>A connection that is upgraded wrongly is not kept open.</summary>
    [Theory]
    [InlineData("Upgrade: websocket\r\nSec-WebSocket-Accept: bm90IHRoaXMgb25lIGF0IGFsbA==\r\n")]
    [InlineData("Upgrade: something-else\r\n")]
    public async Task An_upgrade_to_what_was_not_asked_for_is_refused_and_hung_up_on(string headers)
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        using var connector = new WebSocketConnector(
            new TunnelClientOptions { Server = new Uri($"ws://127.0.0.1:{((IPEndPoint)listener.LocalEndpoint).Port}/"), Protocol = ProtocolPreference.V2 });
        var connecting = connector.ConnectAsync(default);
        using var visitor = await listener.AcceptTcpClientAsync().WaitAsync(TestTimeouts.Long);
        await visitor.GetStream().WriteAsync(Encoding.Latin1.GetBytes($"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n{headers}\r\n"));

        var e = await Assert.ThrowsAsync<TunnelConnectException>(() => connecting.WaitAsync(TestTimeouts.Long));

        Assert.Equal(ConnectError.Refused, e.Code);
        Assert.StartsWith("the server's answer is no upgrade to a WebSocket: ", e.Message, StringComparison.Ordinal);
        await visitor.GetStream().CopyToAsync(Stream.Null).WaitAsync(TestTimeouts.Long);
    }

    /// <summary>Every connection, for a client that was not answered tries again; until the test is over.</summary>
    private static async Task AnswerAsync(TcpListener listener, string answer, CancellationToken over)
    {
        while (true)
        {
            using var visitor = await listener.AcceptTcpClientAsync(over);
            var stream = visitor.GetStream();
            await stream.ReadAtLeastAsync(new byte[1], 1, cancellationToken: over);
            await stream.WriteAsync(Encoding.Latin1.GetBytes(answer), over);
            visitor.Client.Shutdown(SocketShutdown.Send);
            await stream.CopyToAsync(Stream.Null, over);
        }
    }
}
