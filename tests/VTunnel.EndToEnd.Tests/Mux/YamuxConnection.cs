using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Mux;

namespace VTunnel.EndToEnd.Tests.Mux;

/// <summary>A mux session on a plain socket: the least that makes it run.</summary>
internal sealed class YamuxConnection : IAsyncDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);
    private readonly Socket _socket;
    private readonly MuxSession _session;
    private readonly Lock _lock = new();
    private readonly SemaphoreSlim _toSend = new(0);
    private readonly SemaphoreSlim _opened = new(0);
    private readonly Queue<YamuxStream> _inbound = new();
    private readonly TaskCompletionSource _goneAway = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _measured = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Stopwatch _clock = Stopwatch.StartNew();
    private readonly CancellationTokenSource _stop = new();
    private readonly Task _reading;
    private readonly Task _writing;
    private TaskCompletionSource? _drained;

    public YamuxConnection(Socket socket, MuxRole role, MuxOptions? options = null)
    {
        _socket = socket;
        _session = new MuxSession(role, options);
        _reading = ReadAsync();
        _writing = WriteAsync();
    }

    /// <summary>Completes when the peer ended the session in order.</summary>
    public Task GoneAway => _goneAway.Task.WaitAsync(Patience);

    /// <summary>Completes when a ping was answered.</summary>
    public Task Measured => _measured.Task.WaitAsync(Patience);

    /// <summary>Completes when the peer closed the connection; fails with what ended the session.</summary>
    public Task Ended => _reading.WaitAsync(Patience);

    /// <summary>Completes when no stream exists: both ends of each have been received and handed to the socket.</summary>
    public Task Drained
    {
        get
        {
            lock (_lock)
            {
                if (_session.StreamCount == 0)
                    return Task.CompletedTask;
                _drained ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
                return _drained.Task.WaitAsync(Patience);
            }
        }
    }

    public TimeSpan? RoundTrip => Do(session => session.RoundTrip);

    public int StreamCount => Do(session => session.StreamCount);

    public YamuxStream? Open() => Do(session => session.Open() is { } stream ? Attach(stream) : null);

    public void SendPing() => Do(session => session.SendPing());

    public void GoAway() => Do(session => session.GoAway());

    /// <summary>The next stream that the peer opened, accepted.</summary>
    public async Task<YamuxStream> AcceptAsync()
    {
        Assert.True(await _opened.WaitAsync(Patience), "The peer opened no stream.");
        lock (_lock)
            return _inbound.Dequeue();
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        _socket.Dispose();
        try
        {
            await Task.WhenAll(_reading, _writing);
        }
        catch (Exception e) when (e is OperationCanceledException or SocketException or SessionProtocolException)
        {
            // How a connection ends is for the test to look at, by Ended.
        }

        lock (_lock)
            _session.Abandon();
        _stop.Dispose();
        _toSend.Dispose();
        _opened.Dispose();
    }

    /// <summary>Calls the session, hands on what happened, and wakes the writer.</summary>
    internal T Do<T>(Func<MuxSession, T> action)
    {
        lock (_lock)
        {
            _session.Now = _clock.Elapsed;
            try
            {
                return action(_session);
            }
            finally
            {
                HandOnEvents();
                if (_toSend.CurrentCount == 0)
                    _toSend.Release();
            }
        }
    }

    internal void Do(Action<MuxSession> action) => Do(session =>
    {
        action(session);
        return 0;
    });

    private YamuxStream Attach(MuxStream stream)
    {
        var attached = new YamuxStream(this, stream);
        stream.Tag = attached;
        return attached;
    }

    private void On(MuxEvent e)
    {
        switch (e.Kind)
        {
            case MuxEventKind.Opened:
                _session.Accept(e.Stream!);
                _inbound.Enqueue(Attach(e.Stream!));
                _opened.Release();
                break;
            case MuxEventKind.GoAway:
                _goneAway.TrySetResult();
                break;
            default:
                ((YamuxStream)e.Stream!.Tag!).On(e);
                break;
        }
    }

    private async Task ReadAsync()
    {
        while (true)
        {
            var chunk = ByteChunk.Rent();
            var count = await _socket.ReceiveAsync(chunk.Array, SocketFlags.None, _stop.Token);
            if (count == 0)
                return;
            Do(session => session.Receive(new ByteSlice(chunk, 0, count)));
            if (RoundTrip is not null)
                _measured.TrySetResult();
        }
    }

    private async Task WriteAsync()
    {
        while (true)
        {
            await _toSend.WaitAsync(_stop.Token);
            while (TryTake(out var frame))
            {
                for (var rest = frame.Memory; rest.Length > 0;)
                    rest = rest[await _socket.SendAsync(rest, SocketFlags.None, _stop.Token)..];
                frame.Release();
            }
        }
    }

    private bool TryTake(out ByteSlice frame)
    {
        lock (_lock)
        {
            _session.Now = _clock.Elapsed;
            var taken = _session.TryTakeFrame(out frame);
            HandOnEvents();
            return taken;
        }
    }

    private void HandOnEvents()
    {
        while (_session.TryTakeEvent(out var e))
            On(e);
        if (_session.StreamCount > 0)
            return;
        _drained?.TrySetResult();
        _drained = null;
    }

    /// <summary>One stream, with what arrived on it.</summary>
    internal sealed class YamuxStream(YamuxConnection connection, MuxStream stream)
    {
        private readonly Queue<ByteSlice> _received = new();
        private readonly SemaphoreSlim _arrived = new(0);
        private readonly SemaphoreSlim _writable = new(0);
        private readonly TaskCompletionSource _accepted = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private bool _finished;

        public uint Id => stream.Id;

        public bool WasReset { get; private set; }

        public Task Accepted => _accepted.Task.WaitAsync(Patience);

        public Task SendAsync(string text) => SendAsync(Encoding.UTF8.GetBytes(text));

        public async Task SendAsync(ReadOnlyMemory<byte> bytes)
        {
            while (bytes.Length > 0)
            {
                var sent = connection.Do(session =>
                {
                    var count = Math.Min(bytes.Length, session.SendAllowance(stream));
                    if (count > 0)
                        session.Send(stream, ByteChunk.Copy(bytes.Span[..count]));
                    return count;
                });
                bytes = bytes[sent..];
                if (sent > 0)
                    continue;
                Assert.True(await _writable.WaitAsync(Patience), $"Stream {Id} never became writable.");
                if (WasReset)
                    throw new IOException($"Stream {Id} was reset.");
            }
        }

        public void Finish() => connection.Do(session => session.Finish(stream));

        public void Reset() => connection.Do(session => session.Reset(stream));

        /// <summary>What arrived next; empty at the end.</summary>
        /// <exception cref="IOException">The stream was reset.</exception>
        public async Task<byte[]> ReadAsync()
        {
            Assert.True(await _arrived.WaitAsync(Patience), $"Nothing arrived on stream {Id}.");
            return connection.Do(session =>
            {
                if (!_received.TryDequeue(out var payload))
                {
                    _arrived.Release();
                    return WasReset ? throw new IOException($"Stream {Id} was reset.") : Array.Empty<byte>();
                }

                var bytes = payload.Span.ToArray();
                payload.Release();
                session.Consumed(stream, bytes.Length);
                return bytes;
            });
        }

        public async Task<byte[]> ReadToEndAsync()
        {
            var all = new MemoryStream();
            while (await ReadAsync() is { Length: > 0 } part)
                all.Write(part);
            return all.ToArray();
        }

        public async Task<byte[]> ReadExactlyAsync(int count)
        {
            var all = new MemoryStream();
            while (all.Length < count && await ReadAsync() is { Length: > 0 } part)
                all.Write(part);
            Assert.Equal(count, all.Length);
            return all.ToArray();
        }

        internal void On(MuxEvent e)
        {
            switch (e.Kind)
            {
                case MuxEventKind.Accepted:
                    _accepted.TrySetResult();
                    break;
                case MuxEventKind.Data:
                    Assert.False(_finished);
                    _received.Enqueue(e.Payload);
                    _arrived.Release();
                    break;
                case MuxEventKind.Finished:
                    _finished = true;
                    _arrived.Release();
                    break;
                case MuxEventKind.Reset:
                    WasReset = true;
                    _arrived.Release();
                    _writable.Release();
                    break;
                case MuxEventKind.Writable:
                    _writable.Release();
                    break;
            }
        }
    }
}
