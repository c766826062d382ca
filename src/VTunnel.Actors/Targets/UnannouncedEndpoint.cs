using VTunnel.Endpoints;
using VTunnel.Protocol.Control;

namespace VTunnel.Targets;

/// <summary>
/// The target of a domain as its visitor meets it over protocol v1, which has no words for what he speaks: his first bytes tell, and the
/// target is connected as if the server had said it. TLS and HTTP are spoken by the visitor first, so nothing waits for ever.
/// </summary>
/// <param name="connect">Connects for one who speaks this.</param>
internal sealed class UnannouncedEndpoint(Func<string, CancellationToken, Task<StreamEndpoint>> connect) : StreamEndpoint
{
    /// <summary>The host of a visit that only the request itself names.</summary>
    public const string UnknownHost = "";

    private const byte TlsHandshake = 0x16;

    private readonly TaskCompletionSource<StreamEndpoint> _target = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly CancellationTokenSource _ended = new();
    private readonly MemoryStream _held = new();
    private volatile StreamEndpoint? _connected;
    private RequestLineDetector _detector;

    private static ReadOnlySpan<byte> Http2Preface => "PRI"u8;

    /// <inheritdoc />
    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer) =>
        _connected is { } target ? target.ReceiveAsync(buffer) : ReceiveOnceConnectedAsync(buffer);

    private async ValueTask<int> ReceiveOnceConnectedAsync(Memory<byte> buffer)
    {
        var target = await _target.Task.ConfigureAwait(false);
        return await target.ReceiveAsync(buffer).ConfigureAwait(false);
    }

    /// <inheritdoc />
    public override ValueTask SendAsync(ReadOnlyMemory<byte> buffer) =>
        _connected is { } target ? target.SendAsync(buffer) : SendFirstAsync(buffer);

    private async ValueTask SendFirstAsync(ReadOnlyMemory<byte> buffer)
    {
        _held.Write(buffer.Span);
        if (SpokenBy(_held.GetBuffer().AsSpan(0, (int)_held.Length)) is { } speaks)
            await ConnectAsync(speaks).ConfigureAwait(false);
    }

    /// <inheritdoc />
    public override async ValueTask FinishSendingAsync()
    {
        if (!_target.Task.IsCompleted)
            await ConnectAsync(ProxyVisit.Tcp).ConfigureAwait(false);
        var target = await _target.Task.ConfigureAwait(false);
        await target.FinishSendingAsync().ConfigureAwait(false);
    }

    /// <inheritdoc />
    public override void Abort() => End(static target => target.Abort());

    /// <inheritdoc />
    protected override void Dispose(bool disposing)
    {
        if (disposing)
            End(static target => target.Dispose());
    }

    /// <summary>Null while more is to be waited for.</summary>
    private string? SpokenBy(ReadOnlySpan<byte> first)
    {
        if (first.IsEmpty)
            return null;
        if (first[0] == TlsHandshake)
            return ProxyVisit.Tls;
        return _detector.Inspect(first) switch
        {
            FirstBytes.Undecided => null,
            FirstBytes.Http => ProxyVisit.Http1,
            _ => first.StartsWith(Http2Preface) ? ProxyVisit.Http2 : ProxyVisit.Tcp,
        };
    }

    private async Task ConnectAsync(string speaks)
    {
        StreamEndpoint target;
        try
        {
            target = await connect(speaks, _ended.Token).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            // To whoever receives it is a connection that broke; the sender's own failure says why.
            _target.TrySetException(new IOException(e.Message, e));
            _ = _target.Task.Exception;
            throw;
        }

        _connected = target;
        if (!_target.TrySetResult(target))
        {
            target.Abort();
            throw new ObjectDisposedException(nameof(UnannouncedEndpoint));
        }

        await target.SendAsync(_held.GetBuffer().AsMemory(0, (int)_held.Length)).ConfigureAwait(false);
    }

    private void End(Action<StreamEndpoint> end)
    {
        if (_target.TrySetException(new ObjectDisposedException(nameof(UnannouncedEndpoint))))
        {
            // Whoever is connecting finds out when he is done.
            _ = _target.Task.Exception;
            _ended.Cancel();
        }
        else if (_connected is { } target)
        {
            end(target);
        }
    }
}
