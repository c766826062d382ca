using System.Net;
using System.Security.Cryptography.X509Certificates;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using VTunnel.Bridge.Identity;
using VTunnel.Bridge.Relay;
using VTunnel.Bridge.State;
using VTunnel.Bridge.Wire;
using VTunnel.Hosting;
using VTunnel.Options;
using VTunnel.Protocol.Bridge;
using VTunnel.Testing;
using VTunnel.Testing.Diagnostics;
using VTunnel.Testing.Network;

namespace VTunnel.Actors.Tests.Bridge;

/// <summary>A relay in the test's own process, and publishers and consumers beside it, each with a state of its own.</summary>
internal sealed class BridgeHouse : IAsyncDisposable
{
    public static readonly BridgeSessionOptions Quick = new() { ReconnectMin = TimeSpan.FromMilliseconds(50), ReconnectMax = TimeSpan.FromMilliseconds(400) };

    private readonly TempDirectory _folder = new();
    private readonly List<IAsyncDisposable> _running = [];
    private WebApplication _app = null!;

    private BridgeHouse() => Url = new Uri($"ws://127.0.0.1:{FreePorts.Next()}/");

    public Uri Url { get; }

    public RelayStore Store { get; private set; } = null!;

    public BridgeRelay Relay => _app.Services.GetRequiredService<BridgeRelay>();

    /// <summary>What everybody logs, from Debug up.</summary>
    public CapturedLog Log { get; } = new();

    public string RelayFolder => _folder.File("relay");

    public static async Task<BridgeHouse> StartAsync(RelayOptions? options = null, string? cover = null)
    {
        var house = new BridgeHouse();
        house.Store = RelayStore.Initialize(house.RelayFolder, "localhost", house.Url);
        var builder = WebApplication.CreateSlimBuilder();
        builder.Logging.ClearProviders();
        builder.Logging.AddProvider(house.Log).SetMinimumLevel(LogLevel.Debug).AddFilter("Microsoft", LogLevel.Warning);
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.Listen(IPAddress.Loopback, house.Url.Port);
            kestrel.AddServerHeader = false;
        });
        builder.AddVTunnelRelay(house.Store, options);
        house._app = builder.Build();
        house._app.UseVTunnelRelay(cover);
        await house._app.StartAsync();
        return house;
    }

    /// <summary>Waits for a line that has all of these.</summary>
    public Task<string> LoggedAsync(params string[] parts) =>
        Log.Lines.WaitForAsync(line => parts.All(part => line.Contains(part, StringComparison.Ordinal)), $"a line with {string.Join(" and ", parts)}");

    public string Folder(string name) => _folder.File(name);

    /// <summary>The state of somebody; contexts of publishers are called <c>publisher</c>.</summary>
    public StateDirectory State(string name) => new(_folder.File(name));

    /// <summary>Enrols a publisher, whose state is called like it.</summary>
    public async Task<StateDirectory> JoinAsync(string name, string? code = null, TimeProvider? clock = null)
    {
        var state = State(name);
        using var identity = PublisherIdentity.Create();
        using var dialer = new RelayDialer(
            new RelayAddress(Url, "", null), identity.Fingerprint, identity.Certificate, TestTimeouts.Step, clock ?? TimeProvider.System);
        var relay = await dialer.EnrolAsync(code ?? Store.Invite(TimeProvider.System.GetUtcNow(), TimeSpan.FromHours(1)), name, CancellationToken.None);
        state.CreatePublisher("publisher", new BridgeContext(1, ContextKind.Publisher, Url, relay, identity.Fingerprint, name), identity);
        return state;
    }

    /// <summary>Adds a user to a publisher; its state is called like it, and has the context <c>user</c>.</summary>
    public StateDirectory CreateUser(StateDirectory publisher, string name, params BridgeGrant[] grants)
    {
        using var identity = publisher.LoadPublisher("publisher");
        using var store = publisher.OpenPublisherStore("publisher");
        using var key = Keys.Create();
        using var certificate = identity.Issue(name, new PublicKey(key));
        var user = store.CreateUser(
            name,
            Keys.Fingerprint(certificate),
            new UserCredentials(certificate.ExportCertificatePem(), Keys.ExportPem(key)),
            new UserChange { Add = grants },
            null,
            TimeProvider.System.GetUtcNow());
        var context = publisher.Load("publisher");
        var bundle = new Bundle(
            new BundleManifest(1, name, context.Relay, context.RelayId, context.Publisher, context.PublisherName, certificate.ExportCertificatePem(), null, user.Grants, null),
            Keys.ExportPem(key));
        State(name).Import(Bundle.FromZip(bundle.ToZip(identity)), null, "user");
        return State(name);
    }

    public BridgePublisher Serve(StateDirectory publisher, TimeProvider? clock = null, BridgeSessionOptions? options = null)
    {
        var running = BridgePublisher.Start(publisher, "publisher", options ?? Quick, _app.Services.GetRequiredService<ILoggerFactory>(), clock);
        _running.Add(running);
        return running;
    }

    public async Task<BridgeConsumer> ConnectAsync(StateDirectory user, TimeProvider? clock = null, BridgeSessionOptions? options = null)
    {
        var running = BridgeConsumer.Create(user, "user", null, options ?? Quick, _app.Services.GetRequiredService<ILoggerFactory>(), clock);
        _running.Add(running);
        Assert.All(await running.StartAsync(), port => Assert.True(port.IsOpen, port.Problem));
        return running;
    }

    /// <summary>From now on there is no relay.</summary>
    public async Task StopRelayAsync()
    {
        await Relay.DisposeAsync();
        await _app.StopAsync();
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var running in Enumerable.Reverse(_running))
            await running.DisposeAsync();
        await Relay.DisposeAsync();
        await _app.DisposeAsync();
        Store.Dispose();
        Log.Dispose();
        _folder.Dispose();
    }
}

/// <summary>A clock that is wrong.</summary>
internal sealed class WrongClock(TimeSpan ahead) : TimeProvider
{
    public override DateTimeOffset GetUtcNow() => System.GetUtcNow() + ahead;
}
