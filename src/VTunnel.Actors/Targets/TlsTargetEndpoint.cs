using System.Net;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using VTunnel.Endpoints;
using VTunnel.Routing;
using VTunnel.Targets.Http;

namespace VTunnel.Targets;

/// <summary>
/// A <c>tls://</c> target as its visitor meets it: plain bytes in and out. What the target sends always goes to the
/// visitor as it is. The visitor's first bytes decide once, for the whole connection, whether his go to the target as
/// they are too, or through the <see cref="HostRewriter"/>.
/// </summary>
/// <remarks>
/// Until that is decided, an empty read waits on the TLS connection. A target that speaks (or hangs up) before the
/// visitor has finished a request line is no HTTP server waiting for requests, so that decides as well.
/// </remarks>
internal sealed class TlsTargetEndpoint : StreamEndpoint
{
    /// <summary>
    /// How long the unfinished beginning of a request line is held back while nothing follows. Long enough for a lost
    /// packet to be sent again; without it a protocol whose first message happens to be <c>P</c> would wait for ever.
    /// </summary>
    public static readonly TimeSpan HoldTime = TimeSpan.FromSeconds(5);

    private readonly Lock _gate = new();
    private readonly DuplexStreamEndpoint _connection;
    private readonly ForwardTarget _target;
    private readonly HostRewriter _rewriter;
    private readonly TimeProvider _timeProvider;
    private readonly Task _targetSpeaks;

    private RequestLineDetector _detector;
    private byte[] _held = [];
    private int _heldLength;
    private ITimer? _holdTimer;
    private HttpVisitor? _http;
    private int _refusalTaken;

    /// <summary>The delivery of the bytes that were held back; sends wait for it.</summary>
    private Task _releasing = Task.CompletedTask;

    /// <summary>Written last: whoever sees it decided sees the rest.</summary>
    private volatile FirstBytes _kind = FirstBytes.Undecided;

    /// <summary>Takes ownership of a connection on which nothing has been sent or received.</summary>
    public TlsTargetEndpoint(
        DuplexStreamEndpoint connection, ForwardTarget target, HostRewriter rewriter, TimeProvider timeProvider)
    {
        _connection = connection;
        _target = target;
        _rewriter = rewriter;
        _timeProvider = timeProvider;
        RemoteEndPoint = connection.RemoteEndPoint;
        _targetSpeaks = connection.ReceiveAsync(Memory<byte>.Empty).AsTask();
        _ = DecideWhenTargetSpeaksAsync();
    }

    /// <inheritdoc />
    public override EndPoint? RemoteEndPoint { get; }

    /// <summary>What the visitor speaks, as far as it is known.</summary>
    public FirstBytes Kind => _kind;

    /// <inheritdoc />
    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer) =>
        _kind == FirstBytes.Other && _targetSpeaks.IsCompletedSuccessfully
            ? _connection.ReceiveAsync(buffer)
            : ReceiveWatchedAsync(buffer);

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    private async ValueTask<int> ReceiveWatchedAsync(Memory<byte> buffer)
    {
        try
        {
            await _targetSpeaks.ConfigureAwait(false);
            PassThrough();
            var received = await _connection.ReceiveAsync(buffer).ConfigureAwait(false);
            if (!buffer.IsEmpty)
                _http?.Received(buffer.Span[..received]);
            return received;
        }
        catch (Exception e) when (_http?.Refusal is not null && e is IOException or SocketException or ObjectDisposedException)
        {
            return TakeRefusal(buffer.Span);
        }
    }

    /// <inheritdoc />
    public override ValueTask SendAsync(ReadOnlyMemory<byte> buffer) =>
        _kind != FirstBytes.Undecided && _releasing.IsCompletedSuccessfully ? SendOnAsync(buffer) : SendOnceDecidedAsync(buffer);

    private async ValueTask SendOnceDecidedAsync(ReadOnlyMemory<byte> buffer)
    {
        if (!TryDecide(buffer.Span))
            return;
        await _releasing.ConfigureAwait(false);
        await SendOnAsync(buffer).ConfigureAwait(false);
    }

    private ValueTask SendOnAsync(ReadOnlyMemory<byte> buffer) =>
        _http is { } http ? http.SendAsync(buffer) : _connection.SendAsync(buffer);

    /// <inheritdoc />
    public override async ValueTask FinishSendingAsync()
    {
        PassThrough();
        await _releasing.ConfigureAwait(false);
        if (_http is { } http)
            await http.FinishSendingAsync().ConfigureAwait(false);
        else
            await _connection.FinishSendingAsync().ConfigureAwait(false);
    }

    /// <inheritdoc />
    public override void Abort()
    {
        _connection.Abort();
        PassThrough();
        _http?.Close(new IOException("The connection was aborted."));
    }

    /// <inheritdoc />
    protected override void Dispose(bool disposing)
    {
        if (!disposing)
            return;
        _connection.Dispose();
        PassThrough();
        _http?.Close(new ObjectDisposedException(nameof(TlsTargetEndpoint)));
    }

    /// <summary>False if <paramref name="bytes"/> settle nothing yet; they are held back then.</summary>
    private bool TryDecide(ReadOnlySpan<byte> bytes)
    {
        lock (_gate)
        {
            if (_kind != FirstBytes.Undecided)
                return true;
            if (bytes.IsEmpty)
                return false;

            var heldBefore = _heldLength;
            if (heldBefore > 0)
                Hold(bytes);

            var kind = _detector.Inspect(heldBefore > 0 ? _held.AsSpan(0, _heldLength) : bytes);
            if (kind == FirstBytes.Undecided)
            {
                if (heldBefore == 0)
                    Hold(bytes);
                WaitForMore();
                return false;
            }

            // The caller sends what he has just brought.
            _heldLength = heldBefore;
            Decide(kind);
            return true;
        }
    }

    private void PassThrough()
    {
        lock (_gate)
        {
            if (_kind == FirstBytes.Undecided)
                Decide(FirstBytes.Other);
        }
    }

    private void Decide(FirstBytes kind)
    {
        var held = _held.AsMemory(0, _heldLength);
        if (kind == FirstBytes.Http)
        {
            var http = _rewriter.CreateVisitor(_target, _connection);
            _http = http;
            // A hop to the pool: what starts here is foreign code, and the gate is held.
            _releasing = Task.Run(() => StartHttpAsync(http, held));
        }
        else if (!held.IsEmpty)
        {
            _releasing = SendHeldAsync(held);
        }

        // Whoever sends next sees a failure; if nobody does, the receiver learns of the broken connection by itself.
        _ = _releasing.ContinueWith(
            static failed => _ = failed.Exception, default, TaskContinuationOptions.OnlyOnFaulted, TaskScheduler.Default);
        _held = [];
        _holdTimer?.Dispose();
        _kind = kind;
    }

    private async Task StartHttpAsync(HttpVisitor http, ReadOnlyMemory<byte> held)
    {
        await _rewriter.ServeAsync(http).ConfigureAwait(false);
        if (!held.IsEmpty)
            await http.SendAsync(held).ConfigureAwait(false);
    }

    private async Task SendHeldAsync(ReadOnlyMemory<byte> held) => await _connection.SendAsync(held).ConfigureAwait(false);

    private async Task DecideWhenTargetSpeaksAsync()
    {
        // A failure is for ReceiveAsync to report.
        await _targetSpeaks.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        PassThrough();
    }

    private void WaitForMore()
    {
        if (_holdTimer is null)
            _holdTimer = _timeProvider.CreateTimer(static self => ((TlsTargetEndpoint)self!).PassThrough(), this, HoldTime, Timeout.InfiniteTimeSpan);
        else
            _holdTimer.Change(HoldTime, Timeout.InfiniteTimeSpan);
    }

    private void Hold(ReadOnlySpan<byte> bytes)
    {
        if (_held.Length - _heldLength < bytes.Length)
            Array.Resize(ref _held, Math.Max(_heldLength + bytes.Length, Math.Max(256, 2 * _held.Length)));
        bytes.CopyTo(_held.AsSpan(_heldLength));
        _heldLength += bytes.Length;
    }

    /// <summary>The web server's answer to what it could not read takes the place of the target's.</summary>
    private int TakeRefusal(Span<byte> buffer)
    {
        var rest = _http!.Refusal.AsSpan(_refusalTaken);
        var taken = Math.Min(rest.Length, buffer.Length);
        rest[..taken].CopyTo(buffer);
        _refusalTaken += taken;
        return taken;
    }
}
