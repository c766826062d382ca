using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using VTunnel.Cli.Settings;

namespace VTunnel.Cli.Hosting;

/// <summary>The program's log for commands without a host.</summary>
internal sealed class LoggingHost : IAsyncDisposable
{
    private readonly ServiceProvider _services;

    private LoggingHost(ServiceProvider services) => _services = services;

    public ILoggerFactory Loggers => _services.GetRequiredService<ILoggerFactory>();

    public static LoggingHost Create(LogLevel level, LogFormat format)
    {
        var services = new ServiceCollection();
        services.AddLogging(logging => Logging.Configure(logging, level, format));
        return new LoggingHost(services.BuildServiceProvider());
    }

    /// <summary>Writes what is still queued.</summary>
    public ValueTask DisposeAsync() => _services.DisposeAsync();
}
