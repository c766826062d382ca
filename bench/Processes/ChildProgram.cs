using System.Collections.Concurrent;
using System.Diagnostics;
using System.Text;
using System.Text.RegularExpressions;

namespace VTunnel.Bench.Processes;

/// <summary>A program that runs beside the bench and ends with it at the latest.</summary>
internal sealed class ChildProgram : IDisposable
{
    private const int MaxKeptLines = 200;
    private static readonly ConcurrentDictionary<ChildProgram, bool> Running = new();

    private readonly Process _process;
    private readonly string _name;
    private readonly Lock _lock = new();
    private readonly List<(long Time, string Line)> _lines = [];
    private readonly ManualResetEventSlim _newLine = new();
    private bool _ended;

    private ChildProgram(Process process, string name)
    {
        _process = process;
        _name = name;
        Started = Stopwatch.GetTimestamp();
        Running[this] = true;
        process.OutputDataReceived += (_, e) => Add(e.Data);
        process.ErrorDataReceived += (_, e) => Add(e.Data);
        process.Exited += (_, _) =>
        {
            lock (_lock)
                _ended = true;
            _newLine.Set();
        };
        process.EnableRaisingEvents = true;
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
    }

    /// <summary>Its process id.</summary>
    public int Id => _process.Id;

    /// <summary>When it was started, by <see cref="Stopwatch.GetTimestamp"/>.</summary>
    public long Started { get; }

    /// <summary>Starts a program with nothing on standard input.</summary>
    /// <param name="file">The program.</param>
    /// <param name="arguments">Its arguments.</param>
    public static ChildProgram Start(string file, IEnumerable<string> arguments)
    {
        var start = new ProcessStartInfo(file, arguments)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };

        // What happens to be set for whoever measures is not part of what is measured.
        foreach (var name in start.Environment.Keys.Where(name => name.StartsWith("VTUNNEL_", StringComparison.Ordinal)).ToList())
            start.Environment.Remove(name);
        try
        {
            var process = Process.Start(start)!;
            process.StandardInput.Close();
            return new ChildProgram(process, Path.GetFileName(file));
        }
        catch (Exception e) when (e is System.ComponentModel.Win32Exception or IOException)
        {
            throw new BenchException($"{file} cannot be started: {e.Message}", e);
        }
    }

    /// <summary>Starts one of the bench's own helpers.</summary>
    public static ChildProgram StartHelper(params string[] arguments) =>
        Start(Path.Combine(AppContext.BaseDirectory, "VTunnel.Bench"), arguments);

    /// <summary>Ends every program that still runs.</summary>
    public static void EndAll()
    {
        foreach (var child in Running.Keys)
            child.Dispose();
    }

    /// <summary>Waits for a line that matches, and gives the match and the time it came.</summary>
    public (Match Match, long Time) WaitFor(Regex pattern, TimeSpan? timeout = null)
    {
        var limit = timeout ?? TimeSpan.FromSeconds(20);
        var started = Stopwatch.GetTimestamp();
        var next = 0;
        while (true)
        {
            _newLine.Reset();
            bool ended;
            lock (_lock)
            {
                for (; next < _lines.Count; next++)
                {
                    if (pattern.Match(_lines[next].Line) is { Success: true } match)
                        return (match, _lines[next].Time);
                }

                ended = _ended;
            }

            var left = limit - Stopwatch.GetElapsedTime(started);
            if (ended || left <= TimeSpan.Zero)
                throw new BenchException($"{_name} {(ended ? "ended" : "took too long")} without saying '{pattern}'. It said:\n{Output()}");
            _newLine.Wait(left < TimeSpan.FromMilliseconds(500) ? left : TimeSpan.FromMilliseconds(500));
        }
    }

    /// <summary>Waits for the end of a program that is to end by itself.</summary>
    public void WaitForSuccess(TimeSpan timeout)
    {
        if (!_process.WaitForExit(timeout))
            throw new BenchException($"{_name} did not end within {timeout.TotalSeconds:0} s. It said:\n{Output()}");
        if (_process.ExitCode != 0)
            throw new BenchException($"{_name} ended with exit code {_process.ExitCode}. It said:\n{Output()}");
    }

    /// <summary>What it said last.</summary>
    public string Output()
    {
        lock (_lock)
        {
            var text = new StringBuilder();
            foreach (var (_, line) in _lines.TakeLast(30))
                text.Append("  ").AppendLine(line);
            return text.ToString().TrimEnd();
        }
    }

    /// <summary>Ends it and whatever it started.</summary>
    public void Dispose()
    {
        if (!Running.TryRemove(this, out _))
            return;
        try
        {
            _process.Kill(entireProcessTree: true);
            _process.WaitForExit(5000);
        }
        catch (Exception e) when (e is InvalidOperationException or System.ComponentModel.Win32Exception or AggregateException)
        {
            // Ended already.
        }

        _process.Dispose();
    }

    private void Add(string? line)
    {
        if (line is null)
            return;
        lock (_lock)
        {
            // Later lines say nothing that is waited for; the pipe is read all the same, so that nobody blocks on it.
            if (_lines.Count < MaxKeptLines)
                _lines.Add((Stopwatch.GetTimestamp(), line));
        }

        _newLine.Set();
    }
}
