using System.Globalization;
using System.Text.RegularExpressions;
using VTunnel.EndToEnd.Tests.CommandLine;
using VTunnel.Testing.Programs;

namespace VTunnel.EndToEnd.Tests.Support;

/// <inheritdoc cref="VTunnelProgram"/>
internal static class BuiltProgram
{
    public static string File => VTunnelProgram.Path;

    public static RunningProgram Start(IEnumerable<string> arguments) => VTunnelProgram.Start([.. arguments], Tools.Direct);
}

/// <summary><c>vtunnel server</c>, running.</summary>
internal sealed partial class ServerProgram : IAsyncDisposable
{
    private ServerProgram(RunningProgram program, int port)
    {
        Program = program;
        Port = port;
    }

    public RunningProgram Program { get; }

    public int Port { get; }

    /// <summary>The server's URL for clients.</summary>
    public string Url => $"ws://127.0.0.1:{Port}/";

    /// <summary>Starts it on a free loopback port, or on the given one, and waits until it listens.</summary>
    public static async Task<ServerProgram> StartAsync(string[]? options = null, int port = 0)
    {
        var program = BuiltProgram.Start(
            ["server", "-host", "127.0.0.1", "-port", port.ToString(CultureInfo.InvariantCulture), "-log-level", "debug", .. options ?? []]);
        try
        {
            var line = await program.Output.WaitForAsync("Listening on ");
            return new ServerProgram(program, int.Parse(ListenedPort().Match(line).Groups[1].ValueSpan, CultureInfo.InvariantCulture));
        }
        catch
        {
            await program.DisposeAsync();
            throw;
        }
    }

    public ValueTask DisposeAsync() => Program.DisposeAsync();

    [GeneratedRegex(@":(\d+)/?$")]
    private static partial Regex ListenedPort();
}

/// <summary><c>vtunnel client</c>, running.</summary>
internal sealed class ClientProgram : IAsyncDisposable
{
    private ClientProgram(RunningProgram program, IReadOnlyList<(int Port, string Target)> forwards)
    {
        Program = program;
        Forwards = forwards;
    }

    public RunningProgram Program { get; }

    public IReadOnlyList<(int Port, string Target)> Forwards { get; }

    /// <summary>Starts it and waits until every forward is up.</summary>
    public static async Task<ClientProgram> StartAsync(string server, (int Port, string Target)[] forwards, params string[] options)
    {
        var client = Start(server, forwards, options);
        try
        {
            await client.WaitForForwardsAsync();
            return client;
        }
        catch
        {
            await client.DisposeAsync();
            throw;
        }
    }

    /// <summary>Starts it with one forward and waits until that is up.</summary>
    public static Task<ClientProgram> StartAsync(string server, int port, int targetPort, params string[] options) =>
        StartAsync(server, [(port, $"127.0.0.1:{targetPort}")], options);

    /// <summary>Starts it with what the Go program's users would write.</summary>
    public static ClientProgram Start(string server, (int Port, string Target)[] forwards, params string[] options)
    {
        var arguments = new List<string> { "client", "-server", server, "-log-level", "debug" };
        foreach (var (port, target) in forwards)
            arguments.AddRange(["-forward", $"{port}={target}"]);
        arguments.AddRange(options);
        return new ClientProgram(BuiltProgram.Start(arguments), forwards);
    }

    /// <summary>Waits until every forward has come up for the given time, counted from 1.</summary>
    public async Task WaitForForwardsAsync(int time = 1)
    {
        foreach (var (port, _) in Forwards)
            await Program.Output.WaitForCountAsync($"Forwarding {port} on the server", time);
    }

    public ValueTask DisposeAsync() => Program.DisposeAsync();
}
