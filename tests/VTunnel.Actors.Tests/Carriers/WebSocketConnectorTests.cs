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
