using System.Diagnostics;
using System.Globalization;

namespace VTunnel.Bench;

/// <summary>Says on standard error what is being measured: on a terminal in one line that is written over, else a line each.</summary>
internal sealed class Progress(TextWriter output, bool isTerminal)
{
    private readonly long _started = Stopwatch.GetTimestamp();
    private int _steps;
    private int _step;

    public static Progress ToStandardError() => new(Console.Error, !Console.IsErrorRedirected);

    /// <summary>There will be about so many steps.</summary>
    public void Begin(int steps) => (_steps, _step) = (steps, 0);

    /// <summary>Another step begins.</summary>
    public void Next(string what)
    {
        _step++;
        var text = string.Create(
            CultureInfo.InvariantCulture,
            $"[{Math.Min(100, 100 * (_step - 1) / Math.Max(1, _steps)),3} %, {Stopwatch.GetElapsedTime(_started).TotalSeconds,3:0} s] {what}");
        if (isTerminal)
            output.Write($"\r\e[K{text}");
        else
            output.WriteLine(text);
    }

    /// <summary>Clears the line.</summary>
    public void End()
    {
        if (isTerminal)
            output.Write("\r\e[K");
    }
}
