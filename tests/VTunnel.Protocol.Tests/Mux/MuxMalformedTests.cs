using CsCheck;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Protocol.Mux;
using VTunnel.Protocol.V2;

namespace VTunnel.Protocol.Tests.Mux;

/// <summary>Whatever arrives: the session ends with its own exception or goes on, and no chunk is lost.</summary>
public class MuxMalformedTests
{
    private static readonly Gen<byte[]> RandomBytes = Gen.Byte.Array[0, 300];

    // Headers that are nearly right get further than random bytes.
    private static readonly Gen<byte[]> LikelyFrame =
        Gen.Select(Gen.Int[0, 3], Gen.Int[0, 15], Gen.UInt[0, 9], Gen.Frequency((5, Gen.UInt[0, 40]), (1, Gen.UInt)), RandomBytes, (type, flags, stream, length, payload) =>
        {
            var header = Frames.Header((MuxFrameType)type, (MuxFrameFlags)flags, type >= 2 ? stream / 8 : stream, length);
            return type == 0 ? [.. header, .. payload.Take((int)Math.Min(length, 300))] : header;
        });

    private static readonly Gen<byte[]> Conversation = LikelyFrame.Array[1, 40].Select(frames => frames.SelectMany(f => f).ToArray());

    private static readonly Gen<byte[]> Mutated = Gen.Select(Gen.Int[0, 10_000], Gen.Byte, Gen.Int[0, 3], (at, value, how) =>
    {
        byte[] bytes =
        [
            .. Frames.Syn(1), .. Frames.Data(1, "{\"type\":\"hello\",\"agent\":\"a\",\"version\":\"1\",\"capabilities\":[\"x\"]}\n{\"type\":\"listen\",\"port\":9000}\n"u8.ToArray()),
            .. Frames.Syn(3), .. Frames.Data(3, "{\"type\":\"connect\",\"port\":9000,\"remote\":\"x\"}\nabc"u8.ToArray()),
            .. Frames.Update(3, 1000), .. Frames.Data(3, 100), .. Frames.Fin(3), .. Frames.Ping(1), .. Frames.Rst(5), .. Frames.GoAway(0),
        ];
        at %= bytes.Length;
        return how switch
        {
            0 => [.. bytes[..at], value, .. bytes[(at + 1)..]],
            1 => [.. bytes[..at], .. bytes[(at + 1)..]],
            2 => [.. bytes[..at], value, .. bytes[at..]],
            _ => bytes[..at],
        };
    });

    [Fact]
    public void Random_bytes_end_the_session_cleanly() => Check(RandomBytes);

    [Fact]
    public void Frames_that_are_nearly_right_end_the_session_cleanly() => Check(Conversation);

    [Fact]
    public void A_conversation_with_one_byte_changed_lost_or_added_ends_the_session_cleanly() => Check(Mutated);

    private static void Check(Gen<byte[]> input) =>
        Gen.Select(input, Gen.Int[1, 64], Gen.Bool).Sample(
            (bytes, cut, dialer) =>
            {
                using var ledger = ChunkLedger.Open();
                Feed(new Raw(new MuxSession(dialer ? MuxRole.Dialer : MuxRole.Acceptor)), bytes, cut);
                Feed(new Session(new V2Session(dialer ? MuxRole.Dialer : MuxRole.Acceptor, new Hello("test", "1", []))), bytes, cut);
                Assert.True(ledger.Rented > 0 || bytes.Length == 0);
                Assert.Equal(0, ledger.Outstanding);
            },
            iter: 3000);

    private static void Feed(ITarget target, byte[] bytes, int cut)
    {
        var chunks = new List<ByteChunk>();
        foreach (var part in bytes.Chunk(cut))
        {
            // Large chunks, so that small payloads are copied out of some and not out of others.
            var chunk = ByteChunk.Rent(part.Length % 2 == 0 ? 64 * 1024 : part.Length);
            part.CopyTo(chunk.Array, 0);
            chunk.Retain();
            chunks.Add(chunk);
            try
            {
                target.Receive(new ByteSlice(chunk, 0, part.Length));
            }
            catch (SessionProtocolException e)
            {
                Assert.NotEqual(SessionError.None, e.Code);
                break;
            }

            target.Drain(consume: part.Length % 3 != 0);
        }

        target.Drain(consume: true);
        target.Abandon();
        foreach (var chunk in chunks)
        {
            Assert.Equal(1, Frames.References(chunk));
            chunk.Release();
        }
    }

    private interface ITarget
    {
        void Receive(ByteSlice bytes);

        void Drain(bool consume);

        void Abandon();
    }

    private sealed class Raw(MuxSession session) : ITarget
    {
        private readonly MuxStream? _mine = session.Open();

        public void Receive(ByteSlice bytes) => session.Receive(bytes);

        public void Drain(bool consume)
        {
            while (session.TryTakeFrame(out var frame))
                frame.Release();
            while (session.TryTakeEvent(out var e))
            {
                e.Payload.Release();
                if (consume && e.Kind == MuxEventKind.Data)
                    session.Consumed(e.Stream!, e.Payload.Length);
                if (e.Kind == MuxEventKind.Opened && consume)
                    session.Accept(e.Stream!);
                else if (e.Kind == MuxEventKind.Finished)
                    session.Finish(e.Stream!);
            }
        }

        public void Abandon()
        {
            Assert.NotNull(_mine);
            session.Abandon();
        }
    }

    private sealed class Session(V2Session session) : ITarget
    {
        public void Receive(ByteSlice bytes) => session.Receive(bytes);

        public void Drain(bool consume)
        {
            while (session.TryTakeFrame(out var frame))
                frame.Release();
            while (session.TryTakeEvent(out var e))
            {
                e.Payload.Release();
                if (consume && e.Kind == StreamEventKind.Data)
                    session.Consumed(e.StreamId, e.Payload.Length);
                if (e.Kind == StreamEventKind.Opened && consume)
                    session.Accept(e.StreamId);
                else if (e.Kind == StreamEventKind.Finished)
                    session.Finish(e.StreamId);
            }
        }

        public void Abandon() => session.Abandon();
    }
}
