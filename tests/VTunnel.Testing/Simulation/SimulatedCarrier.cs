using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Link;

namespace VTunnel.Testing.Simulation;

/// <summary>What a path between two ends is like.</summary>
/// <param name="Latency">One way, at least.</param>
/// <param name="Jitter">Added to it at random; order is kept.</param>
/// <param name="BytesPerSecond">The rate of each direction.</param>
/// <param name="CapacityBytes">What may be under way in each direction before the sender has to wait.</param>
public sealed record PathProfile(TimeSpan Latency, TimeSpan Jitter, int BytesPerSecond, int CapacityBytes);

/// <summary>
/// One carrier in virtual time: moves messages in order in both directions until it breaks, in any of the ways in which
/// carriers break.
/// </summary>
/// <remarks>
/// A message stays where it is while it is under way, as it does while a socket sends it; one that a cut dropped stays
/// a while longer, as in a send that has not failed yet. In the end it must still be what it was, and so must the header
/// that the carrier wrote before it: if anyone wrote there, the run fails.
/// </remarks>
public sealed class SimulatedCarrier
{
    private readonly SimulationWorld _world;

    /// <summary>Opens a carrier that is already connected.</summary>
    public SimulatedCarrier(SimulationWorld world, PathProfile path, string name)
    {
        Name = name;
        ToServer = new CarrierDirection(world, path, $"{name} to server");
        ToClient = new CarrierDirection(world, path, $"{name} to client");
        Client = new CarrierEnd(world, ToServer, ToClient);
        Server = new CarrierEnd(world, ToClient, ToServer);
        (Client.Far, Server.Far) = (Server, Client);
        _world = world;
    }

    /// <summary>For the log.</summary>
    public string Name { get; }

    /// <summary>The dialler's end.</summary>
    public CarrierEnd Client { get; }

    /// <summary>The acceptor's end.</summary>
    public CarrierEnd Server { get; }

    /// <summary>From the client to the server.</summary>
    public CarrierDirection ToServer { get; }

    /// <summary>From the server to the client.</summary>
    public CarrierDirection ToClient { get; }

    /// <summary>Whether it has broken or was closed.</summary>
    public bool IsBroken => ToServer.IsBroken || ToClient.IsBroken;

    /// <summary>The run is over: releases whatever is under way.</summary>
    public void Drop()
    {
        ToServer.Drop();
        ToClient.Drop();
    }

    /// <summary>
    /// Breaks it at a byte of each direction: what lies wholly before it still arrives. Each end is told after its own
    /// time, or never.
    /// </summary>
    public void Cut(TimeSpan? clientNotices, TimeSpan? serverNotices)
    {
        ToServer.Cut(_world.Random.NextInt64(ToServer.BytesUnderWay + 1));
        ToClient.Cut(_world.Random.NextInt64(ToClient.BytesUnderWay + 1));
        if (clientNotices is { } client)
            _world.After(client, Client.RaiseClosed);
        if (serverNotices is { } server)
            _world.After(server, Server.RaiseClosed);
    }
}

/// <summary>One end of a carrier.</summary>
public sealed class CarrierEnd
{
    private readonly SimulationWorld _world;
    private readonly CarrierDirection _outbound;
    private readonly CarrierDirection _inbound;
    private bool _deliversLate;

    internal CarrierEnd(SimulationWorld world, CarrierDirection outbound, CarrierDirection inbound)
    {
        (_world, _outbound, _inbound) = (world, outbound, inbound);
        inbound.Arrived = Arrive;
        outbound.Drained = () => Writable?.Invoke();
    }

    internal CarrierEnd Far { get; set; } = null!;

    /// <summary>A message arrived; takes the reference.</summary>
    public Action<ByteSlice>? Received { get; set; }

    /// <summary>There is room for another message again.</summary>
    public Action? Writable { get; set; }

    /// <summary>The carrier broke or the far end closed it.</summary>
    public Action? Closed { get; set; }

    /// <summary>Whether this end was closed by its owner.</summary>
    public bool IsClosed { get; private set; }

    /// <summary>When something last arrived here.</summary>
    public TimeSpan LastArrival => _inbound.LastArrival;

    /// <summary>Whether a message can be sent.</summary>
    public bool CanSend => !IsClosed && _outbound.HasRoom;

    /// <summary>Sends a message and takes its reference.</summary>
    public void Send(ByteSlice message) => _outbound.Send(message);

    /// <summary>Gives the carrier up. What is under way may still arrive, or not; the far end hears of it unless the path is dead.</summary>
    public void Close()
    {
        if (IsClosed)
            return;

        IsClosed = true;
        if (_world.Chance(0.5))
            _outbound.Cut(0);
        // A receive that had completed by then is handed over late, or not at all.
        _deliversLate = _world.Chance(0.3);
        if (!_deliversLate)
            _inbound.Cut(0);
        if (!_outbound.IsDead)
            _world.After(_outbound.TimeToDrain, Far.RaiseClosed);
    }

    internal void RaiseClosed()
    {
        if (!IsClosed)
            Closed?.Invoke();
    }

    private void Arrive(ByteSlice message)
    {
        if ((IsClosed && !_deliversLate) || Received is null)
            message.Release();
        else
            Received(message);
    }
}

/// <summary>One direction of a carrier.</summary>
public sealed class CarrierDirection
{
    private readonly SimulationWorld _world;
    private readonly PathProfile _path;
    private readonly string _name;
    private readonly Queue<UnderWay> _queue = new();
    private readonly Queue<UnderWay> _dropped = new();
    private TimeSpan _lastDelivery;
    private TimeSpan _heldUntil;
    private bool _isScheduled;
    private byte _mark;

    internal CarrierDirection(SimulationWorld world, PathProfile path, string name)
    {
        (_world, _path, _name) = (world, path, name);
        LastArrival = world.Now;
    }

    internal Action<ByteSlice>? Arrived { get; set; }

    internal Action? Drained { get; set; }

    /// <summary>Bytes that were sent and have not arrived.</summary>
    public long BytesUnderWay { get; private set; }

    /// <summary>When something last arrived.</summary>
    public TimeSpan LastArrival { get; private set; }

    /// <summary>Nothing arrives any more, and nobody is told.</summary>
    public bool IsDead { get; private set; }

    /// <summary>Nothing further arrives but what lay before the cut.</summary>
    public bool IsBroken { get; private set; }

    internal bool HasRoom => BytesUnderWay < _path.CapacityBytes;

    internal TimeSpan TimeToDrain => _path.Latency + (_lastDelivery > _world.Now ? _lastDelivery - _world.Now : TimeSpan.Zero);

    /// <summary>Swallows everything from now on without a sign.</summary>
    public void Kill() => IsDead = true;

    /// <summary>Delivers nothing for a while, then all of it.</summary>
    public void Hold(TimeSpan time) => _heldUntil = _world.Now + time;

    internal void Send(ByteSlice message)
    {
        // What has been cut takes whatever it is given, like a socket that does not know yet.
        if (IsBroken)
        {
            message.Release();
            return;
        }

        var arrival = _world.Now + _path.Latency + _world.Between(TimeSpan.Zero, _path.Jitter);
        if (arrival < _lastDelivery)
            arrival = _lastDelivery;
        arrival += TimeSpan.FromSeconds((double)message.Length / _path.BytesPerSecond);
        _lastDelivery = arrival;

        var header = message.Chunk!.Array.AsSpan(message.Offset - LinkRecord.CarrierHeadroomBytes, LinkRecord.CarrierHeadroomBytes);
        header.Fill(++_mark);
        _queue.Enqueue(new UnderWay(message, ByteChunk.Copy(message.Span), arrival, _mark));
        BytesUnderWay += message.Length;
        Schedule();
    }

    internal void Cut(long afterBytes)
    {
        IsBroken = true;
        var kept = new Queue<UnderWay>();
        while (_queue.TryDequeue(out var message))
        {
            afterBytes -= message.Sent.Length;
            if (afterBytes >= 0 && !IsDead)
            {
                kept.Enqueue(message);
                continue;
            }

            BytesUnderWay -= message.Sent.Length;
            _dropped.Enqueue(message);
            _world.After(_world.Between(TimeSpan.Zero, TimeSpan.FromSeconds(1)), ReleaseDropped);
        }

        while (kept.TryDequeue(out var message))
            _queue.Enqueue(message);
    }

    /// <summary>The run is over: nothing is held any longer.</summary>
    internal void Drop()
    {
        Cut(0);
        while (_dropped.Count > 0)
            ReleaseDropped();
    }

    private void ReleaseDropped()
    {
        if (!_dropped.TryDequeue(out var message))
            return;
        CheckUnchanged(message);
        message.Sent.Release();
        message.Copy.Release();
    }

    private void Schedule()
    {
        if (_isScheduled || !_queue.TryPeek(out var head))
            return;
        _isScheduled = true;
        var at = head.Arrival > _heldUntil ? head.Arrival : _heldUntil;
        _world.After(at > _world.Now ? at - _world.Now : TimeSpan.Zero, Deliver);
    }

    private void Deliver()
    {
        _isScheduled = false;
        if (IsDead || !_queue.TryPeek(out var head))
            return;
        if (head.Arrival > _world.Now || _heldUntil > _world.Now)
        {
            Schedule();
            return;
        }

        _queue.Dequeue();
        BytesUnderWay -= head.Sent.Length;
        CheckUnchanged(head);
        head.Sent.Release();

        LastArrival = _world.Now;
        Schedule();
        Arrived!(head.Copy);
        Drained!();
    }

    private void CheckUnchanged(in UnderWay message)
    {
        var (sent, copy, _, mark) = message;
        _world.Check(sent.Span.SequenceEqual(copy.Span), $"{_name}: a message was changed while it was under way");
        var header = sent.Chunk!.Array.AsSpan(sent.Offset - LinkRecord.CarrierHeadroomBytes, LinkRecord.CarrierHeadroomBytes);
        _world.Check(!header.ContainsAnyExcept(mark), $"{_name}: the header of the carrier was changed while the message was under way");
    }

    private readonly record struct UnderWay(ByteSlice Sent, ByteSlice Copy, TimeSpan Arrival, byte Mark);
}
