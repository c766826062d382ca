using System.Net.WebSockets;
using System.Text;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.BadInput;

/// <summary>Messages that a peer should not send: the session goes on, or ends with a status that says why, and nobody else notices.</summary>
public sealed class MessageTests : IAsyncLifetime
{
    private const int MessageLimit = 64 * 1024;

    private readonly TargetServer _echo = TargetServer.StartEcho();
    private TunnelHost _host = null!;
    private HandPeer _peer = null!;

    public async Task InitializeAsync()
    {
        _host = await TunnelHost.StartAsync(server => server.MaxMessageBytes = MessageLimit);
        _peer = await _host.ConnectByHandAsync();
    }

    public async Task DisposeAsync()
    {
        await _peer.DisposeAsync();
        await _host.DisposeAsync();
        await _echo.DisposeAsync();
    }

    [Theory]
    [InlineData("", "the message is empty")]
    [InlineData("hello", "not JSON")]
    [InlineData("{", "not JSON")]
    [InlineData("""{"type":"ping"}{}""", "something follows the JSON object")]
    [InlineData("""{"type":"ping",}""", "not JSON")]
    [InlineData("null", "not a JSON object")]
    [InlineData("42", "not a JSON object")]
    [InlineData("\"listen\"", "not a JSON object")]
    [InlineData("""["listen",9000]""", "not a JSON object")]
    [InlineData("{}", "\"type\" is missing")]
    [InlineData("""{"type":5}""", "\"type\" must be a string")]
    [InlineData("""{"type":"data","data":"QUJD"}""", "\"stream_id\" is missing")]
    [InlineData("""{"type":"data","stream_id":0,"data":"QUJD"}""", "\"stream_id\" is missing or 0")]
    [InlineData("""{"type":"data","stream_id":-1,"data":"QUJD"}""", "\"stream_id\" must be a whole number")]
    [InlineData("""{"type":"data","stream_id":4294967296,"data":"QUJD"}""", "\"stream_id\" must be a whole number")]
    [InlineData("""{"type":"data","stream_id":"1","data":"QUJD"}""", "\"stream_id\" must be a whole number")]
    [InlineData("""{"type":"data","stream_id":1,"data":7}""", "must be a string of base64")]
    [InlineData("""{"type":"data","stream_id":1,"data":"@@@@"}""", "not base64")]
    [InlineData("""{"type":"data","stream_id":1,"data":"QUI"}""", "not base64")]
    [InlineData("""{"type":"close"}""", "\"stream_id\" is missing")]
    [InlineData("""{"type":"listen","port":"9000"}""", "\"port\" must be a whole number")]
    [InlineData("""{"type":"listen","port":9000.5}""", "\"port\" must be a whole number")]
    public async Task A_message_that_makes_no_sense_is_logged_and_skipped(string text, string logged)
    {
        await _peer.SendAsync(text);
        await _peer.ExpectPongAsync();

        var line = await _host.Log.Lines.WaitForAsync("sent a message that was skipped");
        Assert.StartsWith("Warning", line, StringComparison.Ordinal);
        Assert.Contains(logged, line, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Deeply_nested_JSON_is_skipped()
    {
        await _peer.SendAsync("{\"type\":\"ping\",\"x\":" + new string('[', 30_000) + new string(']', 30_000) + "}");
        await _peer.ExpectPongAsync();
        await _host.Log.Lines.WaitForAsync("sent a message that was skipped");
    }

    [Fact]
    public async Task A_flood_of_nonsense_does_not_flood_the_log()
    {
        for (var i = 0; i < 1000; i++)
            await _peer.SendAsync("nonsense");
        await _peer.ExpectPongAsync();

        await _host.Log.Lines.WaitForAsync("further ones are not logged");
        Assert.Equal(20, _host.Log.Lines.CountOf("sent a message that was skipped"));
    }

    [Fact]
    public async Task Text_that_is_not_UTF8_ends_its_session_alone()
    {
        await using var bystander = await Bystander.StartAsync(_host, _echo);
        await _peer.SendAsync(new byte[] { (byte)'{', 0xC3, 0x28, (byte)'}' }, WebSocketMessageType.Text, endOfMessage: true);

        await _host.Log.Lines.WaitForAsync("session-1 down");
        await bystander.AssertUnharmedAsync();
    }

    [Fact]
    public async Task Data_and_close_for_streams_that_are_not_there_are_ignored()
    {
        var port = await _peer.ListenAsync();
        using var visitor = await Payload.ConnectAsync(port);
        var streamId = (await _peer.ReceiveAsync()).StreamId;

        foreach (var unknown in new[] { streamId + 1, streamId + 1000, uint.MaxValue })
        {
            await _peer.SendDataAsync(unknown, "nobody's"u8);
            await _peer.SendAsync($$"""{"type":"close","stream_id":{{unknown}}}""");
        }

        await _peer.SendDataAsync(streamId, "somebody's"u8);
        var received = new byte[10];
        await visitor.GetStream().ReadExactlyAsync(received).AsTask().WaitAsync(TestTimeouts.Step);
        Assert.Equal("somebody's", Encoding.ASCII.GetString(received));
        await _peer.ExpectPongAsync();
    }

    [Fact]
    public async Task Data_under_the_id_of_a_stream_that_has_ended_reaches_nobody()
    {
        var port = await _peer.ListenAsync();
        using var first = await Payload.ConnectAsync(port);
        var firstId = (await _peer.ReceiveAsync()).StreamId;
        await _peer.SendAsync($$"""{"type":"close","stream_id":{{firstId}}}""");
        Assert.Equal(0, await first.GetStream().ReadAsync(new byte[1]).AsTask().WaitAsync(TestTimeouts.Step));

        using var second = await Payload.ConnectAsync(port);
        var secondId = (await _peer.ReceiveAsync()).StreamId;
        Assert.NotEqual(firstId, secondId);
        await _peer.SendDataAsync(firstId, "for the first"u8);
        await _peer.SendDataAsync(secondId, "for the second"u8);
        await _peer.SendAsync($$"""{"type":"close","stream_id":{{secondId}}}""");

        using var reader = new StreamReader(second.GetStream());
        Assert.Equal("for the second", await reader.ReadToEndAsync().WaitAsync(TestTimeouts.Step));
    }

    [Fact]
    public async Task Messages_that_only_a_server_may_send_are_ignored()
    {
        var port = await _peer.ListenAsync();
        await _peer.SendAsync($$"""{"type":"connect","stream_id":1,"port":{{port}}}""");
        await _peer.SendAsync($$"""{"type":"listen_ok","port":{{port}}}""");
        await _peer.SendAsync($$"""{"type":"listen_err","port":{{port}},"error":"no"}""");
        await _peer.SendAsync("""{"type":"surprise","stream_id":1,"port":1,"more":{"a":[1,2,3]}}""");
        await _peer.ExpectPongAsync();
    }

    [Fact]
    public async Task A_message_of_exactly_the_limit_is_taken()
    {
        await _peer.SendAsync("{\"type\":\"ping\",\"fill\":\"" + new string('x', MessageLimit - 25) + "\"}");
        Assert.Equal("pong", (await _peer.ReceiveAsync()).Type);
    }

    [Theory]
    [InlineData(MessageLimit + 1)]
    [InlineData(16 * 1024 * 1024)]
    public async Task A_message_over_the_limit_is_answered_with_status_1009(int length)
    {
        await using var bystander = await Bystander.StartAsync(_host, _echo);
        var sending = SendAllAsync();

        Assert.Equal(WebSocketCloseStatus.MessageTooBig, await _peer.ReceiveCloseAsync());
        Assert.Contains($"the limit of {MessageLimit} bytes", _peer.CloseReason, StringComparison.Ordinal);
        var line = await _host.Log.Lines.WaitForAsync("session-1 down");
        Assert.Contains($"a message exceeds the limit of {MessageLimit} bytes", line, StringComparison.Ordinal);
        await bystander.AssertUnharmedAsync();
        _peer.Abort();
        await sending;

        async Task SendAllAsync()
        {
            try
            {
                await _peer.SendAsync(new string('x', length));
            }
            catch (WebSocketException)
            {
                // The server does not wait for all of it.
            }
        }
    }

    [Fact]
    public async Task A_binary_message_is_answered_with_status_1003()
    {
        await using var bystander = await Bystander.StartAsync(_host, _echo);
        await _peer.SendAsync("{\"type\":\"ping\"}"u8.ToArray(), WebSocketMessageType.Binary, endOfMessage: true);

        Assert.Equal(WebSocketCloseStatus.InvalidMessageType, await _peer.ReceiveCloseAsync());
        var line = await _host.Log.Lines.WaitForAsync("session-1 down");
        Assert.Contains("binary messages are not part of protocol v1", line, StringComparison.Ordinal);
        await bystander.AssertUnharmedAsync();
    }

    [Fact]
    public async Task A_client_that_never_reads_costs_bounded_memory_and_harms_nobody_else()
    {
        await using var bystander = await Bystander.StartAsync(_host, _echo);
        var port = await _peer.ListenAsync();
        using var visitor = await Payload.ConnectAsync(port);
        await _peer.ReceiveAsync();

        // From here on the peer reads nothing. The visitor is stopped long before its bytes are a burden to anybody.
        var writer = StallingWriter.Start(visitor);
        Assert.InRange(await writer.WaitForStallAsync(), 1, StallingWriter.BoundedBytes);
        await bystander.AssertUnharmedAsync();

        _peer.Abort();
        await _host.Log.Lines.WaitForAsync("session-1 down");
        await Assert.ThrowsAsync<IOException>(() => writer.StopAsync());
        await _host.WaitForSessionsAsync(1);
    }

    [Fact]
    public async Task A_client_that_never_reads_cannot_pile_up_answers()
    {
        await using var bystander = await Bystander.StartAsync(_host, _echo);
        await using var deaf = await _host.ConnectByHandAsync(receiveBufferBytes: 16 * 1024);

        // Each is answered, and the answers are never read: at some point the server must stop taking questions. It has if it
        // takes none while it does a lot for somebody else.
        const int TooMany = 2_000_000;
        var question = Encoding.UTF8.GetBytes("""{"type":"listen","port":0,"local_addr":"of no use to anybody at all"}""");
        var asking = Task.CompletedTask;
        var asked = 0;
        for (var stalled = false; !stalled && asked < TooMany; asked++)
        {
            asking = deaf.SendAsync(question, WebSocketMessageType.Text, endOfMessage: true);
            for (var round = 0; !asking.IsCompleted && !stalled; round++)
            {
                await bystander.AssertUnharmedAsync();
                stalled = round == 20 && !asking.IsCompleted;
            }
        }

        Assert.InRange(asked, 1000, TooMany - 1);
        await bystander.AssertUnharmedAsync();
        deaf.Abort();
        await Assert.ThrowsAnyAsync<Exception>(() => asking);
        await _host.Log.Lines.WaitForAsync("session-3 down");
    }
}
