using CsCheck;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Protocol.V1;

namespace VTunnel.Protocol.Tests.V1;

/// <summary>A server's and a client's session against each other, in any order of events. A failure prints its seed.</summary>
public sealed class V1SessionPairTests
{
    private enum Act
    {
        Open,
        Send,
        Finish,
        Reset,
        Take,
        Deliver,
        Consume,
        Ping,
        Listen,
    }

    private static readonly Gen<(Act Act, bool Server, int Which, int Amount)> Steps = Gen.Select(
        Gen.Frequency(
            (2, Gen.Const(Act.Open)),
            (8, Gen.Const(Act.Send)),
            (1, Gen.Const(Act.Finish)),
            (1, Gen.Const(Act.Reset)),
            (10, Gen.Const(Act.Take)),
            (10, Gen.Const(Act.Deliver)),
            (5, Gen.Const(Act.Consume)),
            (1, Gen.Const(Act.Ping)),
            (1, Gen.Const(Act.Listen))),
        Gen.Bool,
        Gen.Int[0, 20],
        Gen.Int[1, World.MaxPayload]);

    [Fact]
    public void Whatever_happens_when_every_byte_arrives_once_in_order_and_close_comes_after_it() =>
        Steps.Array[0, 400].Sample(
            steps =>
            {
                using var ledger = ChunkLedger.Open();
                var world = new World();
                foreach (var (act, server, which, amount) in steps)
                    world.Do(act, server, which, amount);
                world.Settle();
                world.CheckWhatArrived();
                world.EndEverything();
                Assert.Equal(0, ledger.Outstanding);
            },
            iter: 3000);

    [Fact]
    public void A_session_abandoned_at_any_moment_releases_everything() =>
        Steps.Array[0, 200].Sample(
            steps =>
            {
                using var ledger = ChunkLedger.Open();
                var world = new World();
                foreach (var (act, server, which, amount) in steps)
                    world.Do(act, server, which, amount);
                world.Abandon();
                Assert.Equal(0, ledger.Outstanding);
            },
            iter: 1000);

    /// <summary>Two sessions, the wires between them as bytes, and what a user of each end knows.</summary>
    private sealed class World
    {
        public const int MaxPayload = 16;
        private const int StreamBuffer = 40;
        private const int MaxStreams = 5;
        private const int MaxControl = 3;
        private const int WireCapacity = 6;

        // More than may wait as answers, so that the server stops reading; not as many as end the session.
        private const int MaxListensWaiting = 10;

        // A message of this size counts for 256 bytes: four of them are as many as may wait, so that this bound is met too.
        private const int SessionBuffer = 1024;

        public static readonly V1SessionOptions Options = new()
        {
            MaxPayloadBytes = MaxPayload,
            StreamBufferBytes = StreamBuffer,
            SessionBufferBytes = SessionBuffer,
            MaxStreams = MaxStreams,
            MaxControlFrames = MaxControl,
        };

        private readonly End _server = new(V1Role.Server);
        private readonly End _client = new(V1Role.Client);
        private int _listens;
        private int _listensGranted;

        public void Do(Act act, bool server, int which, int amount)
        {
            var end = server ? _server : _client;
            var stream = end.Streams.Count == 0 ? null : end.Streams.Values.ElementAt(which % end.Streams.Count);
            switch (act)
            {
                case Act.Open:
                    var room = _server.Session.StreamCount < MaxStreams;
                    var id = _server.Session.Open(new StreamRequest(9000 + which));
                    Assert.Equal(room, id != 0);
                    if (id != 0)
                        _server.Streams.Add(id, new Stream(id, 9000 + which));
                    break;

                case Act.Send when stream is not null:
                    Send(end, stream, amount);
                    break;

                case Act.Finish when stream is not null:
                    if (!stream.Ended)
                    {
                        stream.EndedHere = true;
                        stream.Ended = true;
                        stream.Unconsumed = 0;
                    }

                    end.Session.Finish(stream.Id);
                    break;

                case Act.Reset when stream is not null:
                    stream.EndedHere |= !stream.Ended;
                    stream.ResetHere = true;
                    stream.Ended = true;
                    stream.Unconsumed = 0;
                    end.Session.Reset(stream.Id);
                    break;

                case Act.Take:
                    Take(end);
                    break;

                case Act.Deliver:
                    Deliver(server ? _client : _server, end);
                    break;

                case Act.Consume when stream is not null:
                    Consume(end, stream, amount * 2);
                    break;

                case Act.Ping:
                    end.Session.SendPing();
                    break;

                case Act.Listen when _listens - _listensGranted < MaxListensWaiting:
                    _listens++;
                    _client.Session.SendControl(new Listen(_listens));
                    break;

                default:
                    // Nothing to do it to.
                    break;
            }

            Drain(_server, _client);
            Drain(_client, _server);
            CheckBounds(_server);
            CheckBounds(_client);
        }

        /// <summary>Lets everything go where it wants to go; there must be an end to it, with nothing left behind.</summary>
        public void Settle()
        {
            var quiet = false;
            for (var round = 0; !quiet; round++)
            {
                Assert.True(round < 10_000, "The two ends never come to rest.");
                quiet = true;
                foreach (var (end, other) in new[] { (_server, _client), (_client, _server) })
                {
                    quiet &= !Take(end);
                    Drain(end, other);
                    quiet &= !Deliver(end, other);
                    Drain(other, end);
                    foreach (var stream in end.Streams.Values)
                        quiet &= !Consume(end, stream, int.MaxValue);
                }
            }

            Assert.Empty(_server.Wire);
            Assert.Empty(_client.Wire);
            Assert.True(_server.Session.CanReceive);
            Assert.True(_client.Session.CanReceive);
            Assert.Equal(_listens, _listensGranted);
        }

        public void CheckWhatArrived()
        {
            Assert.Equal(_client.Streams.Keys, _client.Streams.Keys.Intersect(_server.Streams.Keys));
            foreach (var server in _server.Streams.Values)
            {
                if (!_client.Streams.TryGetValue(server.Id, out var client))
                {
                    // Never heard of there: broken off before it was announced, or refused.
                    Assert.True(server.Ended);
                    Assert.Empty(server.Received);
                    continue;
                }

                Assert.Equal(server.Port, client.Port);
                CheckDirection(server, client);
                CheckDirection(client, server);

                // An end in order or by force, on either side: both know.
                Assert.Equal(server.Ended, client.Ended);
                Assert.Equal(server.Ended, server.EndedHere || client.EndedHere);
            }
        }

        public void EndEverything()
        {
            foreach (var stream in _server.Streams.Values)
                _server.Session.Finish(stream.Id);
            Settle();
            Assert.Equal(0, _server.Session.StreamCount);
            Assert.Equal(0, _client.Session.StreamCount);
            Abandon();
        }

        public void Abandon()
        {
            _server.Session.Abandon();
            _client.Session.Abandon();
        }

        private static void CheckDirection(Stream sender, Stream receiver)
        {
            Assert.Equal(sender.Sent.Take(receiver.Received.Count), receiver.Received);
            if (!sender.ResetHere && !receiver.EndedHere)
                Assert.Equal(sender.Sent.Count, receiver.Received.Count);
        }

        private static void Send(End end, Stream stream, int amount)
        {
            var allowance = end.Session.SendAllowance(stream.Id);
            Assert.InRange(allowance, 0, stream.Ended ? 0 : MaxPayload);
            var count = Math.Min(allowance, amount);
            if (count == 0)
                return;

            // Each byte says where in its stream it stands, and no two streams have the same sequence.
            var bytes = Enumerable.Range(stream.Sent.Count, count).Select(at => (byte)((at * 7) + (stream.Id * 31) + (int)end.Role)).ToArray();
            stream.Sent.AddRange(bytes);
            end.Session.Send(stream.Id, ByteChunk.Copy(bytes));
        }

        private static bool Take(End end)
        {
            if (end.Wire.Count >= WireCapacity || !end.Session.TryTakeFrame(out var message))
                return false;
            end.Wire.Enqueue(V1Testing.Write(message));
            return true;
        }

        private static bool Deliver(End from, End to)
        {
            if (from.Wire.Count == 0 || !to.Session.CanReceive)
                return false;
            to.Session.Receive(V1Testing.Read(from.Wire.Dequeue()));
            return true;
        }

        private static bool Consume(End end, Stream stream, int amount)
        {
            var count = Math.Min(stream.Unconsumed, amount);
            stream.Unconsumed -= count;
            end.Session.Consumed(stream.Id, count);
            return count > 0;
        }

        private void Drain(End end, End other)
        {
            while (end.Session.TryTakeEvent(out var happened))
            {
                switch (happened.Kind)
                {
                    case StreamEventKind.Opened:
                        Assert.Equal(V1Role.Client, end.Role);
                        end.Streams.Add(happened.StreamId, new Stream(happened.StreamId, happened.Request.Port));
                        break;

                    case StreamEventKind.Data:
                        var receiver = end.Streams[happened.StreamId];
                        Assert.False(receiver.Ended, "Data after the end.");
                        receiver.Received.AddRange(happened.Payload.Span);
                        receiver.Unconsumed += happened.Payload.Length;
                        happened.Payload.Release();
                        var sent = other.Streams[happened.StreamId].Sent;
                        Assert.True(sent.Count >= receiver.Received.Count && sent[receiver.Received.Count - 1] == receiver.Received[^1]);
                        break;

                    case StreamEventKind.Closed:
                        var closed = end.Streams[happened.StreamId];
                        Assert.False(closed.Ended, "A second end.");
                        closed.Ended = true;
                        break;

                    case StreamEventKind.Writable:
                        Assert.Equal(MaxPayload, end.Session.SendAllowance(happened.StreamId));
                        break;

                    case StreamEventKind.Control when happened.Control is Listen listen:
                        end.Session.SendControl(new ListenOk(listen.Port));
                        break;

                    case StreamEventKind.Control when happened.Control is ListenOk ok:
                        Assert.Equal(++_listensGranted, ok.Port);
                        break;

                    default:
                        Assert.Fail($"{happened} was not to happen between two ends that keep to the protocol.");
                        break;
                }
            }
        }

        private static void CheckBounds(End end)
        {
            Assert.InRange(end.Session.StreamCount, 0, MaxStreams);
            foreach (var stream in end.Streams.Values)
                Assert.InRange(stream.Unconsumed, 0, StreamBuffer + MaxPayload);
        }
    }

    private sealed class End(V1Role role)
    {
        public V1Role Role { get; } = role;

        public V1Session Session { get; } = new(role, World.Options);

        public Dictionary<uint, Stream> Streams { get; } = [];

        public Queue<byte[]> Wire { get; } = new();
    }

    private sealed class Stream(uint id, int port)
    {
        public uint Id { get; } = id;

        public int Port { get; } = port;

        public List<byte> Sent { get; } = [];

        public List<byte> Received { get; } = [];

        public int Unconsumed { get; set; }

        /// <summary>This side called Finish or Reset before it knew of an end.</summary>
        public bool EndedHere { get; set; }

        public bool ResetHere { get; set; }

        public bool Ended { get; set; }
    }
}
