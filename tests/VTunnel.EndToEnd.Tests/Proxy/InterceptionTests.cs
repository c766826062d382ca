using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography.X509Certificates;
using Grpc.Core;
using Grpc.Net.Client;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Options;
using VTunnel.Routing;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Proxy;

/// <summary>Requests inside TLS that ends at the proxy, and headers that only the client knows.</summary>
public sealed class InterceptionTests : IAsyncLifetime, IDisposable
{
    private readonly TempDirectory _folder = new();
    private readonly TestCertificates _targets = new("secure.test");
    private string _authority = "";

    private string Trusted => Path.ChangeExtension(_authority, ".crt");

    public async Task InitializeAsync()
    {
        _authority = _folder.File("ca.pem");
        var made = await Tools.RunAsync(BuiltProgram.File, ["ca", "create", "--constraint", "test", "--out", _authority]);
        Assert.Contains("update-ca-certificates", made.StandardOutput, StringComparison.Ordinal);
        if (!OperatingSystem.IsWindows())
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(_authority));
    }

    public Task DisposeAsync() => Task.CompletedTask;

    public void Dispose()
    {
        _folder.Dispose();
        _targets.Dispose();
    }

    private void Intercept(ProxyOptions options) => options.InterceptionAuthority = X509Certificate2.CreateFromPemFile(_authority, _authority);

    private static Task<WebServer> StartSiteAsync(X509Certificate2? certificate = null, HttpProtocols? protocols = null) => WebServer.StartAsync(
        app => app.Run(async context =>
        {
            using var reader = new StreamReader(context.Request.Body);
            var body = await reader.ReadToEndAsync();
            var request = context.Request;
            await context.Response.WriteAsync(
                $"{request.Scheme} {request.Protocol} {request.Method} {request.Host}{request.Path} {request.Headers.Authorization} {request.Headers["X-Env"]} {body.Length}\n");
        }),
        certificate,
        protocols: protocols);

    private static ForwardRule WithHeaders(string forward) =>
        ForwardRule.Parse(forward) with { Headers = [new InjectedHeader("Authorization", "Bearer s3cret"), new InjectedHeader("X-Env", "preview")] };

    private async Task<ProxyPair> StartAsync(params ForwardRule[] rules)
    {
        var pair = await ProxyPair.StartAsync([], Intercept, client => client.TargetTls = new TlsTrustOptions { CertificateAuthorityFile = _targets.AuthorityFile });
        foreach (var rule in rules)
            await pair.Client.ListenAsync(rule).WaitAsync(TestTimeouts.Step);
        return pair;
    }

    [Fact]
    public async Task Headers_are_added_to_plain_and_to_intercepted_requests_in_place_of_the_visitors_own()
    {
        await using var site = await StartSiteAsync();
        await using var pair = await StartAsync(WithHeaders($"api.test=127.0.0.1:{site.Port}"));
        string[] own = ["-H", "authorization: Bearer mine", "-H", "X-ENV: other", "--cacert", Trusted];
        Assert.Equal("http HTTP/1.1 GET api.test/a Bearer s3cret preview 0\n", await pair.CurlAsync([.. own, "http://api.test/a"]));
        Assert.Equal("http HTTP/1.1 GET api.test/b Bearer s3cret preview 0\n", await pair.CurlAsync([.. own, "https://api.test/b"]));
        Assert.Equal("http HTTP/1.1 POST api.test/c Bearer s3cret preview 3\n", await pair.CurlAsync([.. own, "--http1.1", "-d", "abc", "https://api.test/c"]));
        Assert.DoesNotContain(pair.Host.Log.Lines.Lines, line => line.Contains("s3cret", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("http://api.test/")]
    [InlineData("https://api.test/")]
    public async Task What_is_added_cannot_be_asked_for(string url)
    {
        // It sends back whatever it gets, which is no answer.
        await using var echo = TargetServer.StartEcho();
        await using var refusing = await StartAsync(WithHeaders("api.test=127.0.0.1:1"));
        await using var pair = await StartAsync(WithHeaders($"api.test=127.0.0.1:{echo.Port}"));
        string[] show = ["-v", "--cacert", Trusted, "-w", "%{http_code}"];

        var traced = await pair.TryCurlAsync([.. show, "-X", "TRACE", url]);
        Assert.EndsWith("405", traced.StandardOutput, StringComparison.Ordinal);
        Assert.Equal(0, echo.ConnectionCount);

        var echoed = await pair.TryCurlAsync([.. show, url]);
        Assert.EndsWith("502", echoed.StandardOutput, StringComparison.Ordinal);
        Assert.Equal(1, echo.ConnectionCount);

        var refused = await refusing.TryCurlAsync([.. show, url]);
        Assert.EndsWith("502", refused.StandardOutput, StringComparison.Ordinal);
        foreach (var answer in new[] { traced, echoed, refused })
            Assert.DoesNotContain("s3cret", answer.StandardOutput + answer.StandardError, StringComparison.Ordinal);
        Assert.DoesNotContain(pair.Host.Log.Lines.Lines, line => line.Contains("s3cret", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_forwarded_port_with_headers_carries_requests_that_get_them()
    {
        await using var site = await StartSiteAsync();
        await using var pair = await StartAsync();
        var port = FreePorts.Next();
        await pair.Client.ListenAsync(WithHeaders($"{port}=127.0.0.1:{site.Port}")).WaitAsync(TestTimeouts.Step);
        var answer = await Tools.RunAsync("curl", ["-sS", $"http://127.0.0.1:{port}/"]);
        Assert.Equal($"http HTTP/1.1 GET 127.0.0.1:{port}/ Bearer s3cret preview 0\n", answer.StandardOutput);
    }

    [Fact]
    public async Task A_target_that_speaks_TLS_is_spoken_to_in_HTTP2_where_the_visitor_does_and_it_can()
    {
        using var certificate = _targets.Load();
        await using var both = await StartSiteAsync(certificate);
        await using var one = await StartSiteAsync(certificate, HttpProtocols.Http1);
        await using var pair = await StartAsync(
            WithHeaders($"both.test=tls://localhost:{both.Port}"), ForwardRule.Parse($"one.test=tls://localhost:{one.Port}"));
        string[] trust = ["--cacert", Trusted, "-w", "%{http_version} "];
        Assert.Equal($"https HTTP/2 GET localhost:{both.Port}/ Bearer s3cret preview 0\n2 ", await pair.CurlAsync([.. trust, "https://both.test/"]));
        Assert.Equal($"https HTTP/1.1 GET localhost:{both.Port}/ Bearer s3cret preview 0\n1.1 ", await pair.CurlAsync([.. trust, "--http1.1", "https://both.test/"]));
        Assert.Equal($"https HTTP/1.1 GET localhost:{one.Port}/   0\n2 ", await pair.CurlAsync([.. trust, "https://one.test/"]));
        Assert.Equal($"https HTTP/1.1 GET localhost:{both.Port}/ Bearer s3cret preview 0\n1.1 ", await pair.CurlAsync([.. trust, "http://both.test/"]));
    }

    [Fact]
    public async Task Only_forwarded_domains_are_intercepted_and_only_where_it_is_asked_for()
    {
        using var certificate = _targets.Load();
        await using var site = await StartSiteAsync(certificate);
        await using var pair = await StartAsync(ForwardRule.Parse($"api.test=tls://localhost:{site.Port}"));

        async Task<string> IssuerAsync(ProxyPair through, string url) =>
            (await through.TryCurlAsync("-k", "-v", "-o", "/dev/null", url)).StandardError.Split('\n').Single(line => line.Contains("issuer:", StringComparison.Ordinal)).Trim();

        Assert.EndsWith("CN=vtunnel authority", await IssuerAsync(pair, "https://api.test/"), StringComparison.Ordinal);
        Assert.EndsWith("CN=VTunnel test authority", await IssuerAsync(pair, $"https://direct.test:{site.Port}/"), StringComparison.Ordinal);

        await using var plain = await ProxyPair.StartAsync([$"secure.test=127.0.0.1:{site.Port}", $"tls.test=tls://localhost:{site.Port}"]);
        Assert.EndsWith("CN=VTunnel test authority", await IssuerAsync(plain, "https://secure.test/"), StringComparison.Ordinal);
        Assert.EndsWith("CN=VTunnel test authority", await IssuerAsync(plain, "https://tls.test/"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_visitor_who_does_not_trust_the_authority_is_told_of_in_the_log()
    {
        await using var pair = await StartAsync(ForwardRule.Parse("api.test=127.0.0.1:1"));

        Assert.NotEqual(0, (await pair.TryCurlAsync("https://api.test/")).ExitCode);

        await pair.Host.Log.Lines.WaitForAsync(
            "The visitor's TLS to api.test:443 could not be ended by the proxy: the visitor does not trust the certificate; it has to trust the authority of --proxy-mitm-ca");
    }

    [Fact]
    public async Task A_target_whose_certificate_is_not_trusted_is_a_failed_leg()
    {
        using var others = new TestCertificates();
        using var certificate = others.Load();
        await using var site = await StartSiteAsync(certificate);
        await using var pair = await StartAsync(ForwardRule.Parse($"api.test=tls://localhost:{site.Port}"));
        var answer = await pair.CurlAsync("--cacert", Trusted, "-w", " %{http_code}", "https://api.test/");
        Assert.Contains($"localhost:{site.Port} cannot be reached: TLS with it failed: the target's certificate was refused", answer, StringComparison.Ordinal);
        Assert.EndsWith(" 502", answer, StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_is_not_TLS_inside_CONNECT_passes_as_it_is()
    {
        await using var greeter = TargetServer.Start(async (client, cancellationToken) =>
        {
            using var connection = new RawConnection(client);
            await connection.WriteAsync("220 ready\r\n");
            var line = await connection.ReadUntilAsync("\r\n");
            await connection.WriteAsync("250 " + line);
        });
        await using var pair = await StartAsync(ForwardRule.Parse($"mail.test:25=127.0.0.1:{greeter.Port}"));
        foreach (var speaksFirst in new[] { false, true })
        {
            using var visitor = await pair.ConnectAsync();
            await visitor.WriteAsync("CONNECT mail.test:25 HTTP/1.1\r\nHost: mail.test:25\r\n\r\n");
            await visitor.ReadUntilAsync("\r\n\r\n");
            if (speaksFirst)
                await visitor.WriteAsync("EHLO me\r\n");
            await visitor.ReadUntilAsync("220 ready\r\n");
            if (!speaksFirst)
                await visitor.WriteAsync("EHLO me\r\n");
            Assert.Equal("250 EHLO me\r\n", await visitor.ReadToEndAsync());
        }
    }

    [Fact]
    public async Task A_request_for_another_host_inside_an_intercepted_connection_is_misdirected()
    {
        await using var site = await StartSiteAsync();
        await using var pair = await StartAsync(ForwardRule.Parse($"api.test=127.0.0.1:{site.Port}"));
        foreach (var version in new[] { "--http1.1", "--http2" })
            Assert.EndsWith(" 421", await pair.CurlAsync(version, "--cacert", Trusted, "-w", " %{http_code}", "-H", "Host: other.test", "https://api.test/"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_v1_client_is_intercepted_too_without_its_knowledge()
    {
        await using var site = await StartSiteAsync();
        await using var pair = await ProxyPair.StartAsync([$"api.test:8080=127.0.0.1:{site.Port}"], Intercept, protocol: ProtocolPreference.V1);
        Assert.Equal("http HTTP/1.1 GET api.test:8080/   0\n", await pair.CurlAsync("--cacert", Trusted, "https://api.test:8080/"));
    }

    [Fact]
    public async Task Over_v1_the_client_sees_by_the_first_bytes_what_gets_headers_and_what_is_the_visitors_own_TLS()
    {
        using var certificate = _targets.Load();
        await using var plain = await StartSiteAsync();
        await using var secure = await StartSiteAsync(certificate);
        await using var pair = await ProxyPair.StartAsync(
            [], Intercept, client => client.TargetTls = new TlsTrustOptions { CertificateAuthorityFile = _targets.AuthorityFile }, ProtocolPreference.V1);
        await pair.ListenAsync(WithHeaders($"plain.test=127.0.0.1:{plain.Port}"));
        await pair.ListenAsync(WithHeaders($"plain.test:8080=127.0.0.1:{plain.Port}"));
        await pair.ListenAsync(WithHeaders($"secure.test=tls://localhost:{secure.Port}"));
        await pair.ListenAsync(ForwardRule.Parse($"*.bare.test=tls://localhost:{secure.Port}"));
        Assert.Equal("http HTTP/1.1 POST plain.test/a Bearer s3cret preview 3\n", await pair.CurlAsync("-d", "abc", "http://plain.test/a"));
        Assert.Equal("http HTTP/1.1 GET plain.test:8080/a Bearer s3cret preview 0\n", await pair.CurlAsync("http://plain.test:8080/a"));
        Assert.Equal("http HTTP/1.1 GET plain.test:8080/b Bearer s3cret preview 0\n", await pair.CurlAsync("--cacert", Trusted, "https://plain.test:8080/b"));
        Assert.Equal($"https HTTP/1.1 GET localhost:{secure.Port}/ Bearer s3cret preview 0\n", await pair.CurlAsync("http://secure.test/"));
        Assert.Equal($"https HTTP/1.1 GET localhost:{secure.Port}/   0\n", await pair.CurlAsync("http://a.bare.test/"));
        Assert.Equal($"https HTTP/1.1 GET localhost:{secure.Port}/   0\n", await pair.CurlAsync("--cacert", Trusted, "https://a.bare.test/"));

        // Nobody ends this TLS: the server takes the visitor's bytes to the client, and the client to the target.
        await using var passing = await ProxyPair.StartAsync([], protocol: ProtocolPreference.V1);
        await passing.ListenAsync(WithHeaders($"secure.test=127.0.0.1:{secure.Port}"));
        Assert.Equal("https HTTP/2 GET secure.test/   0\n", await passing.CurlAsync("--cacert", _targets.AuthorityFile, "https://secure.test/"));

        var refused = await passing.TryCurlAsync("-w", "%{http_code}", "http://secure.test/");
        Assert.EndsWith("502", refused.StandardOutput, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task GRPC_passes_with_its_trailers(bool targetSpeaksTls)
    {
        using var certificate = _targets.Load();
        await using var service = await WebServer.StartAsync(
            app => app.MapGrpcService<EchoService>(),
            targetSpeaksTls ? certificate : null,
            builder => builder.Services.AddGrpc(),
            HttpProtocols.Http2);
        await using var pair = await StartAsync(WithHeaders($"grpc.test={(targetSpeaksTls ? "tls://localhost" : "127.0.0.1")}:{service.Port}"));
        using var trusted = X509CertificateLoader.LoadCertificateFromFile(Trusted);
        using var handler = new SocketsHttpHandler
        {
            // Without one of its own, gRPC's client would look the host up by itself, past the proxy.
            ConnectCallback = async (context, cancellationToken) =>
            {
                var socket = new Socket(SocketType.Stream, ProtocolType.Tcp);
                await socket.ConnectAsync(context.DnsEndPoint, cancellationToken);
                return new NetworkStream(socket, ownsSocket: true);
            },
            Proxy = new WebProxy(pair.Url),
            SslOptions = { CertificateChainPolicy = new X509ChainPolicy { TrustMode = X509ChainTrustMode.CustomRootTrust, CustomTrustStore = { trusted }, RevocationMode = X509RevocationMode.NoCheck } },
        };
        using var channel = GrpcChannel.ForAddress("https://grpc.test/", new GrpcChannelOptions { HttpHandler = handler });
        var invoker = channel.CreateCallInvoker();
        var options = new CallOptions(deadline: DateTime.MaxValue);

        using var call = invoker.AsyncUnaryCall(EchoBase.UnaryMethod, null, options, "hello"u8.ToArray());
        Assert.Equal("hello Bearer s3cret", System.Text.Encoding.ASCII.GetString(await call.ResponseAsync.WaitAsync(TestTimeouts.Step)));
        Assert.Equal("trailing", call.GetTrailers().GetValue("x-trailer"));

        using var failing = invoker.AsyncUnaryCall(EchoBase.UnaryMethod, null, options, "fail"u8.ToArray());
        var failure = await Assert.ThrowsAsync<RpcException>(() => failing.ResponseAsync.WaitAsync(TestTimeouts.Step));
        Assert.Equal((StatusCode.FailedPrecondition, "as you wish"), (failure.StatusCode, failure.Status.Detail));

        // Each answer comes before the next message is sent.
        using var duplex = invoker.AsyncDuplexStreamingCall(EchoBase.DuplexMethod, null, options);
        for (var i = 0; i < 3; i++)
        {
            await duplex.RequestStream.WriteAsync([(byte)i]);
            Assert.True(await duplex.ResponseStream.MoveNext(CancellationToken.None).WaitAsync(TestTimeouts.Step));
            Assert.Equal([(byte)i], duplex.ResponseStream.Current);
        }

        await duplex.RequestStream.CompleteAsync();
        Assert.False(await duplex.ResponseStream.MoveNext(CancellationToken.None).WaitAsync(TestTimeouts.Step));
        Assert.Equal(StatusCode.OK, duplex.GetStatus().StatusCode);
    }

    /// <summary>A service as generated code would describe it, of bytes in and bytes out.</summary>
    [BindServiceMethod(typeof(EchoBase), nameof(Bind))]
    private abstract class EchoBase
    {
        private static readonly Marshaller<byte[]> Bytes = new(static bytes => bytes, static bytes => bytes);

        public static readonly Method<byte[], byte[]> UnaryMethod = new(MethodType.Unary, "test.Echo", nameof(Unary), Bytes, Bytes);
        public static readonly Method<byte[], byte[]> DuplexMethod = new(MethodType.DuplexStreaming, "test.Echo", nameof(Duplex), Bytes, Bytes);

        public static void Bind(ServiceBinderBase binder, EchoBase? service)
        {
            binder.AddMethod(UnaryMethod, service is null ? null : new UnaryServerMethod<byte[], byte[]>(service.Unary));
            binder.AddMethod(DuplexMethod, service is null ? null : new DuplexStreamingServerMethod<byte[], byte[]>(service.Duplex));
        }

        public abstract Task<byte[]> Unary(byte[] request, ServerCallContext context);

        public abstract Task Duplex(IAsyncStreamReader<byte[]> requests, IServerStreamWriter<byte[]> responses, ServerCallContext context);
    }

    private sealed class EchoService : EchoBase
    {
        public override Task<byte[]> Unary(byte[] request, ServerCallContext context)
        {
            if (request.AsSpan().SequenceEqual("fail"u8))
                throw new RpcException(new Status(StatusCode.FailedPrecondition, "as you wish"));
            context.ResponseTrailers.Add("x-trailer", "trailing");
            var authorization = context.GetHttpContext().Request.Headers.Authorization.ToString();
            return Task.FromResult<byte[]>([.. request, (byte)' ', .. System.Text.Encoding.ASCII.GetBytes(authorization)]);
        }

        public override async Task Duplex(IAsyncStreamReader<byte[]> requests, IServerStreamWriter<byte[]> responses, ServerCallContext context)
        {
            while (await requests.MoveNext(context.CancellationToken))
                await responses.WriteAsync(requests.Current);
        }
    }
}
