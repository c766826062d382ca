using Akka.Actor;
using Akka.Streams;
using Akka.Streams.Dsl;
using BenchmarkDotNet.Attributes;
using BenchmarkDotNet.Configs;
using BenchmarkDotNet.Jobs;
using BenchmarkDotNet.Running;
using BenchmarkDotNet.Toolchains.InProcess.Emit;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Link;
using VTunnel.Protocol.Mux;
using VTunnel.Protocol.V1;
using VTunnel.Stages;

namespace VTunnel.Bench.Micro;

/// <summary>The parts of the data plane one by one.</summary>
internal static class MicroBenchmarks
{
    public static int Run(string[] arguments)
    {
        // In this process: a project made for each benchmark would have to restore packages by itself.
        var namesJob = arguments.Any(word => word is "--job" or "-j");
        var config = namesJob ? DefaultConfig.Instance : DefaultConfig.Instance.AddJob(Job.ShortRun.WithToolchain(InProcessEmitToolchain.Instance));
        if (namesJob)
            arguments = [.. arguments, "--inProcess"];
        var all = (Type[])[typeof(V1Codec), typeof(MuxTransfer), typeof(LinkTransfer), typeof(Scheduler), typeof(Windows), typeof(Stages)];
        return BenchmarkSwitcher.FromTypes(all).Run(arguments.Length > 0 ? arguments : ["--filter", "*"], config).Any() ? 0 : 1;
    }
}

/// <summary>One DATA message of v1, 32 KiB of payload.</summary>
[MemoryDiagnoser]
public class V1Codec
{
    private V1Message _message = null!;
    private byte[] _text = [];

    [GlobalSetup]
    public void SetUp()
    {
        var payload = new byte[32 * 1024];
        new Random(1).NextBytes(payload);
        _message = new V1Message(V1MessageType.Data, 1, Payload: ByteChunk.Copy(payload));
        var text = V1Writer.Write(_message);
        _text = text.Span.ToArray();
        text.Release();
    }

    [Benchmark]
    public void Write() => V1Writer.Write(_message).Release();

    [Benchmark]
    public void Read()
    {
        V1Reader.TryRead(_text, out var message, out _);
        message!.Payload.Release();
    }
}

/// <summary>One DATA frame from one mux session to another, credit and all.</summary>
[MemoryDiagnoser]
public class MuxTransfer
{
    private readonly MuxSession _dialer = new(MuxRole.Dialer);
    private readonly MuxSession _acceptor = new(MuxRole.Acceptor);
    private MuxStream _stream = null!;

    [Params(64, 65_000)]
    public int Bytes { get; set; }

    [GlobalSetup]
    public void SetUp()
    {
        _stream = _dialer.Open()!;
        Exchange();
        while (_acceptor.TryTakeEvent(out var happened))
        {
            if (happened.Kind == MuxEventKind.Opened)
                _acceptor.Accept(happened.Stream!);
        }

        Exchange();
    }

    [Benchmark]
    public void Frame()
    {
        if (_dialer.SendAllowance(_stream) >= Bytes)
            _dialer.Send(_stream, new ByteSlice(ByteChunk.Rent(), ByteChunk.Headroom, Bytes));
        Exchange();
        while (_acceptor.TryTakeEvent(out var happened))
        {
            if (happened.Kind != MuxEventKind.Data)
                continue;
            happened.Payload.Release();
            _acceptor.Consumed(happened.Stream!, happened.Payload.Length);
        }

        while (_dialer.TryTakeEvent(out _))
        {
            // Accepted and writable: nothing to do.
        }
    }

    private void Exchange()
    {
        bool moved;
        do
        {
            moved = false;
            for (; _dialer.TryTakeFrame(out var frame); moved = true)
                _acceptor.Receive(frame);
            for (; _acceptor.TryTakeFrame(out var frame); moved = true)
                _dialer.Receive(frame);
        }
        while (moved);
    }
}

/// <summary>One slice from one link to another, acknowledgements and all.</summary>
[MemoryDiagnoser]
public class LinkTransfer
{
    private readonly LinkState _client = LinkState.CreateClient(new LinkOptions());
    private LinkState _server = null!;
    private int _clientCarrier;
    private int _serverCarrier;
    private TimeSpan _now;

    [GlobalSetup]
    public void SetUp()
    {
        _clientCarrier = _client.AttachCarrier(_now);
        _client.TryTakeMessage(_clientCarrier, _now, out var message);
        LinkAcceptor.TryRead(message.Span, [], out var hello, out _);
        message.Release();
        _server = LinkState.CreateServer(new LinkOptions(), LinkId.FromBytes(new byte[16]), new LinkSecret(new byte[32]));
        _server.TryAttachCarrier(hello!, _now, out _serverCarrier, out _);
        Exchange();
    }

    [Benchmark]
    public void Slice()
    {
        _now += TimeSpan.FromMicroseconds(50);
        if (_client.WritableBytes > 0)
            _client.Write(new ByteSlice(ByteChunk.Rent(), ByteChunk.Headroom, 65_000));
        Exchange();
        while (_server.TryRead(out var slice))
            slice.Release();
        Exchange();
    }

    private void Exchange()
    {
        bool moved;
        do
        {
            moved = false;
            for (; _client.TryTakeMessage(_clientCarrier, _now, out var message); moved = true)
                _server.Receive(_serverCarrier, message, _now);
            for (; _server.TryTakeMessage(_serverCarrier, _now, out var message); moved = true)
                _client.Receive(_clientCarrier, message, _now);
        }
        while (moved);
        while (_client.TryTakeEvent(out _) || _server.TryTakeEvent(out _))
        {
            // Established: nothing to do.
        }
    }
}

/// <summary>Whose turn it is, among streams that always have something.</summary>
[MemoryDiagnoser]
public class Scheduler
{
    private readonly DeficitRoundRobin _scheduler = new(64 * 1024);

    [Params(1, 64)]
    public int Streams { get; set; }

    [GlobalSetup]
    public void SetUp()
    {
        for (var i = 0; i < Streams; i++)
            _scheduler.Activate(new Entry());
    }

    [Benchmark]
    public object? Next() => _scheduler.Next();

    private sealed class Entry : ScheduledEntry
    {
        internal override int NextCost => 32 * 1024;
    }
}

/// <summary>A receive window that is emptied and refilled.</summary>
[MemoryDiagnoser]
public class Windows
{
    private readonly WindowBudget _budget = new(64 * 1024 * 1024);
    private readonly MuxOptions _options = new();
    private ReceiveWindow _window = new(TimeSpan.Zero);
    private TimeSpan _now;

    [Benchmark]
    public uint ReceiveAndConsume()
    {
        _now += TimeSpan.FromMicroseconds(100);
        _window.TryReceive(32 * 1024);
        return _window.Consume(32 * 1024, _now, TimeSpan.FromMilliseconds(1), _budget, _options) ? _window.TakeCredit() : 0;
    }
}

/// <summary>The graph stages of v1 around each other: 1000 messages of 32 KiB for each operation.</summary>
[MemoryDiagnoser]
public class Stages
{
    private const int Messages = 1000;

    private readonly ActorSystem _system = ActorSystem.Create("micro");
    private IMaterializer _materializer = null!;
    private ByteSlice _payload;

    [GlobalSetup]
    public void SetUp()
    {
        _materializer = _system.Materializer();
        _payload = ByteChunk.Copy(new byte[32 * 1024]);
    }

    [GlobalCleanup]
    public Task CleanUp() => _system.Terminate();

    [Benchmark(OperationsPerInvoke = Messages)]
    public Task EncodeAndDecode() => Source.From(Enumerable.Range(0, Messages))
        .Select(_ => new V1Message(V1MessageType.Data, 1, Payload: _payload.RetainPart(0, _payload.Length)))
        .Via(Flow.FromGraph(new V1EncoderStage()))
        .Via(Flow.FromGraph(new V1DecoderStage(Microsoft.Extensions.Logging.Abstractions.NullLogger.Instance, "micro")))
        .RunForeach(message => message.Payload.Release(), _materializer);
}
