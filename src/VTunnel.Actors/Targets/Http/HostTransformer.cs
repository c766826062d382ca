using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.Extensions.Primitives;
using Microsoft.Net.Http.Headers;
using VTunnel.Routing;
using Yarp.ReverseProxy.Forwarder;

namespace VTunnel.Targets.Http;

/// <summary>Gives a request the target's Host and leaves everything else, in both directions, as it came.</summary>
internal sealed class HostTransformer(ForwardTarget target) : HttpTransformer
{
    /// <summary>Where requests seem to go; the connection behind it is made without looking at it.</summary>
    public const string Destination = "http://target";

    private const int DefaultTlsPort = 443;

    // Null values are written as no header at all, but count as one that is there: so the server adds no Date of its own.
    private static readonly StringValues NoDate = new([null, null]);

    private readonly string _host = HostOf(target);

    /// <inheritdoc />
    public override async ValueTask TransformRequestAsync(
        HttpContext httpContext, HttpRequestMessage proxyRequest, string destinationPrefix, CancellationToken cancellationToken)
    {
        await base.TransformRequestAsync(httpContext, proxyRequest, destinationPrefix, cancellationToken).ConfigureAwait(false);
        proxyRequest.Headers.Host = _host;
        proxyRequest.RequestUri = RequestUri(httpContext);
        // The forwarder takes this one for part of an upgrade, which it is not.
        if (httpContext.Request.Headers.TryGetValue(HeaderNames.UpgradeInsecureRequests, out var preference))
            proxyRequest.Headers.TryAddWithoutValidation(HeaderNames.UpgradeInsecureRequests, (IEnumerable<string?>)preference);
        KeepUpgrade(httpContext, proxyRequest);
    }

    /// <inheritdoc />
    public override async ValueTask<bool> TransformResponseAsync(
        HttpContext httpContext, HttpResponseMessage? proxyResponse, CancellationToken cancellationToken)
    {
        var copyBody = await base.TransformResponseAsync(httpContext, proxyResponse, cancellationToken).ConfigureAwait(false);
        if (!httpContext.Response.Headers.ContainsKey(HeaderNames.Date))
            httpContext.Response.Headers.Date = NoDate;
        return copyBody;
    }

    /// <summary>The Host of requests to <paramref name="target"/>: with the port, unless it is the one of https.</summary>
    internal static string HostOf(ForwardTarget target) =>
        target.Port != DefaultTlsPort ? target.Authority
        : target.Host.Contains(':', StringComparison.Ordinal) ? $"[{target.Host}]"
        : target.Host;

    /// <summary>The request's target byte for byte: what looks redundant to a URI parser may be part of a signature.</summary>
    private static Uri RequestUri(HttpContext context)
    {
        var raw = context.Features.GetRequiredFeature<IHttpRequestFeature>().RawTarget;
        if (!raw.StartsWith('/'))
        {
            // The absolute form names the visitor's idea of the host, which Host just stopped being; "*" has no URI.
            var authority = raw.IndexOf("://", StringComparison.Ordinal) is var scheme and >= 0 ? raw[(scheme + 3)..] : "";
            var path = authority.AsSpan().IndexOfAny('/', '?');
            raw = path < 0 ? "/" : authority[path] == '/' ? authority[path..] : "/" + authority[path..];
        }

        return new Uri(Destination + raw, new UriCreationOptions { DangerousDisablePathAndQueryCanonicalization = true });
    }

    /// <summary>The forwarder itself passes upgrades to WebSocket and SPDY; the others are as good.</summary>
    private static void KeepUpgrade(HttpContext context, HttpRequestMessage request)
    {
        var upgrade = context.Request.Headers.Upgrade;
        if (context.Features.Get<IHttpUpgradeFeature>() is not { IsUpgradableRequest: true } || upgrade.Count == 0)
            return;

        var name = upgrade.ToString();
        if (name.Equals("websocket", StringComparison.OrdinalIgnoreCase) || name.StartsWith("SPDY/", StringComparison.OrdinalIgnoreCase))
            return;
        // HTTP/2 by upgrade exists only without TLS.
        if (name.Contains("h2c", StringComparison.OrdinalIgnoreCase))
            return;

        request.Headers.TryAddWithoutValidation(HeaderNames.Connection, HeaderNames.Upgrade);
        request.Headers.TryAddWithoutValidation(HeaderNames.Upgrade, name);
    }
}
