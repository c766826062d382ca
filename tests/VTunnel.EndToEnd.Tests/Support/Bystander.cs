using VTunnel.Hosting;
using VTunnel.Supervision;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Support;

/// <summary>Another client of the same server, with a connection that was there before, to tell whether a neighbour's trouble reaches it.</summary>
public sealed class Bystander : IAsyncDisposable
{
    private readonly TunnelClient _client;
    private readonly int _port;
    private readonly System.Net.Sockets.TcpClient _old;
    private bool _sessionLost;

    private Bystander(TunnelClient client, int port, System.Net.Sockets.TcpClient old)
    {
        _client = client;
        _port = port;
        _old = old;
        _client.StateChanged += (_, change) => _sessionLost |= change.State != TunnelClientState.Connected;
    }

    public static async Task<Bystander> StartAsync(TunnelHost host, TargetServer echo)
    {
        var client = await host.ConnectAsync();
        var port = await client.ForwardAsync(echo.Port);
        var old = await Payload.ConnectAsync(port);
        await Payload.EchoAsync(old.GetStream(), 1000).WaitAsync(TestTimeouts.Step);
        return new Bystander(client, port, old);
    }

    /// <summary>The old connection still works, a new one does, and the session is the one it was.</summary>
    public async Task AssertUnharmedAsync()
    {
        await Payload.EchoAsync(_old.GetStream(), 200_000).WaitAsync(TestTimeouts.Step);
        await Payload.EchoOnceAsync(_port).WaitAsync(TestTimeouts.Step);
        Assert.False(_sessionLost);
    }

    public async ValueTask DisposeAsync()
    {
        _old.Dispose();
        await _client.DisposeAsync();
    }
}
