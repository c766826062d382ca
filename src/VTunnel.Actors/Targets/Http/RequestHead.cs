using System.Buffers;
using System.Text;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.Net.Http.Headers;
using VTunnel.Routing;

namespace VTunnel.Targets.Http;

/// <summary>Writes the head of a request as the target gets it: with the target's Host, and otherwise as it came.</summary>
internal static class RequestHead
{
    private const int DefaultTlsPort = 443;

    /// <summary>The Host of requests to <paramref name="target"/>: with the port, unless it is the one of https.</summary>
    public static string HostOf(ForwardTarget target)
    {
        // The dot that ends an absolute name is for the resolver; no virtual host is called so.
        var named = target with { Host = target.Host.TrimEnd('.') };
        var authority = named.Authority;
        return target.Port == DefaultTlsPort ? authority[..authority.LastIndexOf(':')] : authority;
    }

    /// <summary>Writes request line and headers. Header bytes are Latin-1 on both sides, so each passes as it is.</summary>
    public static void Write(IBufferWriter<byte> output, HttpContext context, string host)
    {
        var request = context.Features.GetRequiredFeature<IHttpRequestFeature>();
        Append(output, request.Method, " ", TargetOf(request.RawTarget), " ", request.Protocol, "\r\n");
        Append(output, "Host: ", host, "\r\n");

        var chunked = request.Headers.TransferEncoding.Count > 0;
        foreach (var (name, values) in request.Headers)
        {
            if (name.Equals(HeaderNames.Host, StringComparison.OrdinalIgnoreCase))
                continue;
            // Both at once is how requests are smuggled; the server has read the body by its chunks, so those are what counts.
            if (chunked && name.Equals(HeaderNames.ContentLength, StringComparison.OrdinalIgnoreCase))
                continue;
            foreach (var value in values)
                Append(output, name, ": ", value ?? "", "\r\n");
        }

        Append(output, "\r\n");
    }

    /// <summary>Writes the end of a chunked body, with the trailers that came.</summary>
    public static void WriteLastChunk(IBufferWriter<byte> output, HttpContext context)
    {
        Append(output, "0\r\n");
        if (context.Features.Get<IHttpRequestTrailersFeature>() is { Available: true } trailers)
        {
            foreach (var (name, values) in trailers.Trailers)
            {
                foreach (var value in values)
                    Append(output, name, ": ", value ?? "", "\r\n");
            }
        }

        Append(output, "\r\n");
    }

    /// <summary>
    /// The target of the request line, byte for byte: what looks redundant may be part of a signature. Only the
    /// absolute form is shortened, because its host would overrule the Host header.
    /// </summary>
    private static string TargetOf(string raw)
    {
        var scheme = raw.StartsWith('/') ? -1 : raw.IndexOf("://", StringComparison.Ordinal);
        if (scheme < 0)
            return raw;

        var authority = raw[(scheme + 3)..];
        var path = authority.AsSpan().IndexOfAny('/', '?');
        return path < 0 ? "/" : authority[path] == '/' ? authority[path..] : "/" + authority[path..];
    }

    private static void Append(IBufferWriter<byte> output, params ReadOnlySpan<string> texts)
    {
        foreach (var text in texts)
            Encoding.Latin1.GetBytes(text, output);
    }
}
