using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using VTunnel.Routing;

namespace VTunnel.Proxy;

/// <summary>Finds out what a visitor asks the proxy for.</summary>
internal static class RequestTarget
{
    private const int HttpsPort = 443;

    /// <summary>Which host a request is for, or what is wrong with it.</summary>
    public static string? Read(HttpContext context, bool isConnect, out string host, out int port)
    {
        const string usage = "this is an HTTP proxy: set http_proxy and https_proxy to its address";
        var raw = context.Features.GetRequiredFeature<IHttpRequestFeature>().RawTarget;
        port = 0;
        host = "";
        if (isConnect)
        {
            var named = HttpProtocol.IsHttp2(context.Request.Protocol) ? context.Request.Host.Value : raw;
            if (!HostName.TryParseAuthority(named, out var connectHost, out port))
                return "CONNECT needs HOST:PORT";
            if (context.Request.ContentLength > 0 || context.Request.Headers.TransferEncoding.Count > 0)
                return "CONNECT has no body";
            host = connectHost;
            return null;
        }

        string authority;
        if (HttpProtocol.IsHttp2(context.Request.Protocol))
        {
            if (context.Request.Scheme != "http")
                return "requests to https URLs go through CONNECT";
            authority = context.Request.Host.Value ?? "";
        }
        else if (raw.StartsWith("http://", StringComparison.OrdinalIgnoreCase))
        {
            authority = raw[7..];
            var end = authority.AsSpan().IndexOfAny("/?#");
            authority = end < 0 ? authority : authority[..end];
        }
        else
        {
            return raw.StartsWith("https://", StringComparison.OrdinalIgnoreCase) ? "requests to https URLs go through CONNECT" : usage;
        }

        if (authority.EndsWith(':'))
            authority = authority[..^1];
        var hasPort = authority.LastIndexOf(':') > authority.LastIndexOf(']');
        if (!HostName.TryParseAuthority(hasPort ? authority : authority + ":80", out var found, out port))
            return authority.Contains('@', StringComparison.Ordinal) ? "the URL must not name a user" : "the URL names no host";
        host = found;
        return null;
    }

    /// <summary>Whether a request names a host and port; the port that it leaves out is that of https.</summary>
    public static bool Names(HostString named, string host, int port) =>
        HostName.TryNormalize(named.Host, out var name) && name == host && (named.Port ?? HttpsPort) == port;
}
