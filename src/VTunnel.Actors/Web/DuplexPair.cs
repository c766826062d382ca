using System.Buffers;
using System.IO.Pipelines;
using VTunnel.Endpoints;

namespace VTunnel.Web;

/// <summary>
/// A connection in memory: a stream for an HTTP client or server at one end, the endpoint of a tunnelled stream at the other.
/// Each direction holds 256 KiB at most and can be ended alone.
/// </summary>
internal sealed class DuplexPair
{
    private const int BufferBytes = 256 * 1024;

    private static readonly PipeOptions Settings = new(
        minimumSegmentSize: 16 * 1024,
        pauseWriterThreshold: BufferBytes,
        resumeWriterThreshold: BufferBytes / 2,
        useSynchronizationContext: false);

    private readonly Direction _toStream = new();
    private readonly Direction _toEndpoint = new();

    public DuplexPair()
    {
        Stream = new StreamSide(this);
        Endpoint = new EndpointSide(this);
    }

    /// <summary>Disposing it ends what it sends in order, and breaks what it would still receive.</summary>
    public Stream Stream { get; }

    /// <summary>Disposing it likewise.</summary>
    public StreamEndpoint Endpoint { get; }

    /// <summary>
    /// A pipe whose ends may be closed from any thread at any time: a pipe's own completion would give memory back under a read
    /// or write that is under way, so that one completes it on its way out.
    /// </summary>
    private sealed class Direction
    {
        private readonly Lock _gate = new();
        private readonly Pipe _pipe = new(Settings);
        private bool _reading;
        private bool _writing;
        private bool _readerClosed;
        private bool _writerClosed;
        private Exception? _writerError;

        public async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken)
        {
            lock (_gate)
            {
                if (_readerClosed)
                    throw new IOException("The connection is closed.");
                _reading = true;
            }

            try
            {
                var read = await _pipe.Reader.ReadAsync(cancellationToken).ConfigureAwait(false);
                if (read.IsCanceled)
                    throw new IOException("The connection is closed.");
                var part = read.Buffer.Slice(0, Math.Min(buffer.Length, read.Buffer.Length));
                part.CopyTo(buffer.Span);
                var taken = (int)part.Length;
                _pipe.Reader.AdvanceTo(part.End);
                return taken;
            }
            finally
            {
                lock (_gate)
                {
                    _reading = false;
                    if (_readerClosed)
                        _pipe.Reader.Complete();
                }
            }
        }

        public async ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
        {
            lock (_gate)
            {
                if (_writerClosed)
                    throw new IOException("The connection is closed.");
                _writing = true;
            }

            try
            {
                var flushed = await _pipe.Writer.WriteAsync(buffer, cancellationToken).ConfigureAwait(false);
                if (flushed.IsCompleted || flushed.IsCanceled)
                    throw new IOException("The connection is closed.");
            }
            finally
            {
                lock (_gate)
                {
                    _writing = false;
                    if (_writerClosed)
                        _pipe.Writer.Complete(_writerError);
                }
            }
        }

        public void CloseReader()
        {
            lock (_gate)
            {
                if (_readerClosed)
                    return;
                _readerClosed = true;
                if (_reading)
                    _pipe.Reader.CancelPendingRead();
                else
                    _pipe.Reader.Complete();
            }
        }

        /// <param name="error">What the reader gets instead of an end in order.</param>
        public void CloseWriter(Exception? error)
        {
            lock (_gate)
            {
                if (_writerClosed)
                    return;
                _writerClosed = true;
                _writerError = error;
                if (_writing)
                    _pipe.Writer.CancelPendingFlush();
                else
                    _pipe.Writer.Complete(error);
            }
        }
    }

    private sealed class EndpointSide(DuplexPair pair) : StreamEndpoint
    {
        public override ValueTask<int> ReceiveAsync(Memory<byte> buffer) => pair._toEndpoint.ReadAsync(buffer, default);

        public override ValueTask SendAsync(ReadOnlyMemory<byte> buffer) => pair._toStream.WriteAsync(buffer, default);

        public override ValueTask FinishSendingAsync()
        {
            pair._toStream.CloseWriter(null);
            return ValueTask.CompletedTask;
        }

        public override void Abort()
        {
            pair._toStream.CloseWriter(new IOException("The connection broke."));
            pair._toEndpoint.CloseReader();
        }

        protected override void Dispose(bool disposing)
        {
            if (!disposing)
                return;
            pair._toStream.CloseWriter(null);
            pair._toEndpoint.CloseReader();
        }
    }

    private sealed class StreamSide(DuplexPair pair) : AsyncStream
    {
        public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default) =>
            pair._toStream.ReadAsync(buffer, cancellationToken);

        public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default) =>
            pair._toEndpoint.WriteAsync(buffer, cancellationToken);

        protected override void Dispose(bool disposing)
        {
            if (disposing)
            {
                pair._toEndpoint.CloseWriter(null);
                pair._toStream.CloseReader();
            }

            base.Dispose(disposing);
        }
    }
}
