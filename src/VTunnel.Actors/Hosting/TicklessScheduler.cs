using System.Diagnostics;
using Akka.Actor;
using Akka.Configuration;
using Akka.Dispatch;
using Akka.Event;

namespace VTunnel.Hosting;

/// <summary>
/// Akka's scheduler on .NET's timers: it sleeps until something is due. Akka's own wheel turns a hundred times a second whether
/// anything is due or not, and each turn wakes two or three threads of the pool, which cost an idle program 4 to 9 % of a core.
/// </summary>
internal sealed class TicklessScheduler : SchedulerBase, IDisposable
{
    private readonly long _start = Stopwatch.GetTimestamp();
    private volatile bool _isDisposed;

    /// <summary>Made by the actor system.</summary>
    public TicklessScheduler(Config scheduler, ILoggingAdapter log)
        : base(scheduler, log)
    {
    }

    public override TimeSpan MonotonicClock => Stopwatch.GetElapsedTime(_start);

    public override TimeSpan HighResMonotonicClock => Stopwatch.GetElapsedTime(_start);

    protected override DateTimeOffset TimeNow => TimeProvider.System.GetUtcNow();

    /// <summary>Nothing fires any more; what is waiting is dropped when it is due.</summary>
    public void Dispose() => _isDisposed = true;

    protected override void InternalScheduleTellOnce(TimeSpan delay, ICanTell receiver, object message, IActorRef sender, ICancelable? cancelable) =>
        Schedule(new TellJob(this, receiver, message, sender, cancelable), delay, null);

    protected override void InternalScheduleTellRepeatedly(
        TimeSpan initialDelay, TimeSpan interval, ICanTell receiver, object message, IActorRef sender, ICancelable? cancelable) =>
        Schedule(new TellJob(this, receiver, message, sender, cancelable), initialDelay, interval);

    protected override void InternalScheduleOnce(TimeSpan delay, Action action, ICancelable? cancelable) =>
        Schedule(new ActionJob(this, action, cancelable), delay, null);

    protected override void InternalScheduleOnce(TimeSpan delay, IRunnable action, ICancelable? cancelable) =>
        Schedule(new ActionJob(this, action.Run, cancelable), delay, null);

    protected override void InternalScheduleRepeatedly(TimeSpan initialDelay, TimeSpan interval, Action action, ICancelable? cancelable) =>
        Schedule(new ActionJob(this, action, cancelable), initialDelay, interval);

    protected override void InternalScheduleRepeatedly(TimeSpan initialDelay, TimeSpan interval, IRunnable action, ICancelable? cancelable) =>
        Schedule(new ActionJob(this, action.Run, cancelable), initialDelay, interval);

    private void Schedule(Job job, TimeSpan delay, TimeSpan? interval)
    {
        if (_isDisposed)
            throw new SchedulerException("The actor system has ended: nothing can be scheduled any more.");
        job.Start(Due(delay), interval is { } period ? Math.Max(1, Milliseconds(period)) : System.Threading.Timeout.Infinite);
    }

    /// <summary>
    /// Rounded up, and one more: timers count whole milliseconds of a clock that was read at any moment within one, so that they are
    /// early by up to one. Nothing of ours is.
    /// </summary>
    private static long Due(TimeSpan delay) => delay <= TimeSpan.Zero ? 0 : Milliseconds(delay) + 1;

    private static long Milliseconds(TimeSpan time) => (long)Math.Ceiling(time.TotalMilliseconds);

    private abstract class Job(TicklessScheduler scheduler, ICancelable? cancelable)
    {
        private Timer? _timer;
        private CancellationTokenRegistration _cancellation;
        private bool _isOnce;
        private int _isRunning;

        public void Start(long delay, long interval)
        {
            _isOnce = interval == System.Threading.Timeout.Infinite;

            // Whoever schedules is not who is run: nothing of his context goes along.
            var isSuppressed = ExecutionContext.IsFlowSuppressed();
            var flow = isSuppressed ? default : ExecutionContext.SuppressFlow();
            try
            {
                _timer = new Timer(static job => ((Job)job!).Fire(), this, System.Threading.Timeout.Infinite, System.Threading.Timeout.Infinite);
            }
            finally
            {
                if (!isSuppressed)
                    flow.Undo();
            }

            // What is cancelled is let go at once, not when it would have been due.
            if (cancelable is not null)
                _cancellation = cancelable.Token.UnsafeRegister(static job => ((Job)job!)._timer!.Dispose(), this);
            try
            {
                _timer.Change(delay, interval);
            }
            catch (ObjectDisposedException)
            {
                // Cancelled meanwhile.
            }
        }

        protected abstract void Run();

        private void Fire()
        {
            if (scheduler._isDisposed || cancelable?.IsCancellationRequested == true)
            {
                Stop();
                return;
            }

            // One that takes longer than its interval is not run by two threads at once.
            if (Interlocked.Exchange(ref _isRunning, 1) != 0)
                return;
            if (_isOnce)
                Stop();
            try
            {
                Run();
            }
            catch (Exception e)
            {
                Stop();
                scheduler.Log.Error(e, "What was scheduled has failed and is not tried again.");
            }

            Volatile.Write(ref _isRunning, 0);
        }

        private void Stop()
        {
            _cancellation.Dispose();
            _timer!.Dispose();
        }
    }

    private sealed class TellJob(TicklessScheduler scheduler, ICanTell receiver, object message, IActorRef sender, ICancelable? cancelable)
        : Job(scheduler, cancelable)
    {
        protected override void Run() => receiver.Tell(message, sender);
    }

    private sealed class ActionJob(TicklessScheduler scheduler, Action action, ICancelable? cancelable) : Job(scheduler, cancelable)
    {
        protected override void Run() => action();
    }
}
