using System.Diagnostics;
using System.Runtime.InteropServices;
using VTunnel.Testing.Diagnostics;

namespace VTunnel.Testing.Programs;

/// <summary>A signal that ends programs in order.</summary>
public enum ProgramSignal
{
    /// <summary>The terminal is gone.</summary>
    HangUp = 1,

    /// <summary>Ctrl-C.</summary>
    Interrupt = 2,

    /// <summary>What service managers send.</summary>
    Terminate = 15,
}

/// <summary>A program that runs beside the test. Disposing kills it if it still runs.</summary>
public sealed class RunningProgram : IAsyncDisposable
{
    private readonly Process _process;
    private readonly string _name;
    private readonly Task _ended;

    private RunningProgram(Process process, string name)
    {
        _process = process;
        _name = name;
        _ended = WatchAsync();
    }

    /// <summary>What it writes to standard output and standard error, line by line.</summary>
    public LineLog Output { get; } = new();

    /// <summary>Its process id.</summary>
    public int Id => _process.Id;

    /// <summary>Whether it has ended.</summary>
    public bool HasExited => _process.HasExited;

    /// <summary>Starts a program with nothing on standard input.</summary>
    /// <param name="file">The program.</param>
    /// <param name="arguments">Its arguments.</param>
    /// <param name="environment">Added to the test's own environment; null removes.</param>
    /// <param name="workingDirectory">Default: the test's own.</param>
    public static RunningProgram Start(
        string file,
        IEnumerable<string> arguments,
        IReadOnlyDictionary<string, string?>? environment = null,
        string? workingDirectory = null)
    {
        var start = new ProcessStartInfo(file, arguments)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            WorkingDirectory = workingDirectory ?? "",
        };
        foreach (var (name, value) in environment ?? new Dictionary<string, string?>())
            start.Environment[name] = value;

        var process = Process.Start(start) ?? throw new InvalidOperationException($"{file} did not start");
        process.StandardInput.Close();
        return new RunningProgram(process, Path.GetFileName(file));
    }

    /// <summary>Sends a signal.</summary>
    public void Signal(ProgramSignal signal)
    {
        if (kill(_process.Id, (int)signal) != 0)
            throw new InvalidOperationException($"cannot signal {_name}: error {Marshal.GetLastPInvokeError()}");
    }

    /// <summary>Waits for its end and gives the exit code.</summary>
    /// <exception cref="TimeoutException">It did not end; the message has its output.</exception>
    public async Task<int> WaitForExitAsync(TimeSpan? timeout = null)
    {
        try
        {
            await _ended.WaitAsync(timeout ?? TestTimeouts.Step).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            throw new TimeoutException($"{_name} did not end in {timeout ?? TestTimeouts.Step}\n{Output.Text()}");
        }

        return _process.ExitCode;
    }

    private async Task WatchAsync()
    {
        await Task.WhenAll(ReadAsync(_process.StandardOutput), ReadAsync(_process.StandardError)).ConfigureAwait(false);
        await _process.WaitForExitAsync().ConfigureAwait(false);
        Output.End($"{_name} ended with exit code {_process.ExitCode}");
    }

    private async Task ReadAsync(StreamReader reader)
    {
        while (await reader.ReadLineAsync().ConfigureAwait(false) is { } line)
            Output.Add(line);
    }

    /// <inheritdoc />
    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
            _process.Kill(entireProcessTree: true);
        await _ended.ConfigureAwait(false);
        _process.Dispose();
    }

#pragma warning disable SYSLIB1054, CA5392 // A source-generated import needs unsafe code in this project; libc is the system's.
    [DllImport("libc", SetLastError = true)]
    private static extern int kill(int process, int signal);
#pragma warning restore SYSLIB1054, CA5392
}
