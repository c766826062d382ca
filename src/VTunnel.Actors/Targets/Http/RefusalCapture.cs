namespace VTunnel.Targets.Http;

/// <summary>
/// Where the server's own answers go: nowhere, since the visitor gets the target's. Only what the server says between
/// two requests is kept, because that is its complaint about a request that it could not read.
/// </summary>
internal sealed class RefusalCapture : Stream
{
    private const int MaxBytes = 4096;

    private readonly MemoryStream _kept = new(0);

    /// <summary>Whether what is written is a complaint. True at first.</summary>
    public bool BetweenRequests { get; set; } = true;

    /// <summary>The complaint; empty if there was none.</summary>
    public byte[] Refusal => _kept.ToArray();

    public override bool CanRead => false;

    public override bool CanWrite => true;

    public override bool CanSeek => false;

    public override long Length => throw new NotSupportedException();

    public override long Position
    {
        get => throw new NotSupportedException();
        set => throw new NotSupportedException();
    }

    public override void Write(ReadOnlySpan<byte> buffer)
    {
        if (BetweenRequests && _kept.Length + buffer.Length <= MaxBytes)
            _kept.Write(buffer);
    }

    public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
    {
        Write(buffer.Span);
        return ValueTask.CompletedTask;
    }

    public override Task WriteAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken)
    {
        Write(buffer.AsSpan(offset, count));
        return Task.CompletedTask;
    }

    public override void Write(byte[] buffer, int offset, int count) => Write(buffer.AsSpan(offset, count));

    public override Task FlushAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public override void Flush()
    {
        // Nothing is buffered here.
    }

    public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();

    public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

    public override void SetLength(long value) => throw new NotSupportedException();
}
