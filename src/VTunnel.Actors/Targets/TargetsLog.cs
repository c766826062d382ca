using Microsoft.Extensions.Logging;
using VTunnel.Routing;

namespace VTunnel.Targets;

/// <summary>What this folder logs. Event ids 6000 to 6099.</summary>
internal static partial class TargetsLog
{
    [LoggerMessage(6000, LogLevel.Information, "HTTP to {Target}: {Leg} failed: {Cause}")]
    public static partial void HttpForwardingFailed(ILogger logger, ForwardTarget target, string leg, string cause);
}
