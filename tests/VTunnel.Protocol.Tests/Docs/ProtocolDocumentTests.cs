using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text;
using System.Text.RegularExpressions;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Link;
using VTunnel.Protocol.Multiplexing;
using VTunnel.Protocol.Mux;
using VTunnel.Protocol.V1;
using VTunnel.Testing;

namespace VTunnel.Protocol.Tests.Docs;

/// <summary>docs/protocol.md is normative: its examples decode to what it says, and its tables are the program's numbers.</summary>
public sealed partial class ProtocolDocumentTests
{
    private static readonly string Text = File.ReadAllText(Path.Combine(RepositoryRoot(), "docs", "protocol.md"));

    private static readonly string[] TypeNames = ["data", "window-update", "ping", "go-away"];

    private static readonly (MuxFrameFlags Flag, string Name)[] FlagNames =
        [(MuxFrameFlags.Syn, "syn"), (MuxFrameFlags.Ack, "ack"), (MuxFrameFlags.Fin, "fin"), (MuxFrameFlags.Rst, "rst")];

    public static TheoryData<string, int> HexBlocks() => Blocks("hex");

    public static TheoryData<string, int> JsonBlocks() => Blocks("json");

    [Fact]
    public void There_are_examples_of_every_layer()
    {
        var kinds = Fences().Select(fence => fence.Info).Where(info => info.Length > 0).Distinct();
        Assert.Equal(["hex link", "hex mux", "json answer", "json control", "json preface", "json v1"], kinds.Order());
    }

    [Theory]
    [MemberData(nameof(HexBlocks))]
    public void A_hex_example_decodes_to_what_it_says(string kind, int line)
    {
        var body = Fences().Single(fence => fence.Line == line).Body;
        var expected = body.Split('\n').Where(text => text.StartsWith("#= ", StringComparison.Ordinal)).Select(text => text[3..]);
        var bytes = HexText.Parse(body);
        Assert.Equal(expected, kind == "hex link" ? [DescribeRecord(bytes)] : DescribeFrames(bytes));
    }

    [Theory]
    [MemberData(nameof(JsonBlocks))]
    public void A_json_example_is_read_and_would_be_written_like_that(string kind, int line)
    {
        foreach (var example in Fences().Single(fence => fence.Line == line).Body.Split('\n', StringSplitOptions.RemoveEmptyEntries))
            Assert.Equal(example, Rewrite(kind, example));
    }

    [Fact]
    public void The_secret_of_the_example_proves_the_hello_that_resumes()
    {
        var hellos = Fences().Where(fence => fence.Info == "hex link").Select(fence => HexText.Parse(fence.Body)).Where(bytes => LinkHello.IsHello(bytes)).ToList();
        Assert.True(LinkHello.TryRead(hellos.Single(bytes => bytes[6] == 1), out var issued, out _));
        Assert.True(LinkHello.TryRead(hellos.Single(bytes => bytes[7] == 1), out var resumed, out _));
        Assert.True(resumed.ClientProves(issued.Secret!));
    }

    [Theory]
    [InlineData(typeof(LinkRecordType))]
    [InlineData(typeof(LinkRefusalCode))]
    [InlineData(typeof(MuxGoAwayCode))]
    [InlineData(typeof(SessionError))]
    public void A_table_of_numbers_is_the_programs(Type type)
    {
        var table = Text[Text.IndexOf($"<!-- enum {type.Name} -->", StringComparison.Ordinal)..];
        var rows = table.Split('\n').Skip(3).TakeWhile(row => row.StartsWith('|'));
        var documented = rows.Select(row => row.Split('|', StringSplitOptions.TrimEntries)).Select(cells => (long.Parse(cells[1], CultureInfo.InvariantCulture), cells[2].Trim('`')));
        var coded = Enum.GetValues(type).Cast<object>().Select(value => (Convert.ToInt64(value, CultureInfo.InvariantCulture), value.ToString()!));
        Assert.Equal(coded.Order(), documented.Order());
    }

    [Fact]
    public void Limits_that_are_part_of_the_protocol_are_the_programs()
    {
        foreach (var limit in new[] { LinkRecord.MaxBytes, LinkRecord.MaxTextBytes, LinkRecord.MaxFeatureBytes, MuxOptions.InitialWindowBytes, ControlLineReader.MaxLineBytes, StreamPreface.MaxLineBytes, StreamAnswer.MaxLineBytes })
            Assert.Contains(limit.ToString("N0", CultureInfo.InvariantCulture), Text, StringComparison.Ordinal);
        var options = new LinkOptions();
        Assert.Contains($"default {options.ResumeWindow.TotalSeconds} s", Text, StringComparison.Ordinal);
        Assert.Contains($"default {options.KeepAliveInterval.TotalSeconds} s", Text, StringComparison.Ordinal);
        Assert.Contains($"default {options.HandshakeTimeout.TotalSeconds} s", Text, StringComparison.Ordinal);
        Assert.Contains($"after {options.AckAfterBytes / 1024} KiB or {options.AckDelay.TotalMilliseconds} ms", Text, StringComparison.Ordinal);
    }

    private static string DescribeRecord(byte[] bytes)
    {
        if (LinkHello.IsHello(bytes))
        {
            Assert.True(LinkHello.TryRead(bytes, out var hello, out var refusal), refusal?.Text);
            var features = hello.Features.Count == 0 ? "0" : string.Join(' ', hello.Features.Select(feature => $"0x{feature.Id:x4}{(feature.IsMandatory ? "!" : "")}"));
            return $"HELLO {(hello.Role == LinkRole.Client ? "client" : "server")} {(hello.IsResume ? "resume" : "new")} id {hello.LinkId} attempt {hello.Attempt} next {hello.NextOffset}"
                + $" replay {hello.ReplayWindowBytes} receive {hello.ReceiveWindowBytes} keepalive {hello.KeepAliveInterval.TotalMilliseconds} resume {hello.ResumeWindow.TotalMilliseconds} features {features}";
        }

        Assert.True(LinkRecordReader.TryRead(bytes, out var record, out var error), error);
        return record.Type switch
        {
            LinkRecordType.Data => $"DATA {bytes.Length - LinkRecord.DataHeaderBytes}",
            LinkRecordType.Ack => $"ACK {record.Offset}",
            LinkRecordType.End => $"END {record.Offset}",
            LinkRecordType.Ping => $"PING {record.Token:x16}",
            LinkRecordType.Pong => $"PONG {record.Token:x16}",
            LinkRecordType.Bye => $"BYE {record.Code} \"{record.Text}\"",
            LinkRecordType.Refuse => $"REFUSE {record.Code} \"{record.Text}\"",
            _ => throw new InvalidOperationException($"{record.Type} has no example."),
        };
    }

    private static List<string> DescribeFrames(byte[] bytes)
    {
        var frames = new List<string>();
        var reader = new MuxFrameReader();
        reader.Append(ByteChunk.Copy(bytes));
        while (true)
        {
            switch (reader.Read(out var header, out var payload))
            {
                case MuxRead.Header:
                    var flags = string.Join('|', FlagNames.Where(flag => header.Has(flag.Flag)).Select(flag => flag.Name));
                    frames.Add($"{TypeNames[(int)header.Type]} {(flags.Length == 0 ? "-" : flags)} {header.StreamId} {header.Length}");
                    break;
                case MuxRead.Payload:
                    payload.Release();
                    break;
                default:
                    Assert.Equal(0u, reader.PayloadLeft);
                    return frames;
            }
        }
    }

    private static string Rewrite(string kind, string example)
    {
        var bytes = Encoding.UTF8.GetBytes(example);
        ByteSlice written;
        switch (kind)
        {
            case "json v1":
                Assert.True(V1Reader.TryRead(bytes, out var message, out var error), error);
                Assert.NotEqual(V1MessageType.Unknown, message.Type);
                written = V1Writer.Write(message);
                message.Payload.Release();
                break;

            case "json control":
                ReadOnlySpan<byte> line = [.. bytes, (byte)'\n'];
                Assert.True(new ControlLineReader().TryRead(ref line, out var control));
                written = new ControlLineWriter().Write(control);
                break;

            case "json answer":
                ReadOnlySpan<byte> answer = [.. bytes, (byte)'\n'];
                Assert.True(new StreamAnswer().TryRead(ref answer, out var refusal));
                written = new ControlLineWriter().WriteAnswer(refusal);
                break;

            default:
                ReadOnlySpan<byte> preface = [.. bytes, (byte)'\n'];
                Assert.True(new StreamPreface().TryRead(ref preface, out StreamRequest? request));
                written = new ControlLineWriter().Write(request!.Value);
                break;
        }

        var text = Encoding.UTF8.GetString(written.Span);
        written.Release();
        return text.TrimEnd('\n');
    }

    private static TheoryData<string, int> Blocks(string language)
    {
        var data = new TheoryData<string, int>();
        foreach (var fence in Fences().Where(fence => fence.Info.StartsWith(language + " ", StringComparison.Ordinal)))
            data.Add(fence.Info, fence.Line);
        return data;
    }

    private static List<Fence> Fences() =>
        [.. Fenced().Matches(Text).Select(match => new Fence(match.Groups[1].Value, match.Groups[2].Value, Text[..match.Index].Count(c => c == '\n') + 1))];

    private static string RepositoryRoot([CallerFilePath] string here = "") =>
        Path.GetFullPath(Path.Combine(Path.GetDirectoryName(here)!, "..", "..", ".."));

    [GeneratedRegex("^```([a-z0-9 ]*)\n(.*?)^```$", RegexOptions.Multiline | RegexOptions.Singleline)]
    private static partial Regex Fenced();

    private sealed record Fence(string Info, string Body, int Line);
}
