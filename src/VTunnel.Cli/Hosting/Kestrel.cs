using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;

namespace VTunnel.Cli.Hosting;

/// <summary>The certificate of the server and what lies between it and its root.</summary>
internal sealed record ServerCertificate(X509Certificate2 Certificate, X509Certificate2Collection Chain);

/// <summary>Web hosts that do what the command line says and nothing else: no appsettings.json, no ASPNETCORE_ variables.</summary>
internal static class Kestrel
{
    public static WebApplicationBuilder CreateBuilder(IPAddress? address, int port, TimeSpan handshakeTimeout, ServerCertificate? certificate = null)
    {
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions { ApplicationName = "vtunnel" });
        builder.WebHost.UseKestrelCore();
        if (certificate is not null)
            builder.WebHost.UseKestrelHttpsConfiguration();
        builder.Services.AddRoutingCore();
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
            listen.UseHttps(https =>
            {
                https.ServerCertificate = certificate.Certificate;
                https.ServerCertificateChain = certificate.Chain;
                https.HandshakeTimeout = handshakeTimeout;
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

    /// <summary>Reads a certificate and its key from PEM files.</summary>
    /// <returns>The certificate, or which of the two files is wrong and why.</returns>
    public static (ServerCertificate? Certificate, string? CertificateProblem, string? KeyProblem) LoadCertificate(string certificateFile, string keyFile)
    {
        if (Options.OptionRules.CertificateFileProblem(certificateFile) is { } problem)
            return (null, problem, null);

        string key;
        try
        {
            key = File.ReadAllText(keyFile);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            return (null, null, Options.OptionRules.FileProblem(e));
        }

        if (!PemEncoding.TryFind(key, out var fields) || !key[fields.Label].EndsWith("PRIVATE KEY", StringComparison.Ordinal))
        {
            // openssl writes the parameters of a curve in front of its key, so the first block may be another one.
            if (!key.Contains("PRIVATE KEY-----", StringComparison.Ordinal))
                return (null, null, "no private key in this file; it must be PEM, with '-----BEGIN PRIVATE KEY-----'");
        }

        if (key.Contains("ENCRYPTED", StringComparison.Ordinal))
            return (null, null, "the key is encrypted; write it without a password: openssl pkey -in KEY -out NEW-KEY");

        try
        {
            var certificate = X509Certificate2.CreateFromPem(File.ReadAllText(certificateFile), key);
            var chain = new X509Certificate2Collection();
            chain.ImportFromPemFile(certificateFile);
            chain[0].Dispose();
            chain.RemoveAt(0);
            return (new ServerCertificate(certificate, chain), null, null);
        }
        catch (Exception e) when (e is CryptographicException or ArgumentException)
        {
            return (null, null, $"this is not the key of the certificate in {certificateFile}");
        }
    }
}
