using Microsoft.Extensions.Logging;

namespace VTunnel.Diagnostics;

/// <summary>What only the bridge logs.</summary>
internal static partial class BridgeLog
{
    [LoggerMessage(727, LogLevel.Debug, "A consumer from {Remote} hung up before it said anything")]
    public static partial void ConsumerHungUp(this ILogger logger, string remote);
}
