using System.Runtime.CompilerServices;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Mux;

namespace VTunnel.Protocol.Tests.Mux;

/// <summary>What the mux tests share: frames as bytes, bytes as frames.</summary>
internal static class Frames
{
    public static byte[] Header(MuxFrameType type, MuxFrameFlags flags, uint stream, uint length)
    {
        var bytes = new byte[MuxFrameHeader.Size];
        new MuxFrameHeader(type, flags, stream, length).Write(bytes);
        return bytes;
    }

    public static byte[] Data(uint stream, byte[] payload, MuxFrameFlags flags = MuxFrameFlags.None) =>
        [.. Header(MuxFrameType.Data, flags, stream, (uint)payload.Length), .. payload];

    public static byte[] Data(uint stream, int length, MuxFrameFlags flags = MuxFrameFlags.None) => Data(stream, Pattern(length), flags);

    public static byte[] Update(uint stream, uint credit, MuxFrameFlags flags = MuxFrameFlags.None) =>
        Header(MuxFrameType.WindowUpdate, flags, stream, credit);

    public static byte[] Syn(uint stream) => Update(stream, 0, MuxFrameFlags.Syn);

    public static byte[] Ack(uint stream) => Update(stream, 0, MuxFrameFlags.Ack);

    public static byte[] Fin(uint stream) => Update(stream, 0, MuxFrameFlags.Fin);

    public static byte[] Rst(uint stream) => Update(stream, 0, MuxFrameFlags.Rst);

    public static byte[] Ping(uint value, MuxFrameFlags flags = MuxFrameFlags.Syn) => Header(MuxFrameType.Ping, flags, 0, value);

    public static byte[] GoAway(uint code) => Header(MuxFrameType.GoAway, MuxFrameFlags.None, 0, code);

    public static byte[] Pattern(int length, int seed = 0)
    {
        var bytes = new byte[length];
        for (var i = 0; i < length; i++)
            bytes[i] = (byte)((i * 31) + (i >> 8) + seed);
        return bytes;
    }

    public static ByteSlice Slice(ReadOnlySpan<byte> bytes) => ByteChunk.Copy(bytes);

    /// <summary>The frames in <paramref name="bytes"/> as text, one a line: <c>data syn|fin 3 5 0a0b0c0d0e</c>.</summary>
    public static List<string> Describe(ReadOnlySpan<byte> bytes)
    {
        var lines = new List<string>();
        while (!bytes.IsEmpty)
        {
            var header = MuxFrameHeader.Read(bytes);
            bytes = bytes[MuxFrameHeader.Size..];
            var line = Describe(header);
            if (header.Type == MuxFrameType.Data && header.Length > 0)
            {
                line += $" {Convert.ToHexStringLower(bytes[..(int)header.Length])}";
                bytes = bytes[(int)header.Length..];
            }

            lines.Add(line);
        }

        return lines;
    }

    public static string Describe(in MuxFrameHeader header)
    {
        var type = header.Type switch
        {
            MuxFrameType.Data => "data",
            MuxFrameType.WindowUpdate => "window-update",
            MuxFrameType.Ping => "ping",
            _ => "go-away",
        };
        var flags = header.Flags == MuxFrameFlags.None ? "-" : header.Flags.ToString().ToLowerInvariant().Replace(", ", "|", StringComparison.Ordinal);
        return $"{type} {flags} {header.StreamId} {header.Length}";
    }

    /// <summary>Everything that the session wants to send, as bytes.</summary>
    public static byte[] TakeAll(MuxSession session)
    {
        var bytes = new List<byte>();
        while (session.TryTakeFrame(out var frame))
        {
            bytes.AddRange(frame.Span);
            frame.Release();
        }

        return [.. bytes];
    }

    /// <summary>Everything that the session wants to send, as text.</summary>
    public static List<string> Sent(MuxSession session) => Describe(TakeAll(session));

    public static void Receive(MuxSession session, params byte[][] frames)
    {
        foreach (var frame in frames)
            session.Receive(Slice(frame));
    }

    public static List<MuxEvent> Events(MuxSession session)
    {
        var events = new List<MuxEvent>();
        while (session.TryTakeEvent(out var e))
            events.Add(e);
        return events;
    }

    /// <summary>The events as text, payload released: <c>opened 2</c>, <c>data 2 5</c>.</summary>
    public static List<string> Happened(MuxSession session) =>
        Events(session).ConvertAll(e =>
        {
            e.Payload.Release();
            var kind = e.Kind.ToString().ToLowerInvariant();
            return e.Stream is null ? kind : e.Kind == MuxEventKind.Data ? $"{kind} {e.Stream.Id} {e.Payload.Length}" : $"{kind} {e.Stream.Id}";
        });

    /// <summary>How many references to the chunk there are.</summary>
    [UnsafeAccessor(UnsafeAccessorKind.Field, Name = "_references")]
    public static extern ref int References(ByteChunk chunk);
}
