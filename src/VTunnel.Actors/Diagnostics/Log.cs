using Microsoft.Extensions.Logging;

namespace VTunnel.Diagnostics;

/// <summary>
/// Every log message of the engine. Event ids: 100 sessions, 200 listeners, 300 streams and targets, 400 client,
/// 500 server, 600 endpoint, 700 bridge, 800 proxy. Nothing above Debug per stream (except the proxy's access log), nothing at all per
/// frame.
/// </summary>
internal static partial class Log
{
    [LoggerMessage(100, LogLevel.Information, "{Session} up: {Remote}, protocol {Protocol}{Identity}")]
    public static partial void SessionUp(this ILogger logger, string session, string remote, string protocol, string identity);

    [LoggerMessage(101, LogLevel.Information, "{Session} down after {Duration}: {Reason}")]
    public static partial void SessionDown(this ILogger logger, string session, LogDuration duration, string reason);

    [LoggerMessage(102, LogLevel.Warning, "{Session} sent a message that was skipped: {Error}{Suffix}")]
    public static partial void MessageSkipped(this ILogger logger, string session, string error, string suffix);

    [LoggerMessage(103, LogLevel.Warning, "{Session} is gone: it did not answer within {Timeout} while {Newcomer} wanted port {Port}")]
    public static partial void SessionSuperseded(this ILogger logger, string session, LogDuration timeout, string newcomer, int port);

    [LoggerMessage(104, LogLevel.Error, "{Session} failed")]
    public static partial void SessionFailed(this ILogger logger, Exception exception, string session);

    [LoggerMessage(105, LogLevel.Error, "A stream or listener of {Session} failed and was stopped")]
    public static partial void ChildFailed(this ILogger logger, Exception exception, string session);

    [LoggerMessage(106, LogLevel.Information, "{Session} goes on over {Remote} after a gap of {Gap}")]
    public static partial void SessionResumed(this ILogger logger, string session, string remote, LogDuration gap);

    [LoggerMessage(107, LogLevel.Information, "{Session} has lost its connection and waits for another: {Reason}")]
    public static partial void SessionWaits(this ILogger logger, string session, string reason);

    [LoggerMessage(108, LogLevel.Warning, "A connection from {Remote} was refused: {Reason}")]
    public static partial void LinkRefused(this ILogger logger, string remote, string reason);

    [LoggerMessage(208, LogLevel.Information, "{Session}: the proxy routes {Domain} to {Target}")]
    public static partial void DomainUp(this ILogger logger, string session, string domain, string target);

    [LoggerMessage(209, LogLevel.Information, "{Session}: the proxy routes {Domain} there no more")]
    public static partial void DomainDown(this ILogger logger, string session, string domain);

    [LoggerMessage(200, LogLevel.Information, "{Session} listens on {Address}:{Port} for {Target}")]
    public static partial void ListenerUp(this ILogger logger, string session, string address, int port, string target);

    [LoggerMessage(206, LogLevel.Information, "{Session}: port {Port} is for {Target} now{Note}")]
    public static partial void Retargeted(this ILogger logger, string session, int port, string target, string note);

    [LoggerMessage(201, LogLevel.Information, "{Session} no longer listens on port {Port}")]
    public static partial void ListenerDown(this ILogger logger, string session, int port);

    [LoggerMessage(202, LogLevel.Warning, "{Session} may not {What}: {Reason}{Suffix}")]
    public static partial void ListenRefused(this ILogger logger, string session, string what, string reason, string suffix);

    [LoggerMessage(203, LogLevel.Warning, "Accepting on port {Port} failed and is tried again: {Reason}")]
    public static partial void AcceptFailed(this ILogger logger, int port, string reason);

    [LoggerMessage(204, LogLevel.Warning, "{Session} is at its limit of {Limit} streams: visitors of port {Port} are reset until streams end")]
    public static partial void StreamLimit(this ILogger logger, string session, int limit, int port);

    [LoggerMessage(205, LogLevel.Error, "The listener of {Session} on port {Port} failed; the port is closed")]
    public static partial void ListenerFailed(this ILogger logger, string session, int port);

    [LoggerMessage(300, LogLevel.Debug, "{Session} stream {StreamId} begins: {Place}, visitor {Remote}")]
    public static partial void StreamUp(this ILogger logger, string session, uint streamId, string place, string remote);

    [LoggerMessage(301, LogLevel.Debug, "{Session} stream {StreamId} ends: {End}, {BytesIn} bytes in, {BytesOut} bytes out")]
    public static partial void StreamDown(this ILogger logger, string session, uint streamId, StreamEnd end, long bytesIn, long bytesOut);

    [LoggerMessage(302, LogLevel.Information, "Target {Target} of {Source} refused: {Reason}")]
    public static partial void TargetRefused(this ILogger logger, string target, string source, string reason);

    [LoggerMessage(303, LogLevel.Warning, "The server opened a stream for port {Port}, which is not forwarded here; refused")]
    public static partial void UnknownForward(this ILogger logger, int port);

    [LoggerMessage(304, LogLevel.Information, "{Session} {Place}: visitor {Remote} was denied: {Reason}")]
    public static partial void StreamDenied(this ILogger logger, string session, string place, string remote, string reason);

    [LoggerMessage(305, LogLevel.Error, "{Session} {Place}: a stream middleware failed; the stream is refused")]
    public static partial void MiddlewareFailed(this ILogger logger, Exception exception, string session, string place);

    [LoggerMessage(400, LogLevel.Information, "Connecting to {Server}")]
    public static partial void ClientConnecting(this ILogger logger, string server);

    [LoggerMessage(401, LogLevel.Information, "Connected to {Server}, protocol {Protocol}")]
    public static partial void ClientConnected(this ILogger logger, string server, string protocol);

    [LoggerMessage(402, LogLevel.Warning, "No connection to {Server}: {Reason}; trying again in {Delay}")]
    public static partial void ClientRetry(this ILogger logger, string server, string reason, LogDuration delay);

    [LoggerMessage(403, LogLevel.Error, "No connection to {Server}: {Reason}; giving up")]
    public static partial void ClientGaveUp(this ILogger logger, string server, string reason);

    [LoggerMessage(404, LogLevel.Information, "Forwarding {Source} on the server to {Target}")]
    public static partial void ForwardUp(this ILogger logger, string source, string target);

    [LoggerMessage(405, LogLevel.Warning, "The server refused to listen on {Source}: {Reason}{Suffix}")]
    public static partial void ForwardRefused(this ILogger logger, string source, string reason, string suffix);

    [LoggerMessage(406, LogLevel.Information, "Client stopped: {Reason}")]
    public static partial void ClientStopped(this ILogger logger, string reason);

    [LoggerMessage(500, LogLevel.Information, "Draining: {Sessions} sessions, {Timeout} at most")]
    public static partial void Draining(this ILogger logger, int sessions, LogDuration timeout);

    [LoggerMessage(800, LogLevel.Information, "{Method} {Host}, {Route}: {Status}, {BytesIn} bytes in, {BytesOut} bytes out, {Duration} ms, for {Remote}{Problem}")]
    public static partial void Proxied(
        this ILogger logger, string method, string host, string route, int status, long bytesIn, long bytesOut, long duration, string remote, string problem);

    [LoggerMessage(801, LogLevel.Debug, "A connection of {Remote} to the proxy ended before its first request: {Reason}")]
    public static partial void ProxyConnectionFailed(this ILogger logger, string remote, string reason);

    [LoggerMessage(802, LogLevel.Information, "The visitor's TLS to {Host} could not be ended by the proxy: {Reason}")]
    public static partial void InterceptionFailed(this ILogger logger, string host, string reason);

    [LoggerMessage(600, LogLevel.Warning, "Refused {Remote}: {Reason} (status {Status})")]
    public static partial void UpgradeRefused(this ILogger logger, string remote, string reason, int status);

    [LoggerMessage(700, LogLevel.Error, "The state cannot be read or written now, and is tried again: {Reason}")]
    public static partial void BridgeStateUnreadable(this ILogger logger, string reason);

    [LoggerMessage(701, LogLevel.Information, "Publisher {Name} ({Fingerprint}) is connected from {Remote}")]
    public static partial void RelayPublisherUp(this ILogger logger, string name, string fingerprint, string remote);

    [LoggerMessage(702, LogLevel.Information, "Publisher {Name} ({Fingerprint}) is no longer connected")]
    public static partial void RelayPublisherDown(this ILogger logger, string name, string fingerprint);

    [LoggerMessage(703, LogLevel.Warning, "Publisher {Name} ({Fingerprint}) is not enrolled any more: its connections are cut")]
    public static partial void RelayPublisherRemoved(this ILogger logger, string name, string fingerprint);

    [LoggerMessage(704, LogLevel.Warning, "Publisher {Name} is at its limit ({Streams} connections, {Waiting} waiting): a consumer was refused")]
    public static partial void RelayLimit(this ILogger logger, string name, int streams, int waiting);

    [LoggerMessage(705, LogLevel.Debug, "Publisher {Name}: user key {User} from {Remote} is connected")]
    public static partial void RelayPaired(this ILogger logger, string name, string user, string remote);

    [LoggerMessage(706, LogLevel.Warning, "An enrolment from {Remote} was refused: {Reason}")]
    public static partial void RelayEnrolmentRefused(this ILogger logger, string remote, string reason);

    [LoggerMessage(707, LogLevel.Information, "Publisher {Name} ({Fingerprint}) was enrolled")]
    public static partial void RelayEnrolled(this ILogger logger, string name, string fingerprint);

    [LoggerMessage(708, LogLevel.Warning, "Publisher {Name}: user key {User} has {Waiting} connections waiting, its limit: a further one was refused")]
    public static partial void RelayUserLimit(this ILogger logger, string name, string user, int waiting);

    [LoggerMessage(709, LogLevel.Warning, "Publisher {Name}: user key {User} has {Streams} connections, its limit: a further one was refused")]
    public static partial void RelayUserStreamLimit(this ILogger logger, string name, string user, int streams);

    [LoggerMessage(710, LogLevel.Warning, "Publisher {Name} ({Fingerprint}) has connected from {Remote} and replaces its connection from {Older}: that one was lost, or the same key is in use twice")]
    public static partial void RelayPublisherReplaced(this ILogger logger, string name, string fingerprint, string remote, string older);

    [LoggerMessage(720, LogLevel.Information, "Connected to the relay {Relay}; waiting for consumers")]
    public static partial void PublisherConnected(this ILogger logger, string relay);

    [LoggerMessage(721, LogLevel.Warning, "No connection to the relay {Relay}: {Reason}; trying again in {Delay}")]
    public static partial void PublisherRetry(this ILogger logger, string relay, string reason, LogDuration delay);

    [LoggerMessage(722, LogLevel.Warning, "A consumer from {Remote} did not get in: {Reason}")]
    public static partial void ConsumerRejected(this ILogger logger, string remote, string reason);

    [LoggerMessage(723, LogLevel.Information, "{User} is connected ({Session})")]
    public static partial void UserConnected(this ILogger logger, string user, string session);

    [LoggerMessage(724, LogLevel.Warning, "{User} asked for {Target}, which is not granted; refused")]
    public static partial void NotGranted(this ILogger logger, string user, string target);

    [LoggerMessage(725, LogLevel.Information, "{User} ({Session}) is ended: {Reason}")]
    public static partial void UserEnded(this ILogger logger, string user, string session, string reason);

    [LoggerMessage(726, LogLevel.Information, "{User} may reach {Grants} from now on; {Streams} open streams were reset")]
    public static partial void GrantsChanged(this ILogger logger, string user, string grants, int streams);

    [LoggerMessage(727, LogLevel.Debug, "A consumer from {Remote} hung up before it said anything")]
    public static partial void ConsumerHungUp(this ILogger logger, string remote);

    [LoggerMessage(730, LogLevel.Information, "Audit: {Kind}, user {User}, target {Target}: {Detail}")]
    public static partial void Audit(this ILogger logger, string kind, string user, string target, string detail);

    [LoggerMessage(732, LogLevel.Information, "Audit: {Kind}, user {User}, target {Target}: {Detail}, {Duration}, {BytesIn} bytes in, {BytesOut} bytes out")]
    public static partial void AuditStream(
        this ILogger logger, string kind, string user, string target, string detail, LogDuration duration, long bytesIn, long bytesOut);

    [LoggerMessage(731, LogLevel.Error, "{Count} audit records were lost: {Reason}")]
    public static partial void AuditLost(this ILogger logger, int count, string reason);

    [LoggerMessage(740, LogLevel.Information, "Local port {Port} leads to {Target}")]
    public static partial void LocalPortOpen(this ILogger logger, int port, string target);

    [LoggerMessage(741, LogLevel.Information, "Local port {Port} is closed: {Reason}")]
    public static partial void LocalPortClosed(this ILogger logger, int port, string reason);

    [LoggerMessage(742, LogLevel.Warning, "Local port {Port} for {Target} cannot be opened: {Reason}")]
    public static partial void LocalPortFailed(this ILogger logger, int port, string target, string reason);

    [LoggerMessage(743, LogLevel.Information, "Connected to {Publisher} as {User}, through {Relay}")]
    public static partial void ConsumerConnected(this ILogger logger, string publisher, string user, string relay);

    [LoggerMessage(744, LogLevel.Warning, "No connection to {Publisher}: {Reason}; trying again in {Delay}")]
    public static partial void ConsumerRetry(this ILogger logger, string publisher, string reason, LogDuration delay);

    [LoggerMessage(745, LogLevel.Error, "{Publisher} does not admit {User}: {Reason}")]
    public static partial void ConsumerNotAdmitted(this ILogger logger, string publisher, string user, string reason);

    [LoggerMessage(746, LogLevel.Warning, "{Publisher} says: {Text}")]
    public static partial void PublisherSays(this ILogger logger, string publisher, string text);

    [LoggerMessage(748, LogLevel.Warning, "Local port {Port} is not opened in place of {Original}: no grant has that local port; granted is {Granted}")]
    public static partial void MapUnused(this ILogger logger, int port, int original, string granted);

    [LoggerMessage(747, LogLevel.Warning, "A visitor of local port {Port} was turned away: {Reason}")]
    public static partial void VisitorTurnedAway(this ILogger logger, int port, string reason);
}
