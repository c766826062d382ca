using Microsoft.Extensions.Logging;

namespace VTunnel.Testing.Diagnostics;

/// <summary>A logger provider that keeps what is logged: <c>Warning VTunnel.Server[103] the message</c>.</summary>
public sealed class CapturedLog : ILoggerProvider
{
    /// <summary>The entries.</summary>
    public LineLog Lines { get; } = new();

    /// <inheritdoc />
    public ILogger CreateLogger(string categoryName) => new Logger(Lines, categoryName);

    /// <inheritdoc />
    public void Dispose() => Lines.End("the log was closed");

    private sealed class Logger(LineLog lines, string category) : ILogger
    {
        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => logLevel != LogLevel.None;

        public void Log<TState>(
            LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) =>
            lines.Add($"{logLevel} {category}[{eventId.Id}] {formatter(state, exception)}{(exception is null ? "" : " | " + exception)}");
    }
}
