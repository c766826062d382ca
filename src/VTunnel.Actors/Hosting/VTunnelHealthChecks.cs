using Akka.Actor;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Diagnostics.HealthChecks;
using VTunnel.Sessions;
using VTunnel.Supervision;

namespace VTunnel.Hosting;

/// <summary>Health checks of a host's tunnel.</summary>
public static class VTunnelHealthChecks
{
    /// <summary>Healthy while the host's tunnel server takes clients; not while it drains.</summary>
    /// <param name="builder">From <c>services.AddHealthChecks()</c>.</param>
    /// <param name="name">Of the check.</param>
    /// <param name="failureStatus">What is reported when it does not; null for unhealthy.</param>
    /// <param name="tags">To select checks by.</param>
    public static IHealthChecksBuilder AddVTunnelServer(
        this IHealthChecksBuilder builder, string name = "vtunnel-server", HealthStatus? failureStatus = null, IEnumerable<string>? tags = null) =>
        builder.Add(new HealthCheckRegistration(
            name, provider => new ServerCheck(provider.GetRequiredService<VTunnelServer>()), failureStatus, tags));

    /// <summary>
    /// Healthy while the host's tunnel client is connected and the server listens for all of its forwards; degraded while some are
    /// refused.
    /// </summary>
    /// <param name="builder">From <c>services.AddHealthChecks()</c>.</param>
    /// <param name="name">Of the check.</param>
    /// <param name="failureStatus">What is reported when it is not connected; null for unhealthy.</param>
    /// <param name="tags">To select checks by.</param>
    public static IHealthChecksBuilder AddVTunnelClient(
        this IHealthChecksBuilder builder, string name = "vtunnel-client", HealthStatus? failureStatus = null, IEnumerable<string>? tags = null) =>
        builder.Add(new HealthCheckRegistration(
            name, provider => new ClientCheck(provider.GetRequiredService<TunnelClient>()), failureStatus, tags));

    private sealed class ServerCheck(VTunnelServer server) : IHealthCheck
    {
        public async Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default)
        {
            TunnelServerProtocol.ServerStatus status;
            try
            {
                status = await server.GetStatusAsync(cancellationToken).ConfigureAwait(false);
            }
            catch (AskTimeoutException e)
            {
                return new HealthCheckResult(context.Registration.FailureStatus, "the server does not answer", e);
            }

            var data = new Dictionary<string, object>
            {
                ["sessions"] = status.Sessions.Count,
                ["forwards"] = status.Sessions.Sum(session => session.Forwards.Count(forward => forward.IsOpen)),
                ["streams"] = status.Sessions.Sum(session => session.Streams),
            };
            return status.IsDraining
                ? new HealthCheckResult(context.Registration.FailureStatus, "the server is shutting down", data: data)
                : HealthCheckResult.Healthy(data: data);
        }
    }

    private sealed class ClientCheck(TunnelClient client) : IHealthCheck
    {
        public async Task<HealthCheckResult> CheckHealthAsync(HealthCheckContext context, CancellationToken cancellationToken = default)
        {
            var status = await client.GetStatusAsync(cancellationToken).ConfigureAwait(false);
            var data = new Dictionary<string, object> { ["server"] = status.Server, ["streams"] = status.Session?.Streams ?? 0 };
            if (!status.IsConnected)
                return new HealthCheckResult(context.Registration.FailureStatus, $"not connected with {status.Server}: {status.Problem}", data: data);
            var closed = status.Forwards.Where(forward => !forward.IsOpen).Select(Describe).ToArray();
            return closed.Length == 0 ? HealthCheckResult.Healthy(data: data) : HealthCheckResult.Degraded(string.Join("; ", closed), data: data);
        }

        private static string Describe(SessionProtocol.ForwardStatus forward) =>
            $"{forward.Domain ?? $"port {forward.Port}"} is not open: {forward.Problem}";
    }
}
