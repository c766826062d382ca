using Akka.Actor;
using Akka.Streams;
using VTunnel.Carriers;
using VTunnel.Endpoints;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Link;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Sessions;
using VTunnel.Stages;

namespace VTunnel.Actors.Tests.Testing;

/// <summary>What a pump was told.</summary>
internal abstract record PumpCall
{
    public sealed record Open(StreamRequest Request, StreamEndpoint Endpoint, IActorRef Owner) : PumpCall;

    public sealed record Attach(StreamKey Key, StreamEndpoint Endpoint, IActorRef Owner) : PumpCall;

    public sealed record Reset(StreamKey Key) : PumpCall;

    public sealed record Control(ControlMessage Message) : PumpCall;

    public sealed record Ping : PumpCall;

    public sealed record Stop(Exception? Reason) : PumpCall;

    public sealed record WireAborted : PumpCall;
}

/// <summary>A pump that passes on to a probe what it is told, and does nothing else.</summary>
internal sealed class RecordingPump(IActorRef observer) : ISessionPump
{
    public bool IsReceivePaused { get; set; }

    public long BytesIn => 0;

    public long BytesOut => 0;

    public void Open(StreamRequest request, StreamEndpoint endpoint, IActorRef owner) => observer.Tell(new PumpCall.Open(request, endpoint, owner));

    public void Attach(StreamKey key, StreamEndpoint endpoint, IActorRef owner) => observer.Tell(new PumpCall.Attach(key, endpoint, owner));

    public void Reset(StreamKey key) => observer.Tell(new PumpCall.Reset(key));

    public void ConfirmHandled()
    {
        // A matter between pump and session; nothing here waits for it.
    }

    public void SendControl(ControlMessage message) => observer.Tell(new PumpCall.Control(message));

    public void SendPing() => observer.Tell(new PumpCall.Ping());

    public void Stop(Exception? reason) => observer.Tell(new PumpCall.Stop(reason));
}

/// <summary>The wire of a session whose pump, carrier and peer are the test.</summary>
internal sealed class FakeWire(RecordingPump pump, IActorRef observer, TimeSpan idleTimeout) : SessionWire
{
    public FakeCarrier FakeCarrier { get; } = new();

    public override string Protocol => "v1";

    public override string RemoteName => "203.0.113.7:4711";

    public override TimeSpan IdleTimeout => idleTimeout;

    public override ICarrier? Carrier => FakeCarrier;

    public override ISessionPump Start(IMaterializer materializer, IActorRef session, SessionContext context) => pump;

    public override void Attach(ICarrier carrier, LinkHello? hello) => throw new NotSupportedException();

    public override void Abort() => observer.Tell(new PumpCall.WireAborted());
}

/// <summary>A carrier of which only the signs of life matter.</summary>
internal sealed class FakeCarrier : ICarrier
{
    private long _received;

    public string RemoteName => "203.0.113.7:4711";

    public bool SpeaksV2 => false;

    public long ReceivedCount => Interlocked.Read(ref _received);

    public Task Disposed => Task.CompletedTask;

    /// <summary>Default true.</summary>
    public bool CanPing { get; set; } = true;

    public int PingCount { get; private set; }

    /// <summary>Something arrives.</summary>
    public void Hear() => Interlocked.Increment(ref _received);

    public ValueTask<System.Net.WebSockets.ValueWebSocketReceiveResult> ReceiveAsync(Memory<byte> buffer) => throw new NotSupportedException();

    public ValueTask SendAsync(ReadOnlyMemory<byte> message, System.Net.WebSockets.WebSocketMessageType kind) => throw new NotSupportedException();

    public ValueTask<bool> PingAsync()
    {
        PingCount++;
        return new ValueTask<bool>(CanPing);
    }

    public ValueTask CloseAsync(System.Net.WebSockets.WebSocketCloseStatus status, string reason) => throw new NotSupportedException();

    public void Abort()
    {
    }

    public ValueTask DisposeAsync() => ValueTask.CompletedTask;
}
