using Akka.Actor;
using Akka.Streams;
using Akka.Streams.Stage;

namespace VTunnel.Actors.Tests.Testing;

/// <summary>The end of a wire: takes elements as the test asks for them, and gives out what the test puts in.</summary>
internal interface IManualWire<T>
{
    /// <summary>What was taken so far.</summary>
    List<T> Taken { get; }

    /// <summary>Whether elements are taken as they come. Default true; a peer that does not read is false.</summary>
    bool TakesAll { get; set; }

    /// <summary>Whether the other end wants an element.</summary>
    bool IsWanted { get; }

    /// <summary>What was put in and not asked for yet.</summary>
    int WaitingCount { get; }

    /// <summary>The other end has finished; a failure is in <see cref="Failure"/>.</summary>
    bool IsFinished { get; }

    Exception? Failure { get; }

    /// <summary>Gives an element as soon as it is wanted.</summary>
    void Put(T element);

    /// <summary>Ends both directions, as a carrier that was closed.</summary>
    void Close(Exception? cause = null);
}

/// <summary>What an observer of a wire is told.</summary>
internal static class WireEvents
{
    /// <summary>An element was taken.</summary>
    public sealed record Took(object Element);

    /// <summary>The other end has finished or failed.</summary>
    public sealed record Finished(Exception? Failure);
}

/// <summary>
/// Where the graph runs on the calling thread, the wire's members take effect before they return; elsewhere let it tell
/// an observer.
/// </summary>
internal sealed class ManualWireStage<T> : GraphStageWithMaterializedValue<FlowShape<T, T>, IManualWire<T>>
{
    private readonly Inlet<T> _in = new("ManualWire.in");
    private readonly Outlet<T> _out = new("ManualWire.out");
    private readonly bool _closesWhenFinished;
    private readonly bool _takesAll;
    private readonly IActorRef _observer;

    /// <param name="closesWhenFinished">Whether the wire ends both directions when the other end finishes.</param>
    /// <param name="takesAll">The first value of <see cref="IManualWire{T}.TakesAll"/>.</param>
    /// <param name="observer">Told <see cref="WireEvents"/>.</param>
    public ManualWireStage(bool closesWhenFinished = true, bool takesAll = true, IActorRef? observer = null)
    {
        _closesWhenFinished = closesWhenFinished;
        _takesAll = takesAll;
        _observer = observer ?? ActorRefs.Nobody;
        Shape = new FlowShape<T, T>(_in, _out);
    }

    public override FlowShape<T, T> Shape { get; }

    public override ILogicAndMaterializedValue<IManualWire<T>> CreateLogicAndMaterializedValue(Attributes inheritedAttributes)
    {
        var logic = new Logic(this);
        return new LogicAndMaterializedValue<IManualWire<T>>(logic, logic);
    }

    private sealed class Logic : GraphStageLogic, IManualWire<T>, IInHandler, IOutHandler
    {
        private readonly ManualWireStage<T> _stage;
        private readonly Queue<T> _waiting = new();
        private readonly Action<Action> _inStage;
        private bool _takesAll;

        public Logic(ManualWireStage<T> stage)
            : base(stage.Shape)
        {
            _stage = stage;
            _takesAll = stage._takesAll;
            _inStage = GetAsyncCallback<Action>(action => action());
            SetHandler(stage._in, this);
            SetHandler(stage._out, this);
        }

        public List<T> Taken { get; } = [];

        public bool TakesAll
        {
            get => _takesAll;
            set
            {
                _takesAll = value;
                _inStage(PullNext);
            }
        }

        public bool IsWanted { get; private set; }

        public int WaitingCount => _waiting.Count;

        public bool IsFinished { get; private set; }

        public Exception? Failure { get; private set; }

        public override void PreStart()
        {
            SetKeepGoing(true);
            PullNext();
        }

        public void Put(T element) => _inStage(() =>
        {
            _waiting.Enqueue(element);
            PushNext();
        });

        public void Close(Exception? cause = null) => _inStage(() =>
        {
            if (cause is null)
                CompleteStage();
            else
                FailStage(cause);
        });

        public void OnPush()
        {
            var element = Grab(_stage._in);
            Taken.Add(element);
            _stage._observer.Tell(new WireEvents.Took(element!));
            PullNext();
        }

        public void OnPull()
        {
            IsWanted = true;
            PushNext();
        }

        public void OnUpstreamFinish() => Finish(null);

        public void OnUpstreamFailure(Exception e) => Finish(e);

        public void OnDownstreamFinish(Exception cause)
        {
            // Whoever cancels finishes, too.
        }

        private void Finish(Exception? failure)
        {
            IsFinished = true;
            Failure = failure;
            _stage._observer.Tell(new WireEvents.Finished(failure));
            if (!_stage._closesWhenFinished)
                return;
            if (failure is null)
                CompleteStage();
            else
                FailStage(failure);
        }

        private void PullNext()
        {
            if (_takesAll && !IsClosed(_stage._in) && !HasBeenPulled(_stage._in))
                Pull(_stage._in);
        }

        private void PushNext()
        {
            if (!IsWanted || !IsAvailable(_stage._out) || !_waiting.TryDequeue(out var next))
                return;
            IsWanted = false;
            Push(_stage._out, next);
        }
    }
}
