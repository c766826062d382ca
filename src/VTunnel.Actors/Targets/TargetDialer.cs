using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using VTunnel.Diagnostics;
using VTunnel.Endpoints;
using VTunnel.Options;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Routing;
using VTunnel.Targets.Http;
using VTunnel.Tls;

namespace VTunnel.Targets;

/// <summary>Connects to targets over TCP and TLS. One serves a whole client; safe for concurrent use.</summary>
/// <remarks>
/// A <c>tls://</c> target gets the visitor's bytes as they are, unless they begin as an HTTP/1.x request: then each
/// request of the connection gets the target's Host.
/// </remarks>
public sealed class TargetDialer : ITargetDialer, IAsyncDisposable
{
    private readonly TimeSpan _connectTimeout;
    private readonly TlsTrust _trust;
    private readonly TimeProvider _timeProvider;
    private readonly ILogger _logger;
    private readonly HostRewriter _rewriter;
    private readonly HttpTargets _http;
    private int _disposed;

    /// <summary>Makes one. Nothing is started until a target needs it.</summary>
    /// <param name="connectTimeout">How long one attempt may take, name resolution and TLS handshake included; <see cref="Timeout.InfiniteTimeSpan"/> for no limit.</param>
    /// <param name="tls">Whose certificates <c>tls://</c> targets may show.</param>
    /// <param name="loggerFactory">Where to log; null for nowhere.</param>
    /// <param name="timeProvider">The clock of timeouts; null for the system's.</param>
    /// <exception cref="TargetException">The file of trusted certificates cannot be used.</exception>
    public TargetDialer(
        TimeSpan connectTimeout, TlsTrustOptions tls, ILoggerFactory? loggerFactory = null, TimeProvider? timeProvider = null)
    {
        if (connectTimeout <= TimeSpan.Zero && connectTimeout != Timeout.InfiniteTimeSpan)
            throw new ArgumentOutOfRangeException(nameof(connectTimeout), connectTimeout, "A positive time, or Timeout.InfiniteTimeSpan.");

        _connectTimeout = connectTimeout;
        _timeProvider = timeProvider ?? TimeProvider.System;
        try
        {
            _trust = new TlsTrust(tls, "--target-ca FILE", _timeProvider);
        }
        catch (CertificateFileException e)
        {
            throw new TargetException(TargetError.CertificateAuthorityFileInvalid, e.Message, e);
        }

        var loggers = loggerFactory ?? NullLoggerFactory.Instance;
        _logger = loggers.CreateLogger("VTunnel.Targets");
        _rewriter = new HostRewriter(loggers);
        _http = new HttpTargets(DialTcpAsync, _trust, loggers);
    }

    /// <inheritdoc />
    public async Task<StreamEndpoint> DialAsync(ForwardTarget target, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(target);
        ObjectDisposedException.ThrowIf(Volatile.Read(ref _disposed) != 0, this);
        if (target.Scheme != TargetScheme.Tls)
            return new SocketEndpoint(await DialTcpAsync(target, cancellationToken).ConfigureAwait(false));

        var connection = await DialTlsAsync(target, cancellationToken).ConfigureAwait(false);
        return new TlsTargetEndpoint(connection, target, _rewriter, _timeProvider);
    }

    /// <inheritdoc />
    public async Task<StreamEndpoint> DialAsync(TargetRequest request, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(request);
        ObjectDisposedException.ThrowIf(Volatile.Read(ref _disposed) != 0, this);
        if (request is { Visit: null, DomainPort: { } port } && HttpTargets.MayBeNeededFor(request, port))
        {
            return new UnannouncedEndpoint((speaks, cancel) => DialAnnouncedAsync(
                request with { Visit = new ProxyVisit(UnannouncedEndpoint.UnknownHost, speaks), DomainPort = null }, port, cancel));
        }

        if (HttpTargets.AreNeededFor(request))
            return await _http.ServeAsync(request).ConfigureAwait(false);
        if (request.Visit is { Speaks: ProxyVisit.Tls })
            return new SocketEndpoint(await DialTcpAsync(request.Target, cancellationToken).ConfigureAwait(false));
        return await DialAsync(request.Target, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Nobody else can say of such a target that it was refused: to the stream it is a connection that broke.</summary>
    private async Task<StreamEndpoint> DialAnnouncedAsync(TargetRequest request, int port, CancellationToken cancellationToken)
    {
        try
        {
            return await DialAsync(request, cancellationToken).ConfigureAwait(false);
        }
        catch (TargetException e)
        {
            TargetsLog.TargetRefused(_logger, request.Target, port, e.Message);
            throw;
        }
    }

    /// <summary>Whether the web server that reads HTTP requests has been needed yet.</summary>
    internal bool IsRewriterStarted => _rewriter.IsStarted;

    /// <summary>Stops reading HTTP requests: sending on endpoints where they come from fails from now on. Other endpoints live on.</summary>
    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _disposed, 1) == 0)
        {
            await _rewriter.DisposeAsync().ConfigureAwait(false);
            await _http.DisposeAsync().ConfigureAwait(false);
        }
    }

    private Task<Socket> DialTcpAsync(ForwardTarget target, CancellationToken cancellationToken) =>
        WithinTimeoutAsync(target, static (_, attempt) => ConnectAsync(attempt), cancellationToken);

    private Task<DuplexStreamEndpoint> DialTlsAsync(ForwardTarget target, CancellationToken cancellationToken) =>
        WithinTimeoutAsync(target, static (self, attempt) => self.ConnectTlsAsync(attempt), cancellationToken);

    private async Task<T> WithinTimeoutAsync<T>(
        ForwardTarget target, Func<TargetDialer, Attempt, Task<T>> dial, CancellationToken cancellationToken)
    {
        using var timeout = new CancellationTokenSource(_connectTimeout, _timeProvider);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, timeout.Token);
        var attempt = new Attempt(target, either.Token);
        try
        {
            return await dial(this, attempt).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
        {
            throw new OperationCanceledException(cancellationToken);
        }
        catch (OperationCanceledException e)
        {
            throw new TargetException(
                TargetError.TimedOut, $"cannot reach {target}: {attempt.Leg} took longer than {_connectTimeout.TotalSeconds:0.###} s", e);
        }
    }

    private static async Task<Socket> ConnectAsync(Attempt attempt)
    {
        attempt.Leg = "connecting";
        var target = attempt.Target;
        var address = IPAddress.TryParse(target.Host, out var parsed) ? parsed : null;
        Socket? socket = null;
        try
        {
            socket = address is null
                ? new Socket(SocketType.Stream, ProtocolType.Tcp)
                : new Socket(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp);

            // A name is tried address by address until one answers.
            EndPoint endPoint = address is null ? new DnsEndPoint(target.Host, target.Port) : new IPEndPoint(address, target.Port);
            await socket.ConnectAsync(endPoint, attempt.Token).ConfigureAwait(false);
            return socket;
        }
        catch (SocketException e)
        {
            socket?.Dispose();
            throw Explain(target, e);
        }
        catch
        {
            socket?.Dispose();
            throw;
        }
    }

    private async Task<DuplexStreamEndpoint> ConnectTlsAsync(Attempt attempt)
    {
        var connection = await HandshakeAsync(attempt, SslApplicationProtocol.Http11).ConfigureAwait(false);

        // A target of another protocol may refuse a client that names only HTTP; without any name it speaks its own.
        connection ??= await HandshakeAsync(attempt, null).ConfigureAwait(false);
        return connection!;
    }

    /// <summary>Null if the target hung up before it showed a certificate and <paramref name="protocol"/> may be why.</summary>
    private async Task<DuplexStreamEndpoint?> HandshakeAsync(Attempt attempt, SslApplicationProtocol? protocol)
    {
        var target = attempt.Target;
        var socket = await ConnectAsync(attempt).ConfigureAwait(false);
        attempt.Leg = "the TLS handshake";
        var tls = new SslStream(new NetworkStream(socket, ownsSocket: true));
        var check = default(CertificateCheck);
        try
        {
            var options = _trust.CreateOptions(target.Host, "target", out check);
            if (protocol is { } offered)
                options.ApplicationProtocols = [offered];
            await tls.AuthenticateAsClientAsync(options, attempt.Token).ConfigureAwait(false);
            return new DuplexStreamEndpoint(tls, socket);
        }
        catch (Exception e)
        {
            await tls.DisposeAsync().ConfigureAwait(false);
            if (check?.Refusal is { } refusal)
            {
                throw new TargetException(
                    TargetError.CertificateRejected, $"cannot reach {target}: TLS: certificate of {target.Authority} refused: {refusal}", e);
            }

            if (e is AuthenticationException && check?.Reached == false && protocol is not null)
                return null;
            if (e is AuthenticationException or IOException or SocketException)
            {
                // What TLS itself refuses has a cause of its own; without one, what came was no TLS.
                var hint = e is AuthenticationException { InnerException: null } ? "; one that does not speak TLS is written without tls://" : "";
                throw new TargetException(
                    TargetError.TlsHandshakeFailed, $"cannot reach {target}: TLS: handshake with {target.Authority} failed: {Innermost(e)}{hint}", e);
            }

            throw;
        }
    }

    private static string Innermost(Exception e) => (e.InnerException ?? e).Message.TrimEnd('.', ' ', '\n');

    private static TargetException Explain(ForwardTarget target, SocketException e)
    {
        var (code, reason) = e.SocketErrorCode switch
        {
            SocketError.HostNotFound or SocketError.NoData or SocketError.TryAgain or SocketError.NoRecovery =>
                (TargetError.NameNotFound, $"the name '{target.Host}' was not found"),
            SocketError.ConnectionRefused => (TargetError.ConnectionRefused, "connection refused"),
            SocketError.HostUnreachable or SocketError.NetworkUnreachable or SocketError.HostDown or SocketError.NetworkDown =>
                (TargetError.Unreachable, e.Message),
            SocketError.TimedOut => (TargetError.TimedOut, "connecting timed out"),
            _ => (TargetError.ConnectFailed, OpenFiles.Explain(e)),
        };
        return new TargetException(code, $"cannot reach {target}: {reason}", e);
    }

    /// <summary>One attempt to reach a target, and how far it has come.</summary>
    private sealed record Attempt(ForwardTarget Target, CancellationToken Token)
    {
        public string Leg { get; set; } = "connecting";
    }
}
