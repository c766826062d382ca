using System.Globalization;
using VTunnel.EndToEnd.Tests.CommandLine;
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
        await lab.RunAsync("relay", "relay", "init", "--domain", "localhost", "--url", lab.Url);
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

    public async Task<string> InviteAsync() => (await RunAsync("relay", "relay", "invite", "--quiet")).Output.Trim();

    /// <summary>Enrols a publisher; its state is named like it.</summary>
    public async Task JoinAsync(string publisher) => await RunAsync(publisher, "join", Url, await InviteAsync(), "--name", publisher);

    public async Task ServeAsync(params string[] options)
    {
        Publisher = Start("publisher", "serve", ["--log-level", "debug", "--reconnect-min", "200ms", "--reconnect-max", "1s", .. options]);
        await Publisher.Output.WaitForAsync("waiting for consumers");
    }

    /// <summary>Adds a user and exports its bundle, which is named like it.</summary>
    public async Task CreateUserAsync(string user, params string[] options)
    {
        await RunAsync("publisher", "create", "user", user, options);
        await RunAsync("publisher", "export", "user", user, "--out", File($"{user}.zip"));
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
