using System.Net.WebSockets;
using Akka.Streams;
using Akka.Streams.Dsl;
using Akka.TestKit;
using Microsoft.Extensions.Time.Testing;
using VTunnel.Actors.Tests.Testing;
using VTunnel.Bridge.Wire;
using VTunnel.Carriers;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Link;
using VTunnel.Stages;
using VTunnel.Testing;

namespace VTunnel.Actors.Tests.Stages;

public sealed class LinkStageTests : VirtualTimeKit
{
    private static readonly LinkOptions Options = new() { KeepAliveInterval = TimeSpan.FromSeconds(10) };
    private static readonly TimeSpan Farewell = TimeSpan.FromSeconds(3);

    private readonly FakeTimeProvider _clock = new();
    private readonly LinkState _client = LinkState.CreateClient(Options);
    private readonly TestProbe _session;

    public LinkStageTests() => _session = CreateTestProbe();

    private (ILinkPort Port, IManualWire<ByteSlice> Wire) Run(bool takesAll, TestProbe? observer = null)
    {
        var link = LinkState.CreateServer(Options, LinkId.FromBytes(new byte[LinkId.Length].Select((_, i) => (byte)(i + 1)).ToArray()), new LinkSecret(new byte[LinkSecret.Length]));
        return Run(link, takesAll, observer);
    }

    private (ILinkPort Port, IManualWire<ByteSlice> Wire) Run(LinkState link, bool takesAll, TestProbe? observer = null) =>
        Flow.FromGraph(new LinkStage(link, () => false, _session, _clock))
            .JoinMaterialized(Flow.FromGraph(new ManualWireStage<ByteSlice>(takesAll: takesAll, observer: observer?.Ref)), Keep.Both)
            .Run(CallingThreadMaterializer());

    /// <summary>The client's HELLO on a new carrier.</summary>
    private byte[] Hello()
    {
        var carrier = _client.AttachCarrier(TimeSpan.Zero);
        Assert.True(_client.TryTakeMessage(carrier, TimeSpan.Zero, out var message));
        var bytes = message.Span.ToArray();
        message.Release();
        return bytes;
    }

    private static LinkHello Read(byte[] bytes)
    {
        Assert.True(LinkAcceptor.TryRead(bytes, [], out var hello, out _));
        return hello;
    }

    private async Task ConnectAsync(ILinkPort port, MemoryCarrierPair pair)
    {
        port.Attach(pair.Server, Read(Hello()));
        _session.ExpectMsg<LinkEvents.CarrierUp>();
        var buffer = new byte[4096];
        var answer = await pair.Client.ReceiveAsync(buffer).AsTask().WaitAsync(TestTimeouts.Step);
        _client.Receive(1, ByteChunk.Copy(buffer.AsSpan(0, answer.Count)), TimeSpan.Zero);
        Assert.True(_client.IsUp);
    }

    private void PassTime(TimeSpan time)
    {
        for (var passed = TimeSpan.Zero; passed < time; passed += TimeSpan.FromSeconds(1))
        {
            _clock.Advance(TimeSpan.FromSeconds(1));
            Time.Advance(TimeSpan.FromSeconds(1));
        }
    }

    [Fact]
    public async Task Silence_counts_while_the_carrier_is_read_and_not_while_nobody_takes_what_it_brings()
    {
        var (port, wire) = Run(takesAll: false);
        await ConnectAsync(port, new MemoryCarrierPair());
        PassTime(10 * Options.KeepAliveInterval);
        _session.ExpectNoMsg(TimeSpan.Zero);

        wire.TakesAll = true;
        PassTime(2 * Options.KeepAliveInterval - TimeSpan.FromSeconds(1));
        _session.ExpectNoMsg(TimeSpan.Zero);
        PassTime(Options.KeepAliveInterval);
        Assert.Contains("nothing was heard", _session.ExpectMsg<LinkEvents.CarrierLost>().Reason, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(WebSocketMessageType.Text, 2, SessionError.UnexpectedMessageKind, WebSocketCloseStatus.InvalidMessageType)]
    [InlineData(WebSocketMessageType.Binary, LinkRecord.MaxBytes + 1, SessionError.MessageTooLarge, WebSocketCloseStatus.MessageTooBig)]
    public async Task A_message_that_would_come_again_on_every_carrier_ends_the_session_with_a_word(
        WebSocketMessageType kind, int length, SessionError code, WebSocketCloseStatus status)
    {
        var observer = CreateTestProbe();
        var pair = new MemoryCarrierPair();
        var (port, _) = Run(takesAll: true, observer);
        await ConnectAsync(port, pair);

        await pair.Client.SendAsync(new byte[length], kind).AsTask().WaitAsync(TestTimeouts.Step);
        var buffer = new byte[4096];
        do
            Assert.Equal(WebSocketMessageType.Binary, (await pair.Client.ReceiveAsync(buffer).AsTask().WaitAsync(TestTimeouts.Step)).MessageType);
        while (buffer[0] == (byte)LinkRecordType.Ping);
        Assert.Equal([(byte)LinkRecordType.Bye, 0, (byte)code], buffer[..3]);
        Assert.Equal(WebSocketMessageType.Close, (await pair.Client.ReceiveAsync(buffer).AsTask().WaitAsync(TestTimeouts.Step)).MessageType);
        Assert.Equal(status, pair.Client.CloseReceived!.Value.Status);

        // Whatever else was under way is dropped, and the peer's goodbye ends it.
        await pair.Client.SendAsync(new byte[length], kind).AsTask().WaitAsync(TestTimeouts.Step);
        observer.ExpectNoMsg(TimeSpan.Zero);
        await pair.Client.CloseAsync(WebSocketCloseStatus.NormalClosure, "");
        Assert.Equal(code, Assert.IsType<SessionProtocolException>(observer.ExpectMsg<WireEvents.Finished>().Failure).Code);
    }

    [Fact]
    public async Task A_message_that_is_announced_with_too_many_bytes_ends_the_session_on_a_byte_stream_too()
    {
        var observer = CreateTestProbe();
        var (near, far) = DuplexStream.CreatePair();
        var (port, _) = Run(takesAll: true, observer);
        port.Attach(new StreamCarrier(near, "peer", () => { }), Read(Hello()));
        _session.ExpectMsg<LinkEvents.CarrierUp>();
        var peer = new StreamCarrier(far, "stage", () => { });
        var buffer = new byte[4096];
        var answer = await peer.ReceiveAsync(buffer).AsTask().WaitAsync(TestTimeouts.Step);
        _client.Receive(1, ByteChunk.Copy(buffer.AsSpan(0, answer.Count)), TimeSpan.Zero);
        Assert.True(_client.IsUp);

        await far.WriteAsync(new byte[] { 0, 0x10, 0, 1 });
        do
            await peer.ReceiveAsync(buffer).AsTask().WaitAsync(TestTimeouts.Step);
        while (buffer[0] == (byte)LinkRecordType.Ping);
        Assert.Equal([(byte)LinkRecordType.Bye, 0, (byte)SessionError.MessageTooLarge], buffer[..3]);
        await peer.CloseAsync(WebSocketCloseStatus.NormalClosure, "");
        Assert.Equal(SessionError.MessageTooLarge, Assert.IsType<SessionProtocolException>(observer.ExpectMsg<WireEvents.Finished>().Failure).Code);
    }

    [Theory]
    [InlineData(WebSocketMessageType.Text, 2)]
    [InlineData(WebSocketMessageType.Binary, LinkRecord.MaxBytes + 1)]
    public async Task Before_anybody_knows_who_sends_it_such_a_message_ends_only_the_carrier(
        WebSocketMessageType kind, int length)
    {
        var observer = CreateTestProbe();
        var pair = new MemoryCarrierPair();
        var (port, _) = Run(_client, takesAll: true, observer);
        port.Attach(pair.Client, null);
        await pair.Server.SendAsync(new byte[length], kind).AsTask().WaitAsync(TestTimeouts.Step);
        _session.ExpectMsg<LinkEvents.CarrierLost>();
        observer.ExpectNoMsg(TimeSpan.Zero);
        Assert.True(_client.NeedsCarrier);
    }

    [Fact]
    public void Records_that_bring_nothing_keep_nobody_from_the_stage()
    {
        var (port, _) = Run(takesAll: true);
        var carrier = new EndlessCarrier();
        carrier.OnReceive = count =>
        {
            if (count == 1)
                _client.Receive(1, ByteChunk.Copy(carrier.FirstSent), TimeSpan.Zero);
            else if (count == 10)
                port.Attach(new MemoryCarrierPair().Server, Read(Hello()));
        };
        port.Attach(carrier, Read(Hello()));

        _session.ExpectMsg<LinkEvents.CarrierUp>();
        _session.ExpectMsg<LinkEvents.CarrierUp>();
        Assert.InRange(carrier.ReceivedWhenAborted, 10, 1_000);
    }

    /// <summary>Has always got something, which means nothing: a record of a kind that nobody knows.</summary>
    private sealed class EndlessCarrier : ICarrier
    {
        private const int EnoughToSee = 100_000;

        private int _count;

        public Action<int> OnReceive { get; set; } = _ => { };

        public byte[] FirstSent { get; private set; } = [];

        public int ReceivedWhenAborted { get; private set; }

        public string RemoteName => "endless";

        public bool SpeaksV2 => true;

        public long ReceivedCount => _count;

        public Task Disposed => Task.CompletedTask;

        public ValueTask<ValueWebSocketReceiveResult> ReceiveAsync(Memory<byte> buffer)
        {
            if (++_count > EnoughToSee)
                return new ValueTask<ValueWebSocketReceiveResult>(new TaskCompletionSource<ValueWebSocketReceiveResult>().Task);
            OnReceive(_count);
            buffer.Span[0] = 0x80;
            return ValueTask.FromResult(new ValueWebSocketReceiveResult(1, WebSocketMessageType.Binary, true));
        }

        public ValueTask SendAsync(ReadOnlyMemory<byte> message, WebSocketMessageType kind)
        {
            if (FirstSent.Length == 0)
                FirstSent = message.ToArray();
            return ValueTask.CompletedTask;
        }

        public ValueTask<bool> PingAsync() => ValueTask.FromResult(true);

        public ValueTask CloseAsync(WebSocketCloseStatus status, string reason) => ValueTask.CompletedTask;

        public void Abort() => ReceivedWhenAborted = ReceivedWhenAborted == 0 ? _count : ReceivedWhenAborted;

        public ValueTask DisposeAsync() => ValueTask.CompletedTask;
    }

    [Fact]
    public async Task A_carrier_that_is_still_being_refused_goes_with_the_link()
    {
        var (port, wire) = Run(takesAll: true);
        await ConnectAsync(port, new MemoryCarrierPair());

        // A forger who does not read why he is refused.
        var hello = Hello();
        hello[^1] ^= 1;
        var forger = new MemoryCarrierPair(bufferBytes: 1);
        await forger.Server.SendAsync(new byte[] { 0 }, WebSocketMessageType.Binary);
        port.Attach(forger.Server, Read(hello));
        Assert.NotNull(port.Carrier);
        Assert.NotSame(forger.Server, port.Carrier);
        Assert.False(forger.Server.Aborted.IsCompleted);

        wire.Close(new InvalidOperationException("over"));
        PassTime(Farewell);
        await forger.Server.Aborted.WaitAsync(TestTimeouts.Step);
        await forger.Server.Disposed.WaitAsync(TestTimeouts.Step);
    }
}
