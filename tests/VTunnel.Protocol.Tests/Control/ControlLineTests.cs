using System.Text;
using CsCheck;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Multiplexing;

namespace VTunnel.Protocol.Tests.Control;

public class ControlLineTests
{
    private static readonly ControlMessage[] Messages =
    [
        new Hello("vtunnel", "1.2.3", ["a", "b"]),
        new Listen(9000, "gitlab.example.com:443"),
        new Listen(0),
        new Listen(-1, "\"quoted\"\n\\ ü 😀"),
        new ListenOk(9000),
        new ListenErr(80, "cannot listen on 80: permission denied"),
        new ListenErr(81, ""),
    ];

    [Fact]
    public void Messages_come_back_as_they_were_whole_cut_at_every_index_and_one_byte_at_a_time()
    {
        var bytes = Messages.SelectMany(Write).ToArray();
        AssertSame(Messages, Read([bytes]));
        for (var cut = 0; cut <= bytes.Length; cut++)
            AssertSame(Messages, Read([bytes[..cut], bytes[cut..]]));
        AssertSame(Messages, Read([.. bytes.Select(b => new[] { b })]));
    }

    [Theory]
    [InlineData("""{"type":"listen","port":9000}""")]
    [InlineData("""{"port":9000,"type":"listen"}""")]
    [InlineData("""  {"x":{"y":[1,2,{}]},"port" : 9000, "local_addr":null, "type":"listen", "port":9000}  """)]
    [InlineData("""{"type":"listen","port":9000,"local_addr":""}""")]
    [InlineData("{\"type\":\"listen\",\"port\":9000}\r")]
    public void Key_order_unknown_fields_and_spaces_do_not_matter(string line) => AssertSame([new Listen(9000)], Read([Line(line)]));

    [Theory]
    [InlineData("""{"type":"metrics","port":"many","data":[1,2]}""")]
    [InlineData("""{"port":{"a":1},"type":"later"}""")]
    [InlineData("")]
    [InlineData("\r")]
    public void Unknown_types_and_empty_lines_are_ignored(string line) =>
        AssertSame([new ListenOk(1)], Read([Line(line), Line("""{"type":"listen_ok","port":1}""")]));

    [Theory]
    [InlineData("hello", "not valid JSON")]
    [InlineData("[1]", "not a JSON object")]
    [InlineData("7", "not a JSON object")]
    [InlineData("""{"type":"listen","port":9000""", "not valid JSON")]
    [InlineData("""{"type":"listen","port":9000} x""", "not valid JSON")]
    [InlineData("""{"type":"listen","port":9000}{}""", "not valid JSON")]
    [InlineData("""{"type":"listen"}""", "listen has no port")]
    [InlineData("""{"type":"listen_ok","local_addr":"x"}""", "listen_ok has no port")]
    [InlineData("""{"type":"listen","port":"9000"}""", "a port that is not a whole number")]
    [InlineData("""{"type":"listen","port":9000.5}""", "a port that is not a whole number")]
    [InlineData("""{"type":"listen","port":99999999999}""", "a port that is not a whole number")]
    [InlineData("""{"type":"listen","port":1,"local_addr":5}""", "a local_addr that is not a string")]
    [InlineData("""{"type":"hello","capabilities":{}}""", "capabilities that are not a list")]
    [InlineData("""{"type":"hello","capabilities":[1]}""", "a capability that is not a string")]
    [InlineData("""{"port":1}""", "has no type")]
    [InlineData("""{"type":null}""", "has no type")]
    [InlineData("""{"type":7}""", "a type that is not a string")]
    [InlineData("""{"type":"listen_err","port":1,"error":"\ud800"}""", "not valid JSON")]
    public void A_line_of_the_wrong_shape_ends_the_session_and_says_why(string line, string says)
    {
        var error = Assert.Throws<SessionProtocolException>(() => Read([Line(line)]));
        Assert.Equal(SessionError.ProtocolViolation, error.Code);
        Assert.Contains(says, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Text_that_is_not_utf8_ends_the_session()
    {
        byte[] line = [.. "{\"type\":\"listen_err\",\"port\":1,\"error\":\""u8, 0xC3, 0x28, .. "\"}\n"u8];
        Assert.Throws<SessionProtocolException>(() => Read([line]));
    }

    [Fact]
    public void A_line_may_have_64_KiB_with_its_newline_and_not_a_byte_more()
    {
        var largest = Write(new Listen(1, new string('x', 65_536 - Write(new Listen(1, "x")).Length + 1)));
        Assert.Equal(65_536, largest.Length);
        Assert.Single(Read([largest]));
        Assert.Single(Read([.. largest.Chunk(1000)]));

        foreach (var parts in new[] { [[.. "  "u8, .. largest]], new[] { new byte[65_000], new byte[537] } })
        {
            var error = Assert.Throws<SessionProtocolException>(() => Read(parts));
            Assert.Equal(SessionError.MessageTooLarge, error.Code);
            Assert.Contains("65536", error.Message, StringComparison.Ordinal);
        }

        Assert.Throws<ArgumentException>(() => Write(new Listen(1, new string('x', 65_536))));
    }

    [Fact]
    public void Random_and_mutated_lines_never_cause_another_exception() =>
        Gen.Select(Gen.Byte.Array[0, 60], Gen.Int[0, 400], Gen.Int[1, 50], Gen.Bool).Sample(
            (noise, at, cut, insert) =>
            {
                var bytes = Messages.SelectMany(Write).ToArray();
                byte[] mutated = insert ? [.. bytes[..at], .. noise, .. bytes[at..]] : noise;
                try
                {
                    Read([.. mutated.Chunk(cut)]);
                }
                catch (SessionProtocolException e)
                {
                    Assert.NotEqual(SessionError.None, e.Code);
                }
            },
            iter: 5000);

    [Fact]
    public void A_writer_refused_once_writes_the_next_line_whole()
    {
        var writer = new ControlLineWriter();
        Assert.Throws<ArgumentException>(() => writer.Write(new Listen(1, new string('x', 70_000))));
        Assert.Throws<ArgumentException>(() => writer.Write(new StreamRequest(0)));
        Assert.Throws<ArgumentException>(() => writer.Write(new StreamRequest(65_536)));
        Assert.Throws<ArgumentException>(() => writer.Write(new StreamRequest(1, new string('x', 5000))));
        var slice = writer.Write(new ListenOk(5));
        Assert.Equal("{\"type\":\"listen_ok\",\"port\":5}\n"u8, slice.Span);
        slice.Release();
    }

    private static byte[] Line(string text) => Encoding.UTF8.GetBytes(text + "\n");

    private static byte[] Write(ControlMessage message)
    {
        var slice = new ControlLineWriter().Write(message);
        var bytes = slice.Span.ToArray();
        slice.Release();
        return bytes;
    }

    private static List<ControlMessage> Read(byte[][] parts)
    {
        var reader = new ControlLineReader();
        var messages = new List<ControlMessage>();
        foreach (var part in parts)
        {
            ReadOnlySpan<byte> input = part;
            while (reader.TryRead(ref input, out var message))
                messages.Add(message);
            Assert.True(input.IsEmpty);
        }

        return messages;
    }

    private static void AssertSame(ControlMessage[] expected, List<ControlMessage> actual)
    {
        Assert.Equal(expected.Length, actual.Count);
        foreach (var (left, right) in expected.Zip(actual))
        {
            if (left is Hello one && right is Hello other)
            {
                Assert.Equal((one.Agent, one.Version), (other.Agent, other.Version));
                Assert.Equal(one.Capabilities, other.Capabilities);
            }
            else
            {
                Assert.Equal(left, right);
            }
        }
    }
}
