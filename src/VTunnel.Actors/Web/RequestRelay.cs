using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Primitives;
using Microsoft.Net.Http.Headers;
using Yarp.ReverseProxy.Forwarder;

namespace VTunnel.Web;

/// <summary>
/// Sends a request on and brings the answer back, streaming both bodies; upgrades and WebSockets over HTTP/2 included. YARP's
/// forwarder does it; this adds what a proxy needs beyond a reverse proxy: the path byte for byte, headers that
/// <c>Connection</c> names, headers of a forward, trailers of requests, and errors that say which leg failed. Answers to HTTP/1.1
/// visitors have trailers where <see cref="ChunkedAnswer"/> is installed.
/// </summary>
internal sealed class RequestRelay : IDisposable
{
    private readonly ServiceProvider _services;
    private readonly IHttpForwarder _forwarder;

    public RequestRelay()
    {
        // The forwarder would log URLs, and with them what stands in queries.
        _services = new ServiceCollection()
            .AddSingleton<ILoggerFactory>(NullLoggerFactory.Instance)
            .AddLogging()
            .AddHttpForwarder()
            .BuildServiceProvider();
        _forwarder = _services.GetRequiredService<IHttpForwarder>();
    }

    /// <summary>Makes a client that connects as it is told and changes nothing on the way.</summary>
    public static HttpMessageInvoker CreateClient(
        Func<SocketsHttpConnectionContext, CancellationToken, ValueTask<Stream>> connect, Action<SocketsHttpHandler>? configure = null)
    {
        var handler = new SocketsHttpHandler
        {
            UseProxy = false,
            AllowAutoRedirect = false,
            AutomaticDecompression = System.Net.DecompressionMethods.None,
            UseCookies = false,
            ActivityHeadersPropagator = null,
            EnableMultipleHttp2Connections = true,
            ConnectTimeout = Timeout.InfiniteTimeSpan,
            ResponseHeaderEncodingSelector = static (_, _) => System.Text.Encoding.Latin1,
            RequestHeaderEncodingSelector = static (_, _) => System.Text.Encoding.Latin1,
            ConnectCallback = connect,

            // Above TLS, where there is some.
            PlaintextStreamFilter = static (context, _) => new ValueTask<Stream>(
                context.NegotiatedHttpVersion.Major == 1 ? new RequestTrailers.Connection(context.PlaintextStream) : context.PlaintextStream),
        };
        configure?.Invoke(handler);
        return new HttpMessageInvoker(new RequestTrailers.Handler(handler), disposeHandler: true);
    }

    /// <summary>The path and query of a request as they came; what looks redundant may be part of a signature.</summary>
    public static string PathAndQueryOf(string rawTarget)
    {
        var scheme = rawTarget.StartsWith('/') ? -1 : rawTarget.IndexOf("://", StringComparison.Ordinal);
        if (scheme < 0)
            return rawTarget;
        var rest = rawTarget[(scheme + 3)..];
        var path = rest.AsSpan().IndexOfAny('/', '?');
        return path < 0 ? "/" : rest[path] == '/' ? rest[path..] : "/" + rest[path..];
    }

    /// <summary>Whether a request needs HTTP/2 all the way.</summary>
    public static bool IsGrpc(HttpRequest request) =>
        request.ContentType is { } type && type.StartsWith("application/grpc", StringComparison.OrdinalIgnoreCase);

    /// <summary>
    /// Whether a request may go on in HTTP/2: not if it announces trailers, which .NET's client has none of there. gRPC, whose requests
    /// have none, needs it in any case.
    /// </summary>
    public static bool MayGoAsHttp2(HttpRequest request) =>
        HttpProtocol.IsHttp2(request.Protocol) && (request.Headers.Trailer.Count == 0 || IsGrpc(request));

    /// <summary>Sends the request, and the answer or an error.</summary>
    /// <param name="context">The request.</param>
    /// <param name="client">From <see cref="CreateClient"/>.</param>
    /// <param name="destination">Scheme and authority: <c>http://host:port</c>.</param>
    /// <param name="version">The version to speak.</param>
    /// <param name="policy">Whether a lower one will do.</param>
    /// <param name="headers">Headers in place of those of the same names.</param>
    /// <param name="diagnose">Asked why a connection that existed gave no answer; null if nothing more is known.</param>
    /// <param name="leg">What stands before the reason where the connection could not be made.</param>
    /// <returns>Why there was no answer of the target's; null if there was one.</returns>
    public async Task<string?> SendAsync(
        HttpContext context,
        HttpMessageInvoker client,
        string destination,
        Version version,
        HttpVersionPolicy policy,
        IReadOnlyList<(string Name, string Value)>? headers = null,
        Func<LegFailedException?>? diagnose = null,
        string? leg = null)
    {
        var raw = context.Features.GetRequiredFeature<IHttpRequestFeature>().RawTarget;
        if (!Uri.TryCreate(destination + PathAndQueryOf(raw), new UriCreationOptions { DangerousDisablePathAndQueryCanonicalization = true }, out var uri))
        {
            return await SayAsync(StatusCodes.Status400BadRequest, "the URL of the request cannot be understood").ConfigureAwait(false);
        }

        var config = new ForwarderRequestConfig { ActivityTimeout = Timeout.InfiniteTimeSpan, Version = version, VersionPolicy = policy };
        var error = await _forwarder.SendAsync(context, destination, client, config, new Transformer(uri, headers ?? [])).ConfigureAwait(false);
        if (error is ForwarderError.None && context.Features.Get<ChunkedAnswer>() is { } answer)
            await answer.EndAsync().ConfigureAwait(false);
        if (error is ForwarderError.None || context.Response.HasStarted || context.RequestAborted.IsCancellationRequested)
            return null;

        var cause = context.GetForwarderErrorFeature()?.Exception;
        if ((LegFailedException.Find(cause) ?? diagnose?.Invoke()) is { } failure)
            return await SayAsync(failure.Status, leg is null ? failure.Message : $"{leg}: {failure.Message}").ConfigureAwait(false);
        if (context.Response.StatusCode == StatusCodes.Status400BadRequest)
            return await SayAsync(StatusCodes.Status400BadRequest, "the request cannot be understood, or its body broke off").ConfigureAwait(false);
        return await SayAsync(
            StatusCodes.Status502BadGateway,
            IsTlsFailure(cause)
                ? $"{uri.Authority} cannot be reached: TLS with it failed: {ReasonOf(cause)}"
                : $"{uri.Authority} was reached, but gave no proper answer: {ReasonOf(cause)}").ConfigureAwait(false);

        async Task<string> SayAsync(int status, string reason)
        {
            await RefuseAsync(context, status, reason).ConfigureAwait(false);
            return reason;
        }
    }

    /// <summary>Answers with a line for people. After a request that cannot be understood, nothing that follows it can be: its connection ends.</summary>
    public static async Task RefuseAsync(HttpContext context, int status, string reason)
    {
        context.Features.Get<ChunkedAnswer>()?.TakeBack();
        if (status == StatusCodes.Status400BadRequest && !HttpProtocol.IsHttp2(context.Request.Protocol))
            context.Response.Headers.Connection = "close";
        context.Response.StatusCode = status;
        context.Response.ContentType = "text/plain; charset=utf-8";
        var body = System.Text.Encoding.UTF8.GetBytes($"vtunnel: {reason}\n");
        context.Response.ContentLength = body.Length;
        if (!HttpMethods.IsHead(context.Request.Method))
            await context.Response.Body.WriteAsync(body, context.RequestAborted).ConfigureAwait(false);
    }

    private static bool IsTlsFailure(Exception? e)
    {
        for (; e is not null; e = e.InnerException)
        {
            if (e is HttpRequestException { HttpRequestError: HttpRequestError.SecureConnectionError })
                return true;
        }

        return false;
    }

    private static string ReasonOf(Exception? e)
    {
        for (; ; e = e.InnerException)
        {
            // Its text quotes the answer, which may quote the request, and with it what the visitor must not read.
            if (e is HttpRequestException { HttpRequestError: HttpRequestError.InvalidResponse } or HttpIOException { HttpRequestError: HttpRequestError.InvalidResponse })
                return "what it sent is no HTTP that can be understood";
            if (e?.InnerException is null)
                break;
        }

        return e?.Message.TrimEnd('.') ?? "no reason is known";
    }

    public void Dispose() => _services.Dispose();

    private sealed class Transformer(Uri uri, IReadOnlyList<(string Name, string Value)> headers) : HttpTransformer
    {
        public override async ValueTask TransformRequestAsync(
            HttpContext httpContext, HttpRequestMessage proxyRequest, string destinationPrefix, CancellationToken cancellationToken)
        {
            await base.TransformRequestAsync(httpContext, proxyRequest, destinationPrefix, cancellationToken).ConfigureAwait(false);
            proxyRequest.RequestUri = uri;
            if (IsOfTheConnection(httpContext.Request.Headers.Authorization))
            {
                // The target may take who logs in for everyone who comes over the same connection: it must be nobody else's afterwards.
                proxyRequest.Version = System.Net.HttpVersion.Version11;
                proxyRequest.VersionPolicy = HttpVersionPolicy.RequestVersionExact;
                proxyRequest.Headers.ConnectionClose = true;
            }

            foreach (var named in NamedIn(httpContext.Request.Headers.Connection))
                Remove(proxyRequest, named);
            Remove(proxyRequest, "Proxy-Connection");
            Remove(proxyRequest, HeaderNames.ProxyAuthorization);
            foreach (var (name, value) in headers)
            {
                Remove(proxyRequest, name);
                if (!proxyRequest.Headers.TryAddWithoutValidation(name, value))
                    proxyRequest.Content?.Headers.TryAddWithoutValidation(name, value);
            }

            RequestTrailers.Attach(proxyRequest, httpContext, name => !headers.Any(header => header.Name.Equals(name, StringComparison.OrdinalIgnoreCase)));
        }

        public override async ValueTask<bool> TransformResponseAsync(
            HttpContext httpContext, HttpResponseMessage? proxyResponse, CancellationToken cancellationToken)
        {
            var copies = await base.TransformResponseAsync(httpContext, proxyResponse, cancellationToken).ConfigureAwait(false);
            if (proxyResponse is not null)
            {
                foreach (var named in NamedIn(new StringValues([.. proxyResponse.Headers.Connection])))
                    httpContext.Response.Headers.Remove(named);
                if (httpContext.Response.Headers.WWWAuthenticate is { Count: > 0 } offered && offered.Any(IsNtlm))
                    httpContext.Response.Headers.WWWAuthenticate = new StringValues([.. offered.Where(one => !IsNtlm(one))]);
                httpContext.Features.Get<ChunkedAnswer>()?.Begin();
            }

            return copies;
        }

        /// <summary>Whether a login may count for the connection instead of the request.</summary>
        private static bool IsOfTheConnection(StringValues authorization) => authorization.Any(one => IsNtlm(one) || HasScheme(one, "Negotiate"));

        /// <summary>It needs one connection from its first question to its last answer, which visitors here do not have.</summary>
        private static bool IsNtlm(string? authentication) => HasScheme(authentication, "NTLM");

        private static bool HasScheme(string? authentication, string scheme) =>
            authentication is not null && authentication.StartsWith(scheme, StringComparison.OrdinalIgnoreCase)
            && (authentication.Length == scheme.Length || authentication[scheme.Length] == ' ');

        private static void Remove(HttpRequestMessage request, string name)
        {
            // Asking a collection to remove a header of the other kind throws.
            if (request.Headers.NonValidated.Contains(name))
                request.Headers.Remove(name);
            else if (request.Content?.Headers.NonValidated.Contains(name) == true)
                request.Content.Headers.Remove(name);
        }

        /// <summary>Hop-by-hop headers of the visitor's own; those that carry the connection itself are YARP's business.</summary>
        private static IEnumerable<string> NamedIn(StringValues connection) =>
            connection.SelectMany(value => (value ?? "").Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries))
                .Where(name => name.ToUpperInvariant() is not ("CLOSE" or "KEEP-ALIVE" or "UPGRADE" or "TE" or "HOST" or "CONTENT-LENGTH" or "CONTENT-TYPE" or "TRANSFER-ENCODING" or "CONNECTION"))
                .Where(name => name.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_'));
    }
}
