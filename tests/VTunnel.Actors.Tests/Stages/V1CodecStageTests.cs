using System.Text;
using Akka.Streams;
using Akka.Streams.Dsl;
using Microsoft.Extensions.Logging;
using VTunnel.Actors.Tests.Hosting;
using VTunnel.Actors.Tests.Testing;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.V1;
using VTunnel.Stages;
using VTunnel.Testing;

namespace VTunnel.Actors.Tests.Stages;

public sealed class V1CodecStageTests : VirtualTimeKit
{
    private static ByteSlice Bytes(string text) => ByteChunk.Copy(Encoding.UTF8.GetBytes(text));

    [Fact]
    public async Task Nonsense_is_skipped_and_logged_a_limited_number_of_times()
    {
        var log = new ListLogger();
        var input = new[] { """{"type":"ping"}""" }
            .Concat(Enumerable.Repeat("nonsense", 100))
            .Append("""{"type":"pong"}""");
        var messages = await Source.From(input.Select(Bytes).ToArray())
            .Via(Flow.FromGraph(new V1DecoderStage(log, "session-1")))
            .RunWith(Sink.Seq<V1Message>(), Sys.Materializer())
            .WaitAsync(TestTimeouts.Long);
        Assert.Equal([V1MessageType.Ping, V1MessageType.Pong], messages.Select(message => message.Type));
        Assert.Equal(20, log.Lines.Count);
        Assert.All(log.Lines, line => Assert.Equal(LogLevel.Warning, line.Level));
        Assert.EndsWith("(further ones are not logged)", log.Lines[^1].Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_is_encoded_is_decoded_again()
    {
        var payload = new byte[32 * 1024];
        Random.Shared.NextBytes(payload);
        var messages = await Source.From(new V1Message[]
            {
                new(V1MessageType.Listen, Port: 9000, Text: "localhost:3000"),
                new(V1MessageType.Data, 7, Payload: ByteChunk.Copy(payload)),
                new(V1MessageType.Close, 7),
            })
            .Via(Flow.FromGraph(new V1EncoderStage()))
            .Via(Flow.FromGraph(new V1DecoderStage(new ListLogger(), "session-1")))
            .RunWith(Sink.Seq<V1Message>(), Sys.Materializer())
            .WaitAsync(TestTimeouts.Long);
        Assert.Equal([V1MessageType.Listen, V1MessageType.Data, V1MessageType.Close], messages.Select(message => message.Type));
        Assert.Equal("localhost:3000", messages[0].Text);
        Assert.Equal(payload, messages[1].Payload.Span.ToArray());
    }
}
