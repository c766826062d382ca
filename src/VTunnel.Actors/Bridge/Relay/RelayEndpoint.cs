using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Akka.Actor;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core.Features;
using Microsoft.Extensions.Logging;
using VTunnel.Bridge.Identity;
using VTunnel.Bridge.State;
using VTunnel.Bridge.Wire;
using VTunnel.Carriers;
using VTunnel.Diagnostics;
using VTunnel.Endpoints;

namespace VTunnel.Bridge.Relay;

/// <summary>
/// The HTTP side of a relay. Whoever does not show a valid admission in the very first request is passed on to what a plain
/// web server would answer, so that a probe cannot tell what this is.
/// </summary>
internal sealed class RelayEndpoint : IDisposable
{
    private readonly RelayStore _store;
    private readonly RelayOptions _options;
    private readonly TimeProvider _clock;
    private readonly IActorRef _relay;
    private readonly ILogger _logger;
    private readonly string _relayId;
    private readonly AdmissionLedger _ledger;
    private readonly RefusedEnrolments _refused;

    public RelayEndpoint(RelayStore store, RelayOptions options, TimeProvider clock, IActorRef relay, ILogger logger)
    {
        _store = store;
        _options = options;
        _clock = clock;
        _relay = relay;
        _logger = logger;
        _relayId = store.Settings.Id;
        _ledger = new AdmissionLedger(clock, options.AdmissionWindow, options.MaxAdmissions);
        _refused = new RefusedEnrolments(store, clock, logger);
    }

    /// <summary>Writes down what was not yet.</summary>
    public void Dispose() => _refused.Dispose();

    /// <summary>Before the WebSocket middleware: everything without a valid admission goes to <paramref name="otherwise"/>.</summary>
    public async Task HandleAsync(HttpContext context, RequestDelegate admitted, RequestDelegate otherwise)
    {
        if (ReadAdmission(context) is not { } admission)
        {
            await otherwise(context).ConfigureAwait(false);
        }
        else if (admission.Kind == AdmissionKind.Enrol)
        {
            await EnrolAsync(context, admission, otherwise).ConfigureAwait(false);
        }

        // Keys cost nothing: only of those who are known is it remembered what they have shown, or strangers would fill that memory.
        else if (Find(admission) is { } publisher && _ledger.TryTake(admission) && context.Request.Headers.Upgrade.Count > 0)
        {
            context.Items[typeof(Admission)] = (admission, publisher);
            await admitted(context).ConfigureAwait(false);
        }
        else
        {
            await otherwise(context).ConfigureAwait(false);
        }
    }

    /// <summary>After the WebSocket middleware.</summary>
    public async Task AcceptAsync(HttpContext context)
    {
        var (admission, publisher) = ((Admission, EnrolledPublisher))context.Items[typeof(Admission)]!;
        if (!context.WebSockets.IsWebSocketRequest || !context.WebSockets.WebSocketRequestedProtocols.Contains(RelayDialer.SubProtocol))
        {
            context.Response.StatusCode = StatusCodes.Status404NotFound;
            return;
        }

        DisableRateLimits(context);
        if (context.Features.Get<IConnectionSocketFeature>() is { } connection)
            SocketSettings.Apply(connection.Socket);
        var isControl = admission.Kind == AdmissionKind.Publish;
        var remote = WebSocketCarrier.RemoteNameOf(context.Connection.RemoteIpAddress, context.Connection.RemotePort);
        var accept = new WebSocketAcceptContext { SubProtocol = RelayDialer.SubProtocol, KeepAliveInterval = isControl ? RelayDialer.DefaultControlKeepAlive : TimeSpan.Zero };
        if (isControl)
            accept.KeepAliveTimeout = RelayDialer.DefaultControlKeepAlive;
        var socket = new RelayedSocket(await context.WebSockets.AcceptWebSocketAsync(accept).ConfigureAwait(false), remote);
        using var _ = socket;
        switch (admission.Kind)
        {
            case AdmissionKind.Publish:
                var control = new RelayControl(socket);
                _relay.Tell(new RelayProtocol.PublisherArrived(publisher.Fingerprint, publisher.Name, control));
                await control.RunAsync().ConfigureAwait(false);
                _relay.Tell(new RelayProtocol.PublisherLeft(publisher.Fingerprint, control));
                break;
            case AdmissionKind.Answer:
                _relay.Tell(new RelayProtocol.AnswerArrived(publisher.Fingerprint, admission.Stream ?? "", socket));
                await socket.Done.ConfigureAwait(false);
                break;
            default:
                using (var user = admission.LoadCertificate())
                    _relay.Tell(new RelayProtocol.ConsumerArrived(publisher.Fingerprint, publisher.Name, Keys.Fingerprint(user), socket));

                // Nobody reads from one that waits, so that it is the server that notices when it hangs up.
                await using (context.RequestAborted.Register(() => _relay.Tell(new RelayProtocol.ConsumerLeft(publisher.Fingerprint, socket))).ConfigureAwait(false))
                    await socket.Done.ConfigureAwait(false);
                break;
        }
    }

    /// <summary>An admission that is whole, of this time and made out to this relay. Who shows it, and whether again, is still to be checked.</summary>
    private Admission? ReadAdmission(HttpContext context)
    {
        if (context.Request.Headers.Authorization is not [{ } header]
            || !AuthenticationHeaderValue.TryParse(header, out var value)
            || !value.Scheme.Equals(Admission.Scheme, StringComparison.OrdinalIgnoreCase)
            || Admission.Read(value.Parameter ?? "") is not { } admission)
            return null;
        return (admission.Kind == AdmissionKind.Enrol || admission.Audience == _relayId) && _ledger.IsTimely(admission) ? admission : null;
    }

    /// <summary>The publisher that an admission is about, if it is enrolled and the admission's certificate is its own or a user's.</summary>
    private EnrolledPublisher? Find(Admission admission)
    {
        try
        {
            if (_store.Find(admission.Tenant) is not { } publisher)
                return null;
            using var certificate = admission.LoadCertificate();
            if (admission.Kind != AdmissionKind.Consume)
                return Keys.Fingerprint(certificate) == publisher.Fingerprint ? publisher : null;
            using var authority = X509CertificateLoader.LoadCertificate(publisher.Certificate);
            return Keys.IsIssuedBy(certificate, authority) ? publisher : null;
        }
        catch (BridgeException e)
        {
            _logger.BridgeStateUnreadable(e.Message);
            return null;
        }
        catch (CryptographicException)
        {
            // A certificate that cannot be checked admits nobody.
            return null;
        }
    }

    private async Task EnrolAsync(HttpContext context, Admission admission, RequestDelegate otherwise)
    {
        string? refusal;
        string fingerprint;
        var hasCode = false;
        try
        {
            using var certificate = admission.LoadCertificate();
            var now = _clock.GetUtcNow();
            fingerprint = Keys.Fingerprint(certificate);
            refusal = fingerprint != admission.Tenant
                ? "the certificate is not the publisher's"
                : _store.WhyNotEnrolled(admission.Audience, fingerprint, now);
            if (refusal is null)
            {
                // Only whoever holds a code is remembered, as above.
                hasCode = true;
                refusal = _ledger.TryTake(admission)
                    ? _store.Enrol(admission.Audience, certificate, Printable(admission.Name), now)
                    : "it was shown before, or there are too many at a time";
            }
        }
        catch (BridgeException e)
        {
            _logger.BridgeStateUnreadable(e.Message);
            if (hasCode)
                context.Response.StatusCode = StatusCodes.Status503ServiceUnavailable;
            else
                await otherwise(context).ConfigureAwait(false);
            return;
        }

        if (refusal is not null)
        {
            _refused.Add(context.Connection.RemoteIpAddress?.ToString() ?? "unknown", fingerprint, refusal);
            await otherwise(context).ConfigureAwait(false);
            return;
        }

        _logger.RelayEnrolled(Printable(admission.Name), admission.Tenant[..12]);
        context.Response.ContentType = "text/plain; charset=utf-8";
        await context.Response.WriteAsync(_relayId, context.RequestAborted).ConfigureAwait(false);
    }

    /// <summary>What a publisher calls itself goes into logs and tables.</summary>
    private static string Printable(string? name)
    {
        var text = new string([.. (name ?? "").Where(c => !char.IsControl(c)).Take(64)]);
        return text.Length > 0 ? text : "publisher";
    }

    /// <summary>A session that waits for a slow reader is none of the clients that Kestrel drops for being slow.</summary>
    private static void DisableRateLimits(HttpContext context)
    {
        if (context.Features.Get<IHttpMinRequestBodyDataRateFeature>() is { } receiving)
            receiving.MinDataRate = null;
        if (context.Features.Get<IHttpMinResponseDataRateFeature>() is { } sending)
            sending.MinDataRate = null;
    }
}

/// <summary>Takes each admission once, and only near its time: one that was overheard is of no use to anybody.</summary>
internal sealed class AdmissionLedger
{
    private static readonly TimeSpan StartSlack = TimeSpan.FromSeconds(2);

    private readonly TimeProvider _clock;
    private readonly TimeSpan _window;
    private readonly int _maxNonces;
    private readonly DateTimeOffset _start;
    private readonly Lock _gate = new();
    private readonly HashSet<string> _nonces = [];
    private readonly Queue<(DateTimeOffset Until, string Nonce)> _expiring = new();

    public AdmissionLedger(TimeProvider clock, TimeSpan window, int maxNonces)
    {
        _clock = clock;
        _window = window;
        _maxNonces = maxNonces;
        _start = clock.GetUtcNow();
    }

    /// <summary>Whether it might be taken now, if this is its first use.</summary>
    public bool IsTimely(Admission admission) => IsTimely(admission, _clock.GetUtcNow());

    /// <summary>Whether this is its first use, at its time. Of whom it is must be known before: it takes a place.</summary>
    public bool TryTake(Admission admission)
    {
        var now = _clock.GetUtcNow();
        if (!IsTimely(admission, now))
            return false;
        lock (_gate)
        {
            while (_expiring.TryPeek(out var oldest) && oldest.Until < now)
                _nonces.Remove(_expiring.Dequeue().Nonce);
            if (_nonces.Count >= _maxNonces || !_nonces.Add(admission.Nonce))
                return false;
            _expiring.Enqueue((now + (_window * 2), admission.Nonce));
            return true;
        }
    }

    private bool IsTimely(Admission admission, DateTimeOffset now)
    {
        var time = admission.Time is > 0 and < 253_402_300_799 ? DateTimeOffset.FromUnixTimeSeconds(admission.Time) : default;

        // What was shown to an earlier process of this relay is not remembered, so nothing from before its start is taken.
        return (now - time).Duration() <= _window && time >= _start - StartSlack && admission.Nonce.Length is >= 16 and <= 64;
    }
}
