using CsCheck;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Protocol.Mux;
using VTunnel.Protocol.Tests.Mux;
using VTunnel.Protocol.V2;

namespace VTunnel.Protocol.Tests.V2;

/// <summary>
/// Two sessions, random operations, the bytes between them cut and joined at random. Checked: every byte once and in
/// order, no end lost or early, no reset out of nowhere, windows and queues within bounds, nothing stuck, no chunk kept.
/// </summary>
public class V2SessionPropertyTests
{
    [Fact]
    public void Any_sequence_of_operations_delivers_every_byte_once_in_order_and_ends() =>
        Gen.Int[1, int.MaxValue].Sample(
            seed =>
            {
                using var ledger = ChunkLedger.Open();
                var world = new World(seed);
                world.Play(operations: 600);
                world.Settle();
                Assert.Equal(0, ledger.Outstanding);
            },
            iter: 100);

    [Fact]
    public void Streams_that_saturate_both_directions_with_stalled_readers_all_finish_once_released() =>
        Gen.Int[1, int.MaxValue].Sample(
            seed =>
            {
                using var ledger = ChunkLedger.Open();
                var world = new World(seed) { MayReset = false };
                world.Saturate();
                world.Settle();
                Assert.Equal(0, ledger.Outstanding);
            },
            iter: 10);

    private sealed class World
    {
        private static readonly byte[] Bytes = Frames.Pattern(2 * 65_536);
        private readonly Random _random;
        private readonly MuxOptions _options;
        private readonly End[] _ends;
        private readonly Dictionary<uint, Model> _streams = [];
        private readonly List<ByteChunk> _chunks = [];
        private TimeSpan _now;

        public World(int seed)
        {
            _random = new Random(seed);
            var quantum = Pick(4096, 16_384, 65_472);
            _options = new MuxOptions
            {
                SendQuantumBytes = quantum,
                MaxSendQueueBytes = quantum * _random.Next(1, 10),
                MaxSessionWindowBytes = Pick(0, 300_000, 64 << 20),
                MaxStreamWindowBytes = Pick(262_144, 1_000_000, 16 << 20),
                CopyBelowBytes = Pick(0, 2048),
                MaxStreams = Pick(5, 1000),
                MaxUnacceptedStreams = Pick(3, 1000),
                IdleWindowTimeout = TimeSpan.FromMilliseconds(Pick(50, 10_000)),
            };
            _ends =
            [
                new End(0, new V2Session(MuxRole.Dialer, new Hello("0", "0", []), _options)),
                new End(1, new V2Session(MuxRole.Acceptor, new Hello("1", "1", []), _options)),
            ];
        }

        public bool MayReset { get; init; } = true;

        public void Play(int operations)
        {
            for (var i = 0; i < operations; i++)
            {
                var end = _ends[_random.Next(2)];
                switch (_random.Next(20))
                {
                    case 0 or 1 when _streams.Count < 60:
                        Open(end);
                        break;
                    case 2 or 3 or 4 or 5 or 6:
                        Send(end, Any(end));
                        break;
                    case 7:
                        Accept(end, Any(end));
                        break;
                    case 8 when _random.Next(3) == 0:
                        Finish(end, Any(end));
                        break;
                    case 9 when MayReset && _random.Next(3) == 0:
                        Reset(end, Any(end));
                        break;
                    case 10 or 11 or 12:
                        Consume(end, Any(end), _random.Next(200_000));
                        break;
                    case 13:
                        end.Session.SendControl(new Listen(end.ControlSent++));
                        break;
                    case 14:
                        end.Session.SendPing();
                        break;
                    default:
                        Advance(_random.Next(5));
                        Transfer(end, _random.Next(1, 10));
                        break;
                }

                Check(end);
            }
        }

        public void Saturate()
        {
            for (var i = 0; i < 6; i++)
                Open(_ends[i % 2]);
            for (var quiet = 0; quiet < 3; quiet++)
            {
                foreach (var end in _ends)
                {
                    foreach (var stream in _streams.Values.Where(s => s.Sides[end.Index].IsKnown))
                    {
                        Accept(end, stream);
                        while (Send(end, stream))
                            quiet = 0;
                    }

                    while (Transfer(end, 5))
                        quiet = 0;
                }
            }

            // Every stream is full in both directions, and its readers have taken nothing.
            Assert.All(_streams.Values.Where(s => s.Sides.All(side => side.IsKnown)), s => Assert.All(s.Sides, side => Assert.True(side.Received >= 200_000)));
        }

        /// <summary>Everyone accepts, reads, sends a last byte and finishes; then everything must be over.</summary>
        public void Settle()
        {
            for (var idle = 0; idle < 3; idle++)
            {
                foreach (var end in _ends)
                {
                    foreach (var stream in _streams.Values.Where(s => s.Sides[end.Index].IsKnown))
                    {
                        Accept(end, stream);
                        if (Consume(end, stream, int.MaxValue))
                            idle = 0;
                        var side = stream.Sides[end.Index];
                        if (!side.IsGone && !side.Finished && !Send(end, stream, last: true))
                            continue;
                        Finish(end, stream);
                    }

                    while (Transfer(end, 100))
                        idle = 0;
                    Check(end);
                }

                Advance(10);
            }

            foreach (var stream in _streams.Values)
                AssertOver(stream);
            foreach (var end in _ends)
            {
                Assert.Equal(0, end.Session.StreamCount);
                Assert.Equal(0, end.Session.QueuedBytes);
                Assert.Equal(_ends[1 - end.Index].ControlSent, end.ControlReceived);
                end.Session.Abandon();
                foreach (var frame in end.Line)
                    frame.Release();
            }

            foreach (var chunk in _chunks)
            {
                Assert.Equal(1, Frames.References(chunk));
                chunk.Release();
            }
        }

        private static void AssertOver(Model stream)
        {
            var (left, right) = (stream.Sides[0], stream.Sides[1]);
            if (left.WasReset || right.WasReset)
            {
                // A reset reaches the far side, unless that had finished with the stream or never knew it.
                Assert.All(stream.Sides, side => Assert.True(side.WasReset || !side.IsKnown || side is { Finished: true, PeerFinished: true }));
                return;
            }

            Assert.All(stream.Sides, side => Assert.True(side is { Finished: true, PeerFinished: true }, $"stream {stream.Id} did not finish"));
            Assert.Equal((left.Sent, right.Sent), (right.Received, left.Received));
        }

        private void Open(End end)
        {
            var remote = new string('r', _random.Next(40));
            var id = end.Session.Open(new StreamRequest(_random.Next(1, 65_536), remote));
            if (id == 0)
            {
                Assert.True(end.Session.StreamCount >= _options.MaxStreams - 1);
                return;
            }

            var stream = new Model(id, end.Index);
            stream.Sides[end.Index].IsKnown = true;
            stream.Sides[end.Index].Accepted = true;
            _streams.Add(id, stream);
        }

        private static void Accept(End end, Model? stream)
        {
            if (stream?.Sides[end.Index] is not { Accepted: false } side)
                return;
            side.Accepted = true;
            end.Session.Accept(stream.Id);
        }

        private bool Send(End end, Model? stream, bool last = false)
        {
            if (stream is null)
                return false;

            var side = stream.Sides[end.Index];
            // Whoever was told to wait waits for the event: a wake-up that is lost shows as a stream that never ends.
            if (side.MustWait && !side.IsGone && !side.Finished)
                return false;

            var allowance = end.Session.SendAllowance(stream.Id);
            side.MustWait = allowance == 0;
            if (side.IsGone || side.Finished)
                Assert.Equal(0, allowance);
            if (allowance == 0)
                return false;

            side.Accepted = true;
            var length = last ? 1 : Pick(_random.Next(1, allowance + 1), allowance, Math.Min(allowance, 10));
            var chunk = ByteChunk.Rent(ByteChunk.Headroom + length);
            Expected(stream.Id, end.Index, side.Sent, length).CopyTo(chunk.Array.AsSpan(ByteChunk.Headroom));
            chunk.Retain();
            _chunks.Add(chunk);
            side.Sent += length;
            end.Session.Send(stream.Id, new ByteSlice(chunk, ByteChunk.Headroom, length));
            return true;
        }

        private static void Finish(End end, Model? stream)
        {
            if (stream is null)
                return;
            stream.Sides[end.Index].Finished = true;
            stream.Sides[end.Index].Accepted = true;
            end.Session.Finish(stream.Id);
        }

        private static void Reset(End end, Model? stream)
        {
            if (stream is null || stream.Sides[end.Index].IsGone)
                return;
            stream.Sides[end.Index].WasReset = true;
            end.Session.Reset(stream.Id);
        }

        private static bool Consume(End end, Model? stream, int most)
        {
            if (stream is null)
                return false;
            var side = stream.Sides[end.Index];
            var bytes = (int)Math.Min(most, side.Received - side.Consumed);
            side.Consumed += bytes;
            end.Session.Consumed(stream.Id, bytes);
            return bytes > 0;
        }

        /// <summary>Takes some frames from one end and gives the other some bytes, cut and joined at random.</summary>
        private bool Transfer(End end, int frames)
        {
            var moved = false;
            for (var i = 0; i < frames && end.Session.TryTakeFrame(out var frame); i++)
            {
                end.Line.Enqueue(frame);
                moved = true;
            }

            Take(end);
            var far = _ends[1 - end.Index];
            for (var i = 0; i < frames && end.Line.Count > 0; i++)
            {
                moved = true;
                foreach (var part in Cut(end.Line))
                {
                    far.Session.Receive(part);
                    Take(far);
                }
            }

            return moved;
        }

        private List<ByteSlice> Cut(Queue<ByteSlice> line)
        {
            var frame = line.Dequeue();
            switch (_random.Next(4))
            {
                case 0:
                    return [frame];
                case 1:
                    // Several frames in one chunk.
                    var joined = new List<byte>();
                    joined.AddRange(frame.Span);
                    frame.Release();
                    while (line.Count > 0 && joined.Count < 70_000 && _random.Next(5) > 0)
                    {
                        joined.AddRange(line.Peek().Span);
                        line.Dequeue().Release();
                    }

                    return [ByteChunk.Copy(joined.ToArray())];
                default:
                    var parts = new List<ByteSlice>();
                    var small = _random.Next(3) == 0 ? 5 : frame.Length;
                    while (frame.Length > 0 && parts.Count < 50)
                    {
                        var part = frame.RetainPart(0, _random.Next(1, Math.Min(small, frame.Length) + 1));
                        frame = frame.Skip(part.Length);
                        parts.Add(part);
                    }

                    parts.Add(frame);
                    return parts;
            }
        }

        private void Take(End end)
        {
            while (end.Session.TryTakeEvent(out var e))
            {
                if (e.Kind == StreamEventKind.Control)
                {
                    if (e.Control is Listen listen)
                        Assert.Equal(end.ControlReceived++, listen.Port);
                    continue;
                }

                var stream = _streams[e.StreamId];
                var side = stream.Sides[end.Index];
                var far = stream.Sides[1 - end.Index];
                Assert.False(side.WasReset, $"{e.Kind} after a reset");
                switch (e.Kind)
                {
                    case StreamEventKind.Opened:
                        Assert.False(side.IsKnown);
                        side.IsKnown = true;
                        break;
                    case StreamEventKind.Accepted:
                        Assert.Equal(end.Index, stream.Opener);
                        Assert.True(far.Accepted);
                        break;
                    case StreamEventKind.Data:
                        Assert.True(side.IsKnown && !side.PeerFinished);
                        if (!e.Payload.Span.SequenceEqual(Expected(stream.Id, 1 - end.Index, side.Received, e.Payload.Length)))
                            Assert.Fail($"stream {stream.Id} got wrong bytes after {side.Received}");
                        side.Received += e.Payload.Length;
                        Assert.True(side.Received <= far.Sent);
                        e.Payload.Release();
                        break;
                    case StreamEventKind.Finished:
                        Assert.True(side.IsKnown && far.Finished && !side.PeerFinished);
                        Assert.Equal(far.Sent, side.Received);
                        side.PeerFinished = true;
                        break;
                    case StreamEventKind.Reset:
                        // Reset there, or refused for a limit before anyone saw it.
                        Assert.True(far.WasReset || (stream.Opener == end.Index && !far.IsKnown));
                        side.WasReset = true;
                        break;
                    case StreamEventKind.Writable:
                        Assert.True(side.MustWait && !side.Finished);
                        side.MustWait = false;
                        break;
                    default:
                        Assert.Fail($"unexpected {e.Kind}");
                        break;
                }
            }
        }

        private void Check(End end)
        {
            Take(end);
            var held = _streams.Values.Select(s => s.Sides[end.Index]).Where(s => !s.IsGone).Select(s => s.Received - s.Consumed).ToList();
            Assert.All(held, bytes => Assert.True(bytes <= _options.MaxStreamWindowBytes));
            Assert.True(held.Sum(bytes => Math.Max(0, bytes - MuxOptions.InitialWindowBytes)) <= _options.MaxSessionWindowBytes);
            Assert.True(end.Session.QueuedBytes <= _options.MaxSendQueueBytes + 60 * 60, $"{end.Session.QueuedBytes} bytes are queued");
        }

        private Model? Any(End end)
        {
            var known = _streams.Values.Where(s => s.Sides[end.Index].IsKnown).ToList();
            return known.Count == 0 ? null : known[_random.Next(known.Count)];
        }

        private void Advance(int milliseconds)
        {
            _now += TimeSpan.FromMilliseconds(milliseconds);
            foreach (var end in _ends)
                end.Session.Now = _now;
        }

        private int Pick(params int[] values) => values[_random.Next(values.Length)];

        // Every stream and direction begins at a place of its own in one long pattern.
        private static ReadOnlySpan<byte> Expected(uint stream, int sender, long position, int length) =>
            Bytes.AsSpan((int)(((stream * 7919) + (sender * 4001) + position) % 65_536), length);
    }

    private sealed record End(int Index, V2Session Session)
    {
        public Queue<ByteSlice> Line { get; } = new();

        public int ControlSent { get; set; }

        public int ControlReceived { get; set; }
    }

    private sealed record Model(uint Id, int Opener)
    {
        public Side[] Sides { get; } = [new(), new()];
    }

    private sealed class Side
    {
        public bool IsKnown { get; set; }

        public bool Accepted { get; set; }

        public bool Finished { get; set; }

        public bool PeerFinished { get; set; }

        public bool WasReset { get; set; }

        public bool MustWait { get; set; }

        public long Sent { get; set; }

        public long Received { get; set; }

        public long Consumed { get; set; }

        public bool IsGone => WasReset || (Finished && PeerFinished);
    }
}
