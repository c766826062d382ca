using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Link;

namespace VTunnel.Testing;

/// <summary>
/// A client's and a server's <see cref="LinkState"/> with carriers in memory and time by hand. Messages are delivered when
/// the test says so, as copies, like a network would.
/// </summary>
public sealed class LinkPair
{
    private readonly List<byte> _clientRead = [];
    private readonly List<byte> _serverRead = [];

    /// <summary>The server's link is made when the client's first HELLO arrives.</summary>
    public LinkPair(LinkOptions? client = null, LinkOptions? server = null)
    {
        Client = LinkState.CreateClient(client ?? new LinkOptions());
        ServerOptions = server ?? new LinkOptions();
    }

    /// <summary>The id that the server gives.</summary>
    public static LinkId Id { get; } = LinkId.FromBytes("0123456789abcdef"u8);

    /// <summary>The secret that the server issues.</summary>
    public static LinkSecret Secret { get; } = new("0123456789abcdef0123456789abcdef"u8);

    /// <summary>The client's end.</summary>
    public LinkState Client { get; }

    /// <summary>The server's end.</summary>
    public LinkState Server { get; private set; } = null!;

    /// <summary>How the server's link behaves.</summary>
    public LinkOptions ServerOptions { get; }

    /// <summary>The time.</summary>
    public TimeSpan Now { get; private set; } = TimeSpan.FromHours(1);

    /// <summary>The carrier that messages go over, as the client numbers it; 0 while there is none.</summary>
    public int ClientCarrier { get; set; }

    /// <summary>The same as the server numbers it.</summary>
    public int ServerCarrier { get; set; }

    /// <summary>What the server said to the last HELLO that it did not accept.</summary>
    public LinkRefusal? Refusal { get; private set; }

    /// <summary>Everything that the client's reader has got.</summary>
    public IReadOnlyList<byte> ClientRead => _clientRead;

    /// <summary>Everything that the server's reader has got.</summary>
    public IReadOnlyList<byte> ServerRead => _serverRead;

    /// <summary>What happened at the client.</summary>
    public List<LinkEvent> ClientEvents { get; } = [];

    /// <summary>What happened at the server.</summary>
    public List<LinkEvent> ServerEvents { get; } = [];

    /// <summary>Every message that was delivered, in order: who sent it, and its bytes.</summary>
    public List<(LinkRole From, byte[] Message)> Delivered { get; } = [];

    /// <summary>The record types that one side sent since <see cref="Delivered"/> was cleared.</summary>
    public IEnumerable<LinkRecordType> Sent(LinkRole from) =>
        Delivered.Where(message => message.From == from).Select(message => (LinkRecordType)message.Message[0]);

    /// <summary>A fresh carrier; delivers everything both ways until nothing moves.</summary>
    public void Connect()
    {
        Dial();
        Pump();
    }

    /// <summary>A fresh carrier on which nothing was delivered yet.</summary>
    public void Dial()
    {
        ClientCarrier = Client.AttachCarrier(Now);
        ServerCarrier = 0;
    }

    /// <summary>The carrier breaks and both sides know; what was not delivered is lost.</summary>
    public void Cut()
    {
        Client.DetachCarrier(ClientCarrier, "cut", Now);
        Server.DetachCarrier(ServerCarrier, "cut", Now);
        ClientCarrier = ServerCarrier = 0;
        Drain();
    }

    /// <summary>Time passes; both sides do what is due, step by step, and messages are delivered at once.</summary>
    public void Pass(TimeSpan time, bool deliver = true)
    {
        var until = Now + time;
        for (var steps = 0; Earliest() is { } next && next <= until; steps++)
        {
            if (steps > 100_000)
                throw new InvalidOperationException($"Deadlines do not move on: {next} again and again at {Now}.");
            Now = next > Now ? next : Now;
            Client.Advance(Now);
            Server?.Advance(Now);
            if (deliver)
                Pump();
            Drain();
        }

        Now = until;
    }

    /// <summary>Delivers both ways until nothing moves.</summary>
    public void Pump()
    {
        while (DeliverToServer() || DeliverToClient())
        {
        }

        Drain();
    }

    /// <summary>Delivers the client's next message, if it has one.</summary>
    public bool DeliverToServer()
    {
        if (!Client.TryTakeMessage(ClientCarrier, Now, out var message))
            return false;

        var copy = Copy(LinkRole.Client, message);
        if (ServerCarrier != 0)
        {
            Server.Receive(ServerCarrier, copy, Now);
        }
        else
        {
            Accept(copy.Span);
            copy.Release();
        }

        Drain();
        return true;
    }

    /// <summary>Delivers the server's next message, if it has one.</summary>
    public bool DeliverToClient()
    {
        if (Server is null || !Server.TryTakeMessage(ServerCarrier, Now, out var message))
            return false;
        Client.Receive(ClientCarrier, Copy(LinkRole.Server, message), Now);
        Drain();
        return true;
    }

    /// <summary>Moves events and bytes to where tests look.</summary>
    public void Drain()
    {
        Drain(Client, ClientEvents, _clientRead);
        if (Server is not null)
            Drain(Server, ServerEvents, _serverRead);
    }

    private static void Drain(LinkState link, List<LinkEvent> events, List<byte> read)
    {
        while (link.TryTakeEvent(out var linkEvent))
            events.Add(linkEvent);
        while (link.TryRead(out var slice))
        {
            read.AddRange(slice.Span);
            slice.Release();
        }
    }

    private void Accept(ReadOnlySpan<byte> message)
    {
        if (!LinkAcceptor.TryRead(message, ServerOptions.KnownFeatures, out var hello, out var refusal))
        {
            Refuse(refusal);
            return;
        }

        if (!hello.IsResume)
            Server = LinkState.CreateServer(ServerOptions, Id, Secret);
        if (Server.TryAttachCarrier(hello, Now, out var carrier, out refusal))
            ServerCarrier = carrier;
        else
            Refuse(refusal!);
    }

    private void Refuse(LinkRefusal refusal)
    {
        Refusal = refusal;
        Client.Receive(ClientCarrier, refusal.ToMessage(), Now);
        Drain();
    }

    private ByteSlice Copy(LinkRole from, ByteSlice message)
    {
        Delivered.Add((from, message.Span.ToArray()));
        var copy = ByteChunk.Copy(message.Span);
        message.Release();
        return copy;
    }

    private TimeSpan? Earliest()
    {
        var (client, server) = (Client.NextDeadline, Server?.NextDeadline);
        return client is null || server < client ? server : client;
    }
}
