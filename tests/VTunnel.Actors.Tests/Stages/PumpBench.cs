using System.Globalization;
using System.Text;
using Akka.Actor;
using Akka.Streams;
using Akka.Streams.Dsl;
using Akka.TestKit;
using VTunnel.Actors.Tests.Testing;
using VTunnel.Diagnostics;
using VTunnel.Endpoints;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Protocol.V1;
using VTunnel.Stages;

namespace VTunnel.Actors.Tests.Stages;

/// <summary>A pump over a v1 session whose peer is the test. Everything happens on the test's thread.</summary>
internal sealed class PumpBench
{
    public static readonly SessionProtocolException Shutdown = new(SessionError.ShuttingDown, "shutting down");

    private readonly Func<TestProbe> _createProbe;
    private bool _hasEnded;

    private PumpBench(IMaterializer materializer, Func<TestProbe> createProbe, V1Role role, V1SessionOptions? options)
    {
        _createProbe = createProbe;
        Session = createProbe();
        Protocol = new V1Session(role, options);
        (Pump, Wire) = Flow.FromGraph(new SessionPumpStage<V1Message>(Protocol, Session, TestMetrics.Server, TimeProvider.System))
            .JoinMaterialized(Flow.FromGraph(new ManualWireStage<V1Message>()), Keep.Both)
            .Run(materializer);
    }

    public ISessionPump Pump { get; }

    public IManualWire<V1Message> Wire { get; }

    public V1Session Protocol { get; }

    public TestProbe Session { get; }

    /// <summary>Runs a test on a pump, ends it, and checks that every chunk of it was released.</summary>
    public static void Run(
        IMaterializer materializer, Func<TestProbe> createProbe, V1Role role, V1SessionOptions? options, Action<PumpBench> test)
    {
        using var books = ChunkLedger.Open();
        var bench = new PumpBench(materializer, createProbe, role, options);
        test(bench);
        bench.Wire.TakesAll = true;
        bench.Pump.Stop(null);
        if (!bench._hasEnded)
            bench.Session.FishForMessage<PumpEvents.PumpEnded>(_ => true);
        bench.Frames();
        Assert.Equal(0, books.Outstanding);
    }

    /// <summary>The graph has ended; gives the cause.</summary>
    public Exception? ExpectPumpEnded()
    {
        _hasEnded = true;
        return Session.ExpectMsg<PumpEvents.PumpEnded>().Cause;
    }

    /// <summary>A visitor's stream, as its actor sees it.</summary>
    public OpenStream Open(FakeEndpoint? endpoint = null, int port = 9000)
    {
        endpoint ??= new FakeEndpoint();
        var (owner, key) = OpenAny(endpoint, port);
        return new OpenStream(endpoint, owner, key);
    }

    public (TestProbe Owner, StreamKey Key) OpenAny(StreamEndpoint endpoint, int port = 9000)
    {
        var owner = _createProbe();
        Pump.Open(new StreamRequest(port), endpoint, owner);
        return (owner, owner.ExpectMsg<PumpEvents.StreamOpened>().Key);
    }

    /// <summary>The peer opens a stream; what the session's actor is told.</summary>
    public StreamKey Request(uint id, int port = 9000)
    {
        Wire.Put(new V1Message(V1MessageType.Connect, id, port));
        return Session.ExpectMsg<PumpEvents.StreamRequested>().Key;
    }

    /// <summary>The target of a requested stream is connected.</summary>
    public OpenStream Attach(StreamKey key, FakeEndpoint? endpoint = null)
    {
        endpoint ??= new FakeEndpoint();
        var owner = _createProbe();
        Pump.Attach(key, endpoint, owner);
        return new OpenStream(endpoint, owner, key);
    }

    public OpenStream RequestAndAttach(uint id, FakeEndpoint? endpoint = null) => Attach(Request(id), endpoint);

    public void PutData(uint id, string text) => PutData(id, Encoding.ASCII.GetBytes(text));

    public void PutData(uint id, byte[] bytes) => Wire.Put(new V1Message(V1MessageType.Data, id, Payload: ByteChunk.Copy(bytes)));

    public void PutClose(uint id) => Wire.Put(new V1Message(V1MessageType.Close, id));

    /// <summary>What the peer has got since the last call, in words. Long payloads are told by their length.</summary>
    public string[] Frames()
    {
        var frames = Wire.Taken.Select(Describe).ToArray();
        Wire.Taken.Clear();
        return frames;
    }

    private static string Describe(V1Message frame)
    {
        var text = string.Create(CultureInfo.InvariantCulture, $"{frame.Type}");
        if (frame.StreamId != 0)
            text += string.Create(CultureInfo.InvariantCulture, $" {frame.StreamId}");
        if (frame.Port != 0)
            text += string.Create(CultureInfo.InvariantCulture, $" :{frame.Port}");
        if (frame.Payload.Length > 40)
            text += string.Create(CultureInfo.InvariantCulture, $" ({frame.Payload.Length})");
        else if (!frame.Payload.IsEmpty)
            text += " " + Encoding.ASCII.GetString(frame.Payload.Span);
        frame.Payload.Release();
        return text;
    }
}

/// <summary>One stream, its far side and its owner.</summary>
internal sealed record OpenStream(FakeEndpoint Endpoint, TestProbe Owner, StreamKey Key)
{
    public string SentText => Encoding.ASCII.GetString(Endpoint.Sent);

    public void Feed(string text) => Endpoint.Feed(Encoding.ASCII.GetBytes(text));

    public PumpEvents.StreamEnded ExpectEnd(StreamEnd end)
    {
        var ended = Owner.ExpectMsg<PumpEvents.StreamEnded>();
        Assert.Equal(end, ended.End);
        return ended;
    }
}
