using System.Collections;
using CliWrap;
using CliWrap.Buffered;
using VTunnel.Bench.Commands;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing.Programs;

namespace VTunnel.EndToEnd.Tests.CommandLine;

/// <summary>
/// The real program, published as users get it. That takes minutes; <c>VTUNNEL_TEST_PROGRAM</c> names another one, such as that of a build.
/// </summary>
internal static class VTunnelProgram
{
    public static readonly TimeSpan Deadline = TimeSpan.FromSeconds(60);

    private static readonly Lazy<string> File = new(Find);

    /// <summary>Servers and clients of all tests can be asked here.</summary>
    private static readonly string StateFolder = MakeStateFolder();

    public static string Path => File.Value;

    /// <summary>Runs it to its end.</summary>
    /// <param name="arguments">Its arguments.</param>
    /// <param name="environment">Added to the test's own environment; null removes.</param>
    /// <param name="folder">Default: the test's own.</param>
    /// <param name="launcher">A program and its arguments that becomes this one.</param>
    public static async Task<ProgramResult> RunAsync(
        IReadOnlyList<string> arguments,
        IReadOnlyDictionary<string, string?>? environment = null,
        string? folder = null,
        IReadOnlyList<string>? launcher = null)
    {
        string[] line = [.. launcher ?? [], Path, .. arguments];
        using var deadline = new CancellationTokenSource(Deadline);
        var result = await CliWrap.Cli.Wrap(line[0]).WithArguments(line[1..])
            .WithEnvironmentVariables(Variables(arguments, environment))
            .WithWorkingDirectory(folder ?? Directory.GetCurrentDirectory())
            .WithValidation(CommandResultValidation.None)
            .ExecuteBufferedAsync(deadline.Token);
        return new ProgramResult(result.ExitCode, result.StandardOutput, Lines(result.StandardError));
    }

    public static Task<ProgramResult> RunAsync(params string[] arguments) => RunAsync(arguments, environment: null);

    /// <inheritdoc cref="RunAsync(IReadOnlyList{string}, IReadOnlyDictionary{string, string?}?, string?, IReadOnlyList{string}?)"/>
    /// <summary>Starts it and leaves it running; dispose to end it.</summary>
    public static RunningProgram Start(
        IReadOnlyList<string> arguments,
        IReadOnlyDictionary<string, string?>? environment = null,
        string? folder = null,
        IReadOnlyList<string>? launcher = null)
    {
        string[] line = [.. launcher ?? [], Path, .. arguments];
        return RunningProgram.Start(line[0], line[1..], Variables(arguments, environment), folder);
    }

    public static RunningProgram Start(params string[] arguments) => Start(arguments, environment: null);

    /// <summary>Waits until a server listens and gives its address as <c>host:port</c>.</summary>
    public static async Task<string> ListeningAsync(this RunningProgram server)
    {
        var line = await server.Output.WaitForAsync("Listening on ws");
        return line[(line.IndexOf("://", StringComparison.Ordinal) + 3)..].TrimEnd('/');
    }

    /// <summary>Sends a signal to a program that may have ended meanwhile.</summary>
    public static void TrySignal(this RunningProgram program, ProgramSignal signal)
    {
        try
        {
            program.Signal(signal);
        }
        catch (InvalidOperationException) when (program.HasExited)
        {
            // Ended meanwhile, as the caller hopes.
        }
    }

    public static IReadOnlyList<string> Lines(string text) => text.Split('\n', StringSplitOptions.RemoveEmptyEntries);

    private static string MakeStateFolder()
    {
        var folder = Directory.CreateTempSubdirectory("vtunnel-run-").FullName;
        AppDomain.CurrentDomain.ProcessExit += (_, _) =>
        {
            try
            {
                Directory.Delete(folder, recursive: true);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                // Left behind rather than an end that fails.
            }
        };
        return folder;
    }

    private static string Find()
    {
        // Who waits for it blocks a thread of the pool for minutes, and tests that need no program must not be left without.
        ThreadPool.GetMinThreads(out var workers, out var ports);
        ThreadPool.SetMinThreads(Math.Max(workers, 16), ports);
        Tools.EnsureInstalled();
        return Environment.GetEnvironmentVariable("VTUNNEL_TEST_PROGRAM") is { Length: > 0 } file ? System.IO.Path.GetFullPath(file) : PublishedProgram.Make();
    }

    /// <summary>What happens to be set for whoever runs the tests is not part of them.</summary>
    private static Dictionary<string, string?> Variables(IReadOnlyList<string> arguments, IReadOnlyDictionary<string, string?>? environment)
    {
        var variables = Environment.GetEnvironmentVariables().Cast<DictionaryEntry>()
            .Select(entry => (string)entry.Key)
            .Where(name => name.StartsWith("VTUNNEL_", StringComparison.Ordinal))
            .ToDictionary(name => name, _ => (string?)null);

        if (arguments is ["server" or "client", ..])
            variables["VTUNNEL_STATE_DIR"] = StateFolder;
        foreach (var (name, value) in environment ?? new Dictionary<string, string?>())
            variables[name] = value;
        return variables;
    }
}

internal sealed record ProgramResult(int ExitCode, string Output, IReadOnlyList<string> Errors);
