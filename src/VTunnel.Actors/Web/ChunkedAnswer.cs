using System.Buffers;
using System.Globalization;
using System.IO.Pipelines;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.Net.Http.Headers;

namespace VTunnel.Web;

/// <summary>
/// The body of an answer to a visitor who speaks HTTP/1.1. Kestrel writes no trailers there, but leaves chunks to an application that says
/// that it sends them: where the length is not known, the body is written in chunks here, with what trailers come.
/// </summary>
internal sealed class ChunkedAnswer : AsyncStream, IHttpResponseTrailersFeature
{
    private readonly HttpContext _context;
    private readonly Stream _plain;
    private readonly PipeWriter _writer;
    private bool _isChunked;

    private ChunkedAnswer(HttpContext context)
    {
        _context = context;
        _plain = context.Response.Body;
        _writer = context.Response.BodyWriter;
    }

    /// <inheritdoc />
    public IHeaderDictionary Trailers { get; set; } = new HeaderDictionary();

    public override bool CanRead => false;

    /// <summary>Becomes the body of an answer, if it is one of HTTP/1.1.</summary>
    public static void Install(HttpContext context)
    {
        if (!HttpProtocol.IsHttp11(context.Request.Protocol))
            return;
        var answer = new ChunkedAnswer(context);
        context.Features.Set(answer);
        context.Response.Body = answer;
    }

    /// <summary>Call it when the head of the answer is complete and has not been sent.</summary>
    public void Begin()
    {
        var response = _context.Response;
        if (HttpMethods.IsHead(_context.Request.Method) || response.ContentLength is not null || response.StatusCode is < 200 or 204 or 304)
            return;
        response.Headers.TransferEncoding = "chunked";
        _context.Features.Set<IHttpResponseTrailersFeature>(this);
        _isChunked = true;
    }

    /// <summary>Call it when nothing has been sent and the answer is to be another one, whose length is known.</summary>
    public void TakeBack()
    {
        _isChunked = false;
        _context.Response.Headers.Remove(HeaderNames.TransferEncoding);
    }

    /// <summary>Call it when the whole body has been written, and not if it broke off.</summary>
    public async ValueTask EndAsync()
    {
        if (!_isChunked)
            return;
        await StartAsync(_context.RequestAborted).ConfigureAwait(false);
        Web.Trailers.WriteEnd(_writer, Trailers);
        await _writer.FlushAsync(_context.RequestAborted).ConfigureAwait(false);
    }

    public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default) =>
        _isChunked ? WriteChunkAsync(buffer, cancellationToken) : _plain.WriteAsync(buffer, cancellationToken);

    public override Task FlushAsync(CancellationToken cancellationToken) => _plain.FlushAsync(cancellationToken);

    public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default) =>
        throw new NotSupportedException("The body of an answer is written.");

    private async ValueTask WriteChunkAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken)
    {
        // An empty chunk would be the last.
        if (buffer.IsEmpty)
            return;
        await StartAsync(cancellationToken).ConfigureAwait(false);
        WriteHead(buffer.Length);
        _writer.Write(buffer.Span);
        _writer.Write("\r\n"u8);
        await _writer.FlushAsync(cancellationToken).ConfigureAwait(false);
    }

    /// <summary>The writer gives no memory worth the name before the head is out.</summary>
    private Task StartAsync(CancellationToken cancellationToken) =>
        _context.Response.HasStarted ? Task.CompletedTask : _context.Response.StartAsync(cancellationToken);

    private void WriteHead(int length)
    {
        var head = _writer.GetSpan(16);
        length.TryFormat(head, out var count, "x", CultureInfo.InvariantCulture);
        "\r\n"u8.CopyTo(head[count..]);
        _writer.Advance(count + 2);
    }
}
