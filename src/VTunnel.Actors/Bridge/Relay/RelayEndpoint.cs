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
    /// <summary>Who may check an admission. Signatures and chains are work, and a stranger may send as many as it likes.</summary>
    private static readonly SemaphoreSlim Checks = new(Math.Max(1, Environment.ProcessorCount / 2));

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
        _ledger = new AdmissionLedger(clock, options);
        _refused = new RefusedEnrolments(store, clock, logger);
    }

    /// <summary>Writes down what was not yet.</summary>
    public void Dispose() => _refused.Dispose();

    /// <summary>Before the WebSocket middleware: everything without a valid admission goes to <paramref name="otherwise"/>.</summary>
    public async Task HandleAsync(HttpContext context, RequestDelegate admitted, RequestDelegate otherwise)
    {
        if (TokenOf(context) is not { } token)
        {
            await otherwise(context).ConfigureAwait(false);
            return;
        }

        // A request may come on a thread that polls the sockets, which all relayed bytes need: nothing is computed there, nor waited for.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        if (await CheckAsync(context, token).ConfigureAwait(false) is not var (admission, verdict))
            await otherwise(context).ConfigureAwait(false);
        else if (admission.Kind == AdmissionKind.Enrol)
            await AnswerEnrolmentAsync(context, admission, verdict, otherwise).ConfigureAwait(false);
        else
            await admitted(context).ConfigureAwait(false);
    }

    /// <summary>The admission that a request shows, if it is good for anything, and for one that enrols what became of it.</summary>
    private async Task<(Admission Admission, Enrolment Verdict)?> CheckAsync(HttpContext context, string token)
    {
        await Checks.WaitAsync(context.RequestAborted).ConfigureAwait(false);
        try
        {
            if (ReadAdmission(token) is not { } admission)
                return null;
            if (admission.Kind == AdmissionKind.Enrol)
                return (admission, Enrol(admission));

            // Keys cost nothing: only of those who are known is it remembered what they have shown, or strangers would fill that memory.
            if (Find(admission) is not var (publisher, holder) || !_ledger.TryTake(admission, holder, isUser: admission.Kind == AdmissionKind.Consume)
                || context.Request.Headers.Upgrade.Count == 0)
                return null;
            context.Items[typeof(Admission)] = (admission, publisher);
            return (admission, default);
        }
        finally
        {
            Checks.Release();
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
    private Admission? ReadAdmission(string token) =>
        Admission.Read(token) is { } admission && (admission.Kind == AdmissionKind.Enrol || admission.Audience == _relayId) && _ledger.IsTimely(admission)
            ? admission
            : null;

    private static string? TokenOf(HttpContext context) =>
        context.Request.Headers.Authorization is [{ } header]
        && AuthenticationHeaderValue.TryParse(header, out var value)
        && value.Scheme.Equals(Admission.Scheme, StringComparison.OrdinalIgnoreCase)
            ? value.Parameter ?? ""
            : null;

    /// <summary>The publisher that an admission is about, if it is enrolled and the admission's certificate is its own or a user's.</summary>
    /// <returns>Also the fingerprint of the key that was shown.</returns>
    private (EnrolledPublisher Publisher, string Holder)? Find(Admission admission)
    {
        try
        {
            if (_store.Find(admission.Tenant) is not { } publisher)
                return null;
            using var certificate = admission.LoadCertificate();
            var holder = Keys.Fingerprint(certificate);
            if (admission.Kind != AdmissionKind.Consume)
                return holder == publisher.Fingerprint ? (publisher, holder) : null;
            using var authority = X509CertificateLoader.LoadCertificate(publisher.Certificate);
            return Keys.IsIssuedBy(certificate, authority) ? (publisher, holder) : null;
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

    /// <summary>What became of an enrolment.</summary>
    /// <param name="Fingerprint">Of the key that was shown.</param>
    /// <param name="Refusal">Why it was refused; null if it was not.</param>
    /// <param name="HasFailed">The state could not be read or written.</param>
    /// <param name="HasCode">The code is good.</param>
    private readonly record struct Enrolment(string Fingerprint, string? Refusal, bool HasFailed, bool HasCode);

    private Enrolment Enrol(Admission admission)
    {
        var fingerprint = "";
        var hasCode = false;
        try
        {
            using var certificate = admission.LoadCertificate();
            var now = _clock.GetUtcNow();
            fingerprint = Keys.Fingerprint(certificate);
            var refusal = fingerprint != admission.Tenant
                ? "the certificate is not the publisher's"
                : _store.WhyNotEnrolled(admission.Audience, fingerprint, now);
            if (refusal is null)
            {
                // Only whoever holds a code is remembered, as above.
                hasCode = true;
                refusal = _ledger.TryTake(admission, fingerprint, isUser: false)
                    ? _store.Enrol(admission.Audience, certificate, Printable(admission.Name), now)
                    : "it was shown before, or there are too many at a time";
            }

            return new Enrolment(fingerprint, refusal, false, hasCode);
        }
        catch (BridgeException e)
        {
            _logger.BridgeStateUnreadable(e.Message);
            return new Enrolment(fingerprint, null, true, hasCode);
        }
    }

    private async Task AnswerEnrolmentAsync(HttpContext context, Admission admission, Enrolment verdict, RequestDelegate otherwise)
    {
        if (verdict.HasFailed && verdict.HasCode)
        {
            context.Response.StatusCode = StatusCodes.Status503ServiceUnavailable;
            return;
        }

        if (verdict.Refusal is { } refusal)
            _refused.Add(context.Connection.RemoteIpAddress?.ToString() ?? "unknown", verdict.Fingerprint, refusal);
        if (verdict.HasFailed || verdict.Refusal is not null)
        {
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
    private readonly int _max;
    private readonly int _maxOfPublisher;
    private readonly int _maxOfUser;
    private readonly DateTimeOffset _start;
    private readonly Lock _gate = new();
    private readonly HashSet<string> _nonces = [];
    private readonly Dictionary<string, int> _ofTenant = [];
    private readonly Dictionary<string, int> _ofHolder = [];
    private readonly Queue<(DateTimeOffset Until, string Nonce, string Tenant, string Holder)> _expiring = new();

    public AdmissionLedger(TimeProvider clock, RelayOptions options)
    {
        _clock = clock;
        _window = options.AdmissionWindow;
        (_max, _maxOfPublisher, _maxOfUser) = (options.MaxAdmissions, options.MaxAdmissionsPerPublisher, options.MaxAdmissionsPerUser);
        _start = clock.GetUtcNow();
    }

    /// <summary>Whether it might be taken now, if this is its first use.</summary>
    public bool IsTimely(Admission admission) => IsTimely(admission, _clock.GetUtcNow());

    /// <summary>
    /// Whether this is its first use, at its time. Of whom it is must be known before: it takes a place, of which neither one
    /// publisher with all its users nor one of these may take all.
    /// </summary>
    /// <param name="admission">What was shown.</param>
    /// <param name="holder">The fingerprint of the key that it was shown with.</param>
    /// <param name="isUser">Whether that is the key of a user.</param>
    public bool TryTake(Admission admission, string holder, bool isUser)
    {
        var now = _clock.GetUtcNow();
        if (!IsTimely(admission, now))
            return false;
        lock (_gate)
        {
            while (_expiring.TryPeek(out var oldest) && oldest.Until < now)
            {
                _expiring.Dequeue();
                _nonces.Remove(oldest.Nonce);
                Leave(_ofTenant, oldest.Tenant);
                Leave(_ofHolder, oldest.Holder);
            }

            if (_nonces.Count >= _max
                || _ofTenant.GetValueOrDefault(admission.Tenant) >= _maxOfPublisher
                || (isUser && _ofHolder.GetValueOrDefault(holder) >= _maxOfUser)
                || !_nonces.Add(admission.Nonce))
                return false;
            _ofTenant[admission.Tenant] = _ofTenant.GetValueOrDefault(admission.Tenant) + 1;
            _ofHolder[holder] = _ofHolder.GetValueOrDefault(holder) + 1;
            _expiring.Enqueue((now + (_window * 2), admission.Nonce, admission.Tenant, holder));
            return true;
        }
    }

    private static void Leave(Dictionary<string, int> places, string who)
    {
        if (--places[who] == 0)
            places.Remove(who);
    }

    private bool IsTimely(Admission admission, DateTimeOffset now)
    {
        var time = admission.Time is > 0 and < 253_402_300_799 ? DateTimeOffset.FromUnixTimeSeconds(admission.Time) : default;

        // What was shown to an earlier process of this relay is not remembered, so nothing from before its start is taken.
        return (now - time).Duration() <= _window && time >= _start - StartSlack && admission.Nonce.Length is >= 16 and <= 64;
    }
}
