using Microsoft.Extensions.Logging;
using VTunnel.Bridge.Identity;
using VTunnel.Bridge.State;
using VTunnel.Bridge.Wire;
using VTunnel.Diagnostics;
using VTunnel.Options;
using VTunnel.Targets;

namespace VTunnel.Bridge.Publishing;

/// <summary>A publisher as it is now.</summary>
/// <param name="IsConnected">Whether the relay can reach it.</param>
/// <param name="Problem">Why not; null if it can.</param>
/// <param name="Relay">Where the relay is.</param>
/// <param name="Users">Those that have a session.</param>
/// <param name="UserCount">Those that there are.</param>
public sealed record PublisherState(bool IsConnected, string? Problem, string Relay, IReadOnlyList<OnlineUser> Users, int UserCount);

/// <summary>What a publisher's actor is told.</summary>
internal static class PublisherProtocol
{
    /// <summary>Answered with <see cref="PublisherState"/>.</summary>
    public sealed record GetState
    {
        public static readonly GetState Instance = new();
    }

    /// <summary>Let streams finish, end the sessions. Answered with <see cref="Stopped"/>.</summary>
    public sealed record Stop
    {
        public static readonly Stop Instance = new();
    }

    /// <summary>Every session has ended.</summary>
    public sealed record Stopped
    {
        public static readonly Stopped Instance = new();
    }
}

/// <summary>What a publisher is made of.</summary>
internal sealed record PublisherParts(
    PublisherIdentity Identity,
    PublisherStore Store,
    RelayDialer Dialer,
    ITargetDialer Targets,
    BridgeSessionOptions Options,
    TunnelMetrics Metrics,
    TimeProvider Clock,
    Func<double> Random,
    ILogger Logger);
