using System.Net.WebSockets;
using VTunnel.Bridge.Wire;
using VTunnel.Options;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Link;

namespace VTunnel.Actors.Tests.Bridge;

public sealed class WireTests
{
    /// <summary>Gives what it was made with in pieces, and keeps what is written.</summary>
    private sealed class PieceStream(byte[] content, int pieceBytes) : MemoryStream
    {
        private int _at;

        public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
        {
            var count = Math.Min(Math.Min(buffer.Length, pieceBytes), content.Length - _at);
            content.AsSpan(_at, count).CopyTo(buffer.Span);
            _at += count;
            return ValueTask.FromResult(count);
        }
    }

    [Theory]
    [InlineData(1)]
    [InlineData(3)]
    [InlineData(int.MaxValue)]
    public async Task Messages_arrive_as_they_were_sent_however_the_stream_is_cut(int pieceBytes)
    {
        byte[][] messages = [[1], [2, 3, 4, 5, 6], new byte[100_000]];
        Random.Shared.NextBytes(messages[2]);
        var written = new PieceStream([], 1);
        var sender = new StreamCarrier(written, "receiver", () => { });
        foreach (var message in messages)
        {
            // With room before it, as a link sends, and without.
            var slice = ByteChunk.Copy(message);
            await sender.SendAsync(slice.Memory, WebSocketMessageType.Binary);
            await sender.SendAsync(message, WebSocketMessageType.Binary);
            slice.Release();
        }

        await sender.CloseAsync(WebSocketCloseStatus.NormalClosure, "");

        var receiver = new StreamCarrier(new PieceStream(written.ToArray(), pieceBytes), "sender", () => { });
        foreach (var expected in messages.SelectMany(message => new[] { message, message }))
        {
            var got = new List<byte>();
            var buffer = new byte[4096];
            ValueWebSocketReceiveResult result;
            do
            {
                result = await receiver.ReceiveAsync(buffer);
                Assert.Equal(WebSocketMessageType.Binary, result.MessageType);
                got.AddRange(buffer[..result.Count]);
            }
            while (!result.EndOfMessage);
            Assert.Equal(expected, got);
        }

        Assert.Equal(WebSocketMessageType.Close, (await receiver.ReceiveAsync(new byte[10])).MessageType);
    }

    [Fact]
    public async Task A_message_that_is_too_long_is_refused_as_such_and_one_that_ends_early_breaks_the_carrier()
    {
        var tooLong = new StreamCarrier(new PieceStream([0, 0x10, 0, 1], 4), "peer", () => { });
        var refused = await Assert.ThrowsAsync<SessionProtocolException>(async () => await tooLong.ReceiveAsync(new byte[10]));
        Assert.Equal(SessionError.MessageTooLarge, refused.Code);
        Assert.Contains($"{LinkRecord.MaxBytes}", refused.Message, StringComparison.Ordinal);
        var early = new StreamCarrier(new PieceStream([0, 0, 0, 5, 1, 2], 6), "peer", () => { });
        await early.ReceiveAsync(new byte[10]);
        await Assert.ThrowsAsync<EndOfStreamException>(async () => await early.ReceiveAsync(new byte[10]));
    }

    [Fact]
    public async Task A_connection_that_breaks_is_told_with_the_innermost_reason_or_in_words_of_our_own()
    {
        Assert.Equal("the far end closed it without a goodbye", await WhyAsync(new PieceStream([0, 0], 2)));
        Assert.Equal(
            "Connection reset by peer",
            await WhyAsync(new BrokenStream(new IOException("The read operation failed, see inner exception.", new IOException("outer", new IOException("Connection reset by peer."))))));
        Assert.Equal("it was broken off", await WhyAsync(new BrokenStream(new NotSupportedException("The base stream is not readable."))));

        static async Task<string> WhyAsync(Stream stream)
        {
            var carrier = new StreamCarrier(stream, "peer", () => { });
            return (await Assert.ThrowsAnyAsync<IOException>(async () => await carrier.ReceiveAsync(new byte[10]))).Message;
        }
    }

    private sealed class BrokenStream(Exception cause) : MemoryStream
    {
        public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default) => ValueTask.FromException<int>(cause);
    }

    [Fact]
    public async Task A_disposed_carrier_aborts_once_and_takes_nothing_more()
    {
        var aborts = 0;
        var carrier = new StreamCarrier(new PieceStream([], 1), "peer", () => aborts++);
        carrier.Abort();
        await carrier.DisposeAsync();
        await carrier.DisposeAsync();
        Assert.Equal(1, aborts);
        Assert.True(carrier.Disposed.IsCompletedSuccessfully);
        await Assert.ThrowsAsync<ObjectDisposedException>(async () => await carrier.ReceiveAsync(new byte[10]));
    }

    [Fact]
    public void Waits_begin_with_two_seconds_and_double_up_to_thirty_with_a_random_part()
    {
        var options = new BridgeSessionOptions();
        double[] least = [2, 4, 8, 16, 24, 24, 24];
        double[] most = [3, 6, 12, 24, 30, 30, 30];
        for (var failures = 0; failures < least.Length; failures++)
        {
            Assert.Equal(least[failures], options.ReconnectDelay(failures, 0).TotalSeconds, 3);
            Assert.InRange(options.ReconnectDelay(failures, 0.999).TotalSeconds, most[failures] - 0.1, most[failures]);
        }

        Assert.InRange(options.ReconnectDelay(1_000_000, 0.5), TimeSpan.FromSeconds(24), TimeSpan.FromSeconds(30));
    }
}
