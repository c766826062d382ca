using System.Net.WebSockets;
using System.Text;
using VTunnel.Actors.Tests.Hosting;
using VTunnel.Actors.Tests.Testing;
using VTunnel.Carriers;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Framing;
using VTunnel.Testing;
using VTunnel.Web;

namespace VTunnel.Actors.Tests.Carriers;

/// <summary>The far end is .NET's own WebSocket where it can do what is to be shown, and bytes where it cannot.</summary>
public sealed class FramedCarrierTests : IDisposable
{
    private static readonly int[] Sizes = [0, 1, 125, 126, 127, 4_096, 65_535, 65_536, 300_000];

    private readonly List<IDisposable> _owned = [];

    public void Dispose() => _owned.ForEach(one => one.Dispose());

    public static TheoryData<bool, int> EndsAndReads()
    {
        var data = new TheoryData<bool, int>();
        foreach (var isClient in new[] { true, false })
        {
            foreach (var maxRead in new[] { 1, 2, 3, 7, 150, int.MaxValue })
                data.Add(isClient, maxRead);
        }

        return data;
    }

    [Fact]
    public void Pings_without_end_do_not_keep_the_thread_that_reads()
    {
        var line = new PingingStream();
        var carrier = Own(new FramedCarrier(Own(LibrarySocket(line, isServer: false)), new ProbedStream(line), isClient: true, "far"));
        var received = Task.CompletedTask;
        var reader = new Thread(() => received = carrier.ReceiveAsync(new byte[1000]).AsTask());
        line.Reader = reader;

        reader.Start();
        Assert.True(reader.Join(TestTimeouts.Step));

        Assert.InRange(line.ReadsByReader, 1, 1_000);
        Assert.False(received.IsCompleted);
    }

    /// <summary>A server that has always got pings to read, and nothing else.</summary>
    private sealed class PingingStream : AsyncStream
    {
        private const int EnoughToSee = 100_000;

        private int _reads;

        public Thread? Reader { get; set; }

        public int ReadsByReader { get; private set; }

        public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
        {
            if (Thread.CurrentThread == Reader)
                ReadsByReader++;
            if (Interlocked.Increment(ref _reads) > EnoughToSee)
                return new ValueTask<int>(new TaskCompletionSource<int>().Task);
            var length = buffer.Length & ~1;
            for (var i = 0; i < length; i += 2)
                (buffer.Span[i], buffer.Span[i + 1]) = (0x89, 0x00);
            return ValueTask.FromResult(length);
        }

        public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default) => ValueTask.CompletedTask;
    }

    [Theory]
    [MemberData(nameof(EndsAndReads))]
    public async Task What_a_WebSocket_sends_arrives_whole_and_in_order(bool isClient, int maxRead)
    {
        var (carrier, far) = Connect(isClient, maxRead);
        using var socket = LibrarySocket(far, isServer: isClient);
        var messages = Sizes.Select(Message).ToArray();

        var sending = SendAllAsync();
        foreach (var bufferBytes in new[] { 70_000, 1_000, int.MaxValue })
        {
            foreach (var message in messages)
                Assert.Equal(message, await ReceiveMessageAsync(carrier, WebSocketMessageType.Binary, Math.Min(bufferBytes, message.Length + 1)));
        }

        await sending.WaitAsync(TestTimeouts.Long);

        async Task SendAllAsync()
        {
            // Whole, in thirds, and whole again.
            foreach (var inPieces in new[] { false, true, false })
            {
                foreach (var message in messages)
                {
                    var third = inPieces ? message.Length / 3 : 0;
                    for (var at = 0; at < third * 2; at += third)
                        await socket.SendAsync(message.AsMemory(at, third), WebSocketMessageType.Binary, endOfMessage: false, default);
                    await socket.SendAsync(message.AsMemory(third * 2), WebSocketMessageType.Binary, endOfMessage: true, default);
                }
            }
        }
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task What_it_sends_arrives_at_a_WebSocket(bool isClient)
    {
        var (carrier, far) = Connect(isClient);
        using var socket = LibrarySocket(far, isServer: isClient);
        var sending = SendAllAsync();
        foreach (var size in Sizes)
        {
            foreach (var kind in new[] { WebSocketMessageType.Binary, WebSocketMessageType.Text })
            {
                var received = new byte[size + 1];
                var count = 0;
                ValueWebSocketReceiveResult result;
                do
                {
                    result = await socket.ReceiveAsync(received.AsMemory(count), default).AsTask().WaitAsync(TestTimeouts.Long);
                    count += result.Count;
                }
                while (!result.EndOfMessage);
                Assert.Equal(kind, result.MessageType);
                Assert.Equal(Message(size), received[..count]);
            }
        }

        await sending.WaitAsync(TestTimeouts.Long);

        async Task SendAllAsync()
        {
            foreach (var size in Sizes)
            {
                // With room for a header before it, and without.
                var slice = ByteChunk.Copy(Message(size));
                await carrier.SendAsync(slice.Memory, WebSocketMessageType.Binary);
                Assert.Equal(Message(size), slice.Span.ToArray());
                slice.Release();
                await carrier.SendAsync(Message(size), WebSocketMessageType.Text);
            }
        }
    }

    [Fact]
    public async Task A_client_masks_each_frame_with_another_key()
    {
        var (carrier, far) = Connect(isClient: true);
        var keys = new HashSet<uint>();
        for (var i = 0; i < 200; i++)
        {
            await carrier.SendAsync(new byte[8], WebSocketMessageType.Binary);
            var (header, payload) = await ReadFrameAsync(far);
            Assert.Equal(new byte[8], payload);
            keys.Add(header.MaskKey!.Value);
        }

        // Of 200 random numbers of 32 bits two are the same once in 200,000 runs; two pairs never.
        Assert.InRange(keys.Count, 199, 200);
    }

    /// <summary>Between the frames of a message, at every place where the reads may have cut it.</summary>
    [Theory]
    [MemberData(nameof(EndsAndReads))]
    public async Task A_ping_is_answered_with_what_it_said(bool isClient, int maxRead)
    {
        var (carrier, far) = Connect(isClient, maxRead);
        var message = Message(1_000);
        byte[] wire =
        [
            .. Frame(isClient, WebSocketOpcode.Binary, false, message.AsSpan(0, 400)),
            .. Frame(isClient, WebSocketOpcode.Ping, true, "are you there?"u8),
            .. Frame(isClient, WebSocketOpcode.Pong, true, "nobody asked"u8),
            .. Frame(isClient, WebSocketOpcode.Continuation, true, message.AsSpan(400)),
        ];
        var writing = far.WriteAsync(wire).AsTask();

        Assert.Equal(message, await ReceiveMessageAsync(carrier, WebSocketMessageType.Binary, 4_096));

        await writing;
        var (header, payload) = await ReadFrameAsync(far);
        Assert.Equal((WebSocketOpcode.Pong, true, isClient), (header.Opcode, header.IsFinal, header.MaskKey is not null));
        Assert.Equal("are you there?", Encoding.ASCII.GetString(payload));
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Pings_of_one_who_does_not_read_hold_nothing_up_and_the_last_is_answered(bool isClient)
    {
        var (carrier, far) = Connect(isClient);

        // What is sent first fills the connection, so that no pong can leave.
        var filling = carrier.SendAsync(new byte[200_000], WebSocketMessageType.Binary).AsTask();
        for (var i = 0; i < 100; i++)
            await far.WriteAsync(Frame(isClient, WebSocketOpcode.Ping, true, [(byte)i]));
        await far.WriteAsync(Frame(isClient, WebSocketOpcode.Binary, true, "after all of them"u8));
        Assert.Equal("after all of them"u8.ToArray(), await ReceiveMessageAsync(carrier, WebSocketMessageType.Binary, 100));
        Assert.False(filling.IsCompleted);

        Assert.Equal(WebSocketOpcode.Binary, (await ReadFrameAsync(far)).Header.Opcode);
        await filling.WaitAsync(TestTimeouts.Long);
        Assert.Equal([0], (await ReadFrameAsync(far)).Payload);
        Assert.Equal([99], (await ReadFrameAsync(far)).Payload);
    }

    [Fact]
    public async Task Pings_that_say_nothing_are_answered_one_by_one()
    {
        var (carrier, far) = Connect(isClient: true);
        var receiving = carrier.ReceiveAsync(new byte[10]).AsTask();
        for (var i = 0; i < 100; i++)
        {
            await far.WriteAsync(Frame(true, WebSocketOpcode.Ping, true, default));
            var (header, payload) = await ReadFrameAsync(far);
            Assert.Equal((WebSocketOpcode.Pong, 0), (header.Opcode, payload.Length));
        }

        Assert.False(receiving.IsCompleted);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_ping_of_its_own_is_answered_by_a_WebSocket_and_shows(bool isClient)
    {
        var (carrier, far) = Connect(isClient);
        using var socket = LibrarySocket(far, isServer: isClient);
        var receiving = carrier.ReceiveAsync(new byte[10]).AsTask();
        var answering = socket.ReceiveAsync(new byte[10].AsMemory(), default).AsTask();
        var before = carrier.ReceivedCount;

        Assert.True(await carrier.PingAsync());
        await Ticks.UntilAsync(() => Task.FromResult(carrier.ReceivedCount != before));

        await carrier.SendAsync("x"u8.ToArray(), WebSocketMessageType.Binary);
        Assert.Equal(1, (await answering.WaitAsync(TestTimeouts.Long)).Count);
        Assert.False(receiving.IsCompleted);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Who_is_said_goodbye_to_answers_with_the_same_status_and_closes_in_order(bool isClient)
    {
        var (carrier, far) = Connect(isClient);
        using var socket = LibrarySocket(far, isServer: isClient);
        await socket.CloseOutputAsync((WebSocketCloseStatus)4000, "so long", default);

        Assert.Equal(WebSocketMessageType.Close, (await carrier.ReceiveAsync(new byte[10]).AsTask().WaitAsync(TestTimeouts.Long)).MessageType);
        await carrier.CloseAsync(WebSocketCloseStatus.NormalClosure, "not this one");
        carrier.Abort();
        Assert.False(_near!.IsDisposed);
        await carrier.DisposeAsync();
        Assert.True(_near.IsDisposed);
        Assert.True(carrier.Disposed.IsCompletedSuccessfully);

        Assert.Equal(WebSocketMessageType.Close, (await socket.ReceiveAsync(new byte[10].AsMemory(), default).AsTask().WaitAsync(TestTimeouts.Long)).MessageType);
        Assert.Equal(((WebSocketCloseStatus)4000, ""), (socket.CloseStatus, socket.CloseStatusDescription));
        Assert.Equal(WebSocketState.Closed, socket.State);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Who_says_goodbye_first_is_answered(bool isClient)
    {
        var (carrier, far) = Connect(isClient);
        using var socket = LibrarySocket(far, isServer: isClient);
        await carrier.CloseAsync(WebSocketCloseStatus.EndpointUnavailable, new string('é', 100));

        Assert.Equal(WebSocketMessageType.Close, (await socket.ReceiveAsync(new byte[10].AsMemory(), default).AsTask().WaitAsync(TestTimeouts.Long)).MessageType);
        Assert.Equal((WebSocketCloseStatus.EndpointUnavailable, new string('é', 61)), (socket.CloseStatus, socket.CloseStatusDescription));
        await socket.CloseOutputAsync(WebSocketCloseStatus.EndpointUnavailable, null, default);

        Assert.Equal(WebSocketMessageType.Close, (await carrier.ReceiveAsync(new byte[10]).AsTask().WaitAsync(TestTimeouts.Long)).MessageType);
        carrier.Abort();
        Assert.False(_near!.IsDisposed);
        var e = await Assert.ThrowsAsync<WebSocketException>(() => carrier.SendAsync(new byte[1], WebSocketMessageType.Binary).AsTask());
        Assert.Equal(WebSocketError.InvalidState, e.WebSocketErrorCode);
    }

    [Fact]
    public async Task Without_a_goodbye_it_is_broken_off_at_once()
    {
        var (carrier, _) = Connect(isClient: true);
        var receiving = carrier.ReceiveAsync(new byte[10]).AsTask();

        carrier.Abort();

        await Assert.ThrowsAnyAsync<IOException>(() => receiving.WaitAsync(TestTimeouts.Long));
        Assert.True(_near!.IsDisposed);
        await carrier.DisposeAsync();
        await Assert.ThrowsAsync<ObjectDisposedException>(() => carrier.ReceiveAsync(new byte[10]).AsTask());
        await Assert.ThrowsAsync<ObjectDisposedException>(() => carrier.SendAsync(new byte[10], WebSocketMessageType.Binary).AsTask());
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(5)]
    public async Task A_connection_that_ends_without_a_goodbye_is_an_error(int bytes)
    {
        var (carrier, far) = Connect(isClient: true);
        await far.WriteAsync(Frame(true, WebSocketOpcode.Binary, true, Message(20)).AsMemory(0, bytes));
        await far.DisposeAsync();

        var e = await Assert.ThrowsAsync<EndOfStreamException>(() => carrier.ReceiveAsync(new byte[100]).AsTask().WaitAsync(TestTimeouts.Long));
        Assert.Equal("the far end closed it without a goodbye", e.Message);
    }

    [Theory]
    [InlineData("82 85 01020304 00000000", "a WebSocket frame of a server is masked; only a client's are")]
    [InlineData("c2 01 00", "a WebSocket frame begins with 0xc2; no extension was agreed on that would use its reserved bits")]
    [InlineData("83 00", "a WebSocket frame has opcode 0x3; 0x0 to 0x2 and 0x8 to 0xa exist")]
    [InlineData("80 01 00", "a WebSocket frame goes on with a message where none was begun")]
    [InlineData("02 01 00 82 01 00", "a WebSocket message begins before the last one has ended")]
    [InlineData("88 01 03", "a WebSocket close frame of one byte; it is empty or begins with a status of two")]
    [InlineData("89 7e 0080", "a WebSocket control frame (opcode 0x9) has more than 125 bytes")]
    public async Task Who_breaks_the_rules_is_told_so(string wire, string message)
    {
        var (carrier, far) = Connect(isClient: true);
        await far.WriteAsync(Convert.FromHexString(wire.Replace(" ", "", StringComparison.Ordinal)));

        var e = await Assert.ThrowsAsync<WebSocketException>(() => ReceiveMessageAsync(carrier, WebSocketMessageType.Binary, 100));

        Assert.Equal(message, e.Message);
        var (header, payload) = await ReadFrameAsync(far);
        Assert.Equal((WebSocketOpcode.Close, true), (header.Opcode, header.MaskKey is not null));
        Assert.True(WebSocketGoodbye.TryRead(payload, out var status, out _));
        Assert.Equal((ushort)WebSocketCloseStatus.ProtocolError, status);
        Assert.StartsWith(Encoding.UTF8.GetString(payload, 2, payload.Length - 2), message, StringComparison.Ordinal);
    }

    /// <summary>No more is read than there is room for, whatever was announced: at the end of a buffer, too.</summary>
    [Theory]
    [InlineData(long.MaxValue)]
    [InlineData(long.MaxValue - 159)]
    [InlineData((1L << 32) - 100)]
    public async Task A_length_beyond_all_memory_is_received_piece_by_piece(long announced)
    {
        var (carrier, far) = Connect(isClient: true);
        var start = new byte[WebSocketFrameHeader.MaxSize];
        var header = new WebSocketFrameHeader(WebSocketOpcode.Binary, true, announced, null);
        header.Write(start);
        await far.WriteAsync(start.AsMemory(0, header.Size));
        var buffer = new byte[100];
        for (var length = 1; length <= 90; length += 11)
        {
            // Into an ever smaller rest of the buffer, as a reader does that puts pieces behind each other.
            await far.WriteAsync(Message(length));
            var result = await carrier.ReceiveAsync(buffer.AsMemory(buffer.Length - length)).AsTask().WaitAsync(TestTimeouts.Long);
            Assert.Equal((length, false), (result.Count, result.EndOfMessage));
            Assert.Equal(Message(length), buffer[^length..]);
        }
    }

    [Fact]
    public async Task Once_it_is_disposed_nothing_is_left_to_break_off()
    {
        var (near, _) = DuplexStream.CreatePair();
        var socket = new CountingSocket();
        var carrier = new FramedCarrier(socket, new ProbedStream(near), isClient: false, "far");
        socket.OnAbort = () => throw new ObjectDisposedException("the request");
        carrier.Abort();
        await carrier.DisposeAsync();
        carrier.Abort();
        Assert.Equal(1, socket.Aborts);
        await Assert.ThrowsAsync<ObjectDisposedException>(() => carrier.PingAsync().AsTask());
    }

    [Fact]
    public async Task A_client_that_does_not_mask_is_told_so()
    {
        var (carrier, far) = Connect(isClient: false);
        await far.WriteAsync(new byte[] { 0x82, 0x01, 0x00 });
        var e = await Assert.ThrowsAsync<WebSocketException>(() => carrier.ReceiveAsync(new byte[100]).AsTask().WaitAsync(TestTimeouts.Long));
        Assert.Equal("a WebSocket frame of a client is not masked", e.Message);
        Assert.Equal(WebSocketOpcode.Close, (await ReadFrameAsync(far)).Header.Opcode);
    }

    private DuplexStream? _near;

    private (FramedCarrier Carrier, DuplexStream Far) Connect(bool isClient, int maxRead = int.MaxValue)
    {
        var (near, far) = DuplexStream.CreatePair(maxRead);
        _near = near;
        _owned.Add(far);
        var stream = new ProbedStream(near);
        return (Own(new FramedCarrier(Own(LibrarySocket(stream, isServer: !isClient)), stream, isClient, "far")), far);
    }

    private WebSocket Own(WebSocket socket)
    {
        _owned.Add(socket);
        return socket;
    }

    private static FramedCarrier Own(FramedCarrier carrier)
    {
        Assert.True(carrier.SpeaksV2);
        return carrier;
    }

    internal static WebSocket LibrarySocket(Stream stream, bool isServer) =>
        WebSocket.CreateFromStream(stream, new WebSocketCreationOptions { IsServer = isServer, SubProtocol = TunnelSubProtocol.V2, KeepAliveInterval = TimeSpan.Zero });

    internal static byte[] Message(int size)
    {
        var message = new byte[size];
        for (var i = 0; i < size; i++)
            message[i] = (byte)('a' + (i % 23));
        return message;
    }

    /// <summary>A frame of the far end, which masks if it is the client.</summary>
    private static byte[] Frame(bool fromServer, WebSocketOpcode opcode, bool isFinal, ReadOnlySpan<byte> payload)
    {
        var header = new WebSocketFrameHeader(opcode, isFinal, payload.Length, fromServer ? null : 0x01020304u);
        var frame = new byte[header.Size + payload.Length];
        header.Write(frame);
        payload.CopyTo(frame.AsSpan(header.Size));
        if (header.MaskKey is { } key)
            WebSocketMask.Apply(frame.AsSpan(header.Size), key, 0);
        return frame;
    }

    private static async Task<(WebSocketFrameHeader Header, byte[] Payload)> ReadFrameAsync(Stream stream)
    {
        using var deadline = new CancellationTokenSource(TestTimeouts.Long);
        var start = new byte[WebSocketFrameHeader.MaxSize];
        var length = 0;
        WebSocketFrameHeader header;
        while (!WebSocketFrameHeader.TryRead(start.AsSpan(0, length), out header, out _, out var error))
        {
            Assert.Null(error);
            await stream.ReadExactlyAsync(start.AsMemory(length++, 1), deadline.Token);
        }

        var payload = new byte[header.Length];
        await stream.ReadExactlyAsync(payload, deadline.Token);
        if (header.MaskKey is { } key)
            WebSocketMask.Apply(payload, key, 0);
        return (header, payload);
    }

    private static async Task<byte[]> ReceiveMessageAsync(FramedCarrier carrier, WebSocketMessageType kind, int bufferBytes)
    {
        var message = new List<byte>();
        var buffer = new byte[bufferBytes];
        while (true)
        {
            var result = await carrier.ReceiveAsync(buffer).AsTask().WaitAsync(TestTimeouts.Long);
            Assert.Equal(kind, result.MessageType);
            message.AddRange(buffer.AsSpan(0, result.Count));
            if (result.EndOfMessage)
                return [.. message];
            Assert.InRange(result.Count, 1, bufferBytes);
        }
    }

    private sealed class CountingSocket : WebSocket
    {
        public int Aborts { get; private set; }

        public Action OnAbort { get; set; } = () => { };

        public override WebSocketCloseStatus? CloseStatus => null;

        public override string? CloseStatusDescription => null;

        public override WebSocketState State => WebSocketState.Open;

        public override string? SubProtocol => TunnelSubProtocol.V2;

        public override void Abort()
        {
            Aborts++;
            OnAbort();
        }

        public override Task CloseAsync(WebSocketCloseStatus closeStatus, string? statusDescription, CancellationToken cancellationToken) => throw new NotSupportedException();

        public override Task CloseOutputAsync(WebSocketCloseStatus closeStatus, string? statusDescription, CancellationToken cancellationToken) => throw new NotSupportedException();

        public override void Dispose()
        {
        }

        public override Task<WebSocketReceiveResult> ReceiveAsync(ArraySegment<byte> buffer, CancellationToken cancellationToken) => throw new NotSupportedException();

        public override Task SendAsync(ArraySegment<byte> buffer, WebSocketMessageType messageType, bool endOfMessage, CancellationToken cancellationToken) => throw new NotSupportedException();
    }
}
