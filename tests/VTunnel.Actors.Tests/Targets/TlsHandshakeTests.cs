using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Microsoft.Extensions.Time.Testing;
using VTunnel.Options;
using VTunnel.Routing;
using VTunnel.Targets;

namespace VTunnel.Actors.Tests.Targets;

public sealed class TlsHandshakeTests : IDisposable
{
    private static readonly TimeSpan Timeout = TimeSpan.FromSeconds(20);
    private readonly TestAuthority _authority = new();

    public void Dispose() => _authority.Dispose();

    private TlsTrustOptions Trusting => new() { CertificateAuthorityFile = _authority.PemFile };

    [Fact]
    public async Task A_private_authority_is_trusted_and_the_server_learns_the_name_and_the_protocol()
    {
        var seen = new TaskCompletionSource<(string, SslApplicationProtocol)>();
        await using var server = new TlsServer(_authority.Issue(["localhost"]), (stream, _) =>
        {
            seen.SetResult((stream.TargetHostName, stream.NegotiatedApplicationProtocol));
            return TlsServer.EchoAsync(stream, null!);
        }, SslApplicationProtocol.Http2, SslApplicationProtocol.Http11);
        await using var dialer = new TargetDialer(Timeout, Trusting);

        using var endpoint = await dialer.DialAsync(server.Target, default);

        Assert.Equal(("localhost", SslApplicationProtocol.Http11), await seen.Task.WaitAsync(EndpointExtensions.Patience));
    }

    [Fact]
    public async Task An_address_is_checked_against_the_addresses_of_the_certificate()
    {
        await using var server = new TlsServer(_authority.Issue(["127.0.0.1"]), TlsServer.EchoAsync);
        await using var dialer = new TargetDialer(Timeout, Trusting);

        using var endpoint = await dialer.DialAsync(new ForwardTarget(TargetScheme.Tls, "127.0.0.1", server.Port), default);
        await endpoint.SendTextAsync("hello");
        Assert.Equal("hello", await endpoint.ReceiveUntilAsync("hello"));
    }

    [Fact]
    public async Task A_server_of_another_protocol_that_is_strict_about_it_is_reached_all_the_same()
    {
        await using var server = new TlsServer(_authority.Issue(["localhost"]), TlsServer.EchoAsync, new SslApplicationProtocol("mqtt"));
        await using var dialer = new TargetDialer(Timeout, Trusting);

        using var endpoint = await dialer.DialAsync(server.Target, default);
        await endpoint.SendTextAsync("hello");
        Assert.Equal("hello", await endpoint.ReceiveUntilAsync("hello"));
        Assert.Equal(2, server.Accepted);
    }

    [Fact]
    public async Task A_certificate_for_another_name_is_refused_with_both_names()
    {
        await using var server = new TlsServer(_authority.Issue(["www.example.com", "10.0.0.1"]), TlsServer.EchoAsync);
        await AssertRefusedAsync(server, Trusting, "it is for 'www.example.com', '10.0.0.1', not for 'localhost'");
    }

    [Fact]
    public async Task An_authority_that_is_not_trusted_is_named()
    {
        await using var server = new TlsServer(_authority.Issue(["localhost"]), TlsServer.EchoAsync);
        await AssertRefusedAsync(server, new TlsTrustOptions(), "its issuer 'CN=Test Authority' is not trusted (to trust it: --target-ca FILE)");

        using var other = new TestAuthority("Other Authority");
        await AssertRefusedAsync(
            server, new TlsTrustOptions { CertificateAuthorityFile = other.PemFile }, "its issuer 'CN=Test Authority' is not trusted (to trust it: --target-ca FILE)");
    }

    [Fact]
    public async Task A_certificate_out_of_its_time_is_refused_with_the_date()
    {
        var now = TimeProvider.System.GetUtcNow();
        await using var expired = new TlsServer(
            _authority.Issue(["localhost"], TimeSpan.FromDays(-20), TimeSpan.FromDays(-10)), TlsServer.EchoAsync);
        await AssertRefusedAsync(expired, Trusting, FormattableString.Invariant($"it expired on {now.AddDays(-10):yyyy-MM-dd}"));

        await using var early = new TlsServer(
            _authority.Issue(["localhost"], TimeSpan.FromDays(10), TimeSpan.FromDays(20)), TlsServer.EchoAsync);
        await AssertRefusedAsync(early, Trusting, FormattableString.Invariant($"it is not valid before {now.AddDays(10):yyyy-MM-dd}"));
    }

    [Fact]
    public async Task Everything_that_is_wrong_is_said_at_once()
    {
        await using var server = new TlsServer(
            _authority.Issue(["www.example.com"], TimeSpan.FromDays(-20), TimeSpan.FromDays(-10)), TlsServer.EchoAsync);
        await AssertRefusedAsync(server, Trusting, "not for 'localhost'; it expired on ");
    }

    [Fact]
    public async Task A_self_signed_certificate_is_refused_unless_it_is_the_one_that_is_trusted()
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest("CN=localhost", key, HashAlgorithmName.SHA256);
        var names = new SubjectAlternativeNameBuilder();
        names.AddDnsName("localhost");
        request.CertificateExtensions.Add(names.Build());
        var now = TimeProvider.System.GetUtcNow();
        using var certificate = request.CreateSelfSigned(now.AddDays(-1), now.AddDays(1));
        await using var server = new TlsServer(certificate, TlsServer.EchoAsync);
        await AssertRefusedAsync(server, new TlsTrustOptions(), "it is self-signed ('CN=localhost') and not trusted (to trust it: --target-ca FILE)");

        var pem = Path.Combine(Path.GetTempPath(), $"vtunnel-test-{Guid.NewGuid():N}.pem");
        await File.WriteAllTextAsync(pem, certificate.ExportCertificatePem());
        try
        {
            await using var dialer = new TargetDialer(Timeout, new TlsTrustOptions { CertificateAuthorityFile = pem });
            using var endpoint = await dialer.DialAsync(server.Target, default);
            await endpoint.SendTextAsync("hello");
            Assert.Equal("hello", await endpoint.ReceiveUntilAsync("hello"));
        }
        finally
        {
            File.Delete(pem);
        }
    }

    [Fact]
    public async Task Insecure_accepts_whatever_is_shown()
    {
        await using var server = new TlsServer(
            _authority.Issue(["www.example.com"], TimeSpan.FromDays(-20), TimeSpan.FromDays(-10)), TlsServer.EchoAsync);
        await using var dialer = new TargetDialer(Timeout, new TlsTrustOptions { Insecure = true });

        using var endpoint = await dialer.DialAsync(server.Target, default);
        await endpoint.SendTextAsync("hello");
        Assert.Equal("hello", await endpoint.ReceiveUntilAsync("hello"));
    }

    [Fact]
    public async Task A_server_without_tls_is_a_failed_handshake()
    {
        using var listener = Listen();
        await using var dialer = new TargetDialer(Timeout, Trusting);
        var answering = AnswerInClearAsync(listener);

        var e = await Assert.ThrowsAsync<TargetException>(
            () => dialer.DialAsync(TargetOf(listener), default).WaitAsync(EndpointExtensions.Patience));
        Assert.Equal(TargetError.TlsHandshakeFailed, e.Code);
        Assert.StartsWith(
            $"cannot reach {TargetOf(listener)}: TLS: handshake with {TargetOf(listener).Authority} failed: ", e.Message, StringComparison.Ordinal);
        Assert.EndsWith("; one that does not speak TLS is written without tls://", e.Message, StringComparison.Ordinal);
        listener.Dispose();
        await answering.WaitAsync(EndpointExtensions.Patience);
    }

    [Fact]
    public async Task A_server_that_hangs_up_is_a_failed_handshake()
    {
        using var listener = Listen();
        await using var dialer = new TargetDialer(Timeout, Trusting);
        var dialing = dialer.DialAsync(TargetOf(listener), default);
        using (var server = await listener.AcceptAsync().WaitAsync(EndpointExtensions.Patience))
            await server.ReceiveAsync(new byte[1]).WaitAsync(EndpointExtensions.Patience);

        var e = await Assert.ThrowsAsync<TargetException>(() => dialing.WaitAsync(EndpointExtensions.Patience));
        Assert.Equal(TargetError.TlsHandshakeFailed, e.Code);
    }

    [Fact]
    public async Task A_handshake_that_is_never_answered_times_out_and_hangs_up()
    {
        var time = new FakeTimeProvider();
        using var listener = Listen();
        await using var dialer = new TargetDialer(TimeSpan.FromSeconds(10), Trusting, timeProvider: time);
        var dialing = dialer.DialAsync(TargetOf(listener), default);
        using var server = await AcceptHelloAsync(listener);

        time.Advance(TimeSpan.FromSeconds(9.9));
        Assert.False(dialing.IsCompleted);
        time.Advance(TimeSpan.FromSeconds(0.1));

        var e = await Assert.ThrowsAsync<TargetException>(() => dialing.WaitAsync(EndpointExtensions.Patience));
        Assert.Equal(TargetError.TimedOut, e.Code);
        Assert.Equal($"cannot reach {TargetOf(listener)}: the TLS handshake took longer than 10 s", e.Message);
        await AssertEndAsync(server);
    }

    [Fact]
    public async Task A_handshake_that_is_cancelled_hangs_up()
    {
        using var listener = Listen();
        using var cancellation = new CancellationTokenSource();
        await using var dialer = new TargetDialer(Timeout, Trusting);
        var dialing = dialer.DialAsync(TargetOf(listener), cancellation.Token);
        using var server = await AcceptHelloAsync(listener);

        await cancellation.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => dialing.WaitAsync(EndpointExtensions.Patience));
        await AssertEndAsync(server);
    }

    [Fact]
    public void A_file_of_authorities_that_cannot_be_used_is_refused_at_once()
    {
        var missing = Path.Combine(Path.GetTempPath(), $"vtunnel-test-{Guid.NewGuid():N}.pem");
        var e = Assert.Throws<TargetException>(() => new TargetDialer(Timeout, new TlsTrustOptions { CertificateAuthorityFile = missing }));
        Assert.Equal(TargetError.CertificateAuthorityFileInvalid, e.Code);
        Assert.Contains(missing, e.Message, StringComparison.Ordinal);

        File.WriteAllText(missing, "no certificate");
        try
        {
            e = Assert.Throws<TargetException>(() => new TargetDialer(Timeout, new TlsTrustOptions { CertificateAuthorityFile = missing }));
            Assert.Equal(
                $"'{missing}' holds no certificate: expected PEM with at least one BEGIN CERTIFICATE block", e.Message);
        }
        finally
        {
            File.Delete(missing);
        }
    }

    private static async Task AssertRefusedAsync(TlsServer server, TlsTrustOptions trust, string reason)
    {
        await using var dialer = new TargetDialer(Timeout, trust);
        var e = await Assert.ThrowsAsync<TargetException>(
            () => dialer.DialAsync(server.Target, default).WaitAsync(EndpointExtensions.Patience));
        Assert.Equal(TargetError.CertificateRejected, e.Code);
        Assert.StartsWith(
            $"cannot reach {server.Target}: TLS: certificate of {server.Target.Authority} refused: ", e.Message, StringComparison.Ordinal);
        Assert.Contains(reason, e.Message, StringComparison.Ordinal);
    }

    private static Socket Listen()
    {
        var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen();
        return listener;
    }

    private static ForwardTarget TargetOf(Socket listener) =>
        new(TargetScheme.Tls, "127.0.0.1", ((IPEndPoint)listener.LocalEndPoint!).Port);

    private static async Task<Socket> AcceptHelloAsync(Socket listener)
    {
        var server = await listener.AcceptAsync().WaitAsync(EndpointExtensions.Patience);
        Assert.True(await server.ReceiveAsync(new byte[16 * 1024]).WaitAsync(EndpointExtensions.Patience) > 0);
        return server;
    }

    private static async Task AssertEndAsync(Socket server)
    {
        try
        {
            Assert.Equal(0, await server.ReceiveAsync(new byte[16 * 1024]).WaitAsync(EndpointExtensions.Patience));
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.ConnectionReset)
        {
            // A reset hangs up too.
        }
    }

    private static async Task AnswerInClearAsync(Socket listener)
    {
        try
        {
            while (true)
            {
                using var server = await listener.AcceptAsync();
                await server.ReceiveAsync(new byte[16 * 1024]);
                await server.SendAsync("HTTP/1.1 400 Bad Request\r\n\r\n"u8.ToArray());
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // The test is over.
        }
    }
}
