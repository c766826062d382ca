using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Link;

namespace VTunnel.Testing.Simulation;

/// <summary>A client that dials, a server that accepts, and a network between them that breaks in every way it can until it is told to be calm.</summary>
public sealed class SimulatedNetwork
{
    private readonly SimulationWorld _world;
    private readonly LinkOptions _serverOptions;
    private readonly Func<ILinkUser> _newServerUser;
    private readonly Dictionary<LinkId, LinkDriver> _serverLinks = [];
    private readonly List<SimulatedCarrier> _carriers = [];
    private readonly List<SimulatedCarrier> _allCarriers = [];
    private readonly TimeSpan _maxLatency;
    private TimeSpan _downUntil;
    private bool _isDialing;
    private int _carrierCount;
    private uint _linkCount;

    /// <summary>Makes both ends from the chance of the world; nothing happens before <see cref="Start"/>.</summary>
    /// <param name="world">Time and chance.</param>
    /// <param name="options">How links behave; the windows and times are drawn anew for each side.</param>
    /// <param name="clientUser">What uses the client's link.</param>
    /// <param name="newServerUser">Makes what uses a link of the server; the client may need more than one before it gets one.</param>
    public SimulatedNetwork(SimulationWorld world, LinkOptions options, ILinkUser clientUser, Func<ILinkUser> newServerUser)
    {
        (_world, _newServerUser) = (world, newServerUser);
        var clientOptions = Draw(options);
        _serverOptions = Draw(options);
        _maxLatency = world.Pick(Ms(1), Ms(20), Ms(200));
        KeepAliveInterval = clientOptions.KeepAliveInterval < _serverOptions.KeepAliveInterval ? clientOptions.KeepAliveInterval : _serverOptions.KeepAliveInterval;
        ResumeWindow = clientOptions.ResumeWindow < _serverOptions.ResumeWindow ? clientOptions.ResumeWindow : _serverOptions.ResumeWindow;
        Client = new LinkDriver(world, "client", LinkState.CreateClient(clientOptions), clientOptions, clientUser)
        {
            KeepAliveInterval = KeepAliveInterval,
            ResumeWindow = ResumeWindow,
            Settled = () => DialIfNeeded(_world.Between(TimeSpan.Zero, Ms(1000))),
            MayBeUnknown = () => !_serverLinks.TryGetValue(Client!.Link.Id, out var server) || server.Ended is not null,
        };
    }

    /// <summary>The client.</summary>
    public LinkDriver Client { get; }

    /// <summary>The server's end of the client's link; null before it is established.</summary>
    public LinkDriver? Server => _serverLinks.GetValueOrDefault(Client.Link.Id);

    /// <summary>Every link that the server ever made.</summary>
    public IEnumerable<LinkDriver> ServerLinks => _serverLinks.Values;

    /// <summary>What both sides use.</summary>
    public TimeSpan KeepAliveInterval { get; }

    /// <summary>What both sides use.</summary>
    public TimeSpan ResumeWindow { get; }

    /// <summary>No more faults, and the client always gets through.</summary>
    public bool IsCalm { get; private set; }

    private static TimeSpan Ms(double milliseconds) => TimeSpan.FromMilliseconds(milliseconds);

    /// <summary>Dials, and lets faults happen until <paramref name="calmAfter"/>.</summary>
    public void Start(TimeSpan calmAfter, TimeSpan meanTimeBetweenFaults)
    {
        _world.After(calmAfter, () =>
        {
            IsCalm = true;
            _downUntil = _world.Now;
            _world.Tell("calm from here on");
        });
        ScheduleFault(meanTimeBetweenFaults);
        DialIfNeeded(TimeSpan.Zero);
    }

    /// <summary>Both ends look again at what can be done.</summary>
    public void Pump()
    {
        Client.Pump();
        foreach (var link in _serverLinks.Values)
            link.Pump();
    }

    /// <summary>Drops everything, so that nothing is held when the run is over.</summary>
    public void Dismantle()
    {
        Client.Link.Abandon();
        foreach (var link in _serverLinks.Values)
            link.Link.Abandon();
        foreach (var carrier in _allCarriers)
            carrier.Drop();
    }

    private LinkOptions Draw(LinkOptions options) => options with
    {
        ResumeWindow = _world.Pick(Ms(5000), Ms(10_000), Ms(30_000)),
        KeepAliveInterval = _world.Pick(Ms(1000), Ms(2000), Ms(5000)),
        HandshakeTimeout = _world.Pick(Ms(2000), Ms(5000)),
        InitialReplayWindowBytes = _world.Magnitude(Math.Min(2048, options.InitialReplayWindowBytes), options.InitialReplayWindowBytes),
        InteractiveReplayWindowBytes = _world.Magnitude(Math.Min(2048, options.InteractiveReplayWindowBytes), options.InteractiveReplayWindowBytes),
        ReceiveWindowBytes = _world.Magnitude(Math.Min(2048, options.ReceiveWindowBytes), options.ReceiveWindowBytes),
        MaxUnsentBytes = _world.Magnitude(Math.Min(1024, options.MaxUnsentBytes), options.MaxUnsentBytes),
        AckAfterBytes = _world.Pick(1, 5000, options.AckAfterBytes),
        AckDelay = _world.Pick(TimeSpan.Zero, Ms(5), Ms(25)),
    };

    private void DialIfNeeded(TimeSpan backoff)
    {
        if (!Client.Link.NeedsCarrier || _isDialing)
            return;
        _isDialing = true;
        _world.After(backoff, () =>
        {
            _isDialing = false;
            if (!Client.Link.NeedsCarrier)
                return;
            if (_world.Now < _downUntil || (!IsCalm && _world.Chance(0.15)))
            {
                _world.Tell("client: cannot connect");
                DialIfNeeded(_world.Between(Ms(100), Ms(1000)));
                return;
            }

            Dial();
        });
    }

    private void Dial()
    {
        var latency = _world.Between(TimeSpan.Zero, _maxLatency);
        var path = new PathProfile(
            latency,
            _world.Pick(TimeSpan.Zero, latency / 4, latency * 3),
            _world.Pick(200_000, 5_000_000, 1_000_000_000),
            _world.Pick(1, 20_000, 200_000));
        var carrier = new SimulatedCarrier(_world, path, $"carrier {++_carrierCount}");
        _carriers.RemoveAll(old => old.Client.IsClosed && old.Server.IsClosed);
        _carriers.Add(carrier);
        _allCarriers.Add(carrier);
        _world.Log?.Invoke($"{_world.Now:mm\\:ss\\.ffffff} client: dials {carrier.Name}, {path}");

        carrier.Server.Received = message => Accept(carrier, message);
        carrier.Server.Closed = carrier.Server.Close;
        var number = Client.Link.AttachCarrier(_world.Now);
        Client.Attached(carrier.Client, number);
    }

    private void Accept(SimulatedCarrier carrier, ByteSlice message)
    {
        var end = carrier.Server;
        var isHello = LinkAcceptor.TryRead(message.Span, _serverOptions.KnownFeatures, out var hello, out var refusal);
        message.Release();
        _world.Check(isHello, $"{carrier.Name}: the server refuses the first message: {refusal}");

        if (!hello!.IsResume && !IsCalm && _world.Chance(0.05))
        {
            Refuse(carrier, new LinkRefusal(LinkRefusalCode.Unavailable, "not now"));
            return;
        }

        var driver = hello.IsResume ? _serverLinks.GetValueOrDefault(hello.LinkId) : NewLink();
        if (driver is null)
        {
            Refuse(carrier, LinkRefusal.UnknownLink);
            return;
        }

        if (driver.Link.TryAttachCarrier(hello, _world.Now, out var number, out refusal))
        {
            driver.Attached(end, number);
            return;
        }

        driver.Pump();
        Refuse(carrier, refusal!);
    }

    private void Refuse(SimulatedCarrier carrier, LinkRefusal refusal)
    {
        _world.Log?.Invoke($"{_world.Now:mm\\:ss\\.ffffff} server: refuses {carrier.Name}: {refusal.Code}");
        carrier.Server.Received = null;
        carrier.Server.Send(refusal.ToMessage());
    }

    private LinkDriver NewLink()
    {
        Span<byte> bytes = stackalloc byte[LinkId.Length + LinkSecret.Length];
        _world.Random.NextBytes(bytes);
        var id = LinkId.FromBytes(bytes[..LinkId.Length]);
        var link = LinkState.CreateServer(_serverOptions, id, new LinkSecret(bytes[LinkId.Length..]));
        var driver = new LinkDriver(_world, $"server {++_linkCount}", link, _serverOptions, _newServerUser())
        {
            KeepAliveInterval = KeepAliveInterval,
            ResumeWindow = ResumeWindow,
        };
        _serverLinks.Add(id, driver);
        return driver;
    }

    private void ScheduleFault(TimeSpan mean)
    {
        // Exponentially distributed, as things are that have nothing to do with each other.
        var wait = mean * -Math.Log(1 - _world.Random.NextDouble());
        _world.After(wait, () =>
        {
            if (IsCalm)
                return;
            Fault();
            ScheduleFault(mean);
        });
    }

    private void Fault()
    {
        var alive = _carriers.Where(carrier => !carrier.IsBroken).ToArray();
        if (_world.Chance(0.1))
        {
            var outage = ResumeWindow * (_world.Chance(0.2) ? 1.2 : _world.Random.NextDouble() * 0.7);
            _world.Tell($"fault: no new carriers for {outage}");
            _downUntil = _world.Now + outage;
        }

        if (alive.Length == 0)
            return;
        var carrier = alive[_world.Random.Next(alive.Length)];
        switch (_world.Random.Next(8))
        {
            case 0 or 1 or 2:
                _world.Tell($"fault: {carrier.Name} is cut");
                carrier.Cut(Notice(), Notice());
                break;
            case 3:
                _world.Tell($"fault: {carrier.Name} is a black hole");
                carrier.ToClient.Kill();
                carrier.ToServer.Kill();
                break;
            case 4:
                var direction = _world.Chance(0.5) ? carrier.ToClient : carrier.ToServer;
                _world.Tell($"fault: {carrier.Name} is a black hole in one direction, to the {(direction == carrier.ToClient ? "client" : "server")}");
                direction.Kill();
                break;
            case 5 or 6:
                var hold = _world.Between(Ms(50), KeepAliveInterval * 2.5);
                _world.Tell($"fault: {carrier.Name} stands still for {hold}");
                (_world.Chance(0.5) ? carrier.ToClient : carrier.ToServer).Hold(hold);
                break;
            default:
                if (!Client.Link.IsEnded && _world.Now >= _downUntil)
                {
                    _world.Tell("fault: the client's network changes, and it dials again before the old carrier is gone");
                    if (_world.Chance(0.3))
                        carrier.ToServer.Hold(_world.Between(Ms(1), Ms(3000)));
                    Dial();
                }

                break;
        }
    }

    /// <summary>At once, soon, or never: then keepalive must find out.</summary>
    private TimeSpan? Notice() => _world.Random.Next(4) switch
    {
        0 => TimeSpan.Zero,
        1 => null,
        _ => _world.Between(TimeSpan.Zero, Ms(500)),
    };
}
