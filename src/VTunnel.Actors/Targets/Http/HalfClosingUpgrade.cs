using System.Net.Sockets;
using Microsoft.AspNetCore.Http.Features;

namespace VTunnel.Targets.Http;

/// <summary>
/// An upgrade after which the visitor's end of sending reaches the target. The forwarder has no half-close: it would
/// leave the target's connection open until the target speaks.
/// </summary>
internal sealed class HalfClosingUpgrade(IHttpUpgradeFeature upgrade, TargetConnections connections) : IHttpUpgradeFeature
{
    /// <inheritdoc />
    public bool IsUpgradableRequest => upgrade.IsUpgradableRequest;

    /// <inheritdoc />
    public async Task<Stream> UpgradeAsync() => new UpgradedStream(await upgrade.UpgradeAsync().ConfigureAwait(false), connections);

    private sealed class UpgradedStream(Stream visitor, TargetConnections connections) : Stream
    {
        public override bool CanRead => true;

        public override bool CanWrite => true;

        public override bool CanSeek => false;

        public override long Length => throw new NotSupportedException();

        public override long Position
        {
            get => throw new NotSupportedException();
            set => throw new NotSupportedException();
        }

        public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
        {
            var read = await visitor.ReadAsync(buffer, cancellationToken).ConfigureAwait(false);
            if (read > 0 || buffer.IsEmpty)
                return read;

            // All that came before has been written: the forwarder reads only after it has written.
            try
            {
                await connections.FinishSendingAsync().ConfigureAwait(false);
            }
            catch (Exception e) when (e is IOException or SocketException or ObjectDisposedException)
            {
                // The target has gone already, which the other direction finds out and reports.
            }

            return 0;
        }

        public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default) =>
            visitor.WriteAsync(buffer, cancellationToken);

        public override Task<int> ReadAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
            ReadAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

        public override Task WriteAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
            WriteAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

        public override Task FlushAsync(CancellationToken cancellationToken) => visitor.FlushAsync(cancellationToken);

        public override void Flush() => throw new NotSupportedException("Flush asynchronously.");

        public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException("Read asynchronously.");

        public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException("Write asynchronously.");

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();

        protected override void Dispose(bool disposing)
        {
            if (disposing)
                visitor.Dispose();
            base.Dispose(disposing);
        }
    }
}
