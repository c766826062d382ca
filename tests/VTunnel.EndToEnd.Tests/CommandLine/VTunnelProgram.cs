using System.Collections;
using System.Globalization;
using System.Threading.Channels;
using CliWrap;
using CliWrap.Buffered;

namespace VTunnel.EndToEnd.Tests.CommandLine;

/// <summary>The real program, as it was built beside these tests.</summary>
internal static class VTunnelProgram
{
    public static readonly TimeSpan Deadline = TimeSpan.FromSeconds(60);

    public static string Path { get; } =
        System.IO.Path.Combine(AppContext.BaseDirectory, OperatingSystem.IsWindows() ? "vtunnel.exe" : "vtunnel");

    /// <summary>Runs it to its end.</summary>
    public static async Task<ProgramResult> RunAsync(
        IReadOnlyList<string> arguments,
        IReadOnlyDictionary<string, string?>? environment = null,
        string? folder = null)
    {
        using var deadline = new CancellationTokenSource(Deadline);
        var result = await Command(arguments, environment, folder).ExecuteBufferedAsync(deadline.Token);
        return new ProgramResult(result.ExitCode, result.StandardOutput, Lines(result.StandardError));
    }

    public static Task<ProgramResult> RunAsync(params string[] arguments) => RunAsync(arguments, environment: null);

    /// <summary>Starts it and leaves it running; dispose to end it.</summary>
    public static RunningProgram Start(
        IReadOnlyList<string> arguments,
        IReadOnlyDictionary<string, string?>? environment = null,
        string? folder = null) => new(Command(arguments, environment, folder));

    public static RunningProgram Start(params string[] arguments) => Start(arguments, environment: null);

    public static IReadOnlyList<string> Lines(string text) => text.Split('\n', StringSplitOptions.RemoveEmptyEntries);

    private static Command Command(IReadOnlyList<string> arguments, IReadOnlyDictionary<string, string?>? environment, string? folder)
    {
        // What happens to be set for whoever runs the tests is not part of them.
        var variables = Environment.GetEnvironmentVariables().Cast<DictionaryEntry>()
            .Select(entry => (string)entry.Key)
            .Where(name => name.StartsWith("VTUNNEL_", StringComparison.Ordinal))
            .ToDictionary(name => name, _ => (string?)null);
        foreach (var (name, value) in environment ?? new Dictionary<string, string?>())
            variables[name] = value;
        return CliWrap.Cli.Wrap(Path)
            .WithArguments(arguments)
            .WithEnvironmentVariables(variables)
            .WithWorkingDirectory(folder ?? Directory.GetCurrentDirectory())
            .WithValidation(CommandResultValidation.None);
    }
}

internal sealed record ProgramResult(int ExitCode, string Output, IReadOnlyList<string> Errors);

/// <summary>A program that is running: its output by line, its end, and signals to it.</summary>
internal sealed class RunningProgram : IAsyncDisposable
{
    private readonly CancellationTokenSource _kill = new();
    private readonly Channel<string> _lines = Channel.CreateBounded<string>(new BoundedChannelOptions(10_000) { FullMode = BoundedChannelFullMode.DropWrite });
    private readonly List<string> _seen = [];
    private readonly CommandTask<CommandResult> _task;

    public RunningProgram(Command command)
    {
        var target = PipeTarget.ToDelegate(line => _lines.Writer.TryWrite(line));
        _task = command.WithStandardOutputPipe(target).WithStandardErrorPipe(target).ExecuteAsync(_kill.Token);
    }

    /// <summary>Everything that was waited for or passed over so far.</summary>
    public IReadOnlyList<string> Seen => _seen;

    /// <summary>The first line from here on that contains <paramref name="text"/>.</summary>
    public async Task<string> LineAsync(string text)
    {
        using var deadline = new CancellationTokenSource(VTunnelProgram.Deadline);
        _ = _task.Task.ContinueWith(_ => _lines.Writer.TryComplete(), TaskScheduler.Default);
        try
        {
            while (true)
            {
                var line = await _lines.Reader.ReadAsync(deadline.Token);
                _seen.Add(line);
                if (line.Contains(text, StringComparison.Ordinal))
                    return line;
            }
        }
        catch (Exception e) when (e is OperationCanceledException or ChannelClosedException)
        {
            throw new InvalidOperationException($"No line with '{text}' in:\n{string.Join('\n', _seen)}", e);
        }
    }

    /// <summary>Waits until the server listens and gives its address as <c>host:port</c>.</summary>
    public async Task<string> ListeningAsync()
    {
        var line = await LineAsync("Listening on ws");
        return line[(line.IndexOf("://", StringComparison.Ordinal) + 3)..].TrimEnd('/');
    }

    public async Task SignalAsync(string signal)
    {
        await CliWrap.Cli.Wrap("kill").WithArguments([$"-{signal}", _task.ProcessId.ToString(CultureInfo.InvariantCulture)])
            .WithValidation(CommandResultValidation.None).ExecuteAsync();
    }

    /// <summary>Waits for the end and reads what is left of the output.</summary>
    public async Task<int> ExitAsync()
    {
        var result = await _task.Task.WaitAsync(VTunnelProgram.Deadline);
        _lines.Writer.TryComplete();
        await foreach (var line in _lines.Reader.ReadAllAsync())
            _seen.Add(line);
        return result.ExitCode;
    }

    public bool HasExited => _task.Task.IsCompleted;

    public async ValueTask DisposeAsync()
    {
        await _kill.CancelAsync();
        try
        {
            await _task;
        }
        catch (OperationCanceledException)
        {
            // Killed, as intended.
        }

        _kill.Dispose();
        _task.Dispose();
    }
}

/// <summary>A folder that goes away with the test.</summary>
internal sealed class TemporaryFolder : IDisposable
{
    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("vtunnel-");

    public string Path => _folder.FullName;

    public string At(string name) => System.IO.Path.Combine(Path, name);

    public string Write(string name, string text)
    {
        File.WriteAllText(At(name), text);
        return At(name);
    }

    public void Dispose() => _folder.Delete(recursive: true);
}
