using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Mux;

namespace VTunnel.Protocol.Tests.Mux;

public class MuxFrameReaderTests
{
    private static readonly byte[] Conversation =
    [
        .. Frames.Syn(1),
        .. Frames.Data(1, 40),
        .. Frames.Data(1, 0, MuxFrameFlags.Fin),
        .. Frames.Ping(0x01020304),
        .. Frames.Data(uint.MaxValue, 1, MuxFrameFlags.Ack),
        .. Frames.Update(3, 0xFFFFFFFF),
        .. Frames.Data(5, 7),
        .. Frames.GoAway(0),
    ];

    [Fact]
    public void Reads_the_same_frames_whole_cut_at_every_index_and_one_byte_at_a_time()
    {
        var whole = Read([Conversation]);
        Assert.Equal(Frames.Describe(Conversation), whole);

        for (var cut = 0; cut <= Conversation.Length; cut++)
            Assert.Equal(whole, Read([Conversation[..cut], Conversation[cut..]]));

        Assert.Equal(whole, Read([.. Conversation.Select(b => new[] { b })]));
    }

    [Fact]
    public void Hands_payload_on_without_copying_it()
    {
        var input = Frames.Slice([.. Frames.Data(1, 40), .. Frames.Data(3, 20)]);
        var chunk = input.Chunk!;
        var reader = new MuxFrameReader();
        reader.Append(input);

        var parts = new List<ByteSlice>();
        while (reader.Read(out _, out var payload) is var read && read != MuxRead.NeedMore)
        {
            if (read == MuxRead.Payload)
                parts.Add(payload);
        }

        Assert.Equal([ByteChunk.Headroom + 12, ByteChunk.Headroom + 64], parts.Select(p => p.Offset));
        Assert.All(parts, p => Assert.Same(chunk, p.Chunk));
        // Two parts are held and nothing else: the reader has let go.
        Assert.Equal(2, Frames.References(chunk));
        parts.ForEach(p => p.Release());
        Assert.Equal(0, Frames.References(chunk));
    }

    [Fact]
    public void Gives_the_part_of_a_payload_that_is_there()
    {
        var frame = Frames.Data(1, 100);
        var reader = new MuxFrameReader();

        reader.Append(Frames.Slice(frame.AsSpan(0, 30)));
        Assert.Equal(MuxRead.Header, reader.Read(out var header, out _));
        Assert.Equal(100u, header.Length);
        Assert.Equal(MuxRead.Payload, reader.Read(out _, out var first));
        Assert.Equal(18, first.Length);
        Assert.Equal(82u, reader.PayloadLeft);
        Assert.Equal(MuxRead.NeedMore, reader.Read(out _, out _));

        reader.Append(Frames.Slice(frame.AsSpan(30)));
        Assert.Equal(MuxRead.Payload, reader.Read(out var same, out var second));
        Assert.Equal(header, same);
        Assert.Equal(frame.AsSpan(30), second.Span);
        Assert.Equal(0u, reader.PayloadLeft);
        first.Release();
        second.Release();
    }

    [Fact]
    public void An_empty_slice_is_released_and_changes_nothing()
    {
        var empty = Frames.Slice([]);
        var chunk = empty.Chunk!;
        chunk.Retain();
        var reader = new MuxFrameReader();
        reader.Append(empty);
        reader.Append(default);

        Assert.Equal(MuxRead.NeedMore, reader.Read(out _, out _));
        Assert.Equal(1, Frames.References(chunk));
        chunk.Release();
    }

    [Fact]
    public void Clearing_in_the_middle_of_a_payload_releases_the_input()
    {
        var input = Frames.Slice(Frames.Data(1, 40));
        var chunk = input.Chunk!;
        chunk.Retain();
        var reader = new MuxFrameReader();
        reader.Append(input);
        reader.Read(out _, out _);
        reader.Clear();

        Assert.Equal(1, Frames.References(chunk));
        chunk.Release();
    }

    [Theory]
    [InlineData(1, 0, "version 1")]
    [InlineData(255, 3, "version 255")]
    [InlineData(0, 4, "type 4")]
    [InlineData(0, 255, "type 255")]
    public void Refuses_a_header_with_an_unknown_version_or_type(byte version, byte type, string says)
    {
        var frame = Frames.Ping(1);
        frame[0] = version;
        frame[1] = type;

        foreach (var parts in new[] { [frame], new[] { frame[..5], frame[5..] } })
        {
            var error = Assert.Throws<SessionProtocolException>(() => Read(parts));
            Assert.Equal(SessionError.ProtocolViolation, error.Code);
            Assert.Contains(says, error.Message, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Ignores_flag_bits_that_have_no_name()
    {
        var frame = Frames.Update(7, 9, MuxFrameFlags.Ack);
        frame[2] = 0xFF;
        frame[3] |= 0xF0;

        Assert.Equal(["window-update ack 7 9"], Read([frame]));
    }

    [Fact]
    public void A_header_is_written_in_place_before_a_payload()
    {
        var payload = Frames.Slice([1, 2, 3]);
        var frame = new MuxFrameHeader(MuxFrameType.Data, MuxFrameFlags.None, 9, 3).Prepend(payload);

        Assert.Same(payload.Chunk, frame.Chunk);
        Assert.Equal(ByteChunk.Headroom - MuxFrameHeader.Size, frame.Offset);
        Assert.Equal(Frames.Data(9, [1, 2, 3]), frame.Span);
        frame.Release();
    }

    private static List<string> Read(byte[][] parts)
    {
        var reader = new MuxFrameReader();
        var lines = new List<string>();
        var left = 0u;
        foreach (var part in parts)
        {
            reader.Append(Frames.Slice(part));
            while (reader.Read(out var header, out var payload) is var read && read != MuxRead.NeedMore)
            {
                if (read == MuxRead.Header)
                {
                    Assert.Equal(0u, left);
                    lines.Add(Frames.Describe(header));
                    left = header.Type == MuxFrameType.Data ? header.Length : 0;
                    if (left > 0)
                        lines[^1] += " ";
                    continue;
                }

                lines[^1] += Convert.ToHexStringLower(payload.Span);
                left -= (uint)payload.Length;
                Assert.Equal(left, reader.PayloadLeft);
                payload.Release();
            }
        }

        Assert.Equal(0u, left);
        return lines;
    }
}
