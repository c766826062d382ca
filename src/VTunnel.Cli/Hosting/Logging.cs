using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Console;
using VTunnel.Cli.Settings;

namespace VTunnel.Cli.Hosting;

/// <summary>The program's log: standard error, one line per entry.</summary>
internal static class Logging
{
    /// <summary>Whose entries are about themselves rather than about tunnels: shown from Warning up, unless everything is wanted.</summary>
    private static readonly string[] Frameworks = ["Microsoft", "System", "Akka", "Yarp"];

    public static void Configure(ILoggingBuilder logging, LogLevel level, LogFormat format)
    {
        logging.SetMinimumLevel(level);
        if (level > LogLevel.Trace)
        {
            foreach (var framework in Frameworks)
                logging.AddFilter(framework, level > LogLevel.Warning ? level : LogLevel.Warning);

            // What keeps the host from starting is told by the program, once and in its own words.
            logging.AddFilter("Microsoft.Extensions.Hosting.Internal.Host", LogLevel.Critical);
        }

        logging.AddConsole(console =>
        {
            console.LogToStandardErrorThreshold = LogLevel.Trace;
            console.FormatterName = format == LogFormat.Json ? ConsoleFormatterNames.Json : LineFormatter.FormatterName;

            // A terminal that does not read must not stop the threads that move bytes; what is lost is counted in the log.
            console.QueueFullMode = ConsoleLoggerQueueFullMode.DropWrite;
        });
        if (format == LogFormat.Json)
        {
            logging.AddJsonConsole(json =>
            {
                json.UseUtcTimestamp = true;
                json.TimestampFormat = LineFormatter.TimestampFormat;
            });
        }
        else
        {
            // What AddConsoleFormatter does, without the part of it that fills options from a configuration by reflection.
            logging.Services.AddSingleton<ConsoleFormatter, LineFormatter>();
            logging.Services.Configure<LineFormatterOptions>(line => line.StackTraces = level <= LogLevel.Debug);
        }
    }
}
