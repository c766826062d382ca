using VTunnel.Diagnostics;

namespace VTunnel.Actors.Tests.Testing;

/// <summary>Metrics for tests that are about something else.</summary>
internal static class TestMetrics
{
    public static RoleMetrics Server { get; } = TunnelMetrics.Shared.For(TunnelRole.Server);

    public static RoleMetrics Client { get; } = TunnelMetrics.Shared.For(TunnelRole.Client);
}
