using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Options;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Proxy;

/// <summary>Requests that two readers could read in two ways: they reach nobody, and what follows them is read by nobody.</summary>
public sealed class FramingTests(FramingTests.Site site) : IClassFixture<FramingTests.Site>
{
    /// <summary>What is smuggled: a request that must never be taken for one.</summary>
    private const string Second = "GET {url}two HTTP/1.1\r\nHost: api.test\r\n\r\n";

    private static readonly (string Name, string Request)[] Cases =
    [
        ("length and chunks", "POST {url} HTTP/1.1\r\nHost: api.test\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("chunks and length", "POST {url} HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n"),
        ("two lengths", "POST {url} HTTP/1.1\r\nHost: api.test\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        ("two lengths in one", "POST {url} HTTP/1.1\r\nHost: api.test\r\nContent-Length: 3, 4\r\n\r\nabcd"),
        ("a negative length", "POST {url} HTTP/1.1\r\nHost: api.test\r\nContent-Length: -1\r\n\r\n"),
        ("a length with a sign", "POST {url} HTTP/1.1\r\nHost: api.test\r\nContent-Length: +3\r\n\r\nabc"),
        ("a length in hexadecimal", "POST {url} HTTP/1.1\r\nHost: api.test\r\nContent-Length: 0x3\r\n\r\nabc"),
        ("a length beyond 64 bits", "POST {url} HTTP/1.1\r\nHost: api.test\r\nContent-Length: 18446744073709551619\r\n\r\nabc"),
        ("another coding", "POST {url} HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: gzip\r\n\r\n"),
        ("a coding before chunked", "POST {url} HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("chunked twice", "POST {url} HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("chunked and identity", "POST {url} HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"),
        ("chunked by a vertical tab", "POST {url} HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n"),
        ("chunks in HTTP/1.0", "POST {url} HTTP/1.0\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("space before a colon", "POST {url} HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        ("tab before a colon", "POST {url} HTTP/1.1\r\nHost: api.test\r\nContent-Length\t: 3\r\n\r\nabc"),
        ("a folded header", "GET {url} HTTP/1.1\r\nHost: api.test\r\nX-A: 1\r\n folded\r\n\r\n"),
        ("a folded coding", "POST {url} HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
        ("a first header that begins with a space", "GET {url} HTTP/1.1\r\n Host: api.test\r\nX-A: 1\r\n\r\n"),
        ("line feeds alone", "GET {url} HTTP/1.1\nHost: api.test\n\n"),
        ("a line feed alone after a header", "GET {url} HTTP/1.1\r\nHost: api.test\r\nX-A: 1\nX-B: 2\r\n\r\n"),
        ("a line feed alone at the end of the head", "GET {url} HTTP/1.1\r\nHost: api.test\r\n\n"),
        ("a carriage return alone after a header", "GET {url} HTTP/1.1\r\nHost: api.test\r\nX-A: 1\rX-B: 2\r\n\r\n"),
        ("a carriage return alone in a name", "GET {url} HTTP/1.1\r\nHost: api.test\r\nX-\rA: 1\r\n\r\n"),
        ("a carriage return alone in the request line", "GET {url}\r HTTP/1.1\r\nHost: api.test\r\n\r\n"),
        ("a zero byte in a value", "GET {url} HTTP/1.1\r\nHost: api.test\r\nX-A: \0\r\n\r\n"),
        ("a header without a name", "GET {url} HTTP/1.1\r\nHost: api.test\r\n: 1\r\n\r\n"),
        ("a header without a colon", "GET {url} HTTP/1.1\r\nHost: api.test\r\nX-A\r\n\r\n"),
        ("two spaces in the request line", "GET  {url} HTTP/1.1\r\nHost: api.test\r\n\r\n"),
        ("no version", "GET {url}\r\nHost: api.test\r\n\r\n"),
        ("another version", "GET {url} HTTP/9.9\r\nHost: api.test\r\n\r\n"),
        ("two hosts", "GET {url} HTTP/1.1\r\nHost: api.test\r\nHost: api.test\r\n\r\n"),
    ];

    public static TheoryData<bool, string> Requests()
    {
        var all = new TheoryData<bool, string>();
        foreach (var (name, _) in Cases)
        {
            all.Add(false, name);
            all.Add(true, name);
        }

        return all;
    }

    [Theory]
    [MemberData(nameof(Requests))]
    public async Task An_ambiguous_request_is_refused_and_its_connection_closed(bool intercepted, string name)
    {
        using var outer = await site.Pair.ConnectAsync();
        using var visitor = intercepted ? await outer.ConnectTlsAsync("api.test") : outer;
        var url = intercepted ? "/" : "http://api.test/";
        await visitor.WriteAsync((Cases.Single(each => each.Name == name).Request + Second).Replace("{url}", url, StringComparison.Ordinal));

        // The proxy ends the connection, the visitor does not.
        var answer = await visitor.ReadToEndAsync();
        Assert.Matches(name == "another version" ? "^HTTP/1.1 505" : "^HTTP/1.1 400", answer);
        Assert.Equal(0, answer.LastIndexOf("HTTP/1.1 ", StringComparison.Ordinal));
        Assert.Equal(0, site.Target.ConnectionCount);
    }

    [Theory]
    [InlineData(false, "a chunk size with a sign", "+3\r\nabc\r\n0\r\n\r\n")]
    [InlineData(true, "a chunk size with a sign", "+3\r\nabc\r\n0\r\n\r\n")]
    [InlineData(false, "a chunk size that overflows", "100000000000000003\r\nabc\r\n0\r\n\r\n")]
    [InlineData(true, "a chunk size that overflows", "100000000000000003\r\nabc\r\n0\r\n\r\n")]
    [InlineData(false, "a line feed alone after a chunk size", "3\nabc\r\n0\r\n\r\n")]
    [InlineData(true, "a line feed alone after a chunk size", "3\nabc\r\n0\r\n\r\n")]
    [InlineData(false, "a line feed alone in a chunk extension", "3;a\nb\r\nabc\r\n0\r\n\r\n")]
    [InlineData(true, "a line feed alone in a chunk extension", "3;a\nb\r\nabc\r\n0\r\n\r\n")]
    [InlineData(false, "a chunk longer than its size", "3\r\nabcd\r\n0\r\n\r\n")]
    [InlineData(true, "a chunk longer than its size", "3\r\nabcd\r\n0\r\n\r\n")]
    public async Task A_body_of_broken_chunks_is_given_up_and_its_connection_closed(bool intercepted, string what, string body)
    {
        await using var sink = TargetServer.Start(async (client, cancellationToken) =>
        {
            using var connection = new RawConnection(client);
            var all = await connection.ReadToEndAsync();
            Assert.DoesNotContain("two", all, StringComparison.Ordinal);
            Assert.False(all.EndsWith("0\r\n\r\n", StringComparison.Ordinal), $"The target took {what} for a whole request: {all}");
        });
        await using var pair = await ProxyPair.StartAsync([$"api.test=127.0.0.1:{sink.Port}"], site.Authority.Use);
        using var outer = await pair.ConnectAsync();
        using var visitor = intercepted ? await outer.ConnectTlsAsync("api.test") : outer;
        var url = intercepted ? "/" : "http://api.test/";
        await visitor.WriteAsync($"POST {url} HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n{body}" + Second.Replace("{url}", url, StringComparison.Ordinal));
        var answer = await visitor.ReadToEndAsync();
        Assert.StartsWith("HTTP/1.1 400", answer, StringComparison.Ordinal);
        Assert.Equal(0, answer.LastIndexOf("HTTP/1.1 ", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("Content-Length: 5")]
    [InlineData("Transfer-Encoding: chunked")]
    public async Task CONNECT_with_a_body_is_refused(string header)
    {
        using var visitor = await site.Pair.ConnectAsync();
        await visitor.WriteAsync($"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n{header}\r\n\r\n0\r\n\r\n");
        var answer = await visitor.ReadToEndAsync();
        Assert.StartsWith("HTTP/1.1 400", answer, StringComparison.Ordinal);
        Assert.Contains("CONNECT has no body", answer, StringComparison.Ordinal);
    }

    /// <summary>One proxy for all of them: none reaches its target.</summary>
    public sealed class Site : IAsyncLifetime
    {
        internal TestAuthority Authority { get; } = new();

        internal TargetServer Target { get; } = TargetServer.StartEcho();

        internal ProxyPair Pair { get; private set; } = null!;

        public async Task InitializeAsync() => Pair = await ProxyPair.StartAsync([$"api.test=127.0.0.1:{Target.Port}"], Authority.Use);

        public async Task DisposeAsync()
        {
            await Pair.DisposeAsync();
            await Target.DisposeAsync();
            Authority.Dispose();
        }
    }
}
