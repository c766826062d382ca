using System.Net.Sockets;
using VTunnel.Hosting;
using VTunnel.Options;
using VTunnel.Routing;
using VTunnel.Supervision;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.Actors.Tests.Hosting;

/// <summary>What protocol v2 is for: streams that outlive their connection. Everything goes through a proxy that breaks.</summary>
public sealed class ResumeTests : IAsyncLifetime
{
    private readonly TargetServer _echo = TargetServer.StartEcho();
    private FaultProxy? _proxy;

    public Task InitializeAsync() => Task.CompletedTask;

    public async Task DisposeAsync()
    {
        if (_proxy is not null)
            await _proxy.DisposeAsync();
        await _echo.DisposeAsync();
    }

    private Task<TunnelPair> StartAsync(Action<TunnelServerOptions>? server = null, Action<TunnelClientOptions>? client = null) =>
        TunnelPair.StartAsync(
            server,
            options =>
            {
                options.AutoReconnect = true;
                options.ReconnectMin = TimeSpan.FromMilliseconds(20);
                options.ReconnectMax = TimeSpan.FromMilliseconds(100);
                client?.Invoke(options);
            },
            route: address =>
            {
                _proxy = FaultProxy.Start(address.Port);
                return new UriBuilder(address) { Port = _proxy.Port }.Uri;
            });

    [Theory]
    [InlineData(ProxyCut.Fin, ProxyDirection.ToTarget)]
    [InlineData(ProxyCut.Fin, ProxyDirection.FromTarget)]
    [InlineData(ProxyCut.Reset, ProxyDirection.ToTarget)]
    [InlineData(ProxyCut.Reset, ProxyDirection.FromTarget)]
    public async Task Transfers_complete_unchanged_while_the_connection_is_cut_at_random_bytes(ProxyCut cut, ProxyDirection direction)
    {
        await using var pair = await StartAsync();
        var port = await pair.ForwardAsync(_echo.Port);

        var cuts = 0;
        using var deadline = new CancellationTokenSource(TestTimeouts.Long);
        var transfers = Task.WhenAll(Enumerable.Range(0, 4).Select(async _ =>
        {
            using var visitor = await Payload.ConnectAsync(port);
            await Payload.EchoAsync(visitor.GetStream(), 8 * 1024 * 1024);
        }));
        while (!transfers.IsCompleted)
        {
            var accepted = _proxy!.AcceptedCount;
            _proxy.CutAfter(direction, Random.Shared.Next(1, 4 * 1024 * 1024), cut);
            while (!transfers.IsCompleted && _proxy.AcceptedCount == accepted)
                await Task.WhenAny(transfers, Ticks.NextAsync()).WaitAsync(deadline.Token);
            cuts++;
        }

        await transfers;
        Assert.True(cuts > 2, $"only {cuts} cuts");
    }

    [Fact]
    public async Task A_black_hole_is_found_by_keepalive_and_nothing_is_lost()
    {
        await using var pair = await StartAsync(client: options => options.PingInterval = TimeSpan.FromMilliseconds(300));
        var port = await pair.ForwardAsync(_echo.Port);
        using var visitor = await Payload.ConnectAsync(port);
        await Payload.EchoAsync(visitor.GetStream(), 1000).WaitAsync(TestTimeouts.Long);

        var accepted = _proxy!.AcceptedCount;
        _proxy.Blackhole(newConnectionsToo: false);
        await Payload.EchoAsync(visitor.GetStream(), 3 * 1024 * 1024).WaitAsync(TestTimeouts.Long);
        Assert.True(_proxy.AcceptedCount > accepted);
    }

    [Fact]
    public async Task A_visitor_who_comes_in_a_gap_is_served_after_it()
    {
        await using var pair = await StartAsync();
        var port = await pair.ForwardAsync(_echo.Port);
        var gap = WaitForAsync(pair.Client, TunnelClientState.WaitingToReconnect);
        _proxy!.RefusesConnections = true;
        await _proxy.CutAsync(ProxyCut.Reset);
        await gap;

        using var visitor = await Payload.ConnectAsync(port);
        var echo = Payload.EchoAsync(visitor.GetStream(), 300_000);
        Assert.False(echo.IsCompleted);
        _proxy.RefusesConnections = false;
        await echo.WaitAsync(TestTimeouts.Long);
    }

    [Fact]
    public async Task After_the_resume_window_visitors_are_reset_and_the_client_starts_afresh()
    {
        await using var pair = await StartAsync(server => server.ResumeWindow = TimeSpan.FromMilliseconds(300));
        var port = await pair.ForwardAsync(_echo.Port);
        using var visitor = await Payload.ConnectAsync(port);
        await Payload.EchoAsync(visitor.GetStream(), 1000).WaitAsync(TestTimeouts.Long);

        _proxy!.RefusesConnections = true;
        await _proxy.CutAsync(ProxyCut.Reset);
        var broken = await Assert.ThrowsAsync<IOException>(async () =>
            await visitor.GetStream().ReadExactlyAsync(new byte[1]).AsTask().WaitAsync(TestTimeouts.Long));
        Assert.Equal(SocketError.ConnectionReset, Assert.IsType<SocketException>(broken.InnerException).SocketErrorCode);

        _proxy.RefusesConnections = false;
        await pair.Client.ListenAsync(new ForwardRule(port, new ForwardTarget(TargetScheme.Tcp, "127.0.0.1", _echo.Port)))
            .WaitAsync(TestTimeouts.Long);
        await Payload.EchoOnceAsync(port).WaitAsync(TestTimeouts.Long);
    }

    [Fact]
    public async Task Without_a_resume_window_a_session_ends_with_its_connection()
    {
        await using var pair = await StartAsync(server => server.ResumeWindow = TimeSpan.Zero);
        var port = await pair.ForwardAsync(_echo.Port);
        using var visitor = await Payload.ConnectAsync(port);
        await Payload.EchoAsync(visitor.GetStream(), 1000).WaitAsync(TestTimeouts.Long);
        await _proxy!.CutAsync(ProxyCut.Reset);
        await Assert.ThrowsAsync<IOException>(async () =>
            await visitor.GetStream().ReadExactlyAsync(new byte[1]).AsTask().WaitAsync(TestTimeouts.Long));
    }

    [Fact]
    public async Task A_moved_client_gets_its_session_back_while_its_old_connection_still_hangs()
    {
        await using var pair = await StartAsync(client: options => options.PingInterval = TimeSpan.FromMilliseconds(300));
        var port = await pair.ForwardAsync(_echo.Port);
        using var visitor = await Payload.ConnectAsync(port);
        await Payload.EchoAsync(visitor.GetStream(), 1000).WaitAsync(TestTimeouts.Long);

        // The server never learns that the old connection is dead; its own idle timeout is a minute away.
        _proxy!.Blackhole(newConnectionsToo: false);
        await Payload.EchoAsync(visitor.GetStream(), 1000).WaitAsync(TimeSpan.FromSeconds(20));
    }

    internal static async Task WaitForAsync(TunnelClient client, TunnelClientState state)
    {
        var reached = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        client.StateChanged += (_, change) =>
        {
            if (change.State == state)
                reached.TrySetResult();
        };
        await reached.Task.WaitAsync(TestTimeouts.Long);
    }
}
