using System.Net.WebSockets;
using System.Text;
using Akka.Streams;
using Akka.Streams.Dsl;
using Akka.TestKit;
using VTunnel.Actors.Tests.Hosting;
using VTunnel.Actors.Tests.Testing;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Errors;
using VTunnel.Stages;
using VTunnel.Testing;

namespace VTunnel.Actors.Tests.Stages;

public sealed class CarrierStageTests : VirtualTimeKit
{
    private const int MaxMessageBytes = 64 * 1024;
    private static readonly SessionProtocolException ShuttingDown = new(SessionError.ShuttingDown, "shutting down");
    private static readonly TimeSpan Farewell = TimeSpan.FromSeconds(2);

    private IManualWire<ByteSlice> Run(MemoryCarrier carrier, TestProbe? observer = null, bool takesAll = true) =>
        Flow.FromGraph(new CarrierStage(carrier, MaxMessageBytes))
            .JoinMaterialized(Flow.FromGraph(new ManualWireStage<ByteSlice>(takesAll: takesAll, observer: observer?.Ref)), Keep.Right)
            .Run(CallingThreadMaterializer());

    private static ByteSlice Bytes(string text) => ByteChunk.Copy(Encoding.UTF8.GetBytes(text));

    private static string Text(WireEvents.Took took) => Encoding.UTF8.GetString(((ByteSlice)took.Element).Span);

    [Theory]
    [InlineData(1)]
    [InlineData(7)]
    [InlineData(4096)]
    public async Task A_message_in_pieces_comes_out_whole(int fragmentBytes)
    {
        var pair = new MemoryCarrierPair();
        pair.Server.Incoming.FragmentBytes = fragmentBytes;
        var probe = CreateTestProbe();
        Run(pair.Server, probe);
        var message = string.Concat(Enumerable.Range(0, 2000).Select(number => $"{number},"));
        await pair.Client.SendTextAsync(message);
        await pair.Client.SendTextAsync("another");
        Assert.Equal(message, Text(probe.ExpectMsg<WireEvents.Took>()));
        Assert.Equal("another", Text(probe.ExpectMsg<WireEvents.Took>()));
    }

    [Fact]
    public async Task Large_messages_in_a_row_take_one_receive_each_and_a_small_one_gives_the_room_back()
    {
        var pair = new MemoryCarrierPair();
        var probe = CreateTestProbe();
        Run(pair.Server, probe);
        Assert.True(await ReceivesAsync(40_000) > 1);
        Assert.Equal(1, await ReceivesAsync(40_000));
        Assert.Equal(1, await ReceivesAsync(100));
        Assert.True(await ReceivesAsync(40_000) > 1);

        async Task<long> ReceivesAsync(int length)
        {
            var before = pair.Server.ReceivedCount;
            await pair.Client.SendTextAsync(new string('x', length));
            Assert.Equal(length, Text(probe.ExpectMsg<WireEvents.Took>()).Length);
            return pair.Server.ReceivedCount - before;
        }
    }

    [Fact]
    public async Task A_message_of_the_largest_size_passes_and_one_byte_more_ends_the_session()
    {
        var pair = new MemoryCarrierPair();
        var probe = CreateTestProbe();
        Run(pair.Server, probe);
        await pair.Client.SendTextAsync(new string('x', MaxMessageBytes));
        Assert.Equal(MaxMessageBytes, Text(probe.ExpectMsg<WireEvents.Took>()).Length);

        await pair.Client.SendTextAsync(new string('x', MaxMessageBytes + 1));
        Assert.Null(await pair.Client.ReceiveTextAsync());
        Assert.Equal((WebSocketCloseStatus.MessageTooBig, "a message exceeds the limit of 65536 bytes"), pair.Client.CloseReceived);
        await pair.Client.CloseAsync(WebSocketCloseStatus.NormalClosure, "");
        var failure = Assert.IsType<SessionProtocolException>(probe.ExpectMsg<WireEvents.Finished>().Failure);
        Assert.Equal(SessionError.MessageTooLarge, failure.Code);
    }

    [Fact]
    public async Task A_message_beyond_the_limit_is_refused_before_it_is_all_there()
    {
        var pair = new MemoryCarrierPair();
        Run(pair.Server, CreateTestProbe());
        await pair.Client.Outgoing.WriteAsync(new byte[MaxMessageBytes + 1], WebSocketMessageType.Text, endOfMessage: false);
        Assert.Null(await pair.Client.ReceiveTextAsync());
        Assert.Equal(WebSocketCloseStatus.MessageTooBig, pair.Client.CloseReceived!.Value.Status);
    }

    [Fact]
    public async Task A_binary_message_ends_the_session()
    {
        var pair = new MemoryCarrierPair();
        var probe = CreateTestProbe();
        Run(pair.Server, probe);
        await pair.Client.SendAsync(new byte[] { 1, 2, 3 }, WebSocketMessageType.Binary);
        Assert.Null(await pair.Client.ReceiveTextAsync());
        Assert.Equal(WebSocketCloseStatus.InvalidMessageType, pair.Client.CloseReceived!.Value.Status);
        await pair.Client.CloseAsync(WebSocketCloseStatus.NormalClosure, "");
        var failure = Assert.IsType<SessionProtocolException>(probe.ExpectMsg<WireEvents.Finished>().Failure);
        Assert.Equal(SessionError.UnexpectedMessageKind, failure.Code);
    }

    public static TheoryData<SessionError?, WebSocketCloseStatus> Statuses => new()
    {
        { null, WebSocketCloseStatus.NormalClosure },
        { SessionError.MessageTooLarge, WebSocketCloseStatus.MessageTooBig },
        { SessionError.UnexpectedMessageKind, WebSocketCloseStatus.InvalidMessageType },
        { SessionError.ProtocolViolation, WebSocketCloseStatus.ProtocolError },
        { SessionError.ShuttingDown, WebSocketCloseStatus.EndpointUnavailable },
        { SessionError.KeepAliveTimeout, WebSocketCloseStatus.NormalClosure },
    };

    [Theory]
    [MemberData(nameof(Statuses))]
    public async Task The_peer_is_told_why_the_session_ends(SessionError? code, WebSocketCloseStatus status)
    {
        var pair = new MemoryCarrierPair();
        var wire = Run(pair.Server);
        wire.Close(code is { } error ? new SessionProtocolException(error, "the reason") : null);
        Assert.Null(await pair.Client.ReceiveTextAsync());
        Assert.Equal((status, code is null ? "" : "the reason"), pair.Client.CloseReceived);
        await pair.Client.CloseAsync(WebSocketCloseStatus.NormalClosure, "");
        await pair.Server.Aborted.WaitAsync(TestTimeouts.Long);
    }

    [Fact]
    public async Task A_fault_of_the_program_is_told_without_its_details()
    {
        var pair = new MemoryCarrierPair();
        Run(pair.Server).Close(new InvalidOperationException("secret innards"));
        Assert.Null(await pair.Client.ReceiveTextAsync());
        Assert.Equal((WebSocketCloseStatus.InternalServerError, "internal error"), pair.Client.CloseReceived);
    }

    [Fact]
    public async Task A_close_of_the_peer_is_answered_and_ends_the_session_in_order()
    {
        var pair = new MemoryCarrierPair();
        var probe = CreateTestProbe();
        Run(pair.Server, probe);
        await pair.Client.CloseAsync(WebSocketCloseStatus.NormalClosure, "");
        Assert.Null(probe.ExpectMsg<WireEvents.Finished>().Failure);
        Assert.Null(await pair.Client.ReceiveTextAsync());
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(10)]
    [InlineData(17)]
    public async Task A_connection_that_breaks_gives_whole_messages_only_and_says_that_it_was_lost(int bytes)
    {
        var pair = new MemoryCarrierPair();
        var probe = CreateTestProbe();
        Run(pair.Server, probe);
        pair.Client.Outgoing.BreakAfterBytes = bytes;
        await pair.Client.SendTextAsync("0123456789");
        if (bytes > 10)
            await pair.Client.SendTextAsync("0123456789");
        if (bytes >= 10)
            Assert.Equal("0123456789", Text(probe.ExpectMsg<WireEvents.Took>()));
        if (bytes == 10)
            pair.Break();
        var failure = Assert.IsType<SessionProtocolException>(probe.ExpectMsg<WireEvents.Finished>().Failure);
        Assert.Equal(SessionError.ConnectionLost, failure.Code);
    }

    [Fact]
    public void Nothing_is_received_before_it_is_wanted()
    {
        var pair = new MemoryCarrierPair();
        Assert.True(pair.Client.SendTextAsync("waiting").IsCompletedSuccessfully);
        var probe = CreateTestProbe();
        var wire = Run(pair.Server, probe, takesAll: false);
        Assert.Equal(0, pair.Server.ReceivedCount);
        wire.TakesAll = true;
        Assert.Equal("waiting", Text(probe.ExpectMsg<WireEvents.Took>()));
    }

    [Fact]
    public async Task Messages_go_out_in_order_as_the_peer_reads_them()
    {
        var pair = new MemoryCarrierPair(bufferBytes: 10);
        var wire = Run(pair.Server);
        for (var number = 0; number < 50; number++)
            wire.Put(Bytes($"message {number}"));
        for (var number = 0; number < 50; number++)
            Assert.Equal($"message {number}", await pair.Client.ReceiveTextAsync());
    }

    [Fact]
    public async Task The_goodbye_comes_after_the_message_that_is_being_sent()
    {
        var pair = new MemoryCarrierPair(bufferBytes: 10);
        var wire = Run(pair.Server);
        wire.Put(Bytes("one that fills the buffer"));
        wire.Put(Bytes("one that has to wait"));
        wire.Close(ShuttingDown);
        Assert.Equal("one that fills the buffer", await pair.Client.ReceiveTextAsync());
        Assert.Equal("one that has to wait", await pair.Client.ReceiveTextAsync());
        Assert.Null(await pair.Client.ReceiveTextAsync());
        Assert.Equal(WebSocketCloseStatus.EndpointUnavailable, pair.Client.CloseReceived!.Value.Status);
    }

    [Fact]
    public async Task A_peer_that_does_not_read_holds_the_goodbye_up_for_a_moment_only()
    {
        var pair = new MemoryCarrierPair(bufferBytes: 10);
        var wire = Run(pair.Server);
        wire.Put(Bytes("one that fills the buffer"));
        wire.Put(Bytes("one that has to wait"));
        wire.Close(ShuttingDown);
        Time.Advance(Farewell - TimeSpan.FromMilliseconds(1));
        Assert.False(pair.Server.Aborted.IsCompleted);
        Time.Advance(TimeSpan.FromMilliseconds(1));
        await pair.Server.Aborted.WaitAsync(TestTimeouts.Long);
    }
}
