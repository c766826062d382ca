using System.Net.Sockets;
using System.Text;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.BadInput;

/// <summary>Connections to the server that never become a tunnel.</summary>
public sealed class HandshakeTests(HandshakeTests.Running running) : IClassFixture<HandshakeTests.Running>
{
    /// <summary>A server that waits a second for a handshake, and a client of it that must not notice anything.</summary>
    public sealed class Running : IAsyncLifetime
    {
        private readonly TargetServer _echo = TargetServer.StartEcho();
        private ClientProgram _client = null!;

        internal ServerProgram Server { get; private set; } = null!;

        public async Task InitializeAsync()
        {
            Server = await ServerProgram.StartAsync(["-handshake-timeout", "1s"]);
            _client = await ClientProgram.StartAsync(Server.Url, FreePorts.Next(), _echo.Port);
        }

        public async Task AssertUnharmedAsync()
        {
            await Payload.EchoOnceAsync(_client.Forwards[0].Port).WaitAsync(TestTimeouts.Step);
            Assert.Equal(1, _client.Program.Output.CountOf("Connected to"));
        }

        public async Task DisposeAsync()
        {
            await _client.DisposeAsync();
            await Server.DisposeAsync();
            await _echo.DisposeAsync();
        }
    }

    private const string Upgrade =
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n";

    [Theory]
    [InlineData("")]
    [InlineData("G")]
    [InlineData("GET / HTTP/1.1\r\nHost: x\r\n")]
    [InlineData(Upgrade)]
    public async Task An_upgrade_that_never_finishes_is_cut_off(string begun)
    {
        using var slow = await Payload.ConnectAsync(running.Server.Port);
        await slow.GetStream().WriteAsync(Encoding.ASCII.GetBytes(begun));

        var answer = await ReadToEndAsync(slow);
        Assert.DoesNotContain("101", answer, StringComparison.Ordinal);
        await running.AssertUnharmedAsync();
    }

    [Fact]
    public async Task A_TLS_handshake_that_never_finishes_is_cut_off()
    {
        using var certificates = new TestCertificates();
        await using var server = await ServerProgram.StartAsync(
            ["-handshake-timeout", "1s", "-tls-cert", certificates.CertificateFile, "-tls-key", certificates.KeyFile]);
        using var silent = await Payload.ConnectAsync(server.Port);
        Assert.Equal("", await ReadToEndAsync(silent));
    }

    [Fact]
    public async Task An_upgrade_that_comes_byte_by_byte_is_a_tunnel_all_the_same()
    {
        using var slow = await Payload.ConnectAsync(running.Server.Port);
        foreach (var letter in Upgrade + "\r\n")
            await slow.GetStream().WriteAsync(new[] { (byte)letter });
        await running.Server.Program.Output.WaitForAsync("session-2 up: ");
    }

    /// <summary>What a stranger may send first where frames are read by this program. The mask is zero, so that what is masked can be read.</summary>
    [Theory]
    [InlineData("82 03 010203", "a WebSocket frame of a client is not masked")]
    [InlineData("c2 83 00000000 010203", "no extension was agreed on")]
    [InlineData("83 80 00000000", "0x0 to 0x2 and 0x8 to 0xa exist")]
    [InlineData("80 80 00000000", "where none was begun")]
    [InlineData("09 80 00000000", "it comes whole")]
    [InlineData("89 fe 00000000", "has more than 125 bytes")]
    [InlineData("88 81 00000000 03", "a WebSocket close frame of one byte")]
    [InlineData("82 ff ffffffffffffffff 00000000", "a length beyond 2^63 - 1")]
    [InlineData("82 83 00000000 010203", "")]
    [InlineData("81 83 00000000 616263", "")]
    [InlineData("82 ff 7fffffffffffffff 00000000 01", "")]
    [InlineData("02 fe 1fa4 00000000 ZEROS 80 ff 7fffffffffffffff 00000000 01", "")]
    [InlineData("02 fe 1fa4 00000000 ZEROS 80 ff 7fffffffffffff60 00000000", "")]
    public async Task Frames_that_are_none_end_their_connection_and_nothing_else(string frames, string reason)
    {
        using var stranger = await Payload.ConnectAsync(running.Server.Port);
        await stranger.GetStream().WriteAsync(Encoding.ASCII.GetBytes(Upgrade + "Sec-WebSocket-Protocol: vtunnel.v2\r\n\r\n"));
        await stranger.GetStream().WriteAsync(Convert.FromHexString(
            frames.Replace("ZEROS", new string('0', 2 * 0x1fa4), StringComparison.Ordinal).Replace(" ", "", StringComparison.Ordinal)));

        var answer = await ReadToEndAsync(stranger);
        Assert.StartsWith("HTTP/1.1 101", answer, StringComparison.Ordinal);
        Assert.Contains(reason, answer, StringComparison.Ordinal);
        await running.AssertUnharmedAsync();
        Assert.Equal(0, running.Server.Program.Output.CountOf(" error "));
    }

    [Fact]
    public async Task What_is_no_HTTP_is_refused_and_harms_nobody()
    {
        using var other = await Payload.ConnectAsync(running.Server.Port);
        await other.GetStream().WriteAsync("SSH-2.0-OpenSSH_9.2\r\n\r\n"u8.ToArray());
        Assert.StartsWith("HTTP/1.1 400", await ReadToEndAsync(other), StringComparison.Ordinal);
        await running.AssertUnharmedAsync();
    }

    private static async Task<string> ReadToEndAsync(TcpClient client)
    {
        var text = new StringBuilder();
        var buffer = new byte[1024];
        try
        {
            while (await client.GetStream().ReadAsync(buffer).AsTask().WaitAsync(TestTimeouts.Step) is > 0 and var count)
                text.Append(Encoding.ASCII.GetString(buffer, 0, count));
        }
        catch (IOException)
        {
            // Cut off by a reset, which is as good as an end.
        }

        return text.ToString();
    }
}
