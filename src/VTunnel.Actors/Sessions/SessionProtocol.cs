using Akka.Actor;
using VTunnel.Carriers;
using VTunnel.Endpoints;
using VTunnel.Extensions;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Link;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Routing;

namespace VTunnel.Sessions;

/// <summary>What a session's actor is told and says.</summary>
public static class SessionProtocol
{
    /// <summary>To a session: take no new streams, let those that run finish, for <paramref name="Timeout"/> at most, then end.</summary>
    public sealed record Drain(TimeSpan Timeout);

    /// <summary>To a session: end now, without a goodbye if the peer is known to be gone.</summary>
    public sealed record End(Exception Reason, bool PeerIsGone);

    /// <summary>To a v2 session: go on over this connection. The session owns it from now on.</summary>
    /// <param name="Carrier">An open connection.</param>
    /// <param name="Hello">On a server, what the client said on it; null on a client.</param>
    public sealed record AttachCarrier(ICarrier Carrier, LinkHello? Hello) : IDisposable
    {
        /// <summary>Drops the connection; for those who find no receiver.</summary>
        public void Dispose()
        {
            Carrier.Abort();

            // An aborted carrier has nothing to wait for.
            _ = Carrier.DisposeAsync().AsTask();
        }
    }

    /// <summary>To a client's parent: the session lives but needs another connection.</summary>
    public sealed record NeedsCarrier(string Reason);

    /// <summary>To a client's parent: the session has a connection; null is the first, else the length of the gap.</summary>
    public sealed record CarrierAttached(TimeSpan? Gap);

    /// <summary>To a server's session: is the client there? Answered with <see cref="ProbeResult"/>.</summary>
    public sealed record Probe(TimeSpan Timeout);

    /// <summary>From a session: whether anything arrived since the probe.</summary>
    public sealed record ProbeResult(bool Alive);

    /// <summary>To the parent: may I listen on this port? Answered with <see cref="PortGranted"/> or <see cref="PortRefused"/>.</summary>
    public sealed record ClaimPort(int Port);

    /// <summary>The port is the session's.</summary>
    public sealed record PortGranted(int Port);

    /// <summary>The port is not to be had, and why.</summary>
    public sealed record PortRefused(int Port, string Reason);

    /// <summary>To the parent: the port is free again.</summary>
    public sealed record ReleasePort(int Port);

    /// <summary>
    /// To the parent: the session is over; a null cause is an orderly end. The actor stops when its last streams have been
    /// delivered, which may take a while.
    /// </summary>
    public sealed record SessionEnded(IActorRef Session, Exception? Cause, string Reason);

    /// <summary>
    /// From a server's session, to its parent: what a proxy may send to it from now on, all of it, and whether it has a connection
    /// to its client. An empty list takes everything back. The next one follows after <see cref="RoutesTaken"/>.
    /// </summary>
    public sealed record RoutesChanged(IReadOnlyList<(HostPattern Pattern, int Port, ProxyRoute Route)> Routes, bool IsConnected);

    /// <summary>To a server's session: the proxy goes by its last <see cref="RoutesChanged"/> from now on.</summary>
    public sealed record RoutesTaken
    {
        /// <summary>The one instance.</summary>
        public static readonly RoutesTaken Instance = new();
    }

    /// <summary>To a server's session, by a proxy: may this visitor be carried? Answered with an <see cref="AuthorizationProtocol.Decision"/>.</summary>
    /// <param name="Port">From the route.</param>
    /// <param name="Remote">The visitor's address.</param>
    /// <param name="Visit">What he asked for.</param>
    public sealed record AuthorizeVisitor(int Port, string? Remote, ProxyVisit Visit);

    /// <summary>To a server's session, by a proxy that has asked whether it may: carry this visitor. The session owns the endpoint; one that cannot be carried is aborted.</summary>
    /// <param name="Port">From the route.</param>
    /// <param name="Remote">The visitor's address; null where the stream is for the requests of many.</param>
    /// <param name="Visit">What he asked for.</param>
    /// <param name="Endpoint">The visitor. Where the route answers, the first line that it is sent is a <see cref="StreamAnswer"/>.</param>
    public sealed record CarryVisitor(int Port, string? Remote, ProxyVisit Visit, StreamEndpoint Endpoint) : IDisposable
    {
        /// <summary>Drops the visitor; for those who find no receiver.</summary>
        public void Dispose() => Endpoint.Abort();
    }

    /// <summary>To a session: how are you? Answered with <see cref="SessionStatus"/>.</summary>
    public sealed record GetStatus
    {
        /// <summary>The one instance.</summary>
        public static readonly GetStatus Instance = new();
    }

    /// <summary>A session's state.</summary>
    /// <param name="Name">Unique in the process, e.g. <c>session-7</c>.</param>
    /// <param name="Remote">The far end of its connection, or of the last one that it had.</param>
    /// <param name="Identity">The name of the token that opened it; null where none was asked for, and on a client.</param>
    /// <param name="Protocol"><c>v1</c> or <c>v2</c>.</param>
    /// <param name="IsConnected">False while it waits for another connection, and when it is over.</param>
    /// <param name="IsOver">Whether it has ended, and only delivers what has arrived to those who are slow to take it.</param>
    /// <param name="Age">Since it began.</param>
    /// <param name="RoundTripTime">Smoothed; null over v1, and before it was measured.</param>
    /// <param name="Forwards">What the client has asked for, ports first.</param>
    /// <param name="Streams">Connections that it carries now.</param>
    /// <param name="BytesIn">Payload since it began, from the tunnel to local connections.</param>
    /// <param name="BytesOut">Payload since it began, from local connections to the tunnel.</param>
    public sealed record SessionStatus(
        string Name,
        string Remote,
        string? Identity,
        string Protocol,
        bool IsConnected,
        bool IsOver,
        TimeSpan Age,
        TimeSpan? RoundTripTime,
        IReadOnlyList<ForwardStatus> Forwards,
        int Streams,
        long BytesIn,
        long BytesOut);

    /// <summary>The state of a port or domain that a client forwards.</summary>
    /// <param name="Port">The server's port; null where it is a domain.</param>
    /// <param name="Domain">The domain of the server's proxy; null where it is a port.</param>
    /// <param name="Target">Where its connections go; null where the client did not say.</param>
    /// <param name="IsOpen">Whether the server listens for it, or may route to it.</param>
    /// <param name="Problem">Why it does not; null where it does.</param>
    public sealed record ForwardStatus(int? Port, string? Domain, string? Target, bool IsOpen, string? Problem);
}
