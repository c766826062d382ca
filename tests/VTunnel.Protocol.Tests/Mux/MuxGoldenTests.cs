using VTunnel.Protocol.Control;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Protocol.Mux;
using VTunnel.Protocol.V2;

namespace VTunnel.Protocol.Tests.Mux;

/// <summary>Bytes on the wire, kept as files that are added to and never edited.</summary>
public class MuxGoldenTests
{
    public static TheoryData<string> Files =>
        [.. Directory.GetFiles(Folder, "*.hex").Select(file => Path.GetFileName(file)).Order(StringComparer.Ordinal)];

    private static string Folder => Path.Combine(AppContext.BaseDirectory, "Mux", "Golden");

    [Theory]
    [MemberData(nameof(Files))]
    public void Golden_bytes_decode_to_what_the_file_says_and_encode_back(string file)
    {
        var (bytes, expected) = Read(file);
        Assert.NotEmpty(expected);

        var reader = new MuxFrameReader();
        var lines = new List<string>();
        var written = new List<byte>();
        reader.Append(Frames.Slice(bytes));
        while (reader.Read(out var header, out var payload) is var read && read != MuxRead.NeedMore)
        {
            if (read == MuxRead.Payload)
            {
                written.AddRange(payload.Span);
                payload.Release();
                continue;
            }

            lines.Add(Frames.Describe(header));
            written.AddRange(Frames.Header(header.Type, header.Flags, header.StreamId, header.Length));
        }

        Assert.Equal(expected, lines);
        Assert.Equal(bytes, written);
    }

    [Fact]
    public void A_dialer_sends_the_golden_bytes()
    {
        using var dialer = new Abandoned(new V2Session(MuxRole.Dialer, new Hello("vtunnel", "1.2.3", ["example"])));
        dialer.Session.SendControl(new Listen(9000, "localhost:3000"));
        Assert.Equal(Read("v2-dialer.hex").Bytes, dialer.TakeAll());
    }

    [Fact]
    public void An_acceptor_answers_with_the_golden_bytes()
    {
        using var acceptor = new Abandoned(new V2Session(MuxRole.Acceptor, new Hello("vtunnel", "1.2.3", [])));
        acceptor.Session.Receive(Frames.Slice(Read("v2-dialer.hex").Bytes));
        Assert.True(acceptor.Session.TryTakeEvent(out var hello));
        Assert.Equal(["example"], Assert.IsType<Hello>(hello.Control).Capabilities);
        Assert.True(acceptor.Session.TryTakeEvent(out var listen));
        Assert.Equal(new Listen(9000, "localhost:3000"), listen.Control);

        acceptor.Session.SendControl(new ListenOk(9000));
        acceptor.Session.SendControl(new ListenErr(80, "permission denied"));
        var stream = acceptor.Session.Open(new StreamRequest(9000, "127.0.0.1:53211"));
        acceptor.Session.Send(stream, Frames.Slice("GET / HTTP/1.0\r\n\r\n"u8));
        acceptor.Session.Finish(stream);
        Assert.Equal(Read("v2-acceptor.hex").Bytes, acceptor.TakeAll());
    }

    [Fact]
    public void A_dialer_understands_the_golden_answer()
    {
        using var dialer = new Abandoned(new V2Session(MuxRole.Dialer, new Hello("vtunnel", "1.2.3", ["example"])));
        dialer.TakeAll();
        dialer.Session.Receive(Frames.Slice(Read("v2-acceptor.hex").Bytes));

        var events = new List<string>();
        while (dialer.Session.TryTakeEvent(out var e))
        {
            events.Add($"{e.Kind} {e.StreamId} {e.Payload.Length} {e.Request.Port} {e.Request.Remote} {e.Control?.GetType().Name}");
            e.Payload.Release();
        }

        Assert.Equal(
            [
                "Control 0 0 0  Hello", "Control 0 0 0  ListenOk", "Control 0 0 0  ListenErr",
                "Opened 2 0 9000 127.0.0.1:53211 ", "Data 2 18 0  ", "Finished 2 0 0  ",
            ],
            events);
    }

    private static (byte[] Bytes, List<string> Frames) Read(string file)
    {
        var lines = File.ReadAllLines(Path.Combine(Folder, file));
        var hex = string.Concat(lines.Where(line => !line.StartsWith('#')).Select(line => line.Replace(" ", "", StringComparison.Ordinal)));
        return (Convert.FromHexString(hex), [.. lines.Where(line => line.StartsWith("#= ", StringComparison.Ordinal)).Select(line => line[3..])]);
    }

    private sealed record Abandoned(V2Session Session) : IDisposable
    {
        public byte[] TakeAll()
        {
            var bytes = new List<byte>();
            while (Session.TryTakeFrame(out var frame))
            {
                bytes.AddRange(frame.Span);
                frame.Release();
            }

            return [.. bytes];
        }

        public void Dispose() => Session.Abandon();
    }
}
