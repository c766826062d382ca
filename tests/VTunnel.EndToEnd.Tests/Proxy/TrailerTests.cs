using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Options;
using VTunnel.Routing;
using VTunnel.Testing;
using VTunnel.Testing.Programs;

namespace VTunnel.EndToEnd.Tests.Proxy;

/// <summary>Headers that come after a body, with Node's HTTP at the ends.</summary>
public sealed class TrailerTests : IAsyncLifetime, IDisposable
{
    /// <summary>Answers with what it got, trailers last.</summary>
    private const string Target = """
        const http = require('node:http');
        const server = http.createServer((request, response) => {
          let body = '';
          request.on('data', d => body += d);
          request.on('end', () => {
            response.writeHead(200, { Trailer: 'X-Got', 'X-Length': String(request.headers['content-length']) });
            response.write(`${request.method} ${body} `);
            response.write(`${request.headers['authorization'] ?? 'nobody'}`);
            response.addTrailers({ 'X-Got': JSON.stringify(request.trailers) });
            response.end();
          });
        });
        server.listen(0, '127.0.0.1', () => console.log(`port ${server.address().port}`));
        """;

    private const string Http1Visitor = """
        const http = require('node:http');
        const [proxyPort, url] = process.argv.slice(2);
        const request = http.request({ host: '127.0.0.1', port: proxyPort, path: url, method: 'POST', headers: { Host: new URL(url).host, Trailer: 'X-Sum' } }, response => {
          let body = '';
          response.on('data', d => body += d);
          response.on('end', () => { console.log(body, response.headers['trailer'], JSON.stringify(response.trailers)); });
        });
        request.write('hello');
        request.addTrailers({ 'X-Sum': '42' });
        request.end();
        """;

    private const string Http2Visitor = """
        const http2 = require('node:http2');
        const [proxyPort, host] = process.argv.slice(2);
        const session = http2.connect(`http://127.0.0.1:${proxyPort}`);
        const stream = session.request({ ':method': 'POST', ':scheme': 'http', ':authority': host, ':path': '/', trailer: 'x-sum' }, { waitForTrailers: true });
        stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': '42' }));
        let body = '', trailers = {};
        stream.setEncoding('utf8');
        stream.on('data', d => body += d);
        stream.on('trailers', t => trailers = t);
        stream.on('close', () => { console.log(body, JSON.stringify(trailers)); session.close(); });
        stream.end('hello');
        """;

    private readonly TempDirectory _folder = new();
    private readonly TestAuthority _authority = new();
    private RunningProgram _target = null!;
    private int _port;

    public async Task InitializeAsync()
    {
        await Tools.EnsureInstalledAsync();
        _target = RunningProgram.Start(Tools.Find("node"), [_folder.Write("target.cjs", Target)]);
        _port = int.Parse((await _target.Output.WaitForAsync("port ")).Split(' ')[^1], System.Globalization.CultureInfo.InvariantCulture);
    }

    public async Task DisposeAsync() => await _target.DisposeAsync();

    public void Dispose()
    {
        _folder.Dispose();
        _authority.Dispose();
    }

    private async Task<ProxyPair> StartAsync(ProtocolPreference protocol = ProtocolPreference.V2)
    {
        var pair = await ProxyPair.StartAsync([$"api.test=127.0.0.1:{_port}"], _authority.Use, protocol: protocol);
        if (protocol == ProtocolPreference.V2)
        {
            await pair.Client.ListenAsync(ForwardRule.Parse($"signed.test=127.0.0.1:{_port}") with { Headers = [new InjectedHeader("Authorization", "Bearer s3cret"), new InjectedHeader("X-Mine", "1")] })
                .WaitAsync(TestTimeouts.Step);
        }

        return pair;
    }

    [Theory]
    [InlineData("api.test", "nobody")]
    [InlineData("signed.test", "Bearer s3cret")]
    [InlineData("direct.test", "nobody")]
    public async Task They_pass_both_ways_in_HTTP1(string host, string authorization)
    {
        await using var pair = await StartAsync();
        var url = host == "direct.test" ? $"http://direct.test:{_port}/" : $"http://{host}/";
        var result = await Tools.RunAsync("node", [_folder.Write("visitor.cjs", Http1Visitor), $"{pair.Port}", url]);
        Assert.Equal($$$"""POST hello {{{authorization}}} X-Got {"x-got":"{\"x-sum\":\"42\"}"}""", result.StandardOutput.Trim());
    }

    [Theory]
    [InlineData("api.test", "nobody")]
    [InlineData("signed.test", "Bearer s3cret")]
    [InlineData("direct.test", "nobody")]
    public async Task They_pass_both_ways_between_an_HTTP2_visitor_and_an_HTTP1_target(string host, string authorization)
    {
        await using var pair = await StartAsync();
        var result = await Tools.RunAsync("node", [_folder.Write("visitor.cjs", Http2Visitor), $"{pair.Port}", host == "direct.test" ? $"direct.test:{_port}" : host]);
        Assert.Equal($$$"""POST hello {{{authorization}}} {"x-got":"{\"x-sum\":\"42\"}"}""", result.StandardOutput.Trim());
    }

    [Theory]
    [InlineData(false, ProtocolPreference.V2)]
    [InlineData(true, ProtocolPreference.V2)]
    [InlineData(false, ProtocolPreference.V1)]
    public async Task They_need_not_be_announced_and_the_connection_goes_on_after_them(bool intercepted, ProtocolPreference protocol)
    {
        await using var pair = await StartAsync(protocol);
        using var outer = await pair.ConnectAsync();
        using var visitor = intercepted ? await outer.ConnectTlsAsync("api.test") : outer;
        var url = intercepted ? "/" : "http://api.test/";
        for (var i = 0; i < 3; i++)
        {
            // A body that ends as chunks do.
            await visitor.WriteAsync($"POST {url} HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nhe0\r\n\r\n0\r\n0\r\nX-Sum: {i}\r\nX-Other: a\r\nX-Other: b\r\n\r\n");
            var answer = await visitor.ReadUntilAsync("}\r\n\r\n");
            Assert.Contains("Transfer-Encoding: chunked\r\n", answer, StringComparison.Ordinal);
            Assert.EndsWith($"\r\n0\r\nX-Got: {{\"x-sum\":\"{i}\",\"x-other\":\"a, b\"}}\r\n\r\n", answer, StringComparison.Ordinal);
        }

        // Without any, as ever.
        await visitor.WriteAsync($"POST {url} HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        Assert.EndsWith("\r\n0\r\nX-Got: {}\r\n\r\n", await visitor.ReadUntilAsync("}\r\n\r\n"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_says_how_to_read_a_message_or_who_sends_it_does_not_pass_as_one()
    {
        await using var pair = await StartAsync();
        using var visitor = await pair.ConnectAsync();
        await visitor.WriteAsync(
            "POST http://signed.test/ HTTP/1.1\r\nHost: signed.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n" +
            "X-Sum: 1\r\nAuthorization: Bearer mine\r\nX-Mine: 2\r\nCookie: a=b\r\nProxy-Authorization: Basic eA==\r\nConnection: x-sum\r\n\r\n");
        var answer = await visitor.ReadUntilAsync("}\r\n\r\n");
        Assert.Contains("Bearer s3cret", answer, StringComparison.Ordinal);
        Assert.EndsWith("X-Got: {\"x-sum\":\"1\"}\r\n\r\n", answer, StringComparison.Ordinal);
    }
}
