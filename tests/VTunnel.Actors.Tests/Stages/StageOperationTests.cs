using System.Threading.Tasks.Sources;
using VTunnel.Protocol.Buffers;
using VTunnel.Stages;

namespace VTunnel.Actors.Tests.Stages;

public sealed class StageOperationTests
{
    [Fact]
    public void A_result_that_is_there_at_once_wakes_nobody()
    {
        var woken = 0;
        var operation = new StageOperation<int>(() => woken++);
        Assert.True(operation.Start(new ValueTask<int>(7)));
        Assert.True(operation.IsCompleted);
        Assert.Equal(7, operation.Take());
        Assert.False(operation.IsPending);
        Assert.Equal(0, woken);
    }

    [Fact]
    public void A_result_that_comes_later_wakes_once_and_waits_to_be_taken()
    {
        var woken = 0;
        var operation = new StageOperation<int>(() => woken++);
        var source = new InlineSource();
        Assert.False(operation.Start(source.Task));
        Assert.True(operation.IsPending);
        Assert.False(operation.IsCompleted);
        source.Complete(7);
        Assert.Equal(1, woken);
        Assert.True(operation.IsCompleted);
        Assert.Equal(7, operation.Take());
    }

    [Fact]
    public void An_abandoned_operation_releases_its_buffer_when_it_completes_and_wakes_nobody()
    {
        using var books = ChunkLedger.Open();
        var woken = 0;
        var operation = new StageOperation<int>(() => woken++);
        var source = new InlineSource();
        operation.Start(source.Task);
        operation.Abandon(ByteChunk.Rent());
        Assert.Equal(1, books.Outstanding);
        source.Fail(new IOException("closed"));
        Assert.Equal(0, books.Outstanding);
        Assert.Equal(0, woken);
        Assert.True(source.IsTaken);
    }

    [Fact]
    public void Abandoning_what_is_complete_releases_the_buffer_at_once()
    {
        using var books = ChunkLedger.Open();
        var operation = new StageOperation<int>(() => { });
        var source = new InlineSource();
        operation.Start(source.Task);
        source.Complete(1);
        operation.Abandon(ByteChunk.Rent());
        Assert.Equal(0, books.Outstanding);
        Assert.True(source.IsTaken);
    }

    [Fact]
    public void Abandoning_when_nothing_is_under_way_releases_the_buffer()
    {
        using var books = ChunkLedger.Open();
        new StageOperation(() => { }).Abandon(ByteChunk.Rent());
        new StageOperation<int>(() => { }).Abandon(null);
        Assert.Equal(0, books.Outstanding);
    }

    [Fact]
    public void A_completion_and_an_abandonment_at_once_release_the_buffer_once()
    {
        using var books = ChunkLedger.Open();
        for (var i = 0; i < 500; i++)
        {
            var operation = new StageOperation<int>(() => { });
            var source = new InlineSource();
            operation.Start(source.Task);
            var chunk = ByteChunk.Rent(16);
            using var start = new Barrier(2);
            var completing = new Thread(() =>
            {
                start.SignalAndWait();
                source.Complete(1);
            });
            completing.Start();
            start.SignalAndWait();
            operation.Abandon(chunk);
            completing.Join();
        }

        Assert.Equal(0, books.Outstanding);
    }

    private sealed class InlineSource : IValueTaskSource<int>
    {
        private ManualResetValueTaskSourceCore<int> _core;

        public ValueTask<int> Task => new(this, _core.Version);

        public bool IsTaken { get; private set; }

        public void Complete(int result) => _core.SetResult(result);

        public void Fail(Exception error) => _core.SetException(error);

        public int GetResult(short token)
        {
            IsTaken = true;
            return _core.GetResult(token);
        }

        public ValueTaskSourceStatus GetStatus(short token) => _core.GetStatus(token);

        public void OnCompleted(Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
            _core.OnCompleted(continuation, state, token, ValueTaskSourceOnCompletedFlags.None);
    }
}
