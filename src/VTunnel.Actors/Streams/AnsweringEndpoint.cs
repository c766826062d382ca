using VTunnel.Endpoints;
using VTunnel.Protocol.Control;

namespace VTunnel.Streams;

/// <summary>A connected target whose first bytes are the line that says so.</summary>
internal sealed class AnsweringEndpoint(StreamEndpoint inner) : DelegatingEndpoint(inner)
{
    private ReadOnlyMemory<byte> _line = AnswerLine.Of(null);

    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer)
    {
        if (_line.IsEmpty)
            return Inner.ReceiveAsync(buffer);
        return new ValueTask<int>(AnswerLine.Take(ref _line, buffer.Span));
    }
}

/// <summary>A target that cannot be reached: says why and ends. What it is sent is dropped.</summary>
internal sealed class RefusedEndpoint(string reason) : StreamEndpoint
{
    private ReadOnlyMemory<byte> _line = AnswerLine.Of(reason);

    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer) => new(AnswerLine.Take(ref _line, buffer.Span));

    public override ValueTask SendAsync(ReadOnlyMemory<byte> buffer) => ValueTask.CompletedTask;

    public override ValueTask FinishSendingAsync() => ValueTask.CompletedTask;

    public override void Abort()
    {
        // There is no connection.
    }

    protected override void Dispose(bool disposing)
    {
        // There is nothing to release.
    }
}

/// <summary>The bytes of an answer.</summary>
internal static class AnswerLine
{
    public static ReadOnlyMemory<byte> Of(string? error)
    {
        var line = new ControlLineWriter().WriteAnswer(error);
        var bytes = line.Span.ToArray();
        line.Release();
        return bytes;
    }

    public static int Take(ref ReadOnlyMemory<byte> line, Span<byte> buffer)
    {
        var taken = Math.Min(line.Length, buffer.Length);
        line.Span[..taken].CopyTo(buffer);
        line = line[taken..];
        return taken;
    }
}
