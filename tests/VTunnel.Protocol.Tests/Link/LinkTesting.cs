using System.Buffers.Binary;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Link;
using VTunnel.Testing;

namespace VTunnel.Protocol.Tests.Link;

/// <summary>What the tests of the link share.</summary>
internal static class LinkTesting
{
    /// <summary>No keepalive and no automatic ACK for a long time: a test sees only what it causes.</summary>
    public static LinkOptions Quiet { get; } = new() { KeepAliveInterval = TimeSpan.Zero, AckDelay = TimeSpan.FromSeconds(1) };

    public static TimeSpan Ms(double milliseconds) => TimeSpan.FromMilliseconds(milliseconds);

    public static TimeSpan Seconds(double seconds) => TimeSpan.FromSeconds(seconds);

    /// <summary>A connected pair from whose record the handshake was cleared.</summary>
    public static LinkPair Connected(LinkOptions? client = null, LinkOptions? server = null)
    {
        var pair = new LinkPair(client ?? Quiet, server ?? client ?? Quiet);
        pair.Connect();
        pair.Delivered.Clear();
        pair.ClientEvents.Clear();
        pair.ServerEvents.Clear();
        return pair;
    }

    /// <summary>Bytes that tell where they belong.</summary>
    public static byte[] Pattern(int length, int start = 0) => [.. Enumerable.Range(start, length).Select(i => (byte)(i ^ (i >> 8) ^ (i >> 16)))];

    public static void Write(this LinkState link, byte[] bytes) => link.Write(ByteChunk.Copy(bytes));

    /// <summary>The next message, for a test that plays the carrier.</summary>
    public static byte[]? Take(this LinkState link, int carrier, TimeSpan now)
    {
        if (!link.TryTakeMessage(carrier, now, out var message))
            return null;
        var bytes = message.Span.ToArray();
        message.Release();
        return bytes;
    }

    public static void Receive(this LinkState link, int carrier, TimeSpan now, params byte[] message) =>
        link.Receive(carrier, ByteChunk.Copy(message), now);

    public static byte[] Record(LinkRecordType type, long number)
    {
        var bytes = new byte[9];
        bytes[0] = (byte)type;
        BinaryPrimitives.WriteInt64BigEndian(bytes.AsSpan(1), number);
        return bytes;
    }

    public static long Number(byte[] record) => BinaryPrimitives.ReadInt64BigEndian(record.AsSpan(1));
}
