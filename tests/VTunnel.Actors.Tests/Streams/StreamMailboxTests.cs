using Akka.Actor;
using Akka.Configuration;
using Akka.TestKit.Xunit2;
using VTunnel.Hosting;
using VTunnel.Streams;

namespace VTunnel.Actors.Tests.Streams;

public sealed class StreamMailboxTests() : TestKit(EngineConfiguration.Own.WithFallback(DefaultConfig))
{
    private const int Writers = 4;
    private const int MessagesEach = 20_000;

    [Fact]
    public void Queue_gives_what_it_was_given_in_order()
    {
        var queue = new StreamMailbox.Queue();
        Assert.False(queue.HasMessages);
        Assert.False(queue.TryDequeue(out _));

        queue.Enqueue(ActorRefs.Nobody, new Envelope(1, ActorRefs.Nobody));
        queue.Enqueue(ActorRefs.Nobody, new Envelope(2, ActorRefs.Nobody));
        Assert.Equal(2, queue.Count);
        Assert.Equal(1, Next());
        queue.Enqueue(ActorRefs.Nobody, new Envelope(3, ActorRefs.Nobody));
        Assert.Equal(2, queue.Count);
        Assert.Equal(2, Next());
        Assert.True(queue.HasMessages);
        Assert.Equal(3, Next());
        Assert.False(queue.HasMessages);
        Assert.Equal(0, queue.Count);

        object Next() => queue.TryDequeue(out var envelope) ? envelope.Message : "nothing";
    }

    [Fact]
    public void Queue_hands_what_is_left_to_dead_letters()
    {
        var queue = new StreamMailbox.Queue();
        queue.Enqueue(ActorRefs.Nobody, new Envelope("one", ActorRefs.Nobody));
        queue.Enqueue(ActorRefs.Nobody, new Envelope("two", ActorRefs.Nobody));
        var deadLetters = new StreamMailbox.Queue();

        queue.CleanUp(ActorRefs.Nobody, deadLetters);

        Assert.False(queue.HasMessages);
        Assert.Equal(2, deadLetters.Count);
    }

    [Fact]
    public void Queue_gives_every_message_once_to_a_reader_who_is_always_there()
    {
        const int Each = 2_000_000;
        var queue = new StreamMailbox.Queue();
        var numbers = Enumerable.Range(0, Each).Select(object (i) => i).ToArray();
        IActorRef[] senders = [CreateTestProbe(), CreateTestProbe()];
        var writers = Array.ConvertAll(senders, sender => new Thread(() =>
        {
            for (var i = 0; i < Each; i++)
            {
                queue.Enqueue(ActorRefs.Nobody, new Envelope(numbers[i], sender));
                if (i % 1024 == 0)
                    Thread.Yield();
            }
        }));
        foreach (var writer in writers)
            writer.Start();

        // The reader is faster than the writers and takes what has just been put in. What is not its writer's next came twice or too early.
        int[] next = [0, 0];
        var unexpected = 0;
        while (Array.Exists(writers, writer => writer.IsAlive) || queue.HasMessages)
        {
            for (var i = 0; i < 1000; i++)
            {
                if (queue.TryDequeue(out var envelope) && next[envelope.Sender == senders[0] ? 0 : 1]++ != (int)envelope.Message)
                    unexpected++;
            }
        }

        Assert.Equal((0, Each, Each), (unexpected, next[0], next[1]));
    }

    [Fact]
    public async Task An_actor_hears_every_message_of_many_writers_in_the_order_of_each()
    {
        var heard = new TaskCompletionSource<int[]>(TaskCreationOptions.RunContinuationsAsynchronously);
        Assert.True(StreamMailbox.IsKnownTo(Sys));
        var actor = Sys.ActorOf(Props.Create(() => new Listener(heard)).WithMailbox(StreamMailbox.Id));

        await Task.WhenAll(Enumerable.Range(0, Writers).Select(writer => Task.Run(() =>
        {
            for (var i = 0; i < MessagesEach; i++)
                actor.Tell((writer, i));
        })));

        Assert.All(await heard.Task.WaitAsync(TimeSpan.FromSeconds(30)), next => Assert.Equal(MessagesEach, next));
    }

    [Fact]
    public void A_system_without_the_engines_configuration_does_not_know_it()
    {
        using var other = ActorSystem.Create("other", Config.Empty);
        Assert.False(StreamMailbox.IsKnownTo(other));
    }

    [Fact]
    public void The_engines_own_system_makes_no_serialiser_for_JSON()
    {
        var serializer = Sys.Serialization.FindSerializerForType(typeof(StreamMailboxTests));
        Assert.IsType<NoSerializer>(serializer);
        Assert.Contains(nameof(StreamMailboxTests), Assert.Throws<NotSupportedException>(() => serializer.ToBinary(this)).Message, StringComparison.Ordinal);
    }

    /// <summary>Wants each writer's numbers in order, and says when it has them all.</summary>
    private sealed class Listener(TaskCompletionSource<int[]> heard) : UntypedActor
    {
        private readonly int[] _next = new int[Writers];

        protected override void OnReceive(object message)
        {
            var (writer, number) = ((int, int))message;
            if (_next[writer] != number)
                heard.TrySetException(new InvalidOperationException($"writer {writer}: {number} came where {_next[writer]} was due"));
            _next[writer]++;
            if (_next.All(next => next == MessagesEach))
                heard.TrySetResult(_next);
        }
    }
}
