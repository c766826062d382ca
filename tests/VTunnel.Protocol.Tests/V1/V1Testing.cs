using System.Text;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.V1;

namespace VTunnel.Protocol.Tests.V1;

/// <summary>What the tests of v1 share.</summary>
internal static class V1Testing
{
    /// <summary>Reads text that must be a message.</summary>
    public static V1Message Read(string json) => Read(Encoding.UTF8.GetBytes(json));

    /// <inheritdoc cref="Read(string)"/>
    public static V1Message Read(ReadOnlySpan<byte> utf8)
    {
        var read = V1Reader.TryRead(utf8, out var message, out var error);
        Assert.True(read, error);
        Assert.Null(error);
        return message!;
    }

    /// <summary>Reads text that must not be a message; gives the error, checked for what every error promises.</summary>
    public static string ReadError(string json) => ReadError(Encoding.UTF8.GetBytes(json));

    /// <inheritdoc cref="ReadError(string)"/>
    public static string ReadError(ReadOnlySpan<byte> utf8)
    {
        using var ledger = ChunkLedger.Open();
        Assert.False(V1Reader.TryRead(utf8, out var message, out var error));
        Assert.Null(message);
        Assert.NotNull(error);
        Assert.InRange(error.Length, 1, 160);
        Assert.DoesNotContain(error, char.IsControl);
        Assert.Equal(0, ledger.Outstanding);
        return error;
    }

    /// <summary>A message as bytes; releases the message's payload as well.</summary>
    public static byte[] Write(V1Message message)
    {
        var written = V1Writer.Write(message);
        Assert.Equal(ByteChunk.Headroom, written.Offset);
        var bytes = written.Span.ToArray();
        written.Release();
        message.Payload.Release();
        return bytes;
    }

    /// <summary>Equal in every field and in the bytes of the payload.</summary>
    public static void AssertSame(V1Message expected, V1Message actual)
    {
        Assert.Equal(expected with { Payload = default }, actual with { Payload = default });
        Assert.Equal(expected.Payload.Span.ToArray(), actual.Payload.Span.ToArray());
        if (actual.Payload.Chunk is not null)
            Assert.Equal(ByteChunk.Headroom, actual.Payload.Offset);
    }
}
