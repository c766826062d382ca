using System.Buffers;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;

namespace VTunnel.Web;

/// <summary>
/// The trailers of a request on their way to a target that is spoken to in HTTP/1.1. .NET's client ends chunks without any, so the stream
/// that it writes to puts them there: it is told when the body has been written, and what comes next is the client's end of chunks.
/// </summary>
/// <param name="context">The request.</param>
/// <param name="isKept">Whether a trailer goes on, by its name.</param>
internal sealed class RequestTrailers(HttpContext context, Func<string, bool> isKept)
{
    private static readonly HttpRequestOptionsKey<RequestTrailers> Key = new("vtunnel.trailers");

    /// <summary>Those of the request whose bytes are being written: the client writes them in the flow of its own sending.</summary>
    private static readonly AsyncLocal<RequestTrailers?> Current = new();

    private bool _bodyHasEnded;

    /// <summary>Has them sent with a request, where they can be.</summary>
    public static void Attach(HttpRequestMessage request, HttpContext context, Func<string, bool> isKept)
    {
        if (request.Content is not null && context.Request.ContentLength is null && request.Version == System.Net.HttpVersion.Version11)
            request.Options.Set(Key, new RequestTrailers(context, isKept));
    }

    /// <summary>What replaces the end of chunks; null if it stays as it is.</summary>
    private ReadOnlyMemory<byte>? TakeEnd(ReadOnlySpan<byte> written)
    {
        if (!_bodyHasEnded)
            return null;
        _bodyHasEnded = false;
        if (context.Features.Get<IHttpRequestTrailersFeature>() is not { Available: true, Trailers: { Count: > 0 } trailers })
            return null;
        if (!written.SequenceEqual(Trailers.EmptyEnd))
            throw new InvalidOperationException("The HTTP client ends chunks in another way than this program knows.");
        var end = new ArrayBufferWriter<byte>(256);
        Trailers.WriteEnd(end, trailers, isKept);
        return end.WrittenMemory;
    }

    /// <summary>Before the client: tells the trailers of a request when its body has been written.</summary>
    public sealed class Handler(HttpMessageHandler inner) : DelegatingHandler(inner)
    {
        protected override async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken)
        {
            if (request.Options.TryGetValue(Key, out var trailers))
            {
                request.Content = new Content(request.Content!, trailers);
                Current.Value = trailers;
            }

            return await base.SendAsync(request, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Behind the client: its connection to a target.</summary>
    public sealed class Connection(Stream inner) : AsyncStream
    {
        public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default) => inner.ReadAsync(buffer, cancellationToken);

        public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default) =>
            inner.WriteAsync(Current.Value?.TakeEnd(buffer.Span) ?? buffer, cancellationToken);

        public override Task FlushAsync(CancellationToken cancellationToken) => inner.FlushAsync(cancellationToken);

        public override async ValueTask DisposeAsync()
        {
            await inner.DisposeAsync().ConfigureAwait(false);
            await base.DisposeAsync().ConfigureAwait(false);
        }

        protected override void Dispose(bool disposing)
        {
            if (disposing)
                inner.Dispose();
            base.Dispose(disposing);
        }
    }

    private sealed class Content : HttpContent
    {
        private readonly HttpContent _inner;
        private readonly RequestTrailers _trailers;

        public Content(HttpContent inner, RequestTrailers trailers)
        {
            _inner = inner;
            _trailers = trailers;
            foreach (var (name, values) in inner.Headers.NonValidated)
                Headers.TryAddWithoutValidation(name, values);
        }

        protected override Task SerializeToStreamAsync(Stream stream, System.Net.TransportContext? context) =>
            SerializeToStreamAsync(stream, context, CancellationToken.None);

        protected override async Task SerializeToStreamAsync(Stream stream, System.Net.TransportContext? context, CancellationToken cancellationToken)
        {
            await _inner.CopyToAsync(stream, context, cancellationToken).ConfigureAwait(false);
            await stream.FlushAsync(cancellationToken).ConfigureAwait(false);
            _trailers._bodyHasEnded = true;
        }

        protected override bool TryComputeLength(out long length)
        {
            length = 0;
            return false;
        }

        protected override void Dispose(bool disposing)
        {
            if (disposing)
                _inner.Dispose();
            base.Dispose(disposing);
        }
    }
}
