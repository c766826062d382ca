using System.Globalization;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Logging.Console;
using Microsoft.Extensions.Options;
using VTunnel.Cli.Settings;

namespace VTunnel.Cli.Hosting;

/// <summary>Whether stack traces are written; else an exception is its messages.</summary>
internal sealed class LineFormatterOptions : ConsoleFormatterOptions
{
    public bool StackTraces { get; set; }
}

/// <summary>Time, level, message: <c>2026-11-22T19:13:24.123Z info  listening on …</c>, always exactly one line.</summary>
internal sealed class LineFormatter(IOptions<LineFormatterOptions> options, TimeProvider? time = null) : ConsoleFormatter(FormatterName)
{
    public const string FormatterName = "vtunnel-line";
    public const string TimestampFormat = "yyyy-MM-dd'T'HH:mm:ss.fff'Z'";

    private readonly bool _stackTraces = options.Value.StackTraces;
    private readonly TimeProvider _time = time ?? TimeProvider.System;

    public override void Write<TState>(in LogEntry<TState> logEntry, IExternalScopeProvider? scopeProvider, TextWriter textWriter)
    {
        var message = logEntry.Formatter(logEntry.State, logEntry.Exception);
        textWriter.Write(_time.GetUtcNow().ToString(TimestampFormat, CultureInfo.InvariantCulture));
        textWriter.Write(' ');
        textWriter.Write(Word(logEntry.LogLevel));
        textWriter.Write(' ');
        textWriter.Write(OneLine.Of(message));
        if (logEntry.Exception is { } exception)
        {
            textWriter.Write(": ");
            textWriter.Write(OneLine.Of(_stackTraces ? exception.ToString() : Messages(exception)));
        }

        textWriter.Write('\n');
    }

    private static string Messages(Exception? exception)
    {
        var parts = new List<string>();
        for (; exception is not null; exception = exception.InnerException)
            parts.Add($"{exception.GetType().Name}: {exception.Message}");
        return string.Join(" <- ", parts);
    }

    private static string Word(LogLevel level) => level switch
    {
        LogLevel.Trace => "trace",
        LogLevel.Debug => "debug",
        LogLevel.Information => "info ",
        LogLevel.Warning => "warn ",
        LogLevel.Error => "error",
        _ => "fatal",
    };
}
