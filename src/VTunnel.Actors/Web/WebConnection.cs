using System.Buffers;
using System.IO.Pipelines;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Http.Features;

namespace VTunnel.Web;

/// <summary>
/// A stream as a connection of the web server. The server reads it only when it wants more, so that a request's application
/// can take the stream over: what was read and not used comes with it, and nothing is under way.
/// </summary>
internal sealed class WebConnection : ConnectionContext
{
    private static readonly StreamPipeReaderOptions ReaderOptions = new(bufferSize: 16 * 1024, leaveOpen: true, useZeroByteReads: true);
    private static readonly StreamPipeWriterOptions WriterOptions = new(minimumBufferSize: 16 * 1024, leaveOpen: true);

    private readonly DetachableStream _stream;
    private readonly Action _abort;
    private readonly CancellationTokenSource _closed = new();
    private readonly TaskCompletionSource _disposed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly PipeReader _input;
    private readonly PipeWriter _output;

    /// <param name="stream">Disposed with the connection, unless it was taken over.</param>
    /// <param name="abort">Breaks what is below the stream; may come from any thread.</param>
    /// <param name="remote">The visitor's address, where known.</param>
    public WebConnection(Stream stream, Action abort, EndPoint? remote)
    {
        _stream = new DetachableStream(stream, Abort);
        _abort = abort;
        RemoteEndPoint = remote;
        _input = PipeReader.Create(_stream, ReaderOptions);
        _output = PipeWriter.Create(_stream, WriterOptions);
        Transport = new DuplexPipe(_input, _output);
        ConnectionClosed = _closed.Token;
    }

    /// <summary>Completes when the server is done with the connection.</summary>
    public Task Disposed => _disposed.Task;

    public override string ConnectionId { get; set; } = Guid.NewGuid().ToString("N");

    public override IFeatureCollection Features { get; } = new FeatureCollection();

    public override IDictionary<object, object?> Items { get; set; } = new ConnectionItems();

    public override IDuplexPipe Transport { get; set; }

    public override CancellationToken ConnectionClosed { get; set; }

    public override EndPoint? RemoteEndPoint { get; set; }

    /// <summary>
    /// Takes the stream from the server, which must be running the application of a request of HTTP/1.1 without a body. Abort the
    /// request afterwards: the server neither reads nor writes any more.
    /// </summary>
    /// <returns>What the server had read beyond the request.</returns>
    public byte[] Detach()
    {
        _stream.Detach();
        if (!_input.TryRead(out var read))
            return [];
        var rest = read.Buffer.ToArray();
        _input.AdvanceTo(read.Buffer.End);
        return rest;
    }

    public override void Abort(ConnectionAbortedException abortReason)
    {
        if (!_stream.IsDetached)
            _abort();
        _ = _closed.CancelAsync();
    }

    public override async ValueTask DisposeAsync()
    {
        await _input.CompleteAsync().ConfigureAwait(false);
        try
        {
            await _output.CompleteAsync().ConfigureAwait(false);
            if (!_stream.IsDetached)
                await _stream.EndAsync().ConfigureAwait(false);
        }
        catch (Exception e) when (IsEnd(e))
        {
            // The visitor has gone before the last bytes, or was aborted: nobody is left to tell.
            _abort();
        }

        await base.DisposeAsync().ConfigureAwait(false);
        _disposed.TrySetResult();
    }

    /// <summary>What a stream says whose visitor has gone or was aborted.</summary>
    private static bool IsEnd(Exception e) => e is IOException or SocketException or ObjectDisposedException or InvalidOperationException or CryptographicException;

    private sealed record DuplexPipe(PipeReader Input, PipeWriter Output) : IDuplexPipe;

    /// <summary>Once detached, reads end and writes go nowhere, whatever the server still does.</summary>
    /// <param name="inner">The stream.</param>
    /// <param name="onGone">
    /// Called when a write fails. The server takes such a failure for a fault of its own and logs it as an error; what it expects of a
    /// connection whose visitor has gone is that it says so.
    /// </param>
    private sealed class DetachableStream(Stream inner, Action onGone) : AsyncStream
    {
        private volatile bool _detached;
        private volatile bool _gone;

        public bool IsDetached => _detached;

        public void Detach() => _detached = true;

        /// <summary>TLS says close_notify first: without it the visitor must take the end for a truncation.</summary>
        public async ValueTask EndAsync()
        {
            if (inner is System.Net.Security.SslStream tls && !_gone)
                await tls.ShutdownAsync().ConfigureAwait(false);
            await inner.DisposeAsync().ConfigureAwait(false);
        }

        public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default) =>
            _detached ? new ValueTask<int>(0) : inner.ReadAsync(buffer, cancellationToken);

        public override async ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
        {
            if (_detached || _gone)
                return;
            try
            {
                await inner.WriteAsync(buffer, cancellationToken).ConfigureAwait(false);
            }
            catch (Exception e) when (IsEnd(e))
            {
                EndHere();
            }
        }

        public override async Task FlushAsync(CancellationToken cancellationToken)
        {
            if (_detached || _gone)
                return;
            try
            {
                await inner.FlushAsync(cancellationToken).ConfigureAwait(false);
            }
            catch (Exception e) when (IsEnd(e))
            {
                EndHere();
            }
        }

        private void EndHere()
        {
            _gone = true;
            if (!_detached)
                onGone();
        }
    }
}
