using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.AspNetCore.Server.Kestrel.Https;
using Microsoft.Extensions.DependencyInjection;

namespace VTunnel.Cli.Hosting;

/// <summary>Web hosts that do what the command line says and nothing else: no appsettings.json, no ASPNETCORE_ variables.</summary>
internal static class Kestrel
{
    public static WebApplicationBuilder CreateBuilder(IPAddress? address, int port, TimeSpan handshakeTimeout, ReloadedCertificate? certificate = null)
    {
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions { ApplicationName = "vtunnel" });
        builder.WebHost.UseKestrelCore();
        if (certificate is not null)
            builder.WebHost.UseKestrelHttpsConfiguration();
        builder.Services.AddRoutingCore();
        builder.Services.AddSingleton<IMemoryPoolFactory<byte>, LargeBlockPoolFactory>();

        // What a connection's data wakes runs at once, on the thread that found it: the tunnel's own part of that is short, only
        // wakes an actor, and never blocks.
        builder.WebHost.UseSockets(sockets => sockets.UnsafePreferInlineScheduling = true);
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;

            // Until the upgrade is complete a connection is nobody's: these two end the ones that never get there.
            kestrel.Limits.RequestHeadersTimeout = handshakeTimeout;
            kestrel.Limits.KeepAliveTimeout = handshakeTimeout;
            if (address is null)
                kestrel.ListenAnyIP(port, Configure);
            else
                kestrel.Listen(address, port, Configure);
        });
        return builder;

        void Configure(ListenOptions listen)
        {
            listen.Protocols = HttpProtocols.Http1;
            if (certificate is null)
                return;
            listen.UseHttps(new TlsHandshakeCallbackOptions
            {
                HandshakeTimeout = handshakeTimeout,
                OnConnection = _ => ValueTask.FromResult(new SslServerAuthenticationOptions { ServerCertificateContext = certificate.Current }),
            });
        }
    }

    public static void MapHealth(IEndpointRouteBuilder endpoints) =>
        endpoints.MapMethods("/health", [HttpMethods.Get, HttpMethods.Head], static context =>
        {
            context.Response.ContentType = "text/plain; charset=utf-8";
            return HttpMethods.IsHead(context.Request.Method) ? Task.CompletedTask : context.Response.WriteAsync("ok");
        });

    /// <summary>Why an address cannot be listened on, or null if the exception says something else.</summary>
    public static string? ListenProblem(Exception? exception)
    {
        for (; exception is not null; exception = exception.InnerException)
        {
            if (exception is SocketException socket)
            {
                return socket.SocketErrorCode switch
                {
                    SocketError.AddressAlreadyInUse => "the address is in use",
                    SocketError.AccessDenied => "permission denied; ports below 1024 need a privilege",
                    SocketError.AddressNotAvailable => "this machine has no such address",
                    _ => socket.Message,
                };
            }
        }

        return null;
    }
}
