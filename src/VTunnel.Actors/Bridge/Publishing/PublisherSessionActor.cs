using Akka.Actor;
using VTunnel.Bridge.State;
using VTunnel.Diagnostics;
using VTunnel.Endpoints;
using VTunnel.Extensions;
using VTunnel.Options;
using VTunnel.Protocol.Bridge;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Errors;
using VTunnel.Routing;
using VTunnel.Sessions;
using VTunnel.Stages;
using VTunnel.Streams;
using VTunnel.Targets;

namespace VTunnel.Bridge.Publishing;

/// <summary>What a publisher's session is told besides <see cref="SessionProtocol"/>.</summary>
internal static class PublisherSessionProtocol
{
    /// <summary>The user as it is from now on.</summary>
    public sealed record UserChanged(BridgeUser User);

    /// <summary>The user may not go on, and why: reset everything, tell it, end.</summary>
    public sealed record Expel(string Reason);

    /// <summary>Answered with <see cref="OnlineUser"/>.</summary>
    public sealed record GetOnlineUser
    {
        public static readonly GetOnlineUser Instance = new();
    }
}

/// <summary>A user that has a session with a publisher.</summary>
/// <param name="User">Its name.</param>
/// <param name="Session">The session's name.</param>
/// <param name="Remote">Where it dialled the relay from last, as the relay says.</param>
/// <param name="IsConnected">Whether the session has a connection now.</param>
/// <param name="Streams">Open streams.</param>
/// <param name="Age">Since it began.</param>
/// <param name="RoundTrip">End to end; null until measured.</param>
/// <param name="BytesIn">From the user to targets.</param>
/// <param name="BytesOut">From targets to the user.</param>
public sealed record OnlineUser(
    string User, string Session, string Remote, bool IsConnected, int Streams, TimeSpan Age, TimeSpan? RoundTrip, long BytesIn = 0, long BytesOut = 0);

/// <summary>
/// One user's end-to-end session at the publisher. Every stream that the user opens is checked against what is granted at
/// that moment; what is no longer granted is reset when that changes.
/// </summary>
internal sealed class PublisherSessionActor : SessionActor
{
    /// <summary>The user learns the reason by a message that needs the user's cooperation; after this it is cut off without.</summary>
    private static readonly TimeSpan ExpelGrace = TimeSpan.FromMilliseconds(500);

    /// <summary>Between two notices of one target that is down: a visitor may come again a hundred times per second.</summary>
    private static readonly TimeSpan NoticeInterval = TimeSpan.FromSeconds(10);

    /// <summary>Checks of targets under way; further ones are answered at once.</summary>
    private const int MaxChecks = 16;

    private readonly BridgeSessionOptions _options;
    private readonly StreamPlaces _places;
    private readonly ITargetDialer _dialer;
    private readonly IActorRef _audit;
    private readonly TimeProvider _clock;
    private readonly Dictionary<IActorRef, (StreamKey Key, BridgeGrant Grant)> _open = [];
    private readonly Dictionary<string, long> _noticed = [];
    private BridgeUser _user;
    private string _remote;
    private int _checks;
    private bool _isExpelled;

    public PublisherSessionActor(
        SessionContext session, BridgeUser user, BridgeSessionOptions options, StreamPlaces places, ITargetDialer dialer, IActorRef audit, TimeProvider clock)
        : base(session)
    {
        _places = places;
        _user = user;
        _remote = session.Wire.RemoteName;
        _options = options;
        _dialer = dialer;
        _audit = audit;
        _clock = clock;
    }

    public static Props Props(
        SessionContext session, BridgeUser user, BridgeSessionOptions options, StreamPlaces places, ITargetDialer dialer, IActorRef audit, TimeProvider clock) =>
        Akka.Actor.Props.Create(() => new PublisherSessionActor(session, user, options, places, dialer, audit, clock));

    private sealed record CutOff
    {
        public static readonly CutOff Instance = new();
    }

    private sealed record Checked(BridgeCheckResult Result);

    private sealed record TargetFailed(StreamKey Key, BridgeGrant Grant, string Reason);

    /// <summary>Tells the session of a target that was not reached: the stream's actor tells the log alone.</summary>
    private sealed class ReportingDialer(ITargetDialer inner, IActorRef session, StreamKey key, BridgeGrant grant) : ITargetDialer
    {
        public Task<StreamEndpoint> DialAsync(ForwardTarget target, CancellationToken cancellationToken) => ReportAsync(inner.DialAsync(target, cancellationToken));

        public Task<StreamEndpoint> DialAsync(TargetRequest request, CancellationToken cancellationToken) => ReportAsync(inner.DialAsync(request, cancellationToken));

        private async Task<StreamEndpoint> ReportAsync(Task<StreamEndpoint> dialling)
        {
            try
            {
                return await dialling.ConfigureAwait(false);
            }
            catch (TargetException e)
            {
                session.Tell(new TargetFailed(key, grant, e.Message));
                throw;
            }
        }
    }

    protected override void PreStart()
    {
        base.PreStart();
        TellGrants();
    }

    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case PublisherSessionProtocol.UserChanged changed:
                OnUserChanged(changed.User);
                break;
            case PublisherSessionProtocol.Expel expel:
                OnExpel(expel.Reason);
                break;
            case PublisherSessionProtocol.GetOnlineUser:
                Sender.Tell(new OnlineUser(
                    _user.Name, Session.Name, _remote, Session.Wire.Carrier is not null, StreamCount, Age, Session.Wire.RoundTripTime));
                break;
            case Checked done:
                _checks--;
                Pump.SendControl(done.Result.ToLine());
                break;
            case TargetFailed failed:
                OnTargetFailed(failed);
                break;
            case CutOff:
                Session.Wire.Abort();
                Context.Stop(Self);
                break;
            default:
                base.OnReceive(message);
                break;
        }
    }

    protected override void OnCarrierUp(LinkEvents.CarrierUp up)
    {
        base.OnCarrierUp(up);
        _remote = up.RemoteName;
    }

    protected override void OnControl(ControlMessage message)
    {
        if (message is not BridgeLine line)
            return;
        try
        {
            switch (BridgeMessage.Read(line))
            {
                case BridgeProbe probe:
                    Pump.SendControl(new BridgeProbeAnswer(probe.Id).ToLine());
                    break;
                case BridgeCheck check:
                    OnCheck(check);
                    break;
            }
        }
        catch (SessionProtocolException e)
        {
            EndSession(e);
        }
    }

    protected override void OnStreamRequested(PumpEvents.StreamRequested requested)
    {
        var (port, remote, _, host) = requested.Request;
        if (IsClosing || _isExpelled)
        {
            Pump.Reset(requested.Key);
            return;
        }

        if (StreamCount >= _options.MaxStreams)
        {
            Pump.Reset(requested.Key);
            Notify($"you have {_options.MaxStreams} streams, which is the limit; a further one was refused");
            return;
        }

        // Whatever the far end believes: this is the only place that decides.
        if (Granted(host, port) is not { } grant || _user.RefusalAt(_clock.GetUtcNow()) is not null)
        {
            Pump.Reset(requested.Key);
            var target = $"{host ?? "?"}:{port}";
            Logger.NotGranted(_user.Name, target);
            _audit.Tell(new AuditRecord(_clock.GetUtcNow(), "denied", _user.Name, target, Session.Name));
            Notify($"{target} is not granted to you");
            return;
        }

        if (!_places.TryTake())
        {
            Pump.Reset(requested.Key);
            Notify($"you have {_options.MaxStreamsPerUser} streams in all your sessions, which is the limit; a further one was refused");
            return;
        }

        var info = new StreamInfo(Session.Name, _user.Name, port, remote, grant.Host);
        var rule = new ForwardRule(port, new ForwardTarget(TargetScheme.Tcp, grant.Host, grant.Port));
        var stream = StartStream(
            StreamActor.ForTarget(StreamServices, info, requested.Key, rule, visit: null, new ReportingDialer(_dialer, Self, requested.Key, grant)),
            StreamName(requested.Key));
        _open.Add(stream, (requested.Key, grant));
    }

    protected override void OnStreamGone(IActorRef stream)
    {
        if (_open.Remove(stream))
            _places.Leave();
        base.OnStreamGone(stream);
    }

    protected override void PostStop()
    {
        _places.Leave(_open.Count);
        base.PostStop();
    }

    protected override void OnDraining()
    {
        // New streams are refused from now on; the consumer keeps its ports.
    }

    /// <summary>The audit has every connection, also one that came to nothing; the user is told now and then.</summary>
    private void OnTargetFailed(TargetFailed failed)
    {
        var target = failed.Grant.Target;
        _audit.Tell(new AuditRecord(_clock.GetUtcNow(), "stream-failed", _user.Name, target, $"{Session.Name}/{failed.Key.Id} {failed.Reason}"));
        if (_isExpelled || (_noticed.TryGetValue(target, out var last) && _clock.GetElapsedTime(last) < NoticeInterval))
            return;
        _noticed[target] = _clock.GetTimestamp();
        Notify($"{target} is down: {failed.Reason}");
    }

    private BridgeGrant? Granted(string? host, int port) =>
        _user.Grants.FirstOrDefault(grant => grant.Port == port && grant.Host.Equals(host, StringComparison.OrdinalIgnoreCase));

    private void TellGrants() => Pump.SendControl(new BridgeGrants(_user.Name, _user.Grants).ToLine());

    private void Notify(string text) => Pump.SendControl(new BridgeNotice(text).ToLine());

    private void OnUserChanged(BridgeUser user)
    {
        var before = _user;
        _user = user;
        if (before.Grants.SequenceEqual(user.Grants))
            return;

        // Grants that come and go must not be remembered for ever.
        _noticed.Clear();

        var withdrawn = _open.Where(stream => Granted(stream.Value.Grant.Host, stream.Value.Grant.Port) is null).ToList();
        foreach (var (stream, (key, _)) in withdrawn)
        {
            Pump.Reset(key);

            // One that is still dialling its target has no endpoint to reset yet.
            stream.Tell(StreamProtocol.Cancel.Instance);
        }

        TellGrants();
        foreach (var target in before.Grants.Select(grant => grant.Target).Except(user.Grants.Select(grant => grant.Target)))
            Notify($"{target} is not granted to you any more; {withdrawn.Count(stream => stream.Value.Grant.Target == target)} open connections were reset");
        Logger.GrantsChanged(user.Name, user.Grants.Count == 0 ? "nothing" : string.Join(", ", user.Grants), withdrawn.Count);
    }

    private void OnExpel(string reason)
    {
        if (_isExpelled)
            return;
        _isExpelled = true;
        foreach (var (stream, (key, _)) in _open)
        {
            Pump.Reset(key);
            stream.Tell(StreamProtocol.Cancel.Instance);
        }

        Logger.UserEnded(_user.Name, Session.Name, reason);
        _audit.Tell(new AuditRecord(_clock.GetUtcNow(), "ended", _user.Name, Detail: $"{Session.Name}: {reason}"));
        EndSession(new SessionProtocolException(SessionError.NotAdmitted, reason));
        Timers.StartSingleTimer("cut-off", CutOff.Instance, ExpelGrace);
    }

    private void OnCheck(BridgeCheck check)
    {
        if (Granted(check.Host, check.Port) is not { } grant)
        {
            Pump.SendControl(new BridgeCheckResult(check.Id, "it is not granted to you").ToLine());
            return;
        }

        if (_checks >= MaxChecks)
        {
            Pump.SendControl(new BridgeCheckResult(check.Id, $"{MaxChecks} checks are under way; ask again").ToLine());
            return;
        }

        _checks++;
        _ = CheckAsync(check.Id, grant).PipeTo(Self, success: result => new Checked(result), failure: e => new Checked(new BridgeCheckResult(check.Id, e.Message)));
    }

    private async Task<BridgeCheckResult> CheckAsync(long id, BridgeGrant grant)
    {
        try
        {
            using var endpoint = await _dialer.DialAsync(new ForwardTarget(TargetScheme.Tcp, grant.Host, grant.Port), CancellationToken.None).ConfigureAwait(false);
            return new BridgeCheckResult(id);
        }
        catch (TargetException e)
        {
            return new BridgeCheckResult(id, e.Message);
        }
    }
}
