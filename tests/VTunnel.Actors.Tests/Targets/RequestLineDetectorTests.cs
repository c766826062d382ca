using System.Text;
using VTunnel.Targets;

namespace VTunnel.Actors.Tests.Targets;

public sealed class RequestLineDetectorTests
{
    // Kept apart from the theories, because the enumeration is not public.
    private static readonly Dictionary<string, FirstBytes> Cases = new()
    {
        ["GET / HTTP/1.1"] = FirstBytes.Http,
        ["GET / HTTP/1.0"] = FirstBytes.Http,
        ["POST /a/b?c=d%20e HTTP/1.1\r\nHost: x\r\n\r\n"] = FirstBytes.Http,
        ["VERSION-CONTROL /x HTTP/1.1"] = FirstBytes.Http,
        ["OPTIONS * HTTP/1.1"] = FirstBytes.Http,
        ["GET http://h/x HTTP/1.1"] = FirstBytes.Http,
        ["GET HTTPS://h/x HTTP/1.1"] = FirstBytes.Http,
        ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] = FirstBytes.Other,
        ["CONNECT host:443 HTTP/1.1"] = FirstBytes.Other,
        ["GET / HTTP/1.2"] = FirstBytes.Other,
        ["GET / HTTP/2.0"] = FirstBytes.Other,
        ["GET /\r\n"] = FirstBytes.Other,
        ["GET key\r\n"] = FirstBytes.Other,
        ["GET  / HTTP/1.1"] = FirstBytes.Other,
        ["GET /\u00fc HTTP/1.1"] = FirstBytes.Other,
        ["GET\t/ HTTP/1.1"] = FirstBytes.Other,
        ["OPTIONS rtsp://h/x RTSP/1.0"] = FirstBytes.Other,
        ["OPTIONS sip:a@h SIP/2.0"] = FirstBytes.Other,
        ["GET / ICE/1.0"] = FirstBytes.Other,
        ["SSH-2.0-OpenSSH_9.2\r\n"] = FirstBytes.Other,
        ["EHLO mail.example\r\n"] = FirstBytes.Other,
        ["\u0016\u0003\u0001"] = FirstBytes.Other,
        ["\r\nGET / HTTP/1.1"] = FirstBytes.Other,
        [" / HTTP/1.1"] = FirstBytes.Other,
        ["hello"] = FirstBytes.Other,
        ["PING"] = FirstBytes.Other,
        ["GETTING"] = FirstBytes.Other,
        ["\0"] = FirstBytes.Other,
    };

    public static TheoryData<string> Beginnings => [.. Cases.Keys];

    [Theory]
    [MemberData(nameof(Beginnings))]
    public void The_first_bytes_tell_what_they_are(string text) =>
        Assert.Equal(Cases[text], new RequestLineDetector().Inspect(Encoding.Latin1.GetBytes(text)));

    [Theory]
    [MemberData(nameof(Beginnings))]
    public void A_split_at_any_byte_changes_nothing(string text)
    {
        var bytes = Encoding.Latin1.GetBytes(text);
        for (var split = 1; split < bytes.Length; split++)
        {
            var detector = new RequestLineDetector();
            var verdict = detector.Inspect(bytes.AsSpan(0, split));
            if (verdict == FirstBytes.Undecided)
                verdict = detector.Inspect(bytes);
            Assert.Equal(Cases[text], verdict);
        }
    }

    [Theory]
    [MemberData(nameof(Beginnings))]
    public void One_byte_at_a_time_changes_nothing(string text)
    {
        var bytes = Encoding.Latin1.GetBytes(text);
        var detector = new RequestLineDetector();
        var verdict = FirstBytes.Undecided;
        for (var length = 1; verdict == FirstBytes.Undecided; length++)
            verdict = detector.Inspect(bytes.AsSpan(0, length));
        Assert.Equal(Cases[text], verdict);
    }

    [Theory]
    [InlineData("G")]
    [InlineData("PROP")]
    [InlineData("GET")]
    [InlineData("GET ")]
    [InlineData("GET h")]
    [InlineData("GET https:/")]
    [InlineData("OPTIONS *")]
    [InlineData("GET /")]
    [InlineData("GET / ")]
    [InlineData("GET / HTTP/1")]
    [InlineData("GET / HTTP/1.")]
    [InlineData("BREW /pot")]
    public void The_beginning_of_a_request_line_waits_for_more(string text) =>
        Assert.Equal(FirstBytes.Undecided, new RequestLineDetector().Inspect(Encoding.Latin1.GetBytes(text)));

    [Theory]
    [InlineData("GX")]
    [InlineData("BRE")]
    [InlineData("get")]
    [InlineData("GET x")]
    [InlineData("GET *x")]
    [InlineData("GET hx")]
    [InlineData("GET / X")]
    [InlineData("GET / HTTP/1.x")]
    public void What_can_no_longer_become_one_is_let_go_at_that_byte(string text)
    {
        var detector = new RequestLineDetector();
        Assert.Equal(FirstBytes.Other, detector.Inspect(Encoding.Latin1.GetBytes(text)));
    }

    [Fact]
    public void A_request_line_without_end_is_let_go_at_the_limit()
    {
        var bytes = Encoding.Latin1.GetBytes("GET /" + new string('x', RequestLineDetector.MaxRequestLineBytes));
        var detector = new RequestLineDetector();

        Assert.Equal(FirstBytes.Undecided, detector.Inspect(bytes.AsSpan(0, RequestLineDetector.MaxRequestLineBytes)));
        Assert.Equal(FirstBytes.Other, detector.Inspect(bytes.AsSpan(0, RequestLineDetector.MaxRequestLineBytes + 1)));
    }
}
