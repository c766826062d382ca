using System.Globalization;
using System.Security.Cryptography.X509Certificates;
using VTunnel.Bridge.Identity;
using VTunnel.Bridge.State;
using VTunnel.EndToEnd.Tests.CommandLine;
using VTunnel.Protocol.Bridge;
using VTunnel.Testing;
using VTunnel.Testing.Network;
using VTunnel.Testing.Programs;

namespace VTunnel.EndToEnd.Tests.Bridge;

/// <summary>A relay, a publisher and consumers on loopback, all of them the real program, each with a state of its own.</summary>
internal sealed class BridgeLab : IAsyncDisposable
{
    private readonly TempDirectory _folder = new();
    private readonly List<RunningProgram> _programs = [];
    private string _path;
    private string[] _launcher = [];

    private BridgeLab()
    {
        _path = _folder.Path;
        Port = FreePorts.Next();
    }

    /// <summary>Where the relay listens.</summary>
    public int Port { get; }

    /// <summary>What publishers dial.</summary>
    public string Url { get; private set; } = "";

    /// <summary>What consumers dial.</summary>
    public string ConsumerUrl { get; private set; } = "";

    /// <summary>What stands between publisher and relay, if it was asked for.</summary>
    public FaultProxy? PublisherProxy { get; private set; }

    /// <summary>What stands between consumers and relay, if it was asked for.</summary>
    public FaultProxy? ConsumerProxy { get; private set; }

    public RunningProgram Relay { get; private set; } = null!;

    public RunningProgram Publisher { get; private set; } = null!;

    /// <summary>A file or folder of this test.</summary>
    public string File(string name) => Path.Combine(_path, name);

    /// <summary>A relay that runs and a publisher that has joined it.</summary>
    /// <param name="withProxies">Whether publisher and consumers dial through proxies that break on command.</param>
    /// <param name="relayOptions">More options for the relay.</param>
    public static async Task<BridgeLab> StartAsync(bool withProxies = false, params string[] relayOptions)
    {
        var lab = Prepare(withProxies);
        try
        {
            await lab.StartRelayAsync(relayOptions);
            return lab;
        }
        catch
        {
            await lab.DisposeAsync();
            throw;
        }
    }

    /// <summary>The same before anything runs.</summary>
    public static BridgeLab Prepare(bool withProxies = false)
    {
        var lab = new BridgeLab();
        if (withProxies)
            (lab.PublisherProxy, lab.ConsumerProxy) = (FaultProxy.Start(lab.Port), FaultProxy.Start(lab.Port));
        lab.Url = $"ws://127.0.0.1:{lab.PublisherProxy?.Port ?? lab.Port}/";
        lab.ConsumerUrl = $"ws://127.0.0.1:{lab.ConsumerProxy?.Port ?? lab.Port}/";
        RelayStore.Initialize(lab.File("relay"), "localhost", new Uri(lab.Url)).Dispose();
        lab.Join("publisher");
        return lab;
    }

    /// <summary>From now on all state is elsewhere, and the programs that use it are started by another.</summary>
    /// <param name="path">Where it is for those programs.</param>
    /// <param name="outside">Where it is for this process.</param>
    /// <param name="launcher">The program that starts them.</param>
    public void MoveTo(string path, string outside, string[] launcher)
    {
        foreach (var file in Directory.GetFiles(_path, "*", SearchOption.AllDirectories))
        {
            var copy = Path.Combine(outside, Path.GetRelativePath(_path, file));
            Directory.CreateDirectory(Path.GetDirectoryName(copy)!);
            System.IO.File.Copy(file, copy);
        }

        (_path, _launcher) = (path, launcher);
    }

    public async Task StartRelayAsync(params string[] options)
    {
        Relay = Start("relay", "relay", ["--port", Port.ToString(CultureInfo.InvariantCulture), "--no-tls", "--log-level", "debug", .. options.Contains("--host") ? options : ["--host", "127.0.0.1", .. options]]);
        await Relay.Output.WaitForAsync("Listening on ws");
    }

    /// <summary>Ends the relay as a power cut would.</summary>
    public async Task KillRelayAsync()
    {
        _programs.Remove(Relay);
        await Relay.DisposeAsync();
    }

    /// <summary>Enrols a publisher as <c>vtunnel join</c> does, without the time that a program takes to start; its state is named like it.</summary>
    /// <param name="publisher">The name.</param>
    /// <param name="url">Where it and its users dial the relay, if not as the others do.</param>
    /// <param name="authorityFile">Whom they trust there.</param>
    public void Join(string publisher, string? url = null, string? authorityFile = null)
    {
        using var store = RelayStore.Open(File("relay"));
        using var identity = PublisherIdentity.Create();
        var now = TimeProvider.System.GetUtcNow();
        Assert.Null(store.Enrol(store.Invite(now, TimeSpan.FromHours(1)), identity.Certificate, publisher, now));
        var authority = authorityFile is null ? null : System.IO.File.ReadAllText(authorityFile);
        new StateDirectory(File(publisher)).CreatePublisher(
            publisher,
            new BridgeContext(1, ContextKind.Publisher, new Uri(url ?? Url), store.Settings.Id, identity.Fingerprint, publisher, authority),
            identity);
    }

    public async Task ServeAsync(params string[] options)
    {
        Publisher = Start("publisher", "serve", ["--log-level", "debug", "--reconnect-min", "200ms", "--reconnect-max", "1s", .. options]);
        await Publisher.Output.WaitForAsync("waiting for consumers");
    }

    /// <summary>Ends the publisher as a power cut would.</summary>
    public async Task KillPublisherAsync()
    {
        _programs.Remove(Publisher);
        await Publisher.DisposeAsync();
    }

    /// <summary>Adds a user that may reach ports of this machine and writes its bundle, as the two commands do, without the time that two programs take to start.</summary>
    public void CreateUser(string name, params (int Local, int Port)[] ports) =>
        CreateUser("publisher", name, new UserChange { Add = [.. ports.Select(port => new BridgeGrant(port.Local, "127.0.0.1", port.Port))] });

    /// <inheritdoc cref="CreateUser(string, ValueTuple{int, int}[])"/>
    public void CreateUser(string publisherState, string name, UserChange change)
    {
        var state = new StateDirectory(File(publisherState));
        var publisher = state.Load(publisherState);
        using var identity = state.LoadPublisher(publisherState);
        using var store = state.OpenPublisherStore(publisherState);
        using var key = Keys.Create();
        using var certificate = identity.Issue(name, new PublicKey(key));
        var user = store.CreateUser(
            name,
            Keys.Fingerprint(certificate),
            new UserCredentials(certificate.ExportCertificatePem(), Keys.ExportPem(key)),
            change,
            null,
            TimeProvider.System.GetUtcNow());
        var manifest = new BundleManifest(
            1,
            name,
            publisher.Relay == new Uri(Url) ? new Uri(ConsumerUrl) : publisher.Relay,
            publisher.RelayId,
            publisher.Publisher,
            publisher.PublisherName,
            certificate.ExportCertificatePem(),
            null,
            user.Grants,
            publisher.RelayAuthority);
        StateFolder.WritePrivate(File($"{name}.zip"), new Bundle(manifest, Keys.ExportPem(key)).ToZip(identity));
    }

    /// <summary>Does something to the publisher's state from another process than the publisher, as the commands do.</summary>
    public void Change(Action<PublisherStore> change)
    {
        using var store = new StateDirectory(File("publisher")).OpenPublisherStore("publisher");
        change(store);
    }

    /// <summary>Starts a consumer; its state is named like its user.</summary>
    public RunningProgram Connect(string user, params string[] options) =>
        Start(user, "connect", [File($"{user}.zip"), "--log-level", "debug", "--reconnect-min", "200ms", "--reconnect-max", "1s", .. options]);

    /// <summary>Starts a consumer and waits until it is connected.</summary>
    public async Task<RunningProgram> ConnectAsync(string user, params string[] options)
    {
        var consumer = Connect(user, options);
        await consumer.Output.WaitForAsync("Connected to ");
        return consumer;
    }

    /// <summary>Runs a command with the state of a role, and requires exit code 0.</summary>
    public async Task<ProgramResult> RunAsync(string state, params object[] arguments)
    {
        var result = await TryRunAsync(state, arguments);
        Assert.True(result.ExitCode == 0, $"vtunnel {string.Join(' ', arguments)}: exit code {result.ExitCode}\n{result.Output}{string.Join('\n', result.Errors)}");
        return result;
    }

    /// <summary>Runs a command with the state of a role.</summary>
    public Task<ProgramResult> TryRunAsync(string state, params object[] arguments)
    {
        var flat = arguments.SelectMany(argument => argument is string[] many ? many : [(string)argument]);
        return VTunnelProgram.RunAsync([.. flat, "--state-dir", File(state)], folder: _launcher.Length == 0 ? _path : null, launcher: _launcher);
    }

    public RunningProgram Start(string state, string command, IReadOnlyList<string> arguments)
    {
        var program = VTunnelProgram.Start([command, .. arguments, "--state-dir", File(state)], folder: _launcher.Length == 0 ? _path : null, launcher: _launcher);
        _programs.Add(program);
        return program;
    }

    /// <summary>Ends a program as Ctrl-C would, and waits for it.</summary>
    public async Task<int> StopAsync(RunningProgram program)
    {
        program.Signal(ProgramSignal.Terminate);
        return await program.WaitForExitAsync();
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var program in Enumerable.Reverse(_programs))
            await program.DisposeAsync();
        if (PublisherProxy is not null)
            await PublisherProxy.DisposeAsync();
        if (ConsumerProxy is not null)
            await ConsumerProxy.DisposeAsync();
        _folder.Dispose();
    }
}

/// <summary>A relay and a publisher that runs, for the tests of a class, each of which makes users of its own.</summary>
public class RunningLab : IAsyncLifetime
{
    internal BridgeLab Lab { get; private set; } = null!;

    private protected virtual Task<BridgeLab> StartAsync() => BridgeLab.StartAsync();

    private protected virtual string[] ServeOptions => [];

    public async Task InitializeAsync()
    {
        Lab = await StartAsync();
        await Lab.ServeAsync(ServeOptions);
    }

    public async Task DisposeAsync()
    {
        // Called after a start that failed, too.
        if (Lab is not null)
            await Lab.DisposeAsync();
    }
}

/// <summary>The same with ways to break what is between the three; silence is noticed after two seconds.</summary>
public sealed class BreakableLab : RunningLab
{
    public static readonly string[] SoonNoticed = ["--ping-interval", "1s"];

    private protected override Task<BridgeLab> StartAsync() => BridgeLab.StartAsync(withProxies: true);

    private protected override string[] ServeOptions => SoonNoticed;
}
