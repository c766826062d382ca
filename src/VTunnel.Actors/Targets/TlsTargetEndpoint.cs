using System.Net;
using VTunnel.Routing;
using VTunnel.Streams;
using VTunnel.Targets.Http;

namespace VTunnel.Targets;

/// <summary>
/// A <c>tls://</c> target as its visitor meets it: plain bytes in and out. The first bytes decide once, for the whole
/// connection, whether they go to the target as they are or through the <see cref="HostRewriter"/>.
/// </summary>
/// <remarks>
/// Until then an empty read waits on the TLS connection. A target that speaks (or hangs up) before the visitor has
/// finished a request line is no HTTP server waiting for requests, so that decides too. The read takes no bytes,
/// hence whoever gets the connection afterwards misses none.
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
    private readonly TaskCompletionSource _decided = new(TaskCreationOptions.RunContinuationsAsynchronously);

    private RequestLineDetector _detector;
    private byte[] _held = [];
    private int _heldLength;
    private ITimer? _holdTimer;

    /// <summary>The delivery of the bytes that were held back; sends wait for it. Written before <see cref="_path"/>.</summary>
    private Task _releasing = Task.CompletedTask;

    /// <summary>Where the bytes go; null until that is decided.</summary>
    private volatile StreamEndpoint? _path;

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

    /// <inheritdoc />
    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer) =>
        _path is { } path && (path != _connection || _targetSpeaks.IsCompletedSuccessfully)
            ? path.ReceiveAsync(buffer)
            : ReceiveOnceDecidedAsync(buffer);

    private async ValueTask<int> ReceiveOnceDecidedAsync(Memory<byte> buffer)
    {
        await _decided.Task.ConfigureAwait(false);
        if (_path == _connection)
            await _targetSpeaks.ConfigureAwait(false);
        return await _path!.ReceiveAsync(buffer).ConfigureAwait(false);
    }

    /// <inheritdoc />
    public override ValueTask SendAsync(ReadOnlyMemory<byte> buffer) =>
        _path is { } path && _releasing.IsCompletedSuccessfully ? path.SendAsync(buffer) : SendOnceDecidedAsync(buffer);

    private async ValueTask SendOnceDecidedAsync(ReadOnlyMemory<byte> buffer)
    {
        if (!TryDecide(buffer.Span))
            return;
        await _releasing.ConfigureAwait(false);
        await _path!.SendAsync(buffer).ConfigureAwait(false);
    }

    /// <inheritdoc />
    public override async ValueTask FinishSendingAsync()
    {
        PassThrough();
        await _releasing.ConfigureAwait(false);
        await _path!.FinishSendingAsync().ConfigureAwait(false);
    }

    /// <inheritdoc />
    public override void Abort()
    {
        _connection.Abort();
        PassThrough();
        _path!.Abort();
    }

    /// <inheritdoc />
    protected override void Dispose(bool disposing)
    {
        if (!disposing)
            return;
        _connection.Dispose();
        PassThrough();
        _path!.Dispose();
    }

    /// <summary>False if <paramref name="bytes"/> settle nothing yet; they are held back then.</summary>
    private bool TryDecide(ReadOnlySpan<byte> bytes)
    {
        lock (_gate)
        {
            if (_path is not null)
                return true;
            if (bytes.IsEmpty)
                return false;

            var first = bytes;
            if (_heldLength > 0)
            {
                Hold(bytes);
                first = _held.AsSpan(0, _heldLength);
            }

            switch (_detector.Inspect(first))
            {
                case FirstBytes.Undecided:
                    if (_heldLength == 0)
                        Hold(bytes);
                    WaitForMore();
                    return false;
                case FirstBytes.Http:
                    Unhold(bytes.Length);
                    var visitor = _rewriter.CreateVisitor(_target, _connection, _targetSpeaks);
                    var held = _held.AsMemory(0, _heldLength);
                    // A hop to the pool: what starts here is foreign code, and the gate is held.
                    Decide(visitor, Task.Run(() => StartAsync(visitor, held)));
                    return true;
                default:
                    Unhold(bytes.Length);
                    PassThrough();
                    return true;
            }
        }
    }

    private async Task StartAsync(HttpVisitor visitor, ReadOnlyMemory<byte> held)
    {
        await _rewriter.ServeAsync(visitor).ConfigureAwait(false);
        if (!held.IsEmpty)
            await visitor.SendAsync(held).ConfigureAwait(false);
    }

    private void PassThrough()
    {
        lock (_gate)
        {
            if (_path is not null)
                return;
            Decide(_connection, _heldLength == 0 ? Task.CompletedTask : SendHeldAsync(_held.AsMemory(0, _heldLength)));
        }
    }

    private async Task SendHeldAsync(ReadOnlyMemory<byte> held) => await _connection.SendAsync(held).ConfigureAwait(false);

    private void Decide(StreamEndpoint path, Task releasing)
    {
        // Whoever sends next sees a failure; if nobody does, the reader learns of the broken connection by itself.
        _ = releasing.ContinueWith(
            static failed => _ = failed.Exception, default, TaskContinuationOptions.OnlyOnFaulted, TaskScheduler.Default);
        _releasing = releasing;
        _path = path;
        _held = [];
        _holdTimer?.Dispose();
        _decided.TrySetResult();
    }

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

    /// <summary>Takes back what was held only to be looked at: the caller sends it himself.</summary>
    private void Unhold(int count) => _heldLength = Math.Max(0, _heldLength - count);
}
