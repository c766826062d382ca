using System.Net;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using VTunnel.Hosting;
using VTunnel.Options;
using VTunnel.Routing;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.Actors.Tests.Hosting;

/// <summary>A server embedded as an application embeds it, and a client that dials it over a real socket.</summary>
public sealed class TunnelPair : IAsyncDisposable
{
    private TunnelPair(WebApplication server, TunnelClient client, Uri address)
    {
        Server = server;
        Client = client;
        Address = address;
    }

    public WebApplication Server { get; }

    public TunnelClient Client { get; }

    public Uri Address { get; }

    public static async Task<TunnelPair> StartAsync(
        Action<TunnelServerOptions>? server = null,
        Action<TunnelClientOptions>? client = null,
        Action<WebApplicationBuilder>? configure = null,
        Func<Uri, Uri>? route = null)
    {
        var app = await StartServerAsync(server, configure);
        var address = AddressOf(app);
        address = route?.Invoke(address) ?? address;
        var options = new TunnelClientOptions { Server = address };
        client?.Invoke(options);
        var pair = new TunnelPair(app, TunnelClient.Create(options, app.Services.GetRequiredService<ILoggerFactory>()), address);
        try
        {
            await pair.Client.ConnectAsync().WaitAsync(TestTimeouts.Long);
            return pair;
        }
        catch
        {
            await pair.DisposeAsync();
            throw;
        }
    }

    public static async Task<WebApplication> StartServerAsync(
        Action<TunnelServerOptions>? server = null, Action<WebApplicationBuilder>? configure = null)
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        if (Environment.GetEnvironmentVariable("VTUNNEL_TEST_LOG") is not null)
            builder.Logging.AddSimpleConsole(console => console.TimestampFormat = "HH:mm:ss.fff ").SetMinimumLevel(LogLevel.Debug);
        builder.WebHost.ConfigureKestrel(kestrel => kestrel.Listen(IPAddress.Loopback, 0));
        builder.AddVTunnelServer(server);
        configure?.Invoke(builder);
        var app = builder.Build();
        app.MapVTunnel("/tunnel");
        await app.StartAsync();
        return app;
    }

    public static Uri AddressOf(WebApplication app)
    {
        var address = app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.Single();
        return new UriBuilder(address) { Scheme = "ws", Path = "/tunnel" }.Uri;
    }

    public async Task<int> ForwardAsync(int targetPort)
    {
        var port = FreePorts.Next();
        await Client.ListenAsync(new ForwardRule(port, new ForwardTarget(TargetScheme.Tcp, "127.0.0.1", targetPort)))
            .WaitAsync(TestTimeouts.Long);
        return port;
    }

    public async ValueTask DisposeAsync()
    {
        await Client.DisposeAsync();
        await Server.DisposeAsync();
    }
}
