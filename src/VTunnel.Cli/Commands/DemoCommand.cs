using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using VTunnel.Access;
using VTunnel.Carriers;
using VTunnel.Cli.Hosting;
using VTunnel.Cli.Settings;
using VTunnel.Cli.Syntax;
using VTunnel.Hosting;
using VTunnel.Options;
using VTunnel.Routing;

namespace VTunnel.Cli.Commands;

/// <summary><c>vtunnel demo</c>: a page, a server and a client in one process, put together as any application would.</summary>
internal static class DemoCommand
{
    private const int PortAttempts = 5;

    /// <summary>A browser keeps connections open for the next page; there is none.</summary>
    private static readonly TimeSpan Drain = TimeSpan.FromSeconds(1);

    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(20);

    private static readonly OptionSpec Once = new("once", null, "End after the proof: with 0 if the page came through the tunnel, with 7 if not.") { CommandLineOnly = true };

    public static readonly CommandSpec Spec = new("demo", "Show a tunnel at work: server, client and a small web page in one process.")
    {
        Details = "Everything listens on 127.0.0.1, on ports that are free. The page is fetched through the tunnel and compared with the original.",
        Options = [Once, CommonOptions.LogLevel with { Default = "warning" }, CommonOptions.LogFormat],
        Examples =
        [
            new("Keep it up and look at it in a browser:", "vtunnel demo"),
            new("Check an installation:", "vtunnel demo --once"),
        ],
        Run = RunAsync,
    };

    private static async Task<int> RunAsync(SettingsReader settings)
    {
        var once = settings.Switch(Once);
        var level = settings.One(Spec.Options[1], ValueParsers.Level, LogLevel.Warning);
        var format = settings.One(CommonOptions.LogFormat, ValueParsers.Format, LogFormat.Text);
        if (settings.Faults.Count > 0)
            return Terminal.Refuse(settings.Faults);

        // All of it is on this machine: a proxy that the environment names cannot reach it.
        HttpClient.DefaultProxy = new WebProxy();
        using var interrupts = new Interrupts();
        try
        {
            return await ShowAsync(once, level, format, interrupts);
        }
        catch (OperationCanceledException) when (interrupts.Stopping.IsCancellationRequested)
        {
            return ExitCodes.Success;
        }
        catch (Exception e) when (e is TimeoutException or TunnelConnectException or ListenRefusedException or IOException or SocketException)
        {
            // The log is written by now: what became of the demo is the last line.
            return Terminal.Fail(ExitCodes.DemoFailed, $"the demo failed: {e.Message}");
        }
    }

    private static async Task<int> ShowAsync(bool once, LogLevel level, LogFormat format, Interrupts interrupts)
    {
        var token = AccessTokens.Generate();
        var page = DemoPage.Create();

        await using var web = BuildHost(level, format, _ => { });
        web.MapMethods("/", [HttpMethods.Get], context =>
        {
            context.Response.ContentType = "text/html; charset=utf-8";
            return context.Response.Body.WriteAsync(page).AsTask();
        });
        await using var server = BuildHost(level, format, builder =>
            builder.AddVTunnelServer(options =>
            {
                options.Tokens = [AccessTokens.EntryFor("demo", token)];
                options.DrainTimeout = Drain;
            }));
        server.MapVTunnel("/");
        Kestrel.MapHealth(server);

        try
        {
            await web.StartAsync(interrupts.Stopping);
            await server.StartAsync(interrupts.Stopping);
            var loggers = server.Services.GetRequiredService<ILoggerFactory>();
            await using var client = TunnelClient.Create(
                new TunnelClientOptions { Server = new Uri($"ws://{Address(server)}/"), Token = token, DrainTimeout = Drain }, loggers);
            await client.ConnectAsync(interrupts.Stopping).WaitAsync(Deadline, interrupts.Stopping);
            var rule = await ListenAsync(client, Address(web), interrupts.Stopping);

            Console.Out.WriteLine($"web page (private)  http://{Address(web)}/");
            Console.Out.WriteLine($"vtunnel server      ws://{Address(server)}/");
            Console.Out.WriteLine($"vtunnel client      forwards {rule}");
            Console.Out.WriteLine($"open in a browser   http://127.0.0.1:{rule.RemotePort}/");

            var proven = await ProveAsync(rule.RemotePort, page, interrupts.Stopping);
            if (once || !proven)
                return proven ? ExitCodes.Success : ExitCodes.DemoFailed;

            Console.Out.WriteLine("Ctrl-C ends.");
            await client.Completion.WaitAsync(interrupts.Stopping);
            throw new IOException("its client has ended");
        }
        finally
        {
            // The client is gone by now: first the tunnel ends, then the page behind it.
            await server.StopAsync(CancellationToken.None);
            await web.StopAsync(CancellationToken.None);
        }
    }

    private static WebApplication BuildHost(LogLevel level, LogFormat format, Action<WebApplicationBuilder> add)
    {
        var builder = Kestrel.CreateBuilder(IPAddress.Loopback, port: 0, new TunnelServerOptions().HandshakeTimeout);
        Logging.Configure(builder.Logging, level, format);
        builder.Services.Configure<ConsoleLifetimeOptions>(lifetime => lifetime.SuppressStatusMessages = true);
        builder.Services.Configure<HostOptions>(host => host.ShutdownTimeout = Terminal.ShutdownGrace);
        add(builder);
        return builder.Build();
    }

    private static string Address(WebApplication app) =>
        new Uri(app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.First()).Authority;

    /// <summary>Forwards a free port: the protocol asks for a port by number, so one is looked for first, and again if someone was faster.</summary>
    private static async Task<ForwardRule> ListenAsync(TunnelClient client, string target, CancellationToken stopping)
    {
        for (var attempt = 1; ; attempt++)
        {
            var rule = ForwardRule.Parse($"{FreePort()}={target}");
            try
            {
                await client.ListenAsync(rule, stopping).WaitAsync(Deadline, stopping);
                return rule;
            }
            catch (ListenRefusedException) when (attempt < PortAttempts)
            {
                // Taken meanwhile.
            }
        }
    }

    private static int FreePort()
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        socket.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        return ((IPEndPoint)socket.LocalEndPoint!).Port;
    }

    private static async Task<bool> ProveAsync(int port, byte[] page, CancellationToken stopping)
    {
        using var http = new HttpClient { Timeout = Deadline };
        var url = $"http://127.0.0.1:{port}/";
        HttpStatusCode status;
        byte[] got;
        try
        {
            using var response = await http.GetAsync(new Uri(url), stopping);
            status = response.StatusCode;
            got = await response.Content.ReadAsByteArrayAsync(stopping);
        }
        catch (Exception e) when (e is HttpRequestException || (e is TaskCanceledException && !stopping.IsCancellationRequested))
        {
            Console.Out.WriteLine($"proof               FAILED: GET {url}: {OneLine.Of(e.Message)}");
            return false;
        }

        var same = got.AsSpan().SequenceEqual(page);
        var digest = Convert.ToHexStringLower(SHA256.HashData(got))[..16];
        Console.Out.WriteLine($"proof               {(same && status == HttpStatusCode.OK ? "" : "FAILED: ")}GET {url} through the tunnel: "
            + $"{(int)status}, {got.Length} bytes, SHA-256 {digest}…, {(same ? "the same as the original" : "NOT the original")}");
        return same && status == HttpStatusCode.OK;
    }
}

/// <summary>The page of the demo; every run has one of its own, so that an old one cannot pass for it.</summary>
internal static class DemoPage
{
    public static byte[] Create() => Encoding.UTF8.GetBytes(string.Create(CultureInfo.InvariantCulture, $$"""
        <!doctype html>
        <html lang="en">
        <head>
          <meta charset="utf-8">
          <title>It came through the tunnel</title>
          <style>
            body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1rem }
            code { background: #8882; padding: .1em .3em; border-radius: .2em }
          </style>
        </head>
        <body>
          <h1>It came through the tunnel</h1>
          <p>Your browser asked a port that the vtunnel server opened. The server carried the request over one WebSocket to
             the vtunnel client, and the client to a web server that only it knows.</p>
          <p>This run: <code>{{Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(16))}}</code></p>
        </body>
        </html>

        """));
}
