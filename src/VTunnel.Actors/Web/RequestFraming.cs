using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;

namespace VTunnel.Web;

/// <summary>
/// Finds requests whose end one reader could see here and another there, where Kestrel settles for one of the two. Whoever may stand
/// between visitor and target must not have to agree with it.
/// </summary>
internal static class RequestFraming
{
    /// <summary>How Kestrel keeps a Content-Length that chunks have overruled.</summary>
    private const string OverruledLength = "X-Content-Length";

    /// <summary>What is ambiguous about a request, in words; null if nothing is.</summary>
    public static string? ProblemOf(HttpRequest request)
    {
        var target = request.HttpContext.Features.GetRequiredFeature<IHttpRequestFeature>().RawTarget;
        if (target.AsSpan().ContainsAnyInRange('\0', ' ') || target.Contains('\x7f', StringComparison.Ordinal))
            return "a URL has no blanks and no control characters";
        var codings = request.Headers.TransferEncoding;
        if (codings.Count == 0)
            return null;
        if (HttpProtocol.IsHttp10(request.Protocol))
            return "a request of HTTP/1.0 has no Transfer-Encoding";
        if (codings.Count > 1 || !codings.ToString().Trim().Equals("chunked", StringComparison.OrdinalIgnoreCase))
            return "the only Transfer-Encoding that a request may have is chunked";
        return request.Headers.ContainsKey(OverruledLength) ? "a request has a Content-Length or a Transfer-Encoding, not both" : null;
    }
}
