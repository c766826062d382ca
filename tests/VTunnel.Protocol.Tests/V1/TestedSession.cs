using System.Globalization;
using System.Text;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Protocol.V1;

namespace VTunnel.Protocol.Tests.V1;

/// <summary>A v1 session whose frames and events are words, so that a test reads like the exchange it is about.</summary>
internal sealed class TestedSession
{
    private TestedSession(V1Session session) => Session = session;

    public V1Session Session { get; }

    /// <summary>Runs a test on a session and checks that every chunk of it was released in the end.</summary>
    public static void Run(V1Role role, V1SessionOptions? options, Action<TestedSession> test)
    {
        using var ledger = ChunkLedger.Open();
        var tested = new TestedSession(new V1Session(role, options));
        test(tested);
        tested.Session.Abandon();
        Assert.Equal(0, ledger.Outstanding);
    }

    /// <inheritdoc cref="Run(V1Role, V1SessionOptions, Action{TestedSession})"/>
    public static void Run(V1Role role, Action<TestedSession> test) => Run(role, null, test);

    public uint Open(int port = 9000) => Session.Open(new StreamRequest(port));

    public void Send(uint streamId, string text) => Session.Send(streamId, ByteChunk.Copy(Encoding.UTF8.GetBytes(text)));

    /// <summary>Receives what another implementation would send.</summary>
    public void Receive(params string[] messages)
    {
        foreach (var json in messages)
            Session.Receive(V1Testing.Read(json));
    }

    public void ReceiveConnect(uint streamId, int port = 9000) =>
        Session.Receive(new V1Message(V1MessageType.Connect, streamId, port));

    public void ReceiveData(uint streamId, string text) =>
        Session.Receive(new V1Message(V1MessageType.Data, streamId, Payload: ByteChunk.Copy(Encoding.UTF8.GetBytes(text))));

    public void ReceiveClose(uint streamId) => Session.Receive(new V1Message(V1MessageType.Close, streamId));

    /// <summary>The next frame, or null.</summary>
    public string? Frame() => Session.TryTakeFrame(out var message) ? Describe(message) : null;

    /// <summary>All frames that wait.</summary>
    public string[] Frames()
    {
        var frames = new List<string>();
        while (Frame() is { } frame)
            frames.Add(frame);
        return [.. frames];
    }

    /// <summary>All events that wait.</summary>
    public string[] Events()
    {
        var events = new List<string>();
        while (Session.TryTakeEvent(out var streamEvent))
            events.Add(Describe(streamEvent));
        return [.. events];
    }

    private static string Describe(V1Message message)
    {
        var text = string.Create(CultureInfo.InvariantCulture, $"{message.Type}");
        if (message.StreamId != 0)
            text += string.Create(CultureInfo.InvariantCulture, $" {message.StreamId}");
        if (message.Port != 0)
            text += string.Create(CultureInfo.InvariantCulture, $" :{message.Port}");
        if (message.Text is not null)
            text += " " + message.Text;
        if (message.Payload.Chunk is not null)
            text += " " + TakeText(message.Payload);
        return text;
    }

    private static string Describe(StreamEvent streamEvent) => streamEvent.Kind switch
    {
        StreamEventKind.Opened => string.Create(CultureInfo.InvariantCulture, $"Opened {streamEvent.StreamId} :{streamEvent.Request.Port}"),
        StreamEventKind.Data => string.Create(CultureInfo.InvariantCulture, $"Data {streamEvent.StreamId} {TakeText(streamEvent.Payload)}"),
        StreamEventKind.Control => streamEvent.Control switch
        {
            Listen listen => string.Create(CultureInfo.InvariantCulture, $"Listen :{listen.Port} {listen.LocalAddr}").TrimEnd(),
            ListenOk ok => string.Create(CultureInfo.InvariantCulture, $"ListenOk :{ok.Port}"),
            ListenErr err => string.Create(CultureInfo.InvariantCulture, $"ListenErr :{err.Port} {err.Error}"),
            _ => "?",
        },
        _ => string.Create(CultureInfo.InvariantCulture, $"{streamEvent.Kind} {streamEvent.StreamId}"),
    };

    private static string TakeText(ByteSlice payload)
    {
        var text = Encoding.UTF8.GetString(payload.Span);
        payload.Release();
        return text;
    }
}
