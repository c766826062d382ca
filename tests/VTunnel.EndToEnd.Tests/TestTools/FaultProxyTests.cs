using System.Net.Sockets;
using Microsoft.Extensions.Time.Testing;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.TestTools;

/// <summary>What the other tests rely on: a fault is the one that was asked for, and there is none that was not.</summary>
public sealed class FaultProxyTests : IAsyncLifetime
{
    private readonly TargetServer _echo = TargetServer.StartEcho();
    private FaultProxy _proxy = null!;

    public Task InitializeAsync()
    {
        _proxy = FaultProxy.Start(_echo.Port);
        return Task.CompletedTask;
    }

    public async Task DisposeAsync()
    {
        await _proxy.DisposeAsync();
        await _echo.DisposeAsync();
    }

    [Fact]
    public async Task Without_a_fault_everything_passes_and_ends_pass_one_by_one()
    {
        using var client = await Payload.ConnectAsync(_proxy.Port);
        var stream = client.GetStream();
        var sent = await Payload.SendRandomAsync(stream, 100_000);
        client.Client.Shutdown(SocketShutdown.Send);
        Assert.Equal(sent, await Payload.ReceiveAsync(stream).WaitAsync(TestTimeouts.Step));
        Assert.Equal(100_000, _proxy.BytesForwarded(ProxyDirection.ToTarget));
        Assert.Equal(100_000, _proxy.BytesForwarded(ProxyDirection.FromTarget));
    }

    [Theory]
    [InlineData(ProxyCut.Fin)]
    [InlineData(ProxyCut.Reset)]
    public async Task A_cut_is_the_one_that_was_asked_for_even_under_way(ProxyCut cut)
    {
        using var client = await Payload.ConnectAsync(_proxy.Port);
        await Payload.EchoAsync(client.GetStream(), 1000).WaitAsync(TestTimeouts.Step);
        await client.GetStream().WriteAsync(new byte[200_000]);
        await _proxy.CutAsync(cut);

        var ending = Payload.ReceiveAsync(client.GetStream()).WaitAsync(TestTimeouts.Step);
        if (cut == ProxyCut.Fin)
            Assert.InRange((await ending).Length, 0, 200_000);
        else
            await Assert.ThrowsAsync<IOException>(() => ending);
        Assert.Equal(0, _proxy.ConnectionCount);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(70_001)]
    public async Task A_cut_after_so_many_bytes_comes_after_exactly_those(int bytes)
    {
        using var client = await Payload.ConnectAsync(_proxy.Port);
        _proxy.CutAfter(ProxyDirection.FromTarget, bytes, ProxyCut.Fin);
        await client.GetStream().WriteAsync(new byte[100_000]);
        Assert.Equal(bytes, (await Payload.ReceiveAsync(client.GetStream()).WaitAsync(TestTimeouts.Step)).Length);
        Assert.Equal(bytes, _proxy.BytesForwarded(ProxyDirection.FromTarget));
    }

    [Fact]
    public async Task A_black_hole_lets_nothing_through_until_it_ends()
    {
        using var client = await Payload.ConnectAsync(_proxy.Port);
        await Payload.EchoAsync(client.GetStream(), 1000).WaitAsync(TestTimeouts.Step);
        _proxy.Blackhole();
        var echoing = Payload.EchoAsync(client.GetStream(), 1000);
        using (var late = await Payload.ConnectAsync(_proxy.Port))
            await late.GetStream().WriteAsync(new byte[10]);
        Assert.Equal(1000, _proxy.BytesForwarded(ProxyDirection.ToTarget));

        _proxy.Resume();
        await echoing.WaitAsync(TestTimeouts.Step);
    }

    [Fact]
    public async Task A_black_hole_for_those_that_are_there_lets_new_ones_through()
    {
        using var old = await Payload.ConnectAsync(_proxy.Port);
        await Payload.EchoAsync(old.GetStream(), 1000).WaitAsync(TestTimeouts.Step);
        _proxy.Blackhole(newConnectionsToo: false);
        await Payload.EchoOnceAsync(_proxy.Port).WaitAsync(TestTimeouts.Step);
        Assert.Equal(2, _proxy.AcceptedCount);
    }

    [Fact]
    public async Task Delay_costs_time_but_no_rate()
    {
        const int Length = 4_000_000;
        var delay = TimeSpan.FromMilliseconds(200);
        var time = new FakeTimeProvider();
        await using var proxy = FaultProxy.Start(_echo.Port, time);
        proxy.Delay(ProxyDirection.ToTarget, delay);
        using var client = await Payload.ConnectAsync(proxy.Port);
        var echoing = Payload.EchoAsync(client.GetStream(), Length);
        using var clock = new PeriodicTimer(TimeSpan.FromMilliseconds(20));
        using var deadline = new CancellationTokenSource(TestTimeouts.Step);

        // One chunk does not wait for the other: all are on their way before the first has arrived.
        while (proxy.BytesTaken(ProxyDirection.ToTarget) < Length)
            await clock.WaitForNextTickAsync(deadline.Token);
        time.Advance(delay - TimeSpan.FromMilliseconds(1));
        Assert.Equal(0, proxy.BytesForwarded(ProxyDirection.ToTarget));
        while (!echoing.IsCompleted)
        {
            time.Advance(delay);
            await clock.WaitForNextTickAsync(deadline.Token);
        }

        await echoing;
    }

    [Fact]
    public async Task Whoever_is_refused_is_reset()
    {
        _proxy.RefusesConnections = true;
        var refused = await Assert.ThrowsAnyAsync<Exception>(() => Payload.EchoOnceAsync(_proxy.Port).WaitAsync(TestTimeouts.Step));
        Assert.True(refused is IOException or SocketException, refused.ToString());
        _proxy.RefusesConnections = false;
        await Payload.EchoOnceAsync(_proxy.Port).WaitAsync(TestTimeouts.Step);
    }
}
