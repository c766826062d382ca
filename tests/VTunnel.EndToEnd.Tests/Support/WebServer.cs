using System.Net;
using System.Security.Cryptography.X509Certificates;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace VTunnel.EndToEnd.Tests.Support;

/// <summary>A web server on a loopback port: what clients forward to.</summary>
internal sealed class WebServer : IAsyncDisposable
{
    private readonly WebApplication _app;

    private WebServer(WebApplication app)
    {
        _app = app;
        Port = new Uri(app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.Single()).Port;
    }

    public int Port { get; }

    /// <param name="map">What it answers.</param>
    /// <param name="certificate">For TLS; null for none.</param>
    /// <param name="configure">Changes it before it is built.</param>
    /// <param name="protocols">What it speaks; default both where there is TLS, else HTTP/1.1.</param>
    public static async Task<WebServer> StartAsync(
        Action<WebApplication> map, X509Certificate2? certificate = null, Action<WebApplicationBuilder>? configure = null, HttpProtocols? protocols = null)
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.WebHost.UseKestrelHttpsConfiguration();
        builder.Logging.ClearProviders();
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.Listen(IPAddress.Loopback, 0, listen =>
            {
                listen.Protocols = protocols ?? (certificate is null ? HttpProtocols.Http1 : HttpProtocols.Http1AndHttp2);
                if (certificate is not null)
                    listen.UseHttps(certificate);
            });
            kestrel.Limits.MaxRequestBodySize = null;
        });
        configure?.Invoke(builder);
        var app = builder.Build();
        map(app);
        await app.StartAsync();
        return new WebServer(app);
    }

    public ValueTask DisposeAsync() => _app.DisposeAsync();
}
