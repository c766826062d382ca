using Microsoft.Extensions.Logging;
using VTunnel.Routing;

namespace VTunnel.Targets;

/// <summary>What this folder logs. Event ids 6000 to 6099.</summary>
internal static partial class TargetsLog
{
    [LoggerMessage(6000, LogLevel.Debug, "{Target}: cannot read the visitor's HTTP: {Reason}")]
    public static partial void RequestUnreadable(ILogger logger, ForwardTarget target, string reason);

    [LoggerMessage(6001, LogLevel.Debug, "{Target}: takes no more: {Reason}")]
    public static partial void TargetTakesNoMore(ILogger logger, ForwardTarget target, string reason);

    [LoggerMessage(6002, LogLevel.Debug, "{Target}: the visitor left: {Reason}")]
    public static partial void VisitorLeft(ILogger logger, ForwardTarget target, string reason);

    [LoggerMessage(6003, LogLevel.Information, "Target {Target} of port {Port} of a domain refused: {Reason}")]
    public static partial void TargetRefused(ILogger logger, ForwardTarget target, int port, string reason);

    [LoggerMessage(6004, LogLevel.Information, "Target {Target} gave a request no answer: {Reason}")]
    public static partial void RequestFailed(ILogger logger, ForwardTarget target, string reason);
}
