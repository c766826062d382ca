using System.Buffers;
using System.Text;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.Extensions.Logging;

namespace VTunnel.Targets.Http;

/// <summary>
/// The application behind the web server: sends each request on as it is read, and leaves the answer to the target.
/// The server gets an empty answer from it, which goes nowhere.
/// </summary>
internal sealed class RequestForwarder(ILogger logger) : IHttpApplication<HttpContext>
{
    private const int UpgradedReadBytes = 32 * 1024;
    private const int LongestChunkFrame = 8 + 2 + 2;

    /// <inheritdoc />
    public HttpContext CreateContext(IFeatureCollection contextFeatures)
    {
        contextFeatures.GetRequiredFeature<HttpVisitor>().BeginRequest();
        return new DefaultHttpContext(contextFeatures);
    }

    /// <inheritdoc />
    public void DisposeContext(HttpContext context, Exception? exception) =>
        context.Features.GetRequiredFeature<HttpVisitor>().EndRequest();

    /// <inheritdoc />
    public async Task ProcessRequestAsync(HttpContext context)
    {
        var visitor = context.Features.GetRequiredFeature<HttpVisitor>();
        try
        {
            if (!await ForwardAsync(context, visitor).ConfigureAwait(false))
                context.Abort();
            else if (!context.Response.HasStarted)
                context.Response.ContentLength = 0;
        }
        catch (BadHttpRequestException e) when (!visitor.HasFinished)
        {
            // Half a request has gone out, and the rest is nonsense: the connection has no future.
            visitor.Break(e.Message);
        }
        catch (Exception e) when (e is IOException or OperationCanceledException)
        {
            // The visitor left in the middle. If he left in order, the target is told of the end after this;
            // if not, whoever noticed has ended the rest.
            TargetsLog.VisitorLeft(logger, visitor.Target, e.Message);
        }
        catch (Exception e)
        {
            // A fault of this program: the server logs it. What follows half a request must not be taken for the rest.
            visitor.Break(e.Message);
            throw;
        }
    }

    /// <summary>False if the target takes no more.</summary>
    private static async ValueTask<bool> ForwardAsync(HttpContext context, HttpVisitor visitor)
    {
        var head = new ArrayBufferWriter<byte>(1024);
        RequestHead.Write(head, context, visitor.Host);

        var upgrade = context.Features.Get<IHttpUpgradeFeature>();
        if (upgrade is { IsUpgradableRequest: true } && context.Request.Headers.Upgrade.Count > 0)
            return await ForwardUpgradeAsync(visitor, head.WrittenMemory, upgrade).ConfigureAwait(false);

        if (!await visitor.TrySendToTargetAsync(head.WrittenMemory).ConfigureAwait(false))
            return false;
        return context.Request.Headers.TransferEncoding.Count > 0
            ? await ForwardChunksAsync(context, visitor).ConfigureAwait(false)
            : await ForwardLengthAsync(context, visitor).ConfigureAwait(false);
    }

    private static async ValueTask<bool> ForwardLengthAsync(HttpContext context, HttpVisitor visitor)
    {
        if (context.Request.ContentLength is null or 0)
            return true;

        var body = context.Request.BodyReader;
        while (true)
        {
            var read = await body.ReadAsync().ConfigureAwait(false);
            foreach (var part in read.Buffer)
            {
                if (!await visitor.TrySendToTargetAsync(part).ConfigureAwait(false))
                    return false;
            }

            body.AdvanceTo(read.Buffer.End);
            if (read.IsCompleted)
                return true;
        }
    }

    private static async ValueTask<bool> ForwardChunksAsync(HttpContext context, HttpVisitor visitor)
    {
        var body = context.Request.BodyReader;
        while (true)
        {
            var read = await body.ReadAsync().ConfigureAwait(false);
            foreach (var part in read.Buffer)
            {
                if (!part.IsEmpty && !await SendChunkAsync(visitor, part).ConfigureAwait(false))
                    return false;
            }

            body.AdvanceTo(read.Buffer.End);
            if (read.IsCompleted)
                break;
        }

        var end = new ArrayBufferWriter<byte>(64);
        RequestHead.WriteLastChunk(end, context);
        return await visitor.TrySendToTargetAsync(end.WrittenMemory).ConfigureAwait(false);
    }

    private static async ValueTask<bool> SendChunkAsync(HttpVisitor visitor, ReadOnlyMemory<byte> payload)
    {
        // In one piece, because each send is a TLS record of its own.
        var chunk = ArrayPool<byte>.Shared.Rent(payload.Length + LongestChunkFrame);
        try
        {
            payload.Length.TryFormat(chunk, out var length, "x", System.Globalization.CultureInfo.InvariantCulture);
            length += Encoding.ASCII.GetBytes("\r\n", chunk.AsSpan(length));
            payload.CopyTo(chunk.AsMemory(length));
            length += payload.Length;
            length += Encoding.ASCII.GetBytes("\r\n", chunk.AsSpan(length));
            return await visitor.TrySendToTargetAsync(chunk.AsMemory(0, length)).ConfigureAwait(false);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(chunk);
        }
    }

    private static async ValueTask<bool> ForwardUpgradeAsync(HttpVisitor visitor, ReadOnlyMemory<byte> head, IHttpUpgradeFeature upgrade)
    {
        // What follows is another protocol or the next request, as the target decides: read no further until it has.
        var watch = visitor.WatchForUpgrade();
        if (!await visitor.TrySendToTargetAsync(head).ConfigureAwait(false))
            return false;
        if (!await watch.Switched.ConfigureAwait(false))
            return true;

        var stream = await upgrade.UpgradeAsync().ConfigureAwait(false);
        await using (stream.ConfigureAwait(false))
        {
            while (true)
            {
                // Upgraded connections idle for hours: no buffer while nothing comes.
                await stream.ReadAsync(Memory<byte>.Empty).ConfigureAwait(false);
                var buffer = ArrayPool<byte>.Shared.Rent(UpgradedReadBytes);
                try
                {
                    var read = await stream.ReadAsync(buffer).ConfigureAwait(false);
                    if (read == 0)
                        return true;
                    if (!await visitor.TrySendToTargetAsync(buffer.AsMemory(0, read)).ConfigureAwait(false))
                        return false;
                }
                finally
                {
                    ArrayPool<byte>.Shared.Return(buffer);
                }
            }
        }
    }
}
