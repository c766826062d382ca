using System.Text;
using VTunnel.Protocol.Bridge;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Errors;
using VTunnel.Protocol.Multiplexing;

namespace VTunnel.Protocol.Tests.Bridge;

public sealed class BridgeMessageTests
{
    private static BridgeLine Line(string json) => new(Encoding.UTF8.GetBytes(json));

    public static TheoryData<string> Examples =>
    [
        """{"type":"bridge_grants","user":"alice","grants":[{"local":5432,"host":"127.0.0.1","port":5432},{"local":8080,"host":"fe80::1","port":80}]}""",
        """{"type":"bridge_notice","text":"10.0.0.7:80 is not granted to you"}""",
        """{"type":"bridge_probe","id":7}""",
        """{"type":"bridge_probe_ok","id":7}""",
        """{"type":"bridge_check","id":8,"host":"db.internal","port":5432}""",
        """{"type":"bridge_check_result","id":8}""",
        """{"type":"bridge_check_result","id":8,"error":"connection refused"}""",
    ];

    [Theory]
    [MemberData(nameof(Examples))]
    public void A_message_is_written_as_it_was_read_wherever_the_control_stream_is_cut(string json)
    {
        var bytes = Encoding.UTF8.GetBytes(json + "\n");
        for (var cut = 0; cut <= bytes.Length; cut++)
        {
            var reader = new ControlLineReader();
            ControlMessage? found = null;
            foreach (var part in new[] { bytes[..cut], bytes[cut..] })
            {
                ReadOnlySpan<byte> rest = part;
                if (reader.TryRead(ref rest, out var message))
                    found = message;
            }

            var read = BridgeMessage.Read(Assert.IsType<BridgeLine>(found));
            var line = new ControlLineWriter().Write(read!.ToLine());
            Assert.Equal(json + "\n", Encoding.UTF8.GetString(line.Span));
            line.Release();
        }
    }

    [Theory]
    [InlineData("""{"type":"bridge_of_the_future","x":1}""")]
    [InlineData("""{"x":[1,2,{"y":null}],"type":"bridge_teapot"}""")]
    public void A_type_that_is_not_known_is_nothing(string json) => Assert.Null(BridgeMessage.Read(Line(json)));

    [Theory]
    [InlineData("""{"type":"bridge_probe"}""")]
    [InlineData("""{"type":"bridge_probe","id":"seven"}""")]
    [InlineData("""{"type":"bridge_grants","user":"alice"}""")]
    [InlineData("""{"type":"bridge_grants","user":null,"grants":[]}""")]
    [InlineData("""{"type":"bridge_grants","user":"alice","grants":[{"local":0,"host":"h","port":1}]}""")]
    [InlineData("""{"type":"bridge_grants","user":"alice","grants":[{"local":1,"host":"","port":1}]}""")]
    [InlineData("""{"type":"bridge_grants","user":"alice","grants":[{"local":1,"host":"h","port":65536}]}""")]
    [InlineData("""{"type":"bridge_grants","user":"alice","grants":[null]}""")]
    [InlineData("""{"type":"bridge_check","id":1,"port":2}""")]
    public void A_message_that_lacks_what_it_needs_is_a_violation(string json)
    {
        var e = Assert.Throws<SessionProtocolException>(() => BridgeMessage.Read(Line(json)));
        Assert.Equal(SessionError.ProtocolViolation, e.Code);
    }

    [Fact]
    public void The_host_of_a_stream_is_carried_by_its_first_line()
    {
        var line = new ControlLineWriter().Write(new StreamRequest(5432, "127.0.0.1:53211", TargetHost: "db.internal"));
        Assert.Equal("""{"type":"connect","port":5432,"remote":"127.0.0.1:53211","target":"db.internal"}""" + "\n", Encoding.UTF8.GetString(line.Span));
        var rest = line.Span;
        Assert.True(new StreamPreface().TryRead(ref rest, out var request));
        Assert.Equal(new StreamRequest(5432, "127.0.0.1:53211", TargetHost: "db.internal"), request);
        line.Release();
    }
}
