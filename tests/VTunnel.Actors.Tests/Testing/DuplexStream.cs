using System.IO.Pipelines;

namespace VTunnel.Actors.Tests.Testing;

/// <summary>One end of a connection in memory. A writer waits while more than 64 KiB lie unread, and what is read comes in pieces.</summary>
internal sealed class DuplexStream : Stream
{
    private readonly PipeReader _reader;
    private readonly PipeWriter _writer;
    private readonly int _maxRead;
    private volatile bool _isDisposed;

    private DuplexStream(PipeReader reader, PipeWriter writer, int maxRead)
    {
        _reader = reader;
        _writer = writer;
        _maxRead = maxRead;
    }

    /// <summary>A connection's two ends.</summary>
    /// <param name="maxRead">What a read of the first one brings at most.</param>
    public static (DuplexStream Near, DuplexStream Far) CreatePair(int maxRead = int.MaxValue)
    {
        var there = new Pipe();
        var back = new Pipe();
        return (new DuplexStream(back.Reader, there.Writer, maxRead), new DuplexStream(there.Reader, back.Writer, int.MaxValue));
    }

    public bool IsDisposed => _isDisposed;

    public override bool CanRead => true;

    public override bool CanSeek => false;

    public override bool CanWrite => true;

    public override long Length => throw new NotSupportedException();

    public override long Position
    {
        get => throw new NotSupportedException();
        set => throw new NotSupportedException();
    }

    public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        var result = await _reader.ReadAsync(cancellationToken).ConfigureAwait(false);
        if (result.IsCanceled)
            throw new IOException("broken off");
        var length = (int)Math.Min(Math.Min(result.Buffer.Length, buffer.Length), _maxRead);
        var taken = result.Buffer.Slice(0, length);
        foreach (var segment in taken)
        {
            segment.CopyTo(buffer);
            buffer = buffer[segment.Length..];
        }

        _reader.AdvanceTo(taken.End);
        return length;
    }

    public override Task<int> ReadAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
        ReadAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

    public override async ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
    {
        var result = await _writer.WriteAsync(buffer, cancellationToken).ConfigureAwait(false);
        if (result.IsCanceled || result.IsCompleted)
            throw new IOException("broken off");
    }

    public override Task WriteAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
        WriteAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

    public override Task FlushAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    public override void Flush()
    {
    }

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();

    protected override void Dispose(bool disposing)
    {
        if (!_isDisposed)
        {
            _isDisposed = true;
            _reader.CancelPendingRead();
            _writer.CancelPendingFlush();
            _writer.Complete();
        }

        base.Dispose(disposing);
    }
}
