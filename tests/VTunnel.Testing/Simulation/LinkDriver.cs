using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Link;

namespace VTunnel.Testing.Simulation;

/// <summary>What uses a link: the layer above, as the simulation sees it.</summary>
public interface ILinkUser
{
    /// <summary>Bytes of the peer's stream; takes the reference.</summary>
    void OnRead(ByteSlice bytes);

    /// <summary>Something happened on the link.</summary>
    void OnEvent(LinkEvent linkEvent);

    /// <summary>Writes one slice if there is something to write and room for it.</summary>
    bool TryWrite(LinkState link);

    /// <summary>The link may have changed in ways that a user should look at: the end of the peer's stream, say.</summary>
    void OnSettled(LinkState link);
}

/// <summary>
/// The shell around a <see cref="LinkState"/>, as an engine would be: moves messages between it and a carrier, bytes
/// between it and its user, and wakes it at its deadlines. Checks what must hold at any moment.
/// </summary>
public sealed class LinkDriver
{
    private readonly SimulationWorld _world;
    private readonly LinkOptions _options;
    private readonly ILinkUser _user;
    private CarrierEnd? _carrier;
    private int _number;
    private TimeSpan? _wakeAt;
    private bool _isPumping;
    private bool _isPumpWanted;
    private bool _isReadLater;
    private TimeSpan? _downSince;
    private int _largestWrite;
    private long _heldBefore;

    /// <summary>Drives a link that has no carrier yet.</summary>
    public LinkDriver(SimulationWorld world, string name, LinkState link, LinkOptions options, ILinkUser user) =>
        (_world, Name, Link, _options, _user) = (world, name, link, options, user);

    /// <summary>For the log.</summary>
    public string Name { get; }

    /// <summary>The link.</summary>
    public LinkState Link { get; }

    /// <summary>How and why it ended; null while it has not.</summary>
    public LinkEvent? Ended { get; private set; }

    /// <summary>The keepalive interval that both sides agreed on.</summary>
    public TimeSpan KeepAliveInterval { get; init; }

    /// <summary>The resume window that both sides agreed on.</summary>
    public TimeSpan ResumeWindow { get; init; }

    /// <summary>Called after each pump, so that a client can dial.</summary>
    public Action? Settled { get; set; }

    /// <summary>Whether the server may have forgotten the link by now; asked when it says so.</summary>
    public Func<bool> MayBeUnknown { get; set; } = () => false;

    /// <summary>A carrier was attached to the link under this number. The one before is closed when its loss is reported.</summary>
    public void Attached(CarrierEnd carrier, int number)
    {
        ArgumentNullException.ThrowIfNull(carrier);
        // The event that says that the old one is lost was raised before; it must close the old, not the new.
        DrainEvents();
        (_carrier, _number) = (carrier, number);
        carrier.Received = message =>
        {
            Link.Receive(number, message, _world.Now);
            Pump();
        };
        carrier.Writable = Pump;
        carrier.Closed = () =>
        {
            carrier.Close();
            Link.DetachCarrier(number, "closed", _world.Now);
            Pump();
        };
        Pump();
    }

    /// <summary>Moves whatever can be moved.</summary>
    public void Pump()
    {
        _isPumpWanted = true;
        if (_isPumping)
            return;

        _isPumping = true;
        while (_isPumpWanted)
        {
            _isPumpWanted = false;
            DrainEvents();
            Read();
            _user.OnSettled(Link);
            SendAndWrite();
            CheckBounds();
        }

        _isPumping = false;
        Wake();
        Settled?.Invoke();
    }

    private void Read()
    {
        while (!_isReadLater && Link.TryRead(out var slice))
        {
            _user.OnRead(slice);
            if (!_world.Chance(0.02))
                continue;

            // An engine reads at once, but nothing in the protocol says that it must.
            _isReadLater = true;
            _world.After(_world.Between(TimeSpan.Zero, TimeSpan.FromMilliseconds(20)), () =>
            {
                _isReadLater = false;
                Pump();
            });
        }
    }

    private void SendAndWrite()
    {
        while (true)
        {
            while (_carrier is { CanSend: true } carrier && Link.TryTakeMessage(_number, _world.Now, out var message))
                carrier.Send(message);
            if (Ended is not null)
                Close();
            var before = Link.WrittenBytes;
            if (Ended is not null || Link.WritableBytes == 0 || !_user.TryWrite(Link))
                return;
            _largestWrite = (int)Math.Max(_largestWrite, Link.WrittenBytes - before);
            CheckBounds();
        }
    }

    private void DrainEvents()
    {
        while (Link.TryTakeEvent(out var linkEvent))
        {
            _world.Log?.Invoke($"{_world.Now:mm\\:ss\\.ffffff} {Name}: {Describe(linkEvent)}");
            _world.Check(Ended is null, $"{Name}: {linkEvent.Kind} after the end");
            switch (linkEvent.Kind)
            {
                case LinkEventKind.Established:
                    break;
                case LinkEventKind.Resumed:
                    _world.Check(linkEvent.Gap == _world.Now - (_downSince ?? _world.Now), $"{Name}: a gap of {linkEvent.Gap} since {_downSince}");
                    _downSince = null;
                    break;
                case LinkEventKind.CarrierLost:
                    OnLost(linkEvent);
                    break;
                case LinkEventKind.Ended:
                    OnEnded(linkEvent);
                    break;
                default:
                    break;
            }

            _user.OnEvent(linkEvent);
        }
    }

    private void OnLost(LinkEvent linkEvent)
    {
        _world.Check(linkEvent.Carrier == _number, $"{Name}: carrier {linkEvent.Carrier} was lost; {_number} is the one in use");
        if (linkEvent.Loss == CarrierLoss.KeepAliveTimeout)
        {
            var silence = _world.Now - _carrier!.LastArrival;
            _world.Check(silence >= KeepAliveInterval * 2, $"{Name}: given up after {silence} of silence; twice {KeepAliveInterval} would be right");
        }

        if (Link.IsEstablished)
            _downSince ??= _world.Now;
        Close();
    }

    private void OnEnded(LinkEvent linkEvent)
    {
        Ended = linkEvent;
        var down = _world.Now - (_downSince ?? _world.Now);
        var isRight = linkEvent.End switch
        {
            LinkEnd.Completed => true,
            LinkEnd.ResumeWindowExpired => down >= ResumeWindow && ResumeWindow > TimeSpan.Zero,
            LinkEnd.CarrierLost => ResumeWindow == TimeSpan.Zero,
            LinkEnd.Refused => MayBeUnknown(),
            _ => false,
        };
        _world.Check(isRight, $"{Name}: the link ended though it should not have, after {down} without a carrier: {Describe(linkEvent)}");
    }

    private void Close()
    {
        _carrier?.Close();
        _carrier = null;
    }

    private void CheckBounds()
    {
        // One slice may be written while the window is not full: its chunk comes on top. What was held when the window shrank
        // may only become less.
        var bound = Link.ReplayWindowBytes + (2L * Math.Max(_largestWrite, ByteChunk.DefaultSize)) + 1024;
        _world.Check(Link.ReplayBufferedBytes <= Math.Max(bound, _heldBefore), $"{Name}: {Link.ReplayBufferedBytes} bytes are held for replay; the window is {Link.ReplayWindowBytes}");
        _heldBefore = Link.ReplayBufferedBytes;
        _world.Check(Link.ReplayWindowBytes <= _options.MaxReplayWindowBytes, $"{Name}: the replay window is {Link.ReplayWindowBytes}");
        if (Link.IsUp && KeepAliveInterval > TimeSpan.Zero && _carrier is not null)
        {
            var silence = _world.Now - _carrier.LastArrival;
            _world.Check(silence <= KeepAliveInterval * 2, $"{Name}: still up after {silence} of silence");
        }
    }

    private void Wake()
    {
        var deadline = Link.NextDeadline;
        if (deadline is not { } at || at == _wakeAt)
            return;
        _wakeAt = at;
        _world.After(at > _world.Now ? at - _world.Now : TimeSpan.Zero, () =>
        {
            if (_wakeAt != at)
                return;
            _wakeAt = null;
            Link.Advance(_world.Now);
            Pump();
        });
    }

    private static string Describe(LinkEvent linkEvent) => linkEvent.Kind switch
    {
        LinkEventKind.CarrierLost => $"carrier {linkEvent.Carrier} lost, {linkEvent.Loss}: {linkEvent.Text}",
        LinkEventKind.Resumed => $"resumed on carrier {linkEvent.Carrier} after {linkEvent.Gap}",
        LinkEventKind.Refused => $"refused, {linkEvent.Refusal}: {linkEvent.Text}",
        LinkEventKind.Ended => $"ended, {linkEvent.End} ({linkEvent.Code}): {linkEvent.Text}",
        _ => $"{linkEvent.Kind} on carrier {linkEvent.Carrier}",
    };
}
