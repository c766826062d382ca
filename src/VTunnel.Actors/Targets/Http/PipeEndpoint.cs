using System.Buffers;
using System.IO.Pipelines;
using Microsoft.AspNetCore.Connections;
using VTunnel.Streams;

namespace VTunnel.Targets.Http;

/// <summary>Two pipes as the end of a stream: one side of a connection that exists in memory only.</summary>
/// <param name="input">What the other side sends.</param>
/// <param name="output">What the other side receives.</param>
internal sealed class PipeEndpoint(PipeReader input, PipeWriter output) : StreamEndpoint
{
    private readonly Lock _gate = new();
    private Exception? _broken;
    private bool _receiving;
    private bool _sending;
    private bool _finished;

    /// <inheritdoc />
    public override async ValueTask<int> ReceiveAsync(Memory<byte> buffer)
    {
        Begin(ref _receiving);
        try
        {
            var result = await input.ReadAsync().ConfigureAwait(false);
            ThrowIfBroken();
            var taken = result.Buffer.Slice(0, Math.Min(buffer.Length, result.Buffer.Length));
            taken.CopyTo(buffer.Span);
            // What was not taken stays unexamined, so that the next read (the one after an empty read) completes at once.
            input.AdvanceTo(taken.End);
            return (int)taken.Length;
        }
        finally
        {
            End(ref _receiving, input);
        }
    }

    /// <inheritdoc />
    /// <remarks>
    /// Once the other side has stopped reading, bytes are dropped in silence: it may have sent an answer that
    /// the visitor has yet to read, and an error here would cost him that.
    /// </remarks>
    public override async ValueTask SendAsync(ReadOnlyMemory<byte> buffer)
    {
        Begin(ref _sending);
        try
        {
            await output.WriteAsync(buffer).ConfigureAwait(false);
            ThrowIfBroken();
        }
        finally
        {
            End(ref _sending, output);
        }
    }

    /// <inheritdoc />
    public override ValueTask FinishSendingAsync()
    {
        lock (_gate)
        {
            ThrowIfBroken();
            if (!_finished)
                output.Complete();
            _finished = true;
        }

        return ValueTask.CompletedTask;
    }

    /// <inheritdoc />
    public override void Abort() => Break(new IOException("The connection was aborted."));

    /// <inheritdoc />
    protected override void Dispose(bool disposing)
    {
        if (disposing)
            Break(new ObjectDisposedException(nameof(PipeEndpoint)));
    }

    /// <summary>Ends both directions; operations under way and later ones fail with <paramref name="reason"/>.</summary>
    public void Break(Exception reason)
    {
        lock (_gate)
        {
            if (_broken is not null)
                return;
            _broken = reason;

            // A pipe must not be completed under an operation: cancel that, and it completes the pipe on its way out.
            if (_receiving)
                input.CancelPendingRead();
            else
                input.Complete(reason);
            if (_sending)
                output.CancelPendingFlush();
            else if (!_finished)
                output.Complete(new ConnectionResetException(reason.Message, reason));
        }
    }

    private void Begin(ref bool operation)
    {
        lock (_gate)
        {
            ThrowIfBroken();
            operation = true;
        }
    }

    private void End(ref bool operation, PipeReader pipe)
    {
        lock (_gate)
        {
            operation = false;
            if (_broken is not null)
                pipe.Complete(_broken);
        }
    }

    private void End(ref bool operation, PipeWriter pipe)
    {
        lock (_gate)
        {
            operation = false;
            if (_broken is not null)
                pipe.Complete(new ConnectionResetException(_broken.Message, _broken));
        }
    }

    private void ThrowIfBroken()
    {
        if (Volatile.Read(ref _broken) is { } reason)
            throw new IOException(reason.Message, reason);
    }
}
