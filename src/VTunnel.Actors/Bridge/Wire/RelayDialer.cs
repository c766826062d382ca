using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Net.Security;
using System.Net.Sockets;
using System.Net.WebSockets;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using VTunnel.Bridge.Identity;
using VTunnel.Carriers;
using VTunnel.Endpoints;
using VTunnel.Options;
using VTunnel.Tls;

namespace VTunnel.Bridge.Wire;

/// <summary>Where a relay is and how it is told apart from others.</summary>
/// <param name="Url">What to dial.</param>
/// <param name="Id">The relay's id; empty while enrolling.</param>
/// <param name="AuthorityFile">Whom to trust for its certificate, a PEM file; null for the system's authorities.</param>
public sealed record RelayAddress(Uri Url, string Id, string? AuthorityFile);

/// <summary>Dials a relay as one identity; the system's HTTP proxy settings apply.</summary>
public sealed class RelayDialer : IDisposable
{
    /// <summary>What is spoken over the WebSocket.</summary>
    public const string SubProtocol = "vtunnel.bridge.v1";

    /// <summary>How often the control connection is asked for a sign of life, and how long the answer may take: 10 s each.</summary>
    internal static readonly TimeSpan DefaultControlKeepAlive = TimeSpan.FromSeconds(10);

    /// <summary>A difference of clocks that needs no correction.</summary>
    private static readonly TimeSpan NegligibleSkew = TimeSpan.FromSeconds(2);

    /// <summary>A relay that was started a moment ago is about to listen.</summary>
    private static readonly TimeSpan EnrolPatience = TimeSpan.FromSeconds(10);

    private static readonly TimeSpan EnrolRetry = TimeSpan.FromMilliseconds(500);

    private readonly RelayAddress _relay;
    private readonly string _tenant;
    private readonly X509Certificate2 _certificate;
    private readonly TimeSpan _timeout;
    private readonly TimeProvider _clock;
    private readonly HttpMessageInvoker _invoker;
    private long _skewTicks;

    /// <summary>Reads what it needs, the file of authorities included.</summary>
    /// <param name="relay">Which relay.</param>
    /// <param name="tenant">The publisher's fingerprint.</param>
    /// <param name="certificate">Who dials, with the key; stays the caller's.</param>
    /// <param name="timeout">For one attempt.</param>
    /// <param name="clock">The time that admissions bear.</param>
    /// <exception cref="TunnelConnectException">The file of authorities cannot be used.</exception>
    public RelayDialer(RelayAddress relay, string tenant, X509Certificate2 certificate, TimeSpan timeout, TimeProvider clock)
    {
        _relay = relay;
        _tenant = tenant;
        _certificate = certificate;
        _timeout = timeout;
        _clock = clock;
        try
        {
            _invoker = new HttpMessageInvoker(new SocketsHttpHandler
            {
                ConnectTimeout = timeout,
                ConnectCallback = SocketSettings.ConnectAsync,
                SslOptions = new TlsTrust(new TlsTrustOptions { CertificateAuthorityFile = relay.AuthorityFile }, "vtunnel join --ca FILE, and for users a new bundle of that publisher", TimeProvider.System).CreateSharedOptions("relay"),
                UseCookies = false,
                AllowAutoRedirect = false,
            });
        }
        catch (CertificateFileException e)
        {
            throw new TunnelConnectException(ConnectError.TlsFailed, e.Message, e);
        }
    }

    /// <summary>How often a control connection is asked for a sign of life, and how long the answer may take.</summary>
    public TimeSpan ControlKeepAlive { get; init; } = DefaultControlKeepAlive;

    /// <summary>The relay as logs name it.</summary>
    public string Name => _relay.Url.Authority;

    /// <summary>How far this machine's clock is from the relay's, as far as known.</summary>
    public TimeSpan Skew => TimeSpan.FromTicks(Interlocked.Read(ref _skewTicks));

    /// <summary>Opens a WebSocket. The caller owns it.</summary>
    /// <exception cref="TunnelConnectException">No connection, with the leg that failed.</exception>
    public async Task<WebSocket> DialAsync(AdmissionKind kind, string? stream, CancellationToken cancellationToken)
    {
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        deadline.CancelAfter(_timeout);
        for (var attempt = 1; ; attempt++)
        {
            var socket = new ClientWebSocket();
            try
            {
                socket.Options.CollectHttpResponseDetails = true;
                socket.Options.AddSubProtocol(SubProtocol);
                socket.Options.SetRequestHeader("Authorization", $"{Admission.Scheme} {Admit(kind, _relay.Id, stream, null)}");
                var isControl = kind == AdmissionKind.Publish;
                socket.Options.KeepAliveInterval = isControl ? ControlKeepAlive : TimeSpan.Zero;
                if (isControl)
                    socket.Options.KeepAliveTimeout = ControlKeepAlive;
                await socket.ConnectAsync(WebSocketUrl(), _invoker, deadline.Token).ConfigureAwait(false);
                return socket;
            }
            catch (Exception e)
            {
                var (status, headers) = (socket.HttpStatusCode, socket.HttpResponseHeaders);
                socket.Dispose();
                if (e is OperationCanceledException && cancellationToken.IsCancellationRequested)
                    throw;
                if (attempt == 1 && status == HttpStatusCode.NotFound && headers?.TryGetValue("Date", out var date) == true && Correct(date.FirstOrDefault()))
                    continue;
                throw e as TunnelConnectException ?? Explain(e, status);
            }
        }
    }

    /// <summary>Enrols a publisher with an invitation; gives the relay's id. A relay that does not listen yet is waited for.</summary>
    /// <exception cref="TunnelConnectException">It could not; <see cref="ConnectError.Unauthorized"/> where the code was not taken.</exception>
    public async Task<string> EnrolAsync(string code, string name, CancellationToken cancellationToken)
    {
        using var patience = new CancellationTokenSource(EnrolPatience, _clock);
        using var retries = new PeriodicTimer(EnrolRetry, _clock);
        while (true)
        {
            try
            {
                return await TryEnrolAsync(code, name, cancellationToken).ConfigureAwait(false);
            }
            catch (TunnelConnectException e) when (e.Code == ConnectError.Unreachable && !patience.IsCancellationRequested)
            {
                await retries.WaitForNextTickAsync(cancellationToken).ConfigureAwait(false);
            }
        }
    }

    private async Task<string> TryEnrolAsync(string code, string name, CancellationToken cancellationToken)
    {
        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        deadline.CancelAfter(_timeout);
        for (var attempt = 1; ; attempt++)
        {
            try
            {
                using var request = new HttpRequestMessage(HttpMethod.Post, HttpUrl());
                request.Headers.Authorization = new AuthenticationHeaderValue(Admission.Scheme, Admit(AdmissionKind.Enrol, code, null, name));
                using var response = await _invoker.SendAsync(request, deadline.Token).ConfigureAwait(false);
                if (response.StatusCode == HttpStatusCode.NotFound)
                {
                    if (attempt == 1 && response.Headers.Date is { } date && Correct(date.ToString("r", CultureInfo.InvariantCulture)))
                        continue;
                    throw new TunnelConnectException(
                        ConnectError.Unauthorized,
                        "the relay does not take this code: it is mistyped, was used, or has expired (or the URL is not that of a relay); ask its operator for another: vtunnel relay invite");
                }

                if (response.StatusCode != HttpStatusCode.OK)
                    throw new TunnelConnectException(ConnectError.Refused, $"the relay answered {(int)response.StatusCode}");
                var id = (await response.Content.ReadAsStringAsync(deadline.Token).ConfigureAwait(false)).Trim();
                return id.Length == 32 && id.All(char.IsAsciiHexDigitLower)
                    ? id
                    : throw new TunnelConnectException(ConnectError.Refused, $"{_relay.Url} answered as no relay of vtunnel does; check the URL");
            }
            catch (Exception e) when (e is not TunnelConnectException && !(e is OperationCanceledException && cancellationToken.IsCancellationRequested))
            {
                throw Explain(e, 0);
            }
        }
    }

    /// <inheritdoc />
    public void Dispose() => _invoker.Dispose();

    private string Admit(AdmissionKind kind, string audience, string? stream, string? name)
    {
        var time = (_clock.GetUtcNow() + Skew).ToUnixTimeSeconds();
        using var key = _certificate.GetECDsaPrivateKey() ?? throw new CryptographicException("The certificate has no private key.");
        return new Admission(kind, audience, _tenant, time, Admission.NewNonce(), _certificate.RawData, stream, name).Sign(key);
    }

    /// <summary>
    /// A relay takes admissions of its own time only. One that answers 404 says what time that is, as every web server does;
    /// whoever's clock is wrong takes the relay's and tries again.
    /// </summary>
    private bool Correct(string? date)
    {
        if (!DateTimeOffset.TryParseExact(date, "r", CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal, out var time))
            return false;
        var before = Skew;
        var skew = time - _clock.GetUtcNow();
        if ((skew - before).Duration() < NegligibleSkew)
            return false;
        Interlocked.Exchange(ref _skewTicks, skew.Ticks);
        return true;
    }

    private Uri WebSocketUrl() => new UriBuilder(_relay.Url)
    {
        Scheme = _relay.Url.Scheme is "https" or "wss" ? "wss" : "ws",
        Port = _relay.Url.Port,
    }.Uri;

    private Uri HttpUrl() => new UriBuilder(_relay.Url)
    {
        Scheme = _relay.Url.Scheme is "https" or "wss" ? "https" : "http",
        Port = _relay.Url.Port,
    }.Uri;

    private TunnelConnectException Explain(Exception e, HttpStatusCode status)
    {
        if (e is OperationCanceledException)
            return new TunnelConnectException(ConnectError.TimedOut, $"no answer from the relay within {DurationText.Format(_timeout)}", e);
        if (status == HttpStatusCode.NotFound)
        {
            return new TunnelConnectException(
                ConnectError.Forbidden, "the relay does not admit this identity (404): its publisher is not enrolled there (any more), or the URL is not that of a relay", e);
        }

        if (status != 0)
            return new TunnelConnectException(ConnectError.Refused, $"the relay, or a proxy in front of it, answered {(int)status}", e);
        return DialFailure.Explain(e, "the relay", _relay.Url);
    }
}
