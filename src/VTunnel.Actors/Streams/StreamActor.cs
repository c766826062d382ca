using System.Diagnostics;
using Akka.Actor;
using Microsoft.Extensions.Logging;
using VTunnel.Diagnostics;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Routing;
using VTunnel.Stages;
using VTunnel.Targets;

namespace VTunnel.Streams;

/// <summary>What a stream's actor says and is told.</summary>
public static class StreamProtocol
{
    /// <summary>To the parent, last of all: the stream is gone and its endpoint closed.</summary>
    public sealed record StreamGone
    {
        /// <summary>The one instance.</summary>
        public static readonly StreamGone Instance = new();
    }

    /// <summary>To the actor: the peer has given the stream up before it began.</summary>
    public sealed record Cancel
    {
        /// <summary>The one instance.</summary>
        public static readonly Cancel Instance = new();
    }
}

/// <summary>
/// One tunnelled TCP connection. It brings the endpoint (a visitor's accepted socket, or a target that it dials), has it
/// approved and wrapped, hands it to the session's pump, and stays until the pump says that the stream has ended.
/// </summary>
internal sealed class StreamActor : UntypedActor
{
    private readonly ISessionPump _pump;
    private readonly StreamInfo _info;
    private readonly TunnelExtensions _extensions;
    private readonly ILogger _logger;
    private readonly ForwardTarget? _target;
    private readonly ITargetDialer? _dialer;
    private readonly long _started = Stopwatch.GetTimestamp();
    private readonly CancellationTokenSource _dialing = new();

    private StreamEndpoint? _endpoint;
    private uint _streamId;
    private bool _ended;
    private bool _handedOver;

    public StreamActor(
        ISessionPump pump,
        StreamInfo info,
        TunnelExtensions extensions,
        ILogger logger,
        StreamEndpoint? visitor,
        uint streamId,
        ForwardTarget? target,
        ITargetDialer? dialer)
    {
        _pump = pump;
        _info = info;
        _extensions = extensions;
        _logger = logger;
        _endpoint = visitor;
        _streamId = streamId;
        _target = target;
        _dialer = dialer;
    }

    /// <summary>A stream that begins with a visitor here.</summary>
    public static Props ForVisitor(ISessionPump pump, StreamInfo info, StreamEndpoint visitor, TunnelExtensions extensions, ILogger logger) =>
        Props.Create(() => new StreamActor(pump, info, extensions, logger, visitor, 0, null, null));

    /// <summary>A stream that the peer opened, to a target here.</summary>
    public static Props ForTarget(
        ISessionPump pump, StreamInfo info, uint streamId, ForwardTarget target, ITargetDialer dialer, TunnelExtensions extensions, ILogger logger) =>
        Props.Create(() => new StreamActor(pump, info, extensions, logger, null, streamId, target, dialer));

    private sealed record Dialled(StreamEndpoint Endpoint);

    private sealed record DialFailed(Exception Cause);

    protected override void PreStart()
    {
        if (_extensions.Authorizer is { } authorizer)
            _ = AuthorizationProtocol.DecideAsync(authorizer, new AuthorizationProtocol.AuthorizeConnect(_info)).PipeTo(Self);
        else
            Begin();
    }

    protected override void OnReceive(object message)
    {
        switch (message)
        {
            case AuthorizationProtocol.Allowed:
                Begin();
                break;
            case AuthorizationProtocol.Denied denied:
                _logger.StreamDenied(_info.Session, _info.Port, _info.Remote ?? "unknown", denied.Reason);
                Refuse();
                break;
            case Dialled dialled:
                _endpoint = dialled.Endpoint;
                HandOver();
                break;
            case DialFailed failed:
                _logger.TargetRefused(_target!.ToString(), _info.Port, failed.Cause.Message);
                Refuse();
                break;
            case StreamProtocol.Cancel:
                Context.Stop(Self);
                break;
            case PumpEvents.StreamOpened opened:
                _streamId = opened.StreamId;
                OnStarted();
                break;
            case PumpEvents.StreamEnded ended:
                OnEnded(ended);
                break;
            default:
                Unhandled(message);
                break;
        }
    }

    private void Begin()
    {
        if (_target is null)
        {
            HandOver();
            return;
        }

        // The continuation runs outside the actor; an endpoint that arrives after the actor's end is closed there.
        var token = _dialing.Token;
        _ = DialAsync(_dialer!, _target, token).PipeTo(Self, success: endpoint => new Dialled(endpoint), failure: e => new DialFailed(e));
    }

    private static async Task<StreamEndpoint> DialAsync(ITargetDialer dialer, ForwardTarget target, CancellationToken cancellationToken)
    {
        var endpoint = await dialer.DialAsync(target, cancellationToken).ConfigureAwait(false);
        if (cancellationToken.IsCancellationRequested)
        {
            endpoint.Abort();
            throw new OperationCanceledException(cancellationToken);
        }

        return endpoint;
    }

    private void HandOver()
    {
        _endpoint = _extensions.Wrap(_endpoint!, _info);
        _handedOver = true;
        if (_target is null)
        {
            _pump.Open(new StreamRequest(_info.Port, _info.Remote), _endpoint, Self);
        }
        else
        {
            _pump.Attach(_streamId, _endpoint, Self);
            OnStarted();
        }
    }

    private void Refuse()
    {
        if (_target is not null)
            _pump.Reset(_streamId);
        Context.Stop(Self);
    }

    private void OnStarted()
    {
        _logger.StreamUp(_info.Session, _streamId, _info.Port, _info.Remote ?? "unknown");
        Context.System.EventStream.Publish(new TunnelEvents.StreamStarted(_info.Session, _streamId, _info.Port, _info.Remote));
    }

    private void OnEnded(PumpEvents.StreamEnded ended)
    {
        _ended = true;
        _logger.StreamDown(_info.Session, _streamId, ended.End, ended.BytesIn, ended.BytesOut);
        Context.System.EventStream.Publish(new TunnelEvents.StreamFinished(
            _info.Session, _streamId, _info.Port, ended.End, ended.BytesIn, ended.BytesOut, Stopwatch.GetElapsedTime(_started)));
        Context.Stop(Self);
    }

    protected override void PostStop()
    {
        _dialing.Cancel();
        _dialing.Dispose();
        if (!_ended)
        {
            if (_handedOver && _streamId != 0)
                _pump.Reset(_streamId);
            _endpoint?.Abort();
        }

        Context.Parent.Tell(StreamProtocol.StreamGone.Instance);
    }
}
