using System.IO.Pipelines;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Http.Features;
using VTunnel.Routing;
using VTunnel.Streams;

namespace VTunnel.Targets.Http;

/// <summary>
/// A visitor whose connection is HTTP. As an endpoint it is the pump's end of an in-memory connection;
/// <see cref="Connection"/> is the web server's end of it.
/// </summary>
internal sealed class HttpVisitor : StreamEndpoint
{
    /// <summary>Bytes that wait in either direction before the writer is held: 64 KiB, as Kestrel has it for sockets.</summary>
    private const int BufferBytes = 64 * 1024;

    private static readonly PipeOptions PipeSettings = new(
        minimumSegmentSize: 16 * 1024,
        pauseWriterThreshold: BufferBytes,
        resumeWriterThreshold: BufferBytes / 2,
        useSynchronizationContext: false);

    private readonly PipeEndpoint _pipes;
    private readonly ServerSide _serverSide;
    private int _requests;
    private int _ended;

    public HttpVisitor(
        ForwardTarget target,
        DuplexStreamEndpoint first,
        Task firstReady,
        Func<ForwardTarget, CancellationToken, Task<DuplexStreamEndpoint>> dial)
    {
        Target = target;
        Transformer = new HostTransformer(target);
        var toServer = new Pipe(PipeSettings);
        var toVisitor = new Pipe(PipeSettings);
        _pipes = new PipeEndpoint(toVisitor.Reader, toServer.Writer);
        _serverSide = new ServerSide(this, new DuplexPipe(toServer.Reader, toVisitor.Writer));
        TargetConnections = new TargetConnections(target, first, firstReady, dial) { AllClosed = CloseIfIdle };
    }

    /// <summary>Where the requests go.</summary>
    public ForwardTarget Target { get; }

    /// <summary>What is changed in each request.</summary>
    public HostTransformer Transformer { get; }

    /// <summary>The connections to the target.</summary>
    public TargetConnections TargetConnections { get; }

    /// <summary>The connection as the web server gets it.</summary>
    public ConnectionContext Connection => _serverSide;

    /// <summary>Called once, when the connection has ended in whatever way.</summary>
    public Action<HttpVisitor>? Ended { get; init; }

    /// <summary>Whether <see cref="Ended"/> has been called or is being called.</summary>
    public bool HasEnded => Volatile.Read(ref _ended) != 0;

    /// <summary>A request begins; while one is under way the connection is not idle.</summary>
    public void BeginRequest() => Interlocked.Increment(ref _requests);

    /// <summary>A request has ended.</summary>
    public void EndRequest() => Interlocked.Decrement(ref _requests);

    /// <inheritdoc />
    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer) => _pipes.ReceiveAsync(buffer);

    /// <inheritdoc />
    public override ValueTask SendAsync(ReadOnlyMemory<byte> buffer) => _pipes.SendAsync(buffer);

    /// <inheritdoc />
    /// <remarks>
    /// The server finishes what it has been asked and ends the connection then. The target is not told: TLS before
    /// version 1.3 cannot be half-closed without losing the answer, and many servers take a half-close for a visitor
    /// who has left.
    /// </remarks>
    public override ValueTask FinishSendingAsync() => _pipes.FinishSendingAsync();

    /// <inheritdoc />
    public override void Abort()
    {
        TargetConnections.Abort();
        End(new IOException("The connection was aborted."));
    }

    /// <inheritdoc />
    protected override void Dispose(bool disposing)
    {
        if (disposing)
            End(new ObjectDisposedException(nameof(HttpVisitor)));
    }

    private void End(Exception reason)
    {
        _pipes.Break(reason);
        _serverSide.Close();
        Release();
    }

    private void Release()
    {
        TargetConnections.Dispose();
        if (Interlocked.Exchange(ref _ended, 1) == 0)
            Ended?.Invoke(this);
    }

    /// <summary>The target has hung up between two requests, as servers do: so does the visitor's connection.</summary>
    private void CloseIfIdle()
    {
        if (Volatile.Read(ref _requests) == 0)
            _serverSide.Features.Get<IConnectionLifetimeNotificationFeature>()?.RequestClose();
    }

    private sealed record DuplexPipe(PipeReader Input, PipeWriter Output) : IDuplexPipe;

    /// <summary>The web server's end. Disposed by the server when it is done with the connection.</summary>
    private sealed class ServerSide : ConnectionContext
    {
        private readonly HttpVisitor _visitor;
        private readonly IDuplexPipe _pipes;
        private readonly CancellationTokenSource _closed = new();

        public ServerSide(HttpVisitor visitor, IDuplexPipe pipes)
        {
            _visitor = visitor;
            _pipes = pipes;
            Transport = pipes;
            ConnectionClosed = _closed.Token;
            Features.Set(visitor);
        }

        public override string ConnectionId { get; set; } = Guid.NewGuid().ToString("N");

        public override IFeatureCollection Features { get; } = new FeatureCollection();

        public override IDictionary<object, object?> Items { get; set; } = new ConnectionItems();

        public override IDuplexPipe Transport { get; set; }

        /// <remarks>
        /// Cancelled when the visitor's connection breaks, not when he has merely finished sending: the server would
        /// take that for a visitor who has left.
        /// </remarks>
        public override CancellationToken ConnectionClosed { get; set; }

        /// <summary>Tells the server, on the pool, that the connection is gone.</summary>
        public void Close() => _ = _closed.CancelAsync();

        /// <remarks>The server gives a connection up whose answer it cannot finish: the visitor must not take it for complete.</remarks>
        public override void Abort(ConnectionAbortedException? abortReason)
        {
            _visitor.TargetConnections.Abort();
            _visitor.End(new IOException($"The HTTP connection to {_visitor.Target} broke.", abortReason));
        }

        public override async ValueTask DisposeAsync()
        {
            await _pipes.Input.CompleteAsync().ConfigureAwait(false);
            await _pipes.Output.CompleteAsync().ConfigureAwait(false);
            _visitor.Release();
            await base.DisposeAsync().ConfigureAwait(false);
        }
    }
}
