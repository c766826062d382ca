using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Routing;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Proxy;

/// <summary>HTTP/2 to the proxy itself, spoken by another implementation: Node's.</summary>
public sealed class Http2Tests
{
    /// <summary>A request, a CONNECT whose directions end one after the other, and a CONNECT that fails, on one connection.</summary>
    private const string Visitor = """
        const http2 = require('node:http2');
        const [url, port, ca] = process.argv.slice(2);
        const session = http2.connect(url, { ca: ca && require('node:fs').readFileSync(ca) });
        const say = (...words) => console.log(words.join(' '));
        const read = (stream, done) => { let text = ''; stream.setEncoding('utf8'); stream.on('data', d => text += d); stream.on('end', () => done(text)); };
        session.on('error', e => { say('session', e.message); process.exit(1); });

        function request(next) {
          const stream = session.request({ ':method': 'POST', ':scheme': 'http', ':authority': 'api.test', ':path': '/a%2Fb?q' });
          let status; stream.on('response', h => status = h[':status']);
          read(stream, text => { say('request', status, text); next(); });
          stream.end('hello');
        }

        function tunnel(next) {
          const stream = session.request({ ':method': 'CONNECT', ':authority': `echo.test:${port}` });
          stream.on('response', h => { say('tunnel', h[':status']); stream.write('some '); stream.end('bytes'); });
          read(stream, text => { say('tunnel end', text); next(); });
        }

        function refused(next) {
          const stream = session.request({ ':method': 'CONNECT', ':authority': 'refused.test:443' });
          let status; stream.on('response', h => status = h[':status']);
          read(stream, text => { say('refused', status, text.trim()); next(); });
          stream.end();
        }

        request(() => tunnel(() => refused(() => session.close(() => say('closed')))));
        """;

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Requests_and_CONNECT_streams_share_a_connection(bool tls)
    {
        using var folder = new TempDirectory();
        using var certificates = new TestCertificates();
        using var certificate = certificates.Load();
        await using var site = await WebServer.StartAsync(app => app.Run(async context =>
        {
            using var reader = new StreamReader(context.Request.Body);
            await context.Response.WriteAsync($"{context.Request.Method} {context.Request.Host} {context.Features.Get<Microsoft.AspNetCore.Http.Features.IHttpRequestFeature>()!.RawTarget} {await reader.ReadToEndAsync()}");
        }));
        await using var target = TargetServer.Start(async (client, cancellationToken) =>
        {
            using var connection = new RawConnection(client);
            await connection.WriteAsync("[" + await connection.ReadToEndAsync() + "]");
        });
        await using var pair = await ProxyPair.StartAsync(
            [$"api.test=127.0.0.1:{site.Port}", $"echo.test:{target.Port}=127.0.0.1:{target.Port}", "refused.test=127.0.0.1:1"],
            proxy => proxy.Certificate = tls ? certificate : null);
        var script = folder.Write("visitor.cjs", Visitor);
        var url = $"{(tls ? "https" : "http")}://localhost:{pair.Port}";
        var result = await Tools.RunAsync("node", [script, url, $"{target.Port}", .. tls ? new[] { certificates.AuthorityFile } : []]);
        Assert.Equal(
            [
                "request 200 POST api.test /a%2Fb?q hello",
                "tunnel 200",
                "tunnel end [some bytes]",
                "refused 502 vtunnel: refused.test:443, behind the tunnel: cannot reach 127.0.0.1:1: connection refused",
                "closed",
            ],
            result.StandardOutput.Split('\n', StringSplitOptions.RemoveEmptyEntries));
    }

    /// <summary>TLS inside a CONNECT stream, and one request inside that.</summary>
    private const string SecureVisitor = """
        const [proxyPort, host] = process.argv.slice(2);
        const session = require('node:http2').connect(`http://127.0.0.1:${proxyPort}`);
        const stream = session.request({ ':method': 'CONNECT', ':authority': `${host}:443` });
        stream.on('response', h => {
          const socket = require('node:tls').connect({ socket: stream, servername: host, rejectUnauthorized: false, ALPNProtocols: ['http/1.1'] }, () => {
            socket.write(`GET /inside HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
          });
          let text = '';
          socket.on('data', d => text += d);
          socket.on('end', () => { console.log(socket.getPeerCertificate().issuer.CN, text.split('\r\n\r\n')[1]); session.close(); });
        });
        """;

    [Fact]
    public async Task Requests_inside_the_TLS_of_a_CONNECT_stream_are_read_where_the_proxy_ends_TLS()
    {
        using var folder = new TempDirectory();
        using var authority = new TestAuthority();
        await using var site = await WebServer.StartAsync(app => app.Run(async context =>
        {
            context.Response.ContentLength = 20;
            await context.Response.WriteAsync($"{context.Request.Path} {context.Request.Headers.Authorization}".PadRight(20));
        }));
        await using var pair = await ProxyPair.StartAsync([], authority.Use);
        await pair.ListenAsync(ForwardRule.Parse($"api.test=127.0.0.1:{site.Port}") with { Headers = [new InjectedHeader("Authorization", "Bearer x")] });
        var result = await Tools.RunAsync("node", [folder.Write("visitor.cjs", SecureVisitor), $"{pair.Port}", "api.test"]);
        Assert.Equal("VTunnel test interception /inside Bearer x", result.StandardOutput.Trim());
        await pair.Host.Log.Lines.WaitForAsync("CONNECT api.test:443, tunnel session-1 intercepted: 200");
        await pair.Host.Log.Lines.WaitForAsync("GET api.test:443, tunnel session-1: 200");
    }

    [Fact]
    public async Task Curl_uses_a_proxy_that_speaks_TLS()
    {
        using var certificates = new TestCertificates();
        using var certificate = certificates.Load();
        await using var site = await WebServer.StartAsync(app => app.Run(context => context.Response.WriteAsync("hello")));
        await using var pair = await ProxyPair.StartAsync([$"api.test=127.0.0.1:{site.Port}"], proxy => proxy.Certificate = certificate);
        string[][] ways = [[], ["-p"]];
        if ((await Tools.RunAsync("curl", ["--help", "all"])).StandardOutput.Contains("--proxy-http2", StringComparison.Ordinal))
            ways = [.. ways, ["--proxy-http2"], ["--proxy-http2", "-p"]];
        foreach (var way in ways)
        {
            var answer = await Tools.RunAsync(
                "curl", ["-sS", .. way, "-x", $"https://localhost:{pair.Port}", "--proxy-cacert", certificates.AuthorityFile, "http://api.test/"]);
            Assert.Equal("hello", answer.StandardOutput);
        }
    }
}
