using Microsoft.Extensions.Logging;

namespace VTunnel.Diagnostics;

/// <summary>What only the bridge logs.</summary>
internal static partial class BridgeLog
{
    [LoggerMessage(710, LogLevel.Warning, "Publisher {Name} ({Fingerprint}) has connected from {Remote} and replaces its connection from {Older}: that one was lost, or the same key is in use twice")]
    public static partial void RelayPublisherReplaced(this ILogger logger, string name, string fingerprint, string remote, string older);

    [LoggerMessage(727, LogLevel.Debug, "A consumer from {Remote} hung up before it said anything")]
    public static partial void ConsumerHungUp(this ILogger logger, string remote);
}
