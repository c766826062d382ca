using Akka.Actor;
using VTunnel.Endpoints;
using VTunnel.Extensions;

namespace Extending;

/// <summary>So many bytes a second for all visitors together, both directions counted.</summary>
public sealed class BandwidthLimit(ActorSystem system, long bytesPerSecond) : IStreamMiddleware
{
    private readonly IActorRef _bucket = system.ActorOf(Props.Create(() => new TokenBucketActor(bytesPerSecond)));

    public StreamEndpoint Wrap(StreamEndpoint endpoint, StreamInfo stream) => new LimitedEndpoint(endpoint, _bucket);

    private sealed class LimitedEndpoint(StreamEndpoint inner, IActorRef bucket) : DelegatingEndpoint(inner)
    {
        public override async ValueTask<int> ReceiveAsync(Memory<byte> buffer) => await PassAsync(await Inner.ReceiveAsync(buffer));

        public override async ValueTask SendAsync(ReadOnlyMemory<byte> buffer)
        {
            await PassAsync(buffer.Length);
            await Inner.SendAsync(buffer);
        }

        // 0 is a receive that only waited for data to come, or the end.
        private async ValueTask<int> PassAsync(int count) =>
            count == 0 ? 0 : (await bucket.Ask<TokenBucketActor.Bytes>(new TokenBucketActor.Bytes(count), Timeout.InfiniteTimeSpan)).Count;
    }
}

/// <summary>Sends <see cref="Bytes"/> back in the order in which they came, as fast as tokens come in.</summary>
public sealed class TokenBucketActor(long bytesPerSecond) : UntypedActor, IWithTimers
{
    private const int TicksPerSecond = 20;
    private readonly Queue<(IActorRef Asker, Bytes Bytes)> _waiting = new();
    private long _tokens;

    public sealed record Bytes(int Count);
    private sealed record Refill;

    public ITimerScheduler Timers { get; set; } = null!;

    protected override void PreStart() => Timers.StartPeriodicTimer("refill", new Refill(), TimeSpan.FromSeconds(1.0 / TicksPerSecond));

    protected override void OnReceive(object message)
    {
        if (message is Bytes bytes)
            _waiting.Enqueue((Sender, bytes));
        else if (message is Refill)
            _tokens = Math.Min(bytesPerSecond, _tokens + bytesPerSecond / TicksPerSecond);

        // Whoever finds a token may overdraw: no piece is too large, and the next one waits until the debt is paid.
        while (_tokens > 0 && _waiting.TryDequeue(out var next))
        {
            _tokens -= next.Bytes.Count;
            next.Asker.Tell(next.Bytes);
        }
    }
}
