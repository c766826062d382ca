using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Link;
using VTunnel.Testing;

namespace VTunnel.Protocol.Tests.Link;

/// <summary>The bytes on the wire, as files: what they mean does not change, whatever the code does.</summary>
public sealed class LinkGoldenTests
{
    private const string RefusalText = "no such link, or the proof for it is wrong";

    private static readonly LinkId Id = LinkId.FromBytes([.. Enumerable.Range(0xa0, 16).Select(b => (byte)b)]);
    private static readonly LinkSecret Secret = new([.. Enumerable.Range(0, 32).Select(b => (byte)b)]);

    private static string Folder => Path.Combine(AppContext.BaseDirectory, "Link", "Golden");

    public static TheoryData<string> Names() => [.. Directory.GetFiles(Folder, "*.hex").Select(path => Path.GetFileNameWithoutExtension(path))];

    [Theory]
    [MemberData(nameof(Names))]
    public void A_golden_record_reads_and_writes_as_ever(string name)
    {
        var golden = Golden(name);
        var written = name switch
        {
            "refuse" => new LinkRefusal(LinkRefusalCode.UnknownLink, RefusalText).ToMessage(),
            "data" => LinkRecordWriter.Data("abc"u8),
            "ack" => LinkRecordWriter.Ack(65536),
            "ack_last_offset" => LinkRecordWriter.Ack(long.MaxValue),
            "ping" => LinkRecordWriter.Ping(0x0123456789abcdef),
            "pong" => LinkRecordWriter.Pong(0x0123456789abcdef),
            "end" => LinkRecordWriter.End(1000),
            "bye" => LinkRecordWriter.Bye(SessionError.None, ""),
            "bye_error" => LinkRecordWriter.Bye(SessionError.ProtocolViolation, "naïve"),
            "hello_client_new" => ClientHello(isResume: false).ToClientMessage(null, out _),
            "hello_server_new" => ServerHello(isResume: false).ToServerMessage(Secret, default),
            "hello_client_resume" => ClientHello(isResume: true).ToClientMessage(Secret, out _),
            "hello_server_resume" => ServerHello(isResume: true).ToServerMessage(Secret, Golden("hello_client_resume").AsSpan(^32..)),
            "hello_client_features" => new LinkHello
            {
                Attempt = 1,
                ReplayWindowBytes = 1 << 20,
                ReceiveWindowBytes = 64 << 20,
                Features = [new LinkFeature(0x0102, false), new LinkFeature(0xbeef, true, "abc"u8.ToArray())],
            }.ToClientMessage(null, out _),
            _ => throw new InvalidOperationException($"{name}.hex has no expectation."),
        };

        Assert.Equal(golden, written.Span.ToArray());
        Assert.True(written.Offset >= LinkRecord.CarrierHeadroomBytes);
        written.Release();
        if (LinkHello.IsHello(golden))
            Assert.True(LinkHello.TryRead(golden, out _, out _));
        else
            Assert.True(LinkRecordReader.TryRead(golden, out _, out _));
    }

    [Fact]
    public void The_fields_of_golden_records_are_what_the_comments_say()
    {
        Assert.Equal(new LinkRecordFields(LinkRecordType.Data), Read("data"));
        Assert.Equal(new LinkRecordFields(LinkRecordType.Ack, Offset: 65536), Read("ack"));
        Assert.Equal(new LinkRecordFields(LinkRecordType.Ack, Offset: long.MaxValue), Read("ack_last_offset"));
        Assert.Equal(new LinkRecordFields(LinkRecordType.Ping, Token: 0x0123456789abcdef), Read("ping"));
        Assert.Equal(new LinkRecordFields(LinkRecordType.Pong, Token: 0x0123456789abcdef), Read("pong"));
        Assert.Equal(new LinkRecordFields(LinkRecordType.End, Offset: 1000), Read("end"));
        Assert.Equal(new LinkRecordFields(LinkRecordType.Bye), Read("bye"));
        Assert.Equal(new LinkRecordFields(LinkRecordType.Bye, Code: 3, Text: "naïve"), Read("bye_error"));
        Assert.Equal(new LinkRecordFields(LinkRecordType.Refuse, Code: 1, Text: RefusalText), Read("refuse"));
    }

    [Fact]
    public void The_fields_of_golden_hellos_are_what_the_comments_say()
    {
        var asked = ReadHello("hello_client_new");
        Assert.Equal(LinkRole.Client, asked.Role);
        Assert.False(asked.IsResume);
        Assert.Equal(LinkId.None, asked.LinkId);
        Assert.Equal(1u, asked.Attempt);
        Assert.Equal(1 << 20, asked.ReplayWindowBytes);
        Assert.Equal(64 << 20, asked.ReceiveWindowBytes);
        Assert.Equal(TimeSpan.FromSeconds(15), asked.KeepAliveInterval);
        Assert.Equal(TimeSpan.FromSeconds(30), asked.ResumeWindow);
        Assert.Null(asked.Secret);

        var issued = ReadHello("hello_server_new");
        Assert.Equal(LinkRole.Server, issued.Role);
        Assert.Equal(Id, issued.LinkId);
        Assert.NotNull(issued.Secret);

        var resumed = ReadHello("hello_client_resume");
        Assert.True(resumed.IsResume);
        Assert.Equal(2u, resumed.Attempt);
        Assert.Equal(1000, resumed.NextOffset);
        Assert.True(resumed.ClientProves(issued.Secret));
        var answer = ReadHello("hello_server_resume");
        Assert.Equal(77, answer.NextOffset);
        Assert.True(answer.ServerProves(issued.Secret, resumed.Proof.Span));

        var features = ReadHello("hello_client_features").Features;
        Assert.Equal([(ushort)0x0102, (ushort)0xbeef], features.Select(feature => feature.Id));
        Assert.Equal([false, true], features.Select(feature => feature.IsMandatory));
        Assert.Equal("abc"u8.ToArray(), features[1].Value.ToArray());
    }

    internal static byte[] Golden(string name) => HexText.Parse(File.ReadAllText(Path.Combine(Folder, name + ".hex")));

    private static LinkRecordFields Read(string name)
    {
        Assert.True(LinkRecordReader.TryRead(Golden(name), out var record, out var error), error);
        return record;
    }

    private static LinkHello ReadHello(string name)
    {
        Assert.True(LinkHello.TryRead(Golden(name), out var hello, out var refusal), refusal?.Text);
        return hello;
    }

    private static LinkHello ClientHello(bool isResume) => new()
    {
        Role = LinkRole.Client,
        IsResume = isResume,
        LinkId = isResume ? Id : LinkId.None,
        Attempt = isResume ? 2u : 1u,
        NextOffset = isResume ? 1000 : 0,
        ReplayWindowBytes = 1 << 20,
        ReceiveWindowBytes = 64 << 20,
        KeepAliveInterval = TimeSpan.FromSeconds(15),
        ResumeWindow = TimeSpan.FromSeconds(30),
    };

    private static LinkHello ServerHello(bool isResume) => new()
    {
        Role = LinkRole.Server,
        IsResume = isResume,
        LinkId = Id,
        Attempt = isResume ? 2u : 1u,
        NextOffset = isResume ? 77 : 0,
        ReplayWindowBytes = isResume ? 2 << 20 : 1 << 20,
        ReceiveWindowBytes = 64 << 20,
        KeepAliveInterval = TimeSpan.FromSeconds(isResume ? 20 : 15),
        ResumeWindow = TimeSpan.FromSeconds(isResume ? 60 : 30),
    };
}
