using System.Net;
using System.Net.Sockets;
using System.Net.WebSockets;
using System.Security.Cryptography;
using System.Text;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Options;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.BadInput;

public sealed class ListenTests
{
    [Theory]
    [InlineData(0)]
    [InlineData(-1)]
    [InlineData(65536)]
    [InlineData(int.MaxValue)]
    public async Task A_port_that_is_none_is_refused_with_the_range(int port)
    {
        await using var host = await TunnelHost.StartAsync();
        await using var peer = await host.ConnectByHandAsync();
        await peer.SendListenAsync(port);

        var answer = await peer.ReceiveAsync();
        Assert.Equal(("listen_err", port), (answer.Type, answer.Port));
        Assert.Equal($"port {port} is out of range: 1 to 65535", answer.Error);
        var line = await host.Log.Lines.WaitForAsync($"session-1 may not listen on port {port}");
        Assert.StartsWith("Warning", line, StringComparison.Ordinal);
        await peer.ExpectPongAsync();
    }

    [Fact]
    public async Task A_port_beyond_the_tokens_right_is_refused_and_names_the_token_only()
    {
        var allowed = FreePorts.Next();
        var token = new AccessToken("ci", SHA256.HashData("s3cret-s3cret-s3cret"u8), [new PortRange(allowed, allowed)]);
        await using var host = await TunnelHost.StartAsync(server => server.Tokens = [token]);
        await using var peer = await host.ConnectByHandAsync(options => options.SetRequestHeader("Authorization", "Bearer s3cret-s3cret-s3cret"));

        await peer.SendListenAsync(80);
        var refused = await peer.ReceiveAsync();
        Assert.Equal(("listen_err", 80, "token 'ci' may not listen on port 80"), (refused.Type, refused.Port, refused.Error));
        await peer.SendListenAsync(allowed);
        var granted = await peer.ReceiveAsync();
        Assert.Equal(("listen_ok", allowed), (granted.Type, granted.Port));

        await host.Log.Lines.WaitForAsync("session-1 may not listen on port 80: token 'ci'");
        Assert.Equal(0, host.Log.Lines.CountOf("s3cret"));
    }

    [Fact]
    public async Task A_port_that_another_program_has_is_refused_when_it_stays_taken()
    {
        using var other = new TcpListener(IPAddress.Loopback, 0);
        other.Start();
        var port = ((IPEndPoint)other.LocalEndpoint).Port;
        await using var host = await TunnelHost.StartAsync(server => server.ListenRetryTimeout = TimeSpan.FromMilliseconds(100));
        await using var peer = await host.ConnectByHandAsync();
        await peer.SendListenAsync(port);

        var answer = await peer.ReceiveAsync();
        Assert.Equal(("listen_err", port), (answer.Type, answer.Port));
        Assert.Contains("is in use, by another program", answer.Error, StringComparison.Ordinal);
        await peer.ExpectPongAsync();
    }

    [Fact]
    public async Task Ten_thousand_listens_open_what_the_limit_allows_and_no_more()
    {
        const int Count = 10_000;
        const int FirstPort = 40_000;
        await using var echo = TargetServer.StartEcho();

        // An address that nobody else has, so that hardly any of these ports is taken there.
        var address = new IPAddress(new byte[] { 127, (byte)Random.Shared.Next(1, 255), (byte)Random.Shared.Next(1, 255), (byte)Random.Shared.Next(1, 255) });
        await using var host = await TunnelHost.StartAsync(server => server.ListenAddress = address);
        await using var other = await host.ConnectByHandAsync();
        await using var peer = await host.ConnectByHandAsync();

        var sending = SendAllAsync();
        var answers = new List<PeerMessage>();
        while (answers.Count < Count)
        {
            // While the server reads no further, since so much is asked, it gives signs of life.
            if (await peer.ReceiveAsync() is { Type: not "pong" } answer)
                answers.Add(answer);
        }

        await sending;

        // A port that is taken on all addresses has a place while it is tried, and may leave it too late for another.
        var opened = answers.Where(answer => answer.Type == "listen_ok").ToList();
        var inUse = answers.Count(answer => answer.Error?.Contains(" is in use, by another program", StringComparison.Ordinal) == true);
        var beyond = answers.Count(answer => answer.Error == "the session is at its limit of 256 listened ports");
        Assert.Equal(Count, opened.Count + inUse + beyond);
        Assert.InRange(opened.Count, 256 - inUse, 256);
        Assert.InRange(inUse, 0, 56);
        Assert.Equal(Enumerable.Range(FirstPort, Count), answers.Select(answer => answer.Port).Order());
        Assert.Equal(20, host.Log.Lines.CountOf("may not listen on port"));
        await peer.ExpectPongAsync();
        await other.ExpectPongAsync();

        await peer.CloseAsync();
        await host.Log.Lines.WaitForCountAsync("session-2 no longer listens on port", opened.Count);
        Assert.Empty((await host.GetStatusAsync()).Sessions.SelectMany(session => session.Forwards));
        using var again = new TcpListener(address, opened[0].Port);
        again.Start();

        async Task SendAllAsync()
        {
            for (var port = FirstPort; port < FirstPort + Count; port++)
                await peer.SendListenAsync(port);
        }
    }

    [Fact]
    public async Task Ten_thousand_listens_for_a_port_that_is_taken_end_nothing()
    {
        const int Count = 10_000;
        using var taken = new TcpListener(IPAddress.Loopback, 0);
        taken.Start();
        var port = ((IPEndPoint)taken.LocalEndpoint).Port;
        await using var host = await TunnelHost.StartAsync(server => server.ListenRetryTimeout = TimeSpan.Zero);
        await using var peer = await host.ConnectByHandAsync();

        var message = Encoding.UTF8.GetBytes($$"""{"type":"listen","port":{{port}}}""");
        var sending = SendAllAsync();
        PeerMessage answer;
        do
        {
            answer = await peer.ReceiveAsync();
            Assert.Contains(answer.Type, new[] { "listen_err", "pong" });
        }
        while (answer.Type != "pong");
        await sending;

        Assert.Equal(0, host.Log.Lines.CountOf("Error"));
        Assert.Equal(0, host.Log.Lines.CountOf("session-1 down"));

        async Task SendAllAsync()
        {
            for (var i = 0; i < Count; i++)
                await peer.SendAsync(message, WebSocketMessageType.Text, endOfMessage: true);
            await peer.SendAsync("""{"type":"ping"}""");
        }
    }
}
