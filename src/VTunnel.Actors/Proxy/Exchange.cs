using System.Diagnostics;
using System.Globalization;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.Extensions.Logging;
using VTunnel.Diagnostics;
using VTunnel.Routing;

namespace VTunnel.Proxy;

/// <summary>One request, and what the access log says of it: never a path, a query or a credential.</summary>
internal sealed class Exchange(HttpContext context, ILogger logger)
{
    public const string Direct = "direct";

    private readonly long _started = Stopwatch.GetTimestamp();
    private readonly string _remote = context.Features.GetRequiredFeature<Visitor>().Remote?.ToString() ?? "unknown";
    private CountingStream? _request;
    private CountingStream? _response;
    private long _received;
    private long _sent;

    public HttpContext Context => context;

    public Visitor Visitor { get; } = context.Features.GetRequiredFeature<Visitor>();

    public string Host { get; private set; } = "";

    public int Port { get; private set; }

    public string Authority { get; private set; } = "-";

    /// <summary>A session's name, or <see cref="Direct"/>.</summary>
    public string? Route { get; set; }

    /// <summary>Why there is no answer of the target's.</summary>
    public string? Problem { get; set; }

    /// <summary>The status where the web server does not know it.</summary>
    public int? Status { get; set; }

    /// <summary>Whether the requests inside are logged by themselves.</summary>
    public bool IsIntercepted { get; set; }

    public void Target(string host, int port)
    {
        Host = host;
        Port = port;
        Authority = string.Create(CultureInfo.InvariantCulture, $"{HostName.Bracketed(host)}:{port}");
    }

    /// <summary>Counts the bodies from now on, whatever carries them further down.</summary>
    public void Count()
    {
        context.Request.Body = _request = new CountingStream(context.Request.Body);
        context.Response.Body = _response = new CountingStream(context.Response.Body);
    }

    public void Moved(long received, long sent)
    {
        _received = received;
        _sent = sent;
    }

    public void Log()
    {
        var route = Route is null ? "refused" : Route == Direct ? Direct : $"tunnel {Route}";
        logger.Proxied(
            Printable(context.Request.Method),
            Authority,
            IsIntercepted ? route + " intercepted" : route,
            Status ?? context.Response.StatusCode,
            _received + (_request?.ReadBytes ?? 0),
            _sent + (_response?.WrittenBytes ?? 0),
            (long)Stopwatch.GetElapsedTime(_started).TotalMilliseconds,
            _remote,
            Problem is null ? "" : $": {Problem}");
    }

    private static string Printable(string method) => method.Length <= 32 ? method : method[..32];
}
