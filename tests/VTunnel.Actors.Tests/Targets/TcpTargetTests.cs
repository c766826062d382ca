using System.Net;
using System.Net.Sockets;
using VTunnel.Options;
using VTunnel.Routing;
using VTunnel.Targets;

namespace VTunnel.Actors.Tests.Targets;

public sealed class TcpTargetTests : IAsyncLifetime
{
    private readonly TargetDialer _dialer = new(TimeSpan.FromSeconds(20), new TlsTrustOptions());
    private readonly Socket _listener = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);

    public TcpTargetTests()
    {
        _listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        _listener.Listen();
    }

    private int Port => ((IPEndPoint)_listener.LocalEndPoint!).Port;

    public Task InitializeAsync() => Task.CompletedTask;

    public async Task DisposeAsync()
    {
        _listener.Dispose();
        await _dialer.DisposeAsync();
    }

    // The listener is on 127.0.0.1 alone: a name with a second, refusing address must still connect.
    [Theory]
    [InlineData("127.0.0.1")]
    [InlineData("localhost")]
    public async Task A_target_is_reached_by_name_and_by_address(string host)
    {
        using var endpoint = await _dialer.DialAsync(new ForwardTarget(TargetScheme.Tcp, host, Port), default);
        using var server = await _listener.AcceptAsync().WaitAsync(EndpointExtensions.Patience);

        await endpoint.SendTextAsync("GET / HTTP/1.1\r\nHost: untouched\r\n\r\n");
        var buffer = new byte[100];
        var read = await server.ReceiveAsync(buffer).WaitAsync(EndpointExtensions.Patience);
        Assert.Equal("GET / HTTP/1.1\r\nHost: untouched\r\n\r\n", System.Text.Encoding.Latin1.GetString(buffer, 0, read));
        Assert.Equal(server.LocalEndPoint, Unmapped(endpoint.RemoteEndPoint));
        Assert.False(_dialer.IsRewriterStarted);
    }

    [Fact]
    public async Task Each_direction_ends_alone()
    {
        using var endpoint = await _dialer.DialAsync(new ForwardTarget(TargetScheme.Tcp, "127.0.0.1", Port), default);
        using var server = await _listener.AcceptAsync().WaitAsync(EndpointExtensions.Patience);

        await endpoint.FinishSendingAsync();
        Assert.Equal(0, await server.ReceiveAsync(new byte[1]).WaitAsync(EndpointExtensions.Patience));
        await server.SendAsync("after the end"u8.ToArray());
        server.Shutdown(SocketShutdown.Send);
        Assert.Equal("after the end", await endpoint.ReceiveToEndAsync());
    }

    [Fact]
    public async Task An_abort_is_a_reset()
    {
        using var endpoint = await _dialer.DialAsync(new ForwardTarget(TargetScheme.Tcp, "127.0.0.1", Port), default);
        using var server = await _listener.AcceptAsync().WaitAsync(EndpointExtensions.Patience);

        endpoint.Abort();
        var e = await Assert.ThrowsAsync<SocketException>(() => server.ReceiveAsync(new byte[1]).WaitAsync(EndpointExtensions.Patience));
        Assert.Equal(SocketError.ConnectionReset, e.SocketErrorCode);
    }

    [Theory]
    [InlineData(TargetScheme.Tcp, "")]
    [InlineData(TargetScheme.Tls, "tls://")]
    public async Task A_refusal_says_so(TargetScheme scheme, string prefix)
    {
        var port = Port;
        _listener.Dispose();

        var e = await Assert.ThrowsAsync<TargetException>(
            () => _dialer.DialAsync(new ForwardTarget(scheme, "127.0.0.1", port), default).WaitAsync(EndpointExtensions.Patience));
        Assert.Equal(TargetError.ConnectionRefused, e.Code);
        Assert.Equal($"cannot reach {prefix}127.0.0.1:{port}: connection refused", e.Message);
    }

    [Fact]
    public async Task A_name_that_does_not_exist_says_so()
    {
        var e = await Assert.ThrowsAsync<TargetException>(
            () => _dialer.DialAsync(new ForwardTarget(TargetScheme.Tcp, "no-such-host.invalid", 80), default).WaitAsync(EndpointExtensions.Patience));
        Assert.Equal(TargetError.NameNotFound, e.Code);
        Assert.Equal("cannot reach no-such-host.invalid:80: the name 'no-such-host.invalid' was not found", e.Message);
    }

    [Fact]
    public async Task A_cancelled_attempt_is_cancelled_and_not_timed_out()
    {
        using var cancelled = new CancellationTokenSource();
        await cancelled.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(
            () => _dialer.DialAsync(new ForwardTarget(TargetScheme.Tcp, "127.0.0.1", Port), cancelled.Token));
    }

    [Fact]
    public async Task A_dialer_that_was_disposed_dials_no_more()
    {
        await _dialer.DisposeAsync();
        await Assert.ThrowsAsync<ObjectDisposedException>(
            () => _dialer.DialAsync(new ForwardTarget(TargetScheme.Tcp, "127.0.0.1", Port), default));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(-5)]
    public void A_timeout_that_allows_nothing_is_refused(int seconds) =>
        Assert.Throws<ArgumentOutOfRangeException>(() => new TargetDialer(TimeSpan.FromSeconds(seconds), new TlsTrustOptions()));

    private static EndPoint? Unmapped(EndPoint? endPoint) =>
        endPoint is IPEndPoint { Address.IsIPv4MappedToIPv6: true } mapped ? new IPEndPoint(mapped.Address.MapToIPv4(), mapped.Port) : endPoint;
}
