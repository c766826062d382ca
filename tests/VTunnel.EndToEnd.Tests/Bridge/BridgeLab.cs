using System.Globalization;
using System.Security.Cryptography.X509Certificates;
using VTunnel.Bridge.Identity;
using VTunnel.Bridge.State;
using VTunnel.Bridge.Wire;
using VTunnel.Cli.Commands.Bridge;
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

    private BridgeLab() => Port = FreePorts.Next();

    /// <summary>Where the relay listens.</summary>
    public int Port { get; }

    /// <summary>What is dialled.</summary>
    public string Url { get; private set; } = "";

    /// <summary>What stands between the relay and everybody else, if it was asked for.</summary>
    public FaultProxy? Proxy { get; private set; }

    public RunningProgram Relay { get; private set; } = null!;

    public RunningProgram Publisher { get; private set; } = null!;

    /// <summary>A file or folder of this test.</summary>
    public string File(string name) => Path.Combine(_folder.Path, name);

    /// <summary>A relay that runs and a publisher that has joined it.</summary>
    /// <param name="withProxy">Whether publisher and consumers dial through a proxy that breaks on command.</param>
    public static async Task<BridgeLab> StartAsync(bool withProxy = false)
    {
        var lab = new BridgeLab();
        lab.Proxy = withProxy ? FaultProxy.Start(lab.Port) : null;
        lab.Url = $"ws://127.0.0.1:{lab.Proxy?.Port ?? lab.Port}/";
        RelayStore.Initialize(lab.File("relay"), "localhost", new Uri(lab.Url)).Dispose();
        await lab.StartRelayAsync();
        await lab.JoinAsync("publisher");
        return lab;
    }

    public async Task StartRelayAsync(params string[] options)
    {
        Relay = Start("relay", "relay", ["--host", "127.0.0.1", "--port", Port.ToString(CultureInfo.InvariantCulture), "--no-tls", "--log-level", "debug", .. options]);
        await Relay.Output.WaitForAsync("Listening on ws");
    }

    /// <summary>Ends the relay as a power cut would.</summary>
    public async Task KillRelayAsync()
    {
        _programs.Remove(Relay);
        await Relay.DisposeAsync();
    }

    /// <summary>Enrols a publisher as <c>vtunnel join</c> does, without the time that a program takes to start; its state is named like it.</summary>
    public async Task JoinAsync(string publisher)
    {
        using var store = RelayStore.Open(File("relay"));
        using var identity = PublisherIdentity.Create();
        using var dialer = new RelayDialer(new RelayAddress(new Uri(Url), "", null), identity.Fingerprint, identity.Certificate, TestTimeouts.Step, TimeProvider.System);
        var relay = await dialer.EnrolAsync(store.Invite(TimeProvider.System.GetUtcNow(), TimeSpan.FromHours(1)), publisher, CancellationToken.None);
        new StateDirectory(File(publisher)).CreatePublisher(
            publisher, new BridgeContext(1, ContextKind.Publisher, new Uri(Url), relay, identity.Fingerprint, publisher), identity);
    }

    public async Task ServeAsync(params string[] options)
    {
        Publisher = Start("publisher", "serve", ["--log-level", "debug", "--reconnect-min", "200ms", "--reconnect-max", "1s", .. options]);
        await Publisher.Output.WaitForAsync("waiting for consumers");
    }

    /// <summary>Adds a user and exports its bundle, which is named like it.</summary>
    public async Task CreateUserAsync(string user, params string[] options)
    {
        if (options.Length == 2 && options[0] == "-m" && BridgeCli.Mapping(options[1], out var grant, out _))
        {
            CreateUser(user, grant);
            return;
        }

        await RunAsync("publisher", "create", "user", user, options);
        await RunAsync("publisher", "export", "user", user, "--out", File($"{user}.zip"));
    }

    /// <summary>As the two commands do, without the time that two programs take to start.</summary>
    private void CreateUser(string name, BridgeGrant grant)
    {
        var state = new StateDirectory(File("publisher"));
        var publisher = state.Load("publisher");
        using var identity = state.LoadPublisher("publisher");
        using var store = state.OpenPublisherStore("publisher");
        using var key = Keys.Create();
        using var certificate = identity.Issue(name, new PublicKey(key));
        var user = store.CreateUser(
            name,
            Keys.Fingerprint(certificate),
            new UserCredentials(certificate.ExportCertificatePem(), Keys.ExportPem(key)),
            new UserChange { Add = [grant] },
            null,
            TimeProvider.System.GetUtcNow());
        var manifest = new BundleManifest(
            1, name, publisher.Relay, publisher.RelayId, publisher.Publisher, publisher.PublisherName, certificate.ExportCertificatePem(), null, user.Grants, null);
        StateFolder.WritePrivate(File($"{name}.zip"), new Bundle(manifest, Keys.ExportPem(key)).ToZip(identity));
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
        return VTunnelProgram.RunAsync([.. flat, "--state-dir", File(state)], folder: _folder.Path);
    }

    public RunningProgram Start(string state, string command, IReadOnlyList<string> arguments)
    {
        var program = VTunnelProgram.Start([command, .. arguments, "--state-dir", File(state)], folder: _folder.Path);
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
        if (Proxy is not null)
            await Proxy.DisposeAsync();
        _folder.Dispose();
    }
}

/// <summary>A relay and a publisher that runs, for the tests of a class, each of which makes users of its own.</summary>
public sealed class RunningLab : IAsyncLifetime
{
    internal BridgeLab Lab { get; private set; } = null!;

    public async Task InitializeAsync()
    {
        Lab = await BridgeLab.StartAsync();
        await Lab.ServeAsync();
    }

    public async Task DisposeAsync() => await Lab.DisposeAsync();
}
