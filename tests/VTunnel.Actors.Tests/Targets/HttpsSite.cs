using System.Net;
using System.Net.Security;
using System.Net.WebSockets;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using VTunnel.Routing;
using VTunnel.Testing.Network;

namespace VTunnel.Actors.Tests.Targets;

/// <summary>A real HTTPS site with one virtual host, <c>localhost</c>: any other Host gets 404.</summary>
internal sealed class HttpsSite : IAsyncDisposable
{
    private readonly WebApplication _app;
    private long _written;
    private long _read;

    private HttpsSite(WebApplication app, KestrelHeartbeat heartbeat)
    {
        _app = app;
        Heartbeat = heartbeat;
    }

    public int Port { get; private set; }

    public ForwardTarget Target => new(TargetScheme.Tls, "localhost", Port);

    /// <summary>Of the connections to this site.</summary>
    public KestrelHeartbeat Heartbeat { get; }

    /// <summary>Bytes that <c>/stream</c> has given to its response so far, over all requests.</summary>
    public long Written => Interlocked.Read(ref _written);

    /// <summary>Bytes that <c>/slow</c> has read from its request so far.</summary>
    public long Read => Interlocked.Read(ref _read);

    /// <summary>Completes when <c>/slow</c> and <c>/late</c> may go on.</summary>
    public TaskCompletionSource GoOn { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Completes when <c>/late</c> has been asked.</summary>
    public TaskCompletionSource Asked { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

    public static async Task<HttpsSite> StartAsync(X509Certificate2 certificate)
    {
        var heartbeat = new KestrelHeartbeat();
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.Services.Configure<HostOptions>(o => o.ShutdownTimeout = TimeSpan.Zero);
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.Limits.MaxRequestBodySize = null;
            kestrel.Limits.MinRequestBodyDataRate = null;
            kestrel.Limits.MinResponseDataRate = null;
            kestrel.Listen(IPAddress.Loopback, 0, listen =>
            {
                listen.UseHttps(certificate);
                heartbeat.Watch(listen);
            });
        });
        var app = builder.Build();
        var site = new HttpsSite(app, heartbeat);
        app.UseWebSockets();
        app.Use(async (context, next) =>
        {
            if (context.Request.Host.Host == "localhost" && context.Request.Host.Port == site.Port)
                await next(context);
            else
                context.Response.StatusCode = StatusCodes.Status404NotFound;
        });
        app.Run(site.AnswerAsync);
        await app.StartAsync();
        site.Port = new Uri(app.Urls.First()).Port;
        return site;
    }

    public ValueTask DisposeAsync() => _app.DisposeAsync();

    private async Task AnswerAsync(HttpContext context)
    {
        switch (context.Request.Path.Value)
        {
            case "/echo":
                await context.Request.Body.CopyToAsync(context.Response.Body);
                break;
            case "/hash":
                var hash = await SHA256.HashDataAsync(context.Request.Body);
                await context.Response.WriteAsync(Convert.ToHexString(hash));
                break;
            case "/stream":
                await StreamAsync(context, long.Parse(context.Request.QueryString.Value![1..], System.Globalization.CultureInfo.InvariantCulture));
                break;
            case "/slow":
                await SlowAsync(context);
                break;
            case "/late":
                Asked.TrySetResult();
                await GoOn.Task;
                await context.Response.WriteAsync("late");
                break;
            case "/ws":
                await EchoWebSocketAsync(context);
                break;
            case "/moved":
                context.Response.Redirect("https://elsewhere.example/x");
                break;
            default:
                await context.Response.WriteAsync($"{context.Request.Method} {context.Request.Host} {context.Features.Get<IHttpRequestFeature>()!.RawTarget}");
                break;
        }
    }

    /// <summary>The bytes of <c>/stream</c>: cheap, and none like its neighbour.</summary>
    public static void Fill(Span<byte> block, long index)
    {
        block.Clear();
        System.Buffers.Binary.BinaryPrimitives.WriteInt64LittleEndian(block, index);
    }

    private async Task StreamAsync(HttpContext context, long length)
    {
        context.Response.ContentLength = length;
        var block = new byte[64 * 1024];
        for (long sent = 0; sent < length; sent += block.Length)
        {
            Fill(block, sent / block.Length);
            await context.Response.Body.WriteAsync(block);
            Interlocked.Add(ref _written, block.Length);
        }
    }

    private async Task SlowAsync(HttpContext context)
    {
        await GoOn.Task;
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var buffer = new byte[64 * 1024];
        while (await context.Request.Body.ReadAsync(buffer) is var read and > 0)
        {
            hash.AppendData(buffer.AsSpan(0, read));
            Interlocked.Add(ref _read, read);
        }

        await context.Response.WriteAsync(Convert.ToHexString(hash.GetHashAndReset()));
    }

    private static async Task EchoWebSocketAsync(HttpContext context)
    {
        using var socket = await context.WebSockets.AcceptWebSocketAsync("echo");
        var buffer = new byte[64 * 1024];
        while (true)
        {
            var received = await socket.ReceiveAsync(buffer.AsMemory(), context.RequestAborted);
            if (received.MessageType == WebSocketMessageType.Close)
                break;
            await socket.SendAsync(buffer.AsMemory(0, received.Count), received.MessageType, received.EndOfMessage, context.RequestAborted);
        }

        await socket.CloseAsync(WebSocketCloseStatus.NormalClosure, "bye", context.RequestAborted);
    }
}
