using System.Net.Sockets;

namespace VTunnel.Bench.Load;

/// <summary>Which way a bulk transfer goes, as the visitor sees it.</summary>
internal enum Direction
{
    /// <summary>From the target to the visitor: a download.</summary>
    Pull,

    /// <summary>From the visitor to the target: an upload.</summary>
    Push,

    /// <summary>Both at once.</summary>
    Both,
}

/// <summary>
/// One connection through the tunnel that carries bytes for as long as <see cref="Stop"/> was not called, with both of its
/// ends. What arrives is compared byte by byte with what was sent, and its length at the end.
/// </summary>
internal sealed class BulkStream : IDisposable
{
    private static int _lastNumber;

    private readonly ManualResetEventSlim _begin;
    private readonly Direction _direction;
    private readonly Lock _lock = new();
    private readonly CountdownEvent _running;
    private Socket? _visitor;
    private Socket? _target;
    private volatile bool _stopping;
    private Exception? _failure;
    private bool _downDone;
    private bool _upDone;
    private long _sentDown;
    private long _sentUp;
    private long _receivedDown;
    private long _receivedUp;

    /// <param name="direction">Which way bytes go.</param>
    /// <param name="begin">Nothing is sent before it is set, so that streams which flow do not keep others from connecting.</param>
    public BulkStream(Direction direction, ManualResetEventSlim begin)
    {
        _begin = begin;
        Number = Interlocked.Increment(ref _lastNumber) & 0xFFFF;
        _direction = direction;
        _running = new CountdownEvent(direction == Direction.Both ? 4 : 2);
    }

    /// <summary>What the target knows it by.</summary>
    public int Number { get; }

    /// <summary>Bytes that have arrived at the far end so far, both directions together.</summary>
    public long Received => Volatile.Read(ref _receivedDown) + Volatile.Read(ref _receivedUp);

    /// <summary>Why it cannot be counted, if so.</summary>
    public Exception? Failure => _failure;

    /// <summary>Connects to a port and starts.</summary>
    public void Start(LoadTarget target, int port)
    {
        target.Expect(this);
        _visitor = LoadTarget.Connect(port);
        _visitor.Send([(byte)LoadKind.Bulk, (byte)(Number >> 8), (byte)Number]);
        if (_direction != Direction.Push)
            Run("visitor-receive", () => Receive(_visitor, ref _receivedDown, 0));
        if (_direction != Direction.Pull)
            Run("visitor-send", () => Send(_visitor, ref _sentUp, 1));
    }

    /// <summary>The far end of it has arrived.</summary>
    public void StartTarget(Socket socket)
    {
        _target = socket;
        if (_direction != Direction.Pull)
            Run("target-receive", () => Receive(socket, ref _receivedUp, 1));
        if (_direction != Direction.Push)
            Run("target-send", () => Send(socket, ref _sentDown, 0));
    }

    /// <summary>Sends no more; what is under way still arrives.</summary>
    public void Stop() => _stopping = true;

    /// <summary>Waits until everything has arrived and checks that it is everything.</summary>
    /// <exception cref="BenchException">Something is missing or wrong.</exception>
    public void Finish(string what)
    {
        Stop();
        if (!_running.Wait(TimeSpan.FromSeconds(15)))
            throw new BenchException($"{what}: a transfer did not end within 15 s ({Received} of {_sentDown + _sentUp} bytes arrived)", _failure);
        if (_failure is not null)
            throw new BenchException($"{what}: {_failure.Message}", _failure);
        if (_receivedDown != _sentDown || _receivedUp != _sentUp)
        {
            throw new BenchException(
                $"{what}: a transfer is short: {_receivedDown} of {_sentDown} bytes came down, {_receivedUp} of {_sentUp} went up");
        }
    }

    /// <summary>Cuts it off.</summary>
    public void Dispose()
    {
        _stopping = true;
        _visitor?.Dispose();
        _target?.Dispose();
    }

    private void Run(string name, Action work) => LoadTarget.Start(name, () =>
    {
        try
        {
            work();
        }
        catch (Exception e)
        {
            lock (_lock)
                _failure ??= e;
        }

        _running.Signal();
    });

    private void Send(Socket socket, ref long sent, int side)
    {
        _begin.Wait();
        while (!_stopping)
        {
            var count = socket.Send(Pattern.Slice((Number * 2) + side, sent, Pattern.MaxSlice));
            Volatile.Write(ref sent, sent + count);
        }

        // Not every tunnel keeps one direction open when the other one ends (protocol v1 cannot), so both end together. What is
        // lost under way never arrives: then the deadline of Finish says so.
        Volatile.Write(ref side == 0 ? ref _downDone : ref _upDone, true);
        while (_direction == Direction.Both && _failure is null && !HasArrived())
            Thread.Sleep(1);
        socket.Shutdown(SocketShutdown.Send);
    }

    private bool HasArrived()
    {
        if (!Volatile.Read(ref _downDone) || !Volatile.Read(ref _upDone))
            return false;
        return Volatile.Read(ref _receivedDown) == Volatile.Read(ref _sentDown) && Volatile.Read(ref _receivedUp) == Volatile.Read(ref _sentUp);
    }

    private void Receive(Socket socket, ref long received, int side)
    {
        var buffer = new byte[Pattern.MaxSlice];
        while (socket.Receive(buffer) is > 0 and var count)
        {
            if (!Pattern.Matches((Number * 2) + side, received, buffer.AsSpan(0, count)))
                throw new BenchException($"wrong bytes arrived somewhere in bytes {received} to {received + count - 1} of a stream");
            Volatile.Write(ref received, received + count);
        }
    }
}
