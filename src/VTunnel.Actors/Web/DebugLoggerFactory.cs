using Microsoft.Extensions.Logging;

namespace VTunnel.Web;

/// <summary>
/// Lets libraries log at Debug what they would say at a higher level: they report every request and every visitor who
/// leaves early, and this program's own log says what an operator needs. Errors stay errors.
/// </summary>
/// <param name="inner">Where it goes.</param>
/// <param name="errorsOnly">Whether the rest is left out: it may repeat what visitors have sent.</param>
internal sealed class DebugLoggerFactory(ILoggerFactory inner, bool errorsOnly = false) : ILoggerFactory
{
    /// <inheritdoc />
    public ILogger CreateLogger(string categoryName) => new DebugLogger(inner.CreateLogger(categoryName), errorsOnly ? LogLevel.Error : LogLevel.Trace);

    /// <inheritdoc />
    public void AddProvider(ILoggerProvider provider) => inner.AddProvider(provider);

    /// <inheritdoc />
    public void Dispose()
    {
        // The inner factory belongs to whoever made it.
    }

    private sealed class DebugLogger(ILogger inner, LogLevel minimum) : ILogger
    {
        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => inner.BeginScope(state);

        public bool IsEnabled(LogLevel logLevel) => logLevel >= minimum && inner.IsEnabled(Lower(logLevel));

        public void Log<TState>(
            LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            if (logLevel >= minimum)
                inner.Log(Lower(logLevel), eventId, state, exception, formatter);
        }

        private static LogLevel Lower(LogLevel level) =>
            level is LogLevel.Information or LogLevel.Warning ? LogLevel.Debug : level;
    }
}
