using System.Collections.Concurrent;
using VTunnel.Endpoints;
using VTunnel.Extensions;

namespace VTunnel.Bridge.Publishing;

/// <summary>Counts the bytes of each session's streams while they move, for status.</summary>
internal sealed class TrafficMeter : IStreamMiddleware
{
    private readonly ConcurrentDictionary<string, Count> _sessions = new();

    /// <summary>What a session's streams have moved so far.</summary>
    public (long In, long Out) Of(string session) =>
        _sessions.TryGetValue(session, out var count) ? (Interlocked.Read(ref count.In), Interlocked.Read(ref count.Out)) : (0, 0);

    /// <summary>The session is over.</summary>
    public void Forget(string session) => _sessions.TryRemove(session, out _);

    /// <inheritdoc />
    public StreamEndpoint Wrap(StreamEndpoint endpoint, StreamInfo stream) => new Counted(endpoint, _sessions.GetOrAdd(stream.Session, _ => new Count()));

    private sealed class Count
    {
        public long In;
        public long Out;
    }

    private sealed class Counted(StreamEndpoint inner, Count count) : DelegatingEndpoint(inner)
    {
        public override ValueTask<int> ReceiveAsync(Memory<byte> buffer)
        {
            var receiving = Inner.ReceiveAsync(buffer);
            if (!receiving.IsCompletedSuccessfully)
                return CountAsync(receiving);
            var read = receiving.GetAwaiter().GetResult();
            Interlocked.Add(ref count.Out, read);
            return ValueTask.FromResult(read);
        }

        public override ValueTask SendAsync(ReadOnlyMemory<byte> buffer)
        {
            Interlocked.Add(ref count.In, buffer.Length);
            return Inner.SendAsync(buffer);
        }

        private async ValueTask<int> CountAsync(ValueTask<int> receiving)
        {
            var read = await receiving.ConfigureAwait(false);
            Interlocked.Add(ref count.Out, read);
            return read;
        }
    }
}
