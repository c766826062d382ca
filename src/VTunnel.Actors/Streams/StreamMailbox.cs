using Akka.Actor;
using Akka.Configuration;
using Akka.Dispatch;
using Akka.Dispatch.MessageQueues;

namespace VTunnel.Streams;

/// <summary>
/// What the messages of a stream's actor lie in. A stream hears a handful of messages in its life, and there may be tens of
/// thousands of streams: empty, this takes 32 bytes, where Akka's own mailbox keeps room for 32 messages in 1 KB.
/// </summary>
internal sealed class StreamMailbox : MailboxType, IProducesMessageQueue<StreamMailbox.Queue>
{
    /// <summary>Its section in <c>akka.conf</c>.</summary>
    public const string Id = "vtunnel.stream-mailbox";

    /// <summary>Made by the actor system.</summary>
    public StreamMailbox(Settings settings, Config config)
        : base(settings, config)
    {
    }

    /// <summary>Whether the system has the engine's configuration; an application's own may not.</summary>
    public static bool IsKnownTo(ActorSystem system) => system.Settings.Config.HasPath(Id);

    public override IMessageQueue Create(IActorRef owner, ActorSystem system) => new Queue();

    /// <summary>Many write, one reads, nobody waits: writers push onto a stack, and the reader turns it around.</summary>
    internal sealed class Queue : IMessageQueue, IUnboundedMessageQueueSemantics
    {
        private Node? _newest;

        /// <summary>The reader's: the oldest messages, oldest first.</summary>
        private Node? _oldest;

        public bool HasMessages => Volatile.Read(ref _oldest) is not null || Volatile.Read(ref _newest) is not null;

        public int Count => Length(Volatile.Read(ref _oldest)) + Length(Volatile.Read(ref _newest));

        public void Enqueue(IActorRef receiver, Envelope envelope)
        {
            // Once it is in the stack, its link is the reader's: nothing here may look at it again.
            var node = new Node(envelope);
            Node? below;
            do
                node.Next = below = Volatile.Read(ref _newest);
            while (Interlocked.CompareExchange(ref _newest, node, below) != below);
        }

        public bool TryDequeue(out Envelope envelope)
        {
            var node = _oldest ?? TakeNew();
            if (node is null)
            {
                envelope = default;
                return false;
            }

            envelope = node.Envelope;
            Volatile.Write(ref _oldest, node.Next);
            return true;
        }

        public void CleanUp(IActorRef owner, IMessageQueue deadletters)
        {
            while (TryDequeue(out var envelope))
                deadletters.Enqueue(owner, envelope);
        }

        /// <summary>All that was pushed, the oldest first.</summary>
        private Node? TakeNew()
        {
            Node? first = null;
            for (var node = Interlocked.Exchange(ref _newest, null); node is not null;)
                (node.Next, first, node) = (first, node, node.Next);
            return first;
        }

        private static int Length(Node? node)
        {
            var length = 0;
            for (; node is not null; node = node.Next)
                length++;
            return length;
        }

        private sealed class Node(Envelope envelope)
        {
            public Envelope Envelope { get; } = envelope;

            public Node? Next { get; set; }
        }
    }
}
