using System.Globalization;
using System.Text;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.V1;

namespace VTunnel.Protocol.Tests.V1;

public sealed class V1ReaderTests
{
    [Theory]
    [InlineData("", "empty")]
    [InlineData("hello", "not JSON")]
    [InlineData("{", "not JSON")]
    [InlineData("{\"type\":\"ping\"", "not JSON")]
    [InlineData("{\"type\":\"ping\",}", "not JSON")]
    [InlineData("{'type':'ping'}", "not JSON")]
    [InlineData("{\"type\":\"ping\" /* hi */}", "not JSON")]
    [InlineData("\uFEFF{\"type\":\"ping\"}", "not JSON")]
    [InlineData("{\"type\":\"ping\"}x", "follows the JSON object")]
    [InlineData("{\"type\":\"ping\"}{\"type\":\"ping\"}", "follows the JSON object")]
    [InlineData("{\"type\":\"data\",\"stream_id\":1,\"data\":\"YWJj\"}}", "follows the JSON object")]
    public void Text_that_is_not_one_JSON_value_is_named_so(string text, string expected) =>
        Assert.Contains(expected, V1Testing.ReadError(text), StringComparison.Ordinal);

    [Theory]
    [InlineData("[]")]
    [InlineData("[{\"type\":\"ping\"}]")]
    [InlineData("\"ping\"")]
    [InlineData("17")]
    [InlineData("null")]
    [InlineData("true")]
    public void JSON_that_is_no_object_is_named_so(string text) =>
        Assert.Contains("not a JSON object", V1Testing.ReadError(text), StringComparison.Ordinal);

    [Theory]
    [InlineData("{}", "\"type\" is missing")]
    [InlineData("{\"type\":\"\"}", "\"type\" is missing")]
    [InlineData("{\"type\":null}", "\"type\" is missing")]
    [InlineData("{\"port\":9000}", "\"type\" is missing")]
    [InlineData("{\"type\":7}", "\"type\" must be a string, not 7")]
    [InlineData("{\"type\":[\"ping\"]}", "\"type\" must be a string, not an array")]
    [InlineData("{\"type\":{}}", "\"type\" must be a string, not an object")]
    [InlineData("{\"type\":false}", "\"type\" must be a string, not false")]
    [InlineData("{\"type\":\"listen\",\"port\":\"9000\"}", "listen: \"port\" must be a whole number from 1 to 65535, not a string")]
    [InlineData("{\"type\":\"listen\",\"port\":{}}", "listen: \"port\" must be a whole number from 1 to 65535, not an object")]
    [InlineData("{\"type\":\"listen\",\"port\":1.5}", "not 1.5")]
    [InlineData("{\"type\":\"listen\",\"port\":1.0}", "not 1.0")]
    [InlineData("{\"type\":\"listen\",\"port\":1e3}", "not 1e3")]
    [InlineData("{\"type\":\"listen\",\"port\":2147483648}", "not 2147483648")]
    [InlineData("{\"type\":\"listen\",\"port\":-2147483649}", "not -2147483649")]
    [InlineData("{\"type\":\"listen\",\"port\":1,\"local_addr\":5}", "listen: \"local_addr\" must be a string, not 5")]
    [InlineData("{\"type\":\"listen\",\"port\":1,\"local_addr\":\"\\ud800\"}", "listen: \"local_addr\" holds half of a surrogate pair")]
    [InlineData("{\"type\":\"listen_ok\"}", "listen_ok: \"port\" is missing or 0")]
    [InlineData("{\"type\":\"listen_ok\",\"port\":0}", "listen_ok: \"port\" is missing or 0")]
    [InlineData("{\"type\":\"listen_err\",\"port\":1,\"error\":[]}", "listen_err: \"error\" must be a string, not an array")]
    [InlineData("{\"type\":\"connect\",\"stream_id\":1}", "connect: \"port\" is missing or 0")]
    [InlineData("{\"type\":\"connect\",\"port\":1}", "connect: \"stream_id\" is missing or 0")]
    [InlineData("{\"type\":\"connect\",\"stream_id\":0,\"port\":1}", "connect: \"stream_id\" is missing or 0")]
    [InlineData("{\"type\":\"connect\",\"stream_id\":1,\"port\":true}", "connect: \"port\" must be a whole number from 1 to 65535, not true")]
    [InlineData("{\"type\":\"close\"}", "close: \"stream_id\" is missing or 0")]
    [InlineData("{\"type\":\"close\",\"stream_id\":null}", "close: \"stream_id\" is missing or 0")]
    [InlineData("{\"type\":\"close\",\"stream_id\":-1}", "close: \"stream_id\" must be a whole number from 1 to 4294967295, not -1")]
    [InlineData("{\"type\":\"close\",\"stream_id\":4294967296}", "not 4294967296")]
    [InlineData("{\"type\":\"close\",\"stream_id\":1.5}", "not 1.5")]
    [InlineData("{\"type\":\"close\",\"stream_id\":\"1\"}", "not a string")]
    [InlineData("{\"type\":\"data\",\"data\":\"YWJj\"}", "data: \"stream_id\" is missing or 0")]
    [InlineData("{\"type\":\"data\",\"stream_id\":0,\"data\":\"YWJj\"}", "data: \"stream_id\" is missing or 0")]
    [InlineData("{\"type\":\"data\",\"stream_id\":-7,\"data\":\"YWJj\"}", "not -7")]
    [InlineData("{\"type\":\"data\",\"stream_id\":4294967296,\"data\":\"YWJj\"}", "not 4294967296")]
    [InlineData("{\"type\":\"data\",\"stream_id\":01,\"data\":\"YWJj\"}", "not JSON")]
    [InlineData("{\"type\":\"data\",\"stream_id\":1,\"data\":7}", "data: \"data\" must be a string of base64, not 7")]
    [InlineData("{\"type\":\"data\",\"stream_id\":1,\"data\":{\"a\":\"YWJj\"}}", "data: \"data\" must be a string of base64, not an object")]
    public void A_message_of_the_wrong_shape_is_told_what_would_be_right(string text, string expected) =>
        Assert.Contains(expected, V1Testing.ReadError(text), StringComparison.Ordinal);

    [Theory]
    [InlineData("Y")]
    [InlineData("YWJ")]
    [InlineData("YWI")]
    [InlineData("YQ")]
    [InlineData("YQ=")]
    [InlineData("YQ==YQ==")]
    [InlineData("=")]
    [InlineData("====")]
    [InlineData("Y===")]
    [InlineData("YWJ*")]
    [InlineData("YWJ-")]
    [InlineData("YWJ_")]
    [InlineData("YWJé")]
    [InlineData("not base64 at all")]
    [InlineData("YWJj\\u0000")]
    [InlineData("YWJj\\\"")]
    [InlineData("\\u0159WJj")]
    [InlineData("\\ud800WJj")]
    public void Base64_that_is_not_is_an_error_that_does_not_quote_it(string base64)
    {
        // The usual shape, and one that only the JSON reader takes.
        foreach (var end in new[] { "}", " }" })
        {
            var error = V1Testing.ReadError("{\"type\":\"data\",\"stream_id\":1,\"data\":\"" + base64 + "\"" + end);
            Assert.Contains("data: \"data\" is not base64", error, StringComparison.Ordinal);
            Assert.DoesNotContain("YW", error, StringComparison.Ordinal);
        }
    }

    [Theory]
    [InlineData("\n")]
    [InlineData("\r")]
    [InlineData("\t")]
    public void A_raw_control_character_in_base64_is_not_JSON_although_base64_would_bear_it(string control)
    {
        // Four of them keep the length a multiple of four.
        foreach (var count in new[] { 1, 2, 3, 4 })
        {
            var breaks = string.Concat(Enumerable.Repeat(control, count));
            foreach (var base64 in new[] { "YWJj" + breaks + "ZGVm", breaks + "YWJj", "YWJj" + breaks, "YQ=" + breaks + "=", "YQ==" + breaks, breaks })
                Assert.Contains("not JSON", V1Testing.ReadError("{\"type\":\"data\",\"stream_id\":1,\"data\":\"" + base64 + "\"}"), StringComparison.Ordinal);
        }
    }

    [Theory]
    [InlineData("YWJj ZGVm")]
    [InlineData("YWJj\\nZGVm\\n")]
    [InlineData("Y W J j\\t\\r\\nZGVm")]
    public void White_space_that_JSON_allows_in_base64_is_skipped(string base64) =>
        AssertData("abcdef"u8.ToArray(), "{\"type\":\"data\",\"stream_id\":1,\"data\":\"" + base64 + "\"}");

    [Theory]
    [InlineData("{\"type\":\"data\",\"stream_id\":1}")]
    [InlineData("{\"type\":\"data\",\"stream_id\":1,\"data\":\"\"}")]
    [InlineData("{\"type\":\"data\",\"stream_id\":1,\"data\":\"\" }")]
    [InlineData("{\"type\":\"data\",\"stream_id\":1,\"data\":\"  \"}")]
    [InlineData("{\"type\":\"data\",\"stream_id\":1,\"data\":null}")]
    public void Data_without_bytes_rents_nothing(string text)
    {
        var message = V1Testing.Read(text);
        Assert.Equal(V1MessageType.Data, message.Type);
        Assert.Null(message.Payload.Chunk);
    }

    [Fact]
    public void Invalid_UTF8_is_an_error_in_every_place()
    {
        foreach (var text in new[]
                 {
                     "{\"type\":\"listen\",\"local_addr\":\"*\"}", "{\"type\":\"li*sten\"}", "{\"*\":1,\"type\":\"ping\"}",
                     "{\"type\":\"ping\",\"x\":\"*\"}", "{\"type\":\"data\",\"stream_id\":1,\"data\":\"*\"}", "*", "{\"type\":\"ping\"}*",
                 })
        {
            foreach (var bad in new byte[][] { [0xff], [0xc0, 0x80], [0xe2, 0x82], [0xed, 0xa0, 0x80], [0xf5, 0x80, 0x80, 0x80] })
            {
                var at = text.IndexOf('*', StringComparison.Ordinal);
                byte[] bytes = [.. Encoding.ASCII.GetBytes(text[..at]), .. bad, .. Encoding.ASCII.GetBytes(text[(at + 1)..])];
                Assert.Equal("the message is not UTF-8", V1Testing.ReadError(bytes));
            }
        }
    }

    [Fact]
    public void Ports_that_no_session_grants_come_through_for_the_session_to_refuse()
    {
        foreach (var port in new[] { 0, -1, 65536, int.MaxValue, int.MinValue })
        {
            var text = port.ToString(CultureInfo.InvariantCulture);
            Assert.Equal(port, V1Testing.Read("{\"type\":\"listen\",\"port\":" + text + "}").Port);
            Assert.Equal(port, V1Testing.Read("{\"type\":\"listen_err\",\"port\":" + text + "}").Port);
        }

        Assert.Equal(-1, V1Testing.Read("{\"type\":\"connect\",\"stream_id\":1,\"port\":-1}").Port);
        Assert.Equal(65536, V1Testing.Read("{\"type\":\"connect\",\"stream_id\":1,\"port\":65536}").Port);
        Assert.Equal(0, V1Testing.Read("{\"type\":\"listen\"}").Port);
        Assert.Equal(0, V1Testing.Read("{\"type\":\"listen\",\"port\":-0}").Port);
    }

    [Theory]
    [InlineData("{\"type\":\"LISTEN\",\"port\":1}")]
    [InlineData("{\"type\":\"data2\",\"stream_id\":0,\"data\":\"*\"}")]
    [InlineData("{\"type\":\"\\ud800\"}")]
    [InlineData("{\"type\":\"\\u0159\"}")]
    [InlineData("{\"type\":\"\\u0070\\u0069\\u006e\\u0067\\u0070\\u0069\\u006e\\u0067\\u0070\\u0069\\u006e\\u0067\"}")]
    [InlineData("{\"type\":\"hello\",\"port\":\"x\",\"stream_id\":{},\"error\":[1]}")]
    public void An_unknown_type_is_read_whatever_its_fields_hold(string text) =>
        Assert.Equal(new V1Message(V1MessageType.Unknown), V1Testing.Read(text));

    [Theory]
    [InlineData("{\"type\":\"ping\",\"data\":7,\"stream_id\":-1,\"port\":\"x\"}")]
    [InlineData("{\"type\":\"ping\",\"\\ud800\":1}")]
    [InlineData("{\"type\":\"ping\",\"\\ud800\\ud800\\ud800\\ud800\\ud800\\ud800\\ud800\\ud800\\ud800\\ud800\\ud800\":1}")]
    [InlineData("{\"type\":\"ping\",\"Type\":\"close\",\"\":\"close\",\"typ\":\"close\",\"type2\":\"close\"}")]
    [InlineData("{\"x\":{\"type\":\"close\",\"y\":[[{\"type\":[]}]]},\"type\":\"ping\",\"z\":[{\"type\":\"pong\"}]}")]
    public void Fields_that_the_type_does_not_use_are_ignored_whatever_they_hold(string text) =>
        Assert.Equal(new V1Message(V1MessageType.Ping), V1Testing.Read(text));

    [Fact]
    public void Of_equal_keys_the_last_counts_also_when_an_earlier_one_was_wrong()
    {
        AssertData("abc"u8.ToArray(), "{\"type\":\"data\",\"stream_id\":1,\"data\":\"****\",\"data\":\"YWJj\"}");
        AssertData("abc"u8.ToArray(), "{\"type\":\"ping\",\"stream_id\":\"x\",\"data\":\"YWJj\",\"stream_id\":1,\"type\":\"data\"}");
        Assert.Contains("missing", V1Testing.ReadError("{\"type\":\"close\",\"stream_id\":1,\"stream_id\":null}"), StringComparison.Ordinal);
    }

    [Fact]
    public void Nesting_beyond_what_is_followed_is_an_error_and_not_a_crash()
    {
        var fine = "{\"type\":\"ping\",\"x\":" + new string('[', 60) + new string(']', 60) + "}";
        Assert.Equal(V1MessageType.Ping, V1Testing.Read(fine).Type);
        var deep = "{\"type\":\"ping\",\"x\":" + new string('[', 100_000) + new string(']', 100_000) + "}";
        Assert.Contains("not JSON", V1Testing.ReadError(deep), StringComparison.Ordinal);
    }

    [Fact]
    public void An_error_quotes_little_and_nothing_that_could_harm_a_log()
    {
        var error = V1Testing.ReadError("\r\n\u001b[31m\u0085\u2028\u202E2026 INFO all is well " + new string('x', 1000));
        Assert.Contains("2026 INFO", error, StringComparison.Ordinal);
        Assert.DoesNotContain('\u001b', error);
        Assert.DoesNotContain('\u2028', error);
        Assert.DoesNotContain('\u202E', error);
        Assert.InRange(error.Count(c => c == 'x'), 1, 40);

        var number = V1Testing.ReadError("{\"type\":\"listen\",\"port\":" + new string('9', 1000) + "}");
        Assert.InRange(number.Count(c => c == '9'), 1, 40);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(47)]
    [InlineData(32 * 1024)]
    [InlineData(1024 * 1024)]
    public void Payloads_of_every_size_arrive_by_both_ways_of_reading(int size)
    {
        var bytes = new byte[size];
        new Random(size).NextBytes(bytes);
        var base64 = Convert.ToBase64String(bytes);
        AssertData(bytes, "{\"type\":\"data\",\"stream_id\":1,\"data\":\"" + base64 + "\"}");
        AssertData(bytes, "{\"type\":\"data\",\"data\":\"" + base64 + "\",\"stream_id\":1}");
        AssertData(bytes, "{\"type\":\"data\",\"stream_id\":1,\"data\":\"" + base64.Replace("/", "\\/", StringComparison.Ordinal) + "\",\"x\":1}");
    }

    [Fact]
    public void Text_comes_through_unescaped_and_empty_is_the_same_as_absent()
    {
        Assert.Equal("a\"\\/\b\f\n\r\té😀", V1Testing.Read("{\"type\":\"listen_err\",\"port\":1,\"error\":\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e9\\ud83d\\ude00\"}").Text);
        Assert.Null(V1Testing.Read("{\"type\":\"listen_err\",\"port\":1,\"error\":\"\"}").Text);
        Assert.Null(V1Testing.Read("{\"type\":\"listen\",\"port\":1,\"local_addr\":null}").Text);

        // Each type has its own: the other's text does not stand in for it.
        Assert.Null(V1Testing.Read("{\"type\":\"listen\",\"port\":1,\"error\":\"x\"}").Text);
        Assert.Null(V1Testing.Read("{\"type\":\"listen_err\",\"port\":1,\"local_addr\":\"x\"}").Text);
    }

    private static void AssertData(byte[] expected, string text)
    {
        using var ledger = ChunkLedger.Open();
        var message = V1Testing.Read(text);
        Assert.Equal(V1MessageType.Data, message.Type);
        Assert.Equal(1u, message.StreamId);
        Assert.Equal(ByteChunk.Headroom, message.Payload.Offset);
        Assert.Equal(expected, message.Payload.Span.ToArray());
        message.Payload.Release();
        Assert.Equal(0, ledger.Outstanding);
    }
}
