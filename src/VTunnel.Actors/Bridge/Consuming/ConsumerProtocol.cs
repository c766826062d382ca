using System.Security.Cryptography.X509Certificates;
using Microsoft.Extensions.Logging;
using VTunnel.Bridge.Wire;
using VTunnel.Diagnostics;
using VTunnel.Options;
using VTunnel.Protocol.Bridge;

namespace VTunnel.Bridge.Consuming;

/// <summary>A consumer as it is now.</summary>
/// <param name="IsConnected">Whether the last end-to-end probe passed, and nothing has been lost since.</param>
/// <param name="Problem">Why not; null if it did.</param>
/// <param name="User">Who it is.</param>
/// <param name="Publisher">Whom it is connected with.</param>
/// <param name="Relay">Through which relay.</param>
/// <param name="ProbedAt">When the publisher last answered a probe; null if it never did.</param>
/// <param name="ProbeTook">How long that took, there and back.</param>
/// <param name="Ports">Local ports.</param>
/// <param name="Streams">Open streams.</param>
/// <param name="Waiting">Visitors that wait for a session.</param>
/// <param name="BytesIn">From the publisher to visitors.</param>
/// <param name="BytesOut">From visitors to the publisher.</param>
public sealed record ConsumerState(
    bool IsConnected,
    string? Problem,
    string User,
    string Publisher,
    string Relay,
    DateTimeOffset? ProbedAt,
    TimeSpan? ProbeTook,
    IReadOnlyList<LocalPortState> Ports,
    int Streams,
    int Waiting,
    long BytesIn,
    long BytesOut);

/// <summary>What a consumer's actor is told and answers.</summary>
internal static class ConsumerProtocol
{
    /// <summary>Open the ports and connect; answered with <see cref="Started"/> or <see cref="PortsInUse"/>.</summary>
    public sealed record Start
    {
        public static readonly Start Instance = new();
    }

    /// <summary>Every port is open.</summary>
    public sealed record Started(IReadOnlyList<LocalPortState> Ports);

    /// <summary>Ports cannot be opened; nothing stays open.</summary>
    public sealed record PortsInUse(IReadOnlyList<LocalPortState> Failed);

    /// <summary>Answered when there is no more to come: with <see cref="Ended"/>.</summary>
    public sealed record WaitForEnd
    {
        public static readonly WaitForEnd Instance = new();
    }

    /// <summary>It is over for good; null means that it was stopped.</summary>
    public sealed record Ended(string? NotAdmitted);

    /// <summary>Answered with <see cref="ConsumerState"/>, after a fresh probe if there is a session.</summary>
    public sealed record GetState(bool Probe);

    /// <summary>Answered with <see cref="ConsumerState"/> when a probe has passed, or something has failed.</summary>
    public sealed record WaitForProbe
    {
        public static readonly WaitForProbe Instance = new();
    }

    /// <summary>Could this target be reached? Answered with <see cref="Checked"/>.</summary>
    public sealed record Check(BridgeGrant Grant);

    /// <summary>Null is yes.</summary>
    public sealed record Checked(string? Problem);

    /// <summary>Let streams finish, end. Answered with <see cref="Ended"/>.</summary>
    public sealed record Stop
    {
        public static readonly Stop Instance = new();
    }
}

/// <summary>What a consumer is made of.</summary>
/// <param name="User">The user's name.</param>
/// <param name="UserCertificate">With its key.</param>
/// <param name="Publisher">The fingerprint to pin.</param>
/// <param name="PublisherName">For logs.</param>
/// <param name="Grants">As far as known before the publisher tells.</param>
/// <param name="PortOverrides">Local ports that are opened under another number.</param>
/// <param name="Dialer">Dials the relay.</param>
/// <param name="Options">How it behaves.</param>
/// <param name="SaveGrants">Keeps what the publisher tells; may block.</param>
/// <param name="Metrics">What counts.</param>
/// <param name="Clock">For the times of probes.</param>
/// <param name="Random">From 0 (included) to 1, for jitter.</param>
/// <param name="Logger">For log lines.</param>
internal sealed record ConsumerParts(
    string User,
    X509Certificate2 UserCertificate,
    string Publisher,
    string PublisherName,
    IReadOnlyList<BridgeGrant> Grants,
    IReadOnlyDictionary<int, int> PortOverrides,
    RelayDialer Dialer,
    BridgeSessionOptions Options,
    Action<IReadOnlyList<BridgeGrant>>? SaveGrants,
    TunnelMetrics Metrics,
    TimeProvider Clock,
    Func<double> Random,
    ILogger Logger)
{
    /// <summary>False to open no ports at all.</summary>
    public bool OpensPorts { get; init; } = true;
}
