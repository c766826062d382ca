using Akka.Actor;
using Akka.Configuration;
using Akka.Dispatch;

namespace VTunnel.Stages;

/// <summary>
/// Runs a session's graph on the thread that has just finished a receive or a send for it, instead of handing it to
/// another one: a hand-over costs more than moving 64 KiB does. All else that wakes a graph goes to the thread pool.
/// </summary>
/// <remarks>
/// The mailbox still sees to it that a graph runs on one thread at a time, and that nothing runs inside itself: a thread
/// runs at most one graph this way, and what that wakes meanwhile goes to the pool.
/// </remarks>
internal sealed class InlineExecutor(string id) : ExecutorService(id)
{
    [ThreadStatic]
    private static bool _mayRunHere;

    /// <summary>Calls <paramref name="wake"/>, which wakes at most one graph; where that is idle, it runs before this returns.</summary>
    public static void RunHere(Action wake)
    {
        _mayRunHere = true;
        try
        {
            wake();
        }
        finally
        {
            _mayRunHere = false;
        }
    }

    public override void Execute(IRunnable run)
    {
        if (_mayRunHere)
        {
            _mayRunHere = false;
            run.Run();
        }
        else
        {
            ThreadPool.UnsafeQueueUserWorkItem(static work => work.Run(), run, preferLocal: false);
        }
    }

    public override void Shutdown()
    {
        // The threads are the pool's.
    }
}

/// <summary>Named in <c>akka.conf</c>; made by the actor system.</summary>
internal sealed class InlineExecutorConfigurator(Config config, IDispatcherPrerequisites prerequisites)
    : ExecutorServiceConfigurator(config, prerequisites)
{
    public override ExecutorService Produce(string id) => new InlineExecutor(id);
}
