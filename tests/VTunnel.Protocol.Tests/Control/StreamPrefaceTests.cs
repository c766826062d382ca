using System.Text;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Multiplexing;

namespace VTunnel.Protocol.Tests.Control;

public class StreamPrefaceTests
{
    [Fact]
    public void A_preface_cut_anywhere_is_read_and_the_payload_after_it_left()
    {
        var request = new StreamRequest(9000, "127.0.0.1:53211");
        var slice = new ControlLineWriter().Write(request);
        Assert.Equal("{\"type\":\"connect\",\"port\":9000,\"remote\":\"127.0.0.1:53211\"}\n"u8, slice.Span);
        byte[] bytes = [.. slice.Span, .. "payload\n"u8];
        var length = slice.Length;
        slice.Release();

        for (var cut = 0; cut <= bytes.Length; cut++)
            Assert.Equal((request, "payload\n"), Read(bytes[..cut], bytes[cut..]));
        Assert.Equal((request, "payload\n"), Read([.. bytes.Select(b => new[] { b })]));
        Assert.Equal((request, ""), Read(bytes[..length]));
        Assert.Equal((null, ""), Read(bytes[..(length - 1)]));
    }

    [Fact]
    public void The_remote_address_may_be_absent()
    {
        Assert.Equal((new StreamRequest(1), ""), Read("{\"port\":1,\"type\":\"connect\",\"new\":[]}\n"u8.ToArray()));
        var slice = new ControlLineWriter().Write(new StreamRequest(1));
        Assert.Equal("{\"type\":\"connect\",\"port\":1}\n"u8, slice.Span);
        slice.Release();
    }

    [Fact]
    public void A_type_that_is_not_known_is_no_request_and_no_error()
    {
        ReadOnlySpan<byte> input = "{\"type\":\"datagrams\",\"port\":\"any\"}\nrest"u8;
        Assert.True(new StreamPreface().TryRead(ref input, out var request));
        Assert.Null(request);
        Assert.Equal("rest"u8, input);
    }

    [Theory]
    [InlineData("GET / HTTP/1.1\n", "not valid JSON")]
    [InlineData("\n", "not valid JSON")]
    [InlineData("{}\n", "has no type")]
    [InlineData("{\"type\":\"connect\"}\n", "has no port")]
    [InlineData("{\"type\":\"connect\",\"port\":0}\n", "port 0")]
    [InlineData("{\"type\":\"connect\",\"port\":65536}\n", "port 65536")]
    [InlineData("{\"type\":\"connect\",\"port\":1,\"remote\":1}\n", "a remote that is not a string")]
    public void A_preface_of_the_wrong_shape_ends_the_session(string line, string says)
    {
        var error = Assert.Throws<SessionProtocolException>(() => Read(Encoding.UTF8.GetBytes(line)));
        Assert.Contains(says, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_preface_without_an_end_is_given_up_at_4_KiB()
    {
        var error = Assert.Throws<SessionProtocolException>(() => Read([.. Enumerable.Repeat(new byte[100], 100)]));
        Assert.Equal(SessionError.MessageTooLarge, error.Code);
        Assert.Contains("4096", error.Message, StringComparison.Ordinal);
    }

    private static (StreamRequest? Request, string Payload) Read(params byte[][] parts)
    {
        var preface = new StreamPreface();
        StreamRequest? request = null;
        var complete = false;
        var rest = new List<byte>();
        foreach (var part in parts)
        {
            ReadOnlySpan<byte> input = part;
            if (!complete)
                complete = preface.TryRead(ref input, out request);
            Assert.True(complete || input.IsEmpty);
            rest.AddRange(input);
        }

        return (request, Encoding.UTF8.GetString([.. rest]));
    }
}
