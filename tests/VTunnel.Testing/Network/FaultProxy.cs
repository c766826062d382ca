using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using System.Threading.Channels;

namespace VTunnel.Testing.Network;

/// <summary>A way through a <see cref="FaultProxy"/>.</summary>
public enum ProxyDirection
{
    /// <summary>From whoever dialled the proxy to the target.</summary>
    ToTarget,

    /// <summary>From the target back.</summary>
    FromTarget,
}

/// <summary>How a <see cref="FaultProxy"/> ends a connection, on both of its sides.</summary>
public enum ProxyCut
{
    /// <summary>As if the other end had closed in order.</summary>
    Fin,

    /// <summary>As if the other end had crashed.</summary>
    Reset,
}

/// <summary>
/// A TCP proxy on a loopback port that breaks on command: cuts, black holes, delay. Ends and resets of one side pass to the
/// other, each direction by itself.
/// </summary>
public sealed class FaultProxy : IAsyncDisposable
{
    private const int BufferBytes = 64 * 1024;
    private const int MaxDelayedChunks = 4096;

    private readonly TcpListener _listener;
    private readonly int _targetPort;
    private readonly TimeProvider _time;
    private readonly ConcurrentDictionary<Connection, bool> _connections = new();
    private readonly CancellationTokenSource _stopping = new();
    private readonly Task _accepting;
    private readonly Way[] _ways = [new(), new()];
    private volatile bool _holdsNewConnections;
    private int _acceptedCount;

    private FaultProxy(int targetPort, TimeProvider time)
    {
        _targetPort = targetPort;
        _time = time;
        _listener = new TcpListener(IPAddress.Loopback, 0);
        _listener.Start(512);
        Port = ((IPEndPoint)_listener.LocalEndpoint).Port;
        _accepting = AcceptAsync();
    }

    /// <summary>Where it listens.</summary>
    public int Port { get; }

    /// <summary>Connections taken so far.</summary>
    public int AcceptedCount => Volatile.Read(ref _acceptedCount);

    /// <summary>Connections now, those that are being cut not counted.</summary>
    public int ConnectionCount => _connections.Keys.Count(connection => !connection.IsCut);

    /// <summary>Whether new connections are reset at once, as if nobody listened.</summary>
    public bool RefusesConnections { get; set; }

    /// <summary>Starts one in front of a loopback port.</summary>
    public static FaultProxy Start(int targetPort, TimeProvider? time = null) => new(targetPort, time ?? TimeProvider.System);

    /// <summary>Bytes that went this way, over all connections.</summary>
    public long BytesForwarded(ProxyDirection direction) => Interlocked.Read(ref _ways[(int)direction].Forwarded);

    /// <summary>Bytes that came to be forwarded this way, over all connections, those included that are held up.</summary>
    public long BytesTaken(ProxyDirection direction) => Interlocked.Read(ref _ways[(int)direction].Taken);

    /// <summary>Ends all connections that there are, and returns when both sides of each have been told.</summary>
    public Task CutAsync(ProxyCut cut) => Task.WhenAll(_connections.Keys.Select(connection => connection.CutAsync(cut)));

    /// <summary>
    /// Ends the connection that carries the byte number <paramref name="bytes"/> of a direction, counted from now over all
    /// connections, after exactly that byte. At most one such cut is set per direction.
    /// </summary>
    public void CutAfter(ProxyDirection direction, long bytes, ProxyCut cut)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(bytes);
        var way = _ways[(int)direction];
        lock (way)
        {
            way.LeftUntilCut = bytes;
            way.Cut = cut;
        }
    }

    /// <summary>Stops forwarding without closing anything: nothing gets through either way, ends included.</summary>
    /// <param name="newConnectionsToo">Whether connections that come later hang as well; they are accepted in any case.</param>
    public void Blackhole(bool newConnectionsToo = true)
    {
        _holdsNewConnections = newConnectionsToo;
        foreach (var connection in _connections.Keys)
            connection.Hold();
    }

    /// <summary>Forwards again, beginning with what was held up.</summary>
    public void Resume()
    {
        _holdsNewConnections = false;
        foreach (var connection in _connections.Keys)
            connection.Release();
    }

    /// <summary>Holds every byte of a direction up for a fixed time, at any rate (up to 256 MiB under way); for connections that come later.</summary>
    public void Delay(ProxyDirection direction, TimeSpan delay) => _ways[(int)direction].Delay = delay;

    private async Task AcceptAsync()
    {
        try
        {
            while (true)
            {
                var client = await _listener.AcceptSocketAsync(_stopping.Token).ConfigureAwait(false);
                Interlocked.Increment(ref _acceptedCount);
                if (RefusesConnections)
                {
                    Reset(client);
                    continue;
                }

                var connection = new Connection(this, client);
                if (_holdsNewConnections)
                    connection.Hold();
                _connections[connection] = true;
                connection.Running = ForgetAfterAsync(connection);
            }
        }
        catch (OperationCanceledException)
        {
            // Stopped.
        }
    }

    private async Task ForgetAfterAsync(Connection connection)
    {
        await Task.Yield();
        await connection.RunAsync().ConfigureAwait(false);
        _connections.TryRemove(connection, out _);
    }

    /// <inheritdoc />
    public async ValueTask DisposeAsync()
    {
        // The listener stops when nobody accepts any more: between two calls, the loop would find it stopped.
        await _stopping.CancelAsync().ConfigureAwait(false);
        await _accepting.ConfigureAwait(false);
        _listener.Stop();
        foreach (var connection in _connections.Keys)
        {
            _ = connection.CutAsync(ProxyCut.Reset);
            await connection.Running.ConfigureAwait(false);
        }

        _stopping.Dispose();
    }

    private static void Reset(Socket socket)
    {
        try
        {
            socket.LingerState = new LingerOption(true, 0);
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // Closed already.
        }

        socket.Dispose();
    }

    /// <summary>What holds for one direction of all connections.</summary>
    private sealed class Way
    {
        public long Forwarded;
        public long Taken;
        public long LeftUntilCut;
        public ProxyCut? Cut;

        public TimeSpan Delay { get; set; }

        /// <summary>How many of <paramref name="count"/> bytes may pass, and how to cut the connection after them.</summary>
        public int Admit(int count, out ProxyCut? cut)
        {
            lock (this)
            {
                cut = null;
                if (Cut is not null && count >= LeftUntilCut)
                {
                    count = (int)LeftUntilCut;
                    cut = Cut;
                    Cut = null;
                }
                else if (Cut is not null)
                {
                    LeftUntilCut -= count;
                }

                Interlocked.Add(ref Forwarded, count);
                return count;
            }
        }
    }

    private sealed class Connection(FaultProxy proxy, Socket client)
    {
        private readonly Socket _server = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        private readonly CancellationTokenSource _cutting = new();
        private readonly TaskCompletionSource _severed = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private TaskCompletionSource? _hold;
        private int _cut = -1;

        public Task Running { get; set; } = Task.CompletedTask;

        public bool IsCut => Volatile.Read(ref _cut) >= 0;

        public void Hold() => Interlocked.CompareExchange(
            ref _hold, new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously), null);

        public void Release() => Interlocked.Exchange(ref _hold, null)?.TrySetResult();

        public Task CutAsync(ProxyCut cut)
        {
            Interlocked.CompareExchange(ref _cut, (int)cut, -1);
            _cutting.Cancel();
            return _severed.Task;
        }

        public async Task RunAsync()
        {
            try
            {
                client.NoDelay = true;
                await PassAsync().ConfigureAwait(false);
                await _server.ConnectAsync(IPAddress.Loopback, proxy._targetPort, _cutting.Token).ConfigureAwait(false);
                await Task.WhenAll(
                    ForwardAsync(ProxyDirection.ToTarget, client, _server),
                    ForwardAsync(ProxyDirection.FromTarget, _server, client)).ConfigureAwait(false);
            }
            catch (SocketException)
            {
                // One side broke or the target refused: so does the other side.
                _ = CutAsync(ProxyCut.Reset);
            }
            catch (OperationCanceledException)
            {
                // Cut on command.
            }

            if (Volatile.Read(ref _cut) == (int)ProxyCut.Reset)
            {
                Reset(client);
                Reset(_server);
            }
            else if (IsCut)
            {
                await FinishBothAsync().ConfigureAwait(false);
            }

            client.Dispose();
            _server.Dispose();
            _severed.TrySetResult();
        }

        private async Task ForwardAsync(ProxyDirection direction, Socket from, Socket to)
        {
            var way = proxy._ways[(int)direction];
            try
            {
                await (way.Delay > TimeSpan.Zero ? ForwardLaterAsync(way, from, to) : ForwardAtOnceAsync(way, from, to)).ConfigureAwait(false);
            }
            catch (SocketException)
            {
                // A reset does not get through a black hole either. The other direction must not wait for what is over.
                await PassAsync().ConfigureAwait(false);
                _ = CutAsync(ProxyCut.Reset);
                throw;
            }
        }

        private async Task ForwardAtOnceAsync(Way way, Socket from, Socket to)
        {
            var buffer = new byte[BufferBytes];
            while (true)
            {
                await PassAsync().ConfigureAwait(false);
                var count = await from.ReceiveAsync(buffer, SocketFlags.None, _cutting.Token).ConfigureAwait(false);
                Interlocked.Add(ref way.Taken, count);
                if (!await SendAsync(way, to, buffer.AsMemory(0, count)).ConfigureAwait(false))
                    return;
            }
        }

        private async Task ForwardLaterAsync(Way way, Socket from, Socket to)
        {
            var delay = way.Delay;
            var underWay = Channel.CreateBounded<(long Arrived, byte[] Bytes)>(MaxDelayedChunks);
            await Task.WhenAll(ReadAsync(), WriteAsync()).ConfigureAwait(false);

            async Task ReadAsync()
            {
                var buffer = new byte[BufferBytes];
                try
                {
                    int count;
                    do
                    {
                        count = await from.ReceiveAsync(buffer, SocketFlags.None, _cutting.Token).ConfigureAwait(false);
                        await underWay.Writer.WriteAsync((proxy._time.GetTimestamp(), buffer[..count]), _cutting.Token).ConfigureAwait(false);
                        Interlocked.Add(ref way.Taken, count);
                    }
                    while (count > 0);
                    underWay.Writer.Complete();
                }
                catch (SocketException e)
                {
                    // What came before the reset is on its way already.
                    underWay.Writer.Complete(e);
                }
            }

            async Task WriteAsync()
            {
                try
                {
                    await foreach (var (arrived, bytes) in underWay.Reader.ReadAllAsync(_cutting.Token).ConfigureAwait(false))
                    {
                        var left = delay - proxy._time.GetElapsedTime(arrived);
                        if (left > TimeSpan.Zero)
                            await Task.Delay(left, proxy._time, _cutting.Token).ConfigureAwait(false);
                        if (!await SendAsync(way, to, bytes).ConfigureAwait(false))
                            return;
                    }
                }
                catch (SocketException)
                {
                    _ = CutAsync(ProxyCut.Reset);
                    throw;
                }
            }
        }

        /// <summary>Sends, or passes the end on if there is nothing; false when no more is to be sent.</summary>
        private async Task<bool> SendAsync(Way way, Socket to, ReadOnlyMemory<byte> bytes)
        {
            await PassAsync().ConfigureAwait(false);
            if (bytes.IsEmpty)
            {
                to.Shutdown(SocketShutdown.Send);
                return false;
            }

            var admitted = way.Admit(bytes.Length, out var cut);
            for (var rest = bytes[..admitted]; !rest.IsEmpty;)
                rest = rest[await to.SendAsync(rest, SocketFlags.None, _cutting.Token).ConfigureAwait(false)..];
            if (cut is null)
                return true;
            _ = CutAsync(cut.Value);
            return false;
        }

        private Task PassAsync() => Volatile.Read(ref _hold) is { } hold ? hold.Task.WaitAsync(_cutting.Token) : Task.CompletedTask;

        /// <summary>
        /// Says the end to both sides, and reads and drops until they have said theirs: a socket that is closed with unread
        /// bytes sends a reset instead.
        /// </summary>
        private async Task FinishBothAsync()
        {
            foreach (var socket in (Socket[])[client, _server])
            {
                try
                {
                    socket.Shutdown(SocketShutdown.Send);
                }
                catch (SocketException)
                {
                    // Gone already, or never connected.
                }
            }

            _severed.TrySetResult();
            await Task.WhenAll(DropAsync(client), DropAsync(_server)).ConfigureAwait(false);
        }

        private async Task DropAsync(Socket socket)
        {
            var buffer = new byte[BufferBytes];
            try
            {
                while (await socket.ReceiveAsync(buffer, SocketFlags.None, proxy._stopping.Token).ConfigureAwait(false) > 0)
                {
                    // Dropped.
                }
            }
            catch (Exception e) when (e is SocketException or OperationCanceledException)
            {
                // Its side is over too, or the proxy is.
            }
        }
    }
}
