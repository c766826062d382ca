using System.IO.Pipelines;
using System.Net.Sockets;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.Extensions.Logging;
using VTunnel.Endpoints;
using VTunnel.Routing;

namespace VTunnel.Targets.Http;

/// <summary>
/// What a visitor who speaks HTTP sends, on its way to the target: bytes go in, a web server reads requests out of them
/// on <see cref="ServerSide"/>, and these go to the target. What the target answers does not come this way.
/// </summary>
#pragma warning disable CA1001 // The server disposes its side of the connection; the capture holds nothing but memory.
internal sealed class HttpVisitor
#pragma warning restore CA1001
{
    /// <summary>Bytes that wait for the server before the sender is held: 64 KiB, as Kestrel has it for sockets.</summary>
    private const int BufferBytes = 64 * 1024;

    private static readonly PipeOptions PipeSettings = new(
        minimumSegmentSize: 16 * 1024,
        pauseWriterThreshold: BufferBytes,
        resumeWriterThreshold: BufferBytes / 2,
        useSynchronizationContext: false);

    private readonly Lock _gate = new();
    private readonly DuplexStreamEndpoint _connection;
    private readonly ILogger _logger;
    private readonly PipeWriter _toServer;
    private readonly ServerConnection _serverSide;
    private readonly RefusalCapture _capture = new();
    private volatile UpgradeWatch? _upgradeWatch;
    private volatile byte[]? _refusal;
    private Exception? _closed;
    private bool _sending;
    private bool _finished;
    private bool _served;
    private volatile bool _targetLost;
    private volatile bool _forwarded;

    /// <summary>Makes one over a connection that stays its owner's.</summary>
    public HttpVisitor(ForwardTarget target, DuplexStreamEndpoint connection, ILogger logger)
    {
        Target = target;
        Host = RequestHead.HostOf(target);
        _connection = connection;
        _logger = logger;
        var pipe = new Pipe(PipeSettings);
        _toServer = pipe.Writer;
        _serverSide = new ServerConnection(this, pipe.Reader, PipeWriter.Create(_capture));
    }

    /// <summary>Where the requests go.</summary>
    public ForwardTarget Target { get; }

    /// <summary>The Host that each of them gets.</summary>
    public string Host { get; }

    /// <summary>The connection as the web server gets it.</summary>
    public ConnectionContext ServerSide => _serverSide;

    /// <summary>
    /// The server's answer to a visitor whose very first request it could not read; the target has seen nothing then,
    /// and its connection is gone. Null otherwise.
    /// </summary>
    public byte[]? Refusal => _refusal;

    /// <summary>Whether the visitor has said that he will send no more.</summary>
    public bool HasFinished => Volatile.Read(ref _finished);

    /// <summary>Whether <see cref="Close"/> was called.</summary>
    public bool IsClosed => Volatile.Read(ref _closed) is not null;

    /// <summary>Called once, by <see cref="Close"/>.</summary>
    public Action<HttpVisitor>? Closed { get; init; }

    /// <summary>
    /// Takes bytes from the visitor. Once no more requests are expected (the last one said so, or the target takes
    /// none) they are dropped in silence: an answer may be on its way, and an error here would cost him that.
    /// </summary>
    public async ValueTask SendAsync(ReadOnlyMemory<byte> buffer)
    {
        lock (_gate)
        {
            ThrowIfClosed();
            _sending = true;
        }

        try
        {
            await _toServer.WriteAsync(buffer).ConfigureAwait(false);
            ThrowIfClosed();
        }
        finally
        {
            lock (_gate)
            {
                _sending = false;
                if (_closed is not null)
                    CompletePipe(_closed);
            }
        }
    }

    /// <summary>The visitor will send no more. The target learns of it when everything before has reached it.</summary>
    public async ValueTask FinishSendingAsync()
    {
        lock (_gate)
        {
            ThrowIfClosed();
            if (_finished)
                return;
            _finished = true;
            _toServer.Complete();
            if (!_served)
                return;
        }

        await EndTargetAsync().ConfigureAwait(false);
    }

    /// <summary>Bytes from the target are passing by; none at the end.</summary>
    public void Received(ReadOnlySpan<byte> bytes)
    {
        if (_upgradeWatch is { } watch && watch.Inspect(bytes))
            _upgradeWatch = null;
    }

    /// <summary>From now on <see cref="Received"/> looks for the answer to an upgrade.</summary>
    public UpgradeWatch WatchForUpgrade()
    {
        var watch = new UpgradeWatch();
        _upgradeWatch = watch;
        if (IsClosed)
            watch.Settle(false);
        return watch;
    }

    /// <summary>A request begins or has ended: what the server says in between is about none of them.</summary>
    public void BeginRequest() => _capture.BetweenRequests = false;

    /// <inheritdoc cref="BeginRequest"/>
    public void EndRequest() => _capture.BetweenRequests = true;

    /// <summary>Sends a part of a request. False if the target takes no more.</summary>
    public async ValueTask<bool> TrySendToTargetAsync(ReadOnlyMemory<byte> bytes)
    {
        _forwarded = true;
        try
        {
            await _connection.SendAsync(bytes).ConfigureAwait(false);
            return true;
        }
        catch (Exception e) when (e is IOException or SocketException or ObjectDisposedException or InvalidOperationException)
        {
            // It may have answered all the same, before the request was complete: whoever receives sees that, and the end.
            TargetsLog.TargetTakesNoMore(_logger, Target, e.Message);
            _targetLost = true;
            return false;
        }
    }

    /// <summary>Ends the connection to the target because what the visitor sends cannot be understood, or half of it was sent.</summary>
    public void Break(string reason)
    {
        if (IsClosed)
            return;
        TargetsLog.RequestUnreadable(_logger, Target, reason);
        _connection.Abort();
    }

    /// <summary>Ends it; the server stops, sends fail. Idempotent. The connection is not touched.</summary>
    public void Close(Exception reason)
    {
        lock (_gate)
        {
            if (_closed is not null)
                return;
            _closed = reason;

            // A pipe must not be completed under a write: that is cancelled, and completes the pipe on its way out.
            if (_sending)
                _toServer.CancelPendingFlush();
            else if (!_finished)
                CompletePipe(reason);
        }

        _upgradeWatch?.Settle(false);
        _serverSide.Cancel();
        Closed?.Invoke(this);
    }

    /// <summary>The server has read its last request.</summary>
    private async ValueTask ServedAsync()
    {
        bool finished;
        lock (_gate)
        {
            _served = true;
            finished = _finished;
        }

        var refusal = _capture.Refusal;
        if (IsClosed || _targetLost)
            return;
        if (refusal.Length > 0 && !_forwarded)
        {
            _refusal = refusal;
            Break("the first request is not one");
        }
        else if (finished)
        {
            await EndTargetAsync().ConfigureAwait(false);
        }
        else if (refusal.Length > 0)
        {
            // Answers to earlier requests may be under way, so there is no place for one of ours.
            Break("a later request is not one");
        }
    }

    private async ValueTask EndTargetAsync()
    {
        try
        {
            await _connection.SendCloseNotifyAsync().ConfigureAwait(false);
        }
        catch (Exception e) when (e is IOException or SocketException or ObjectDisposedException or InvalidOperationException)
        {
            // Gone already, which whoever receives finds out.
            TargetsLog.TargetTakesNoMore(_logger, Target, e.Message);
        }
    }

    private void CompletePipe(Exception reason) => _toServer.Complete(new ConnectionResetException(reason.Message, reason));

    private void ThrowIfClosed()
    {
        if (Volatile.Read(ref _closed) is { } reason)
            throw new IOException(reason.Message, reason);
    }

    private sealed record DuplexPipe(PipeReader Input, PipeWriter Output) : IDuplexPipe;

    /// <summary>The web server's end. The server disposes it when it is done with the connection.</summary>
    private sealed class ServerConnection : ConnectionContext
    {
        private readonly HttpVisitor _visitor;
        private readonly PipeReader _input;
        private readonly PipeWriter _output;
        private readonly CancellationTokenSource _closed = new();

        public ServerConnection(HttpVisitor visitor, PipeReader input, PipeWriter output)
        {
            _visitor = visitor;
            _input = input;
            _output = output;
            Transport = new DuplexPipe(input, output);
            ConnectionClosed = _closed.Token;
            Features.Set(visitor);
        }

        public override string ConnectionId { get; set; } = Guid.NewGuid().ToString("N");

        public override IFeatureCollection Features { get; } = new FeatureCollection();

        public override IDictionary<object, object?> Items { get; set; } = new ConnectionItems();

        public override IDuplexPipe Transport { get; set; }

        /// <remarks>
        /// Cancelled when the visitor is gone, not when he has merely finished sending: the server would take that for
        /// the same, and drop what it has not read yet.
        /// </remarks>
        public override CancellationToken ConnectionClosed { get; set; }

        /// <summary>Tells the server, on the pool, that the visitor is gone.</summary>
        public void Cancel() => _ = _closed.CancelAsync();

        /// <remarks>
        /// The server gives up in the middle of something. If only the visitor's end came too early, the target gets
        /// that same end when the server is done.
        /// </remarks>
        public override void Abort(ConnectionAbortedException? abortReason)
        {
            if (!_visitor._targetLost && !_visitor.HasFinished)
                _visitor.Break(abortReason?.Message ?? "the server gave up");
            Cancel();
        }

        public override async ValueTask DisposeAsync()
        {
            await _input.CompleteAsync().ConfigureAwait(false);
            await _output.CompleteAsync().ConfigureAwait(false);
            await _visitor.ServedAsync().ConfigureAwait(false);
            await base.DisposeAsync().ConfigureAwait(false);
        }
    }
}
