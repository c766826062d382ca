using System.Net;
using System.Net.Sockets;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Options;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Streams;

/// <summary>What a TCP connection through protocol v1 is like for the two programs at its ends.</summary>
public sealed class ConnectionTests : IAsyncLifetime
{
    private const int Much = 1024 * 1024;

    private TunnelPair _pair = null!;

    public async Task InitializeAsync() => _pair = await TunnelPair.StartAsync(server => server.Protocol = ProtocolPreference.V1);

    public async Task DisposeAsync() => await _pair.DisposeAsync();

    [Theory]
    [InlineData(1)]
    [InlineData(Much)]
    public async Task What_a_visitor_sent_before_it_closed_reaches_the_target(int length)
    {
        using var target = Listen(out var targetPort);
        var port = await _pair.ForwardAsync(targetPort);
        using var visitor = await Payload.ConnectAsync(port);
        using var accepted = await target.AcceptTcpClientAsync().WaitAsync(TestTimeouts.Step);

        var sent = await Payload.SendRandomAsync(visitor.GetStream(), length).WaitAsync(TestTimeouts.Step);
        visitor.Close();

        // The target begins to read when the visitor is long gone.
        await _pair.Host.Log.Lines.WaitForAsync("session-1 stream 1 ends: Completed");
        Assert.Equal(sent, await Payload.ReceiveAsync(accepted.GetStream()).WaitAsync(TestTimeouts.Step));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(Much)]
    public async Task What_a_target_sent_before_it_closed_reaches_the_visitor(int length)
    {
        Digest? sent = null;
        await using var target = TargetServer.Start(async (client, ct) => sent = await Payload.SendRandomAsync(client.GetStream(), length, ct));
        var port = await _pair.ForwardAsync(target.Port);
        using var visitor = await Payload.ConnectAsync(port);

        var received = await Payload.ReceiveAsync(visitor.GetStream()).WaitAsync(TestTimeouts.Step);
        Assert.Equal(length, received.Length);
        Assert.Equal(sent, received);
    }

    [Fact]
    public async Task What_a_target_sent_before_it_closed_reaches_a_visitor_that_goes_on_sending()
    {
        Digest? sent = null;
        await using var target = TargetServer.Start(async (client, ct) =>
        {
            var connection = client.GetStream();
            sent = await Payload.SendRandomAsync(connection, Much, ct);
            client.Client.Shutdown(SocketShutdown.Send);

            // A socket that is closed with unread bytes is reset, tunnel or not.
            await Payload.ReceiveAsync(connection, cancellationToken: ct);
        });
        var port = await _pair.ForwardAsync(target.Port);
        using var visitor = await Payload.ConnectAsync(port);
        var stream = visitor.GetStream();
        var talking = Task.Run(TalkAsync);

        var received = await Payload.ReceiveAsync(stream).WaitAsync(TestTimeouts.Step);
        Assert.Equal(sent, received);
        visitor.Close();
        await talking;

        async Task TalkAsync()
        {
            try
            {
                while (true)
                    await stream.WriteAsync(new byte[10_000]);
            }
            catch (Exception e) when (e is IOException or ObjectDisposedException)
            {
                // Nobody listens any more.
            }
        }
    }

    [Fact]
    public async Task A_reset_by_the_visitor_ends_the_targets_connection()
    {
        using var target = Listen(out var targetPort);
        var port = await _pair.ForwardAsync(targetPort);
        using var visitor = await Payload.ConnectAsync(port);
        using var accepted = await target.AcceptTcpClientAsync().WaitAsync(TestTimeouts.Step);

        Reset(visitor);

        Assert.Equal(0, await accepted.GetStream().ReadAsync(new byte[1]).AsTask().WaitAsync(TestTimeouts.Step));
        await _pair.Host.Log.Lines.WaitForAsync("session-1 stream 1 ends: EndpointReset");
    }

    [Fact]
    public async Task A_reset_by_the_target_ends_the_visitors_connection()
    {
        using var target = Listen(out var targetPort);
        var port = await _pair.ForwardAsync(targetPort);
        using var visitor = await Payload.ConnectAsync(port);
        using var accepted = await target.AcceptTcpClientAsync().WaitAsync(TestTimeouts.Step);

        Reset(accepted);
        Assert.Equal(0, await visitor.GetStream().ReadAsync(new byte[1]).AsTask().WaitAsync(TestTimeouts.Step));
    }

    [Fact]
    public async Task A_target_that_refuses_ends_the_visitors_connection_and_is_named_in_the_log()
    {
        var nobody = FreePorts.Next();
        var port = await _pair.ForwardAsync(nobody);
        using var visitor = await Payload.ConnectAsync(port);

        Assert.Equal(0, await visitor.GetStream().ReadAsync(new byte[1]).AsTask().WaitAsync(TestTimeouts.Step));
        var line = await _pair.Host.Log.Lines.WaitForAsync("connection refused");
        Assert.Contains($"127.0.0.1:{nobody}", line, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_stalled_reader_stops_the_writer_and_loses_nothing(bool visitorStalls)
    {
        using var target = Listen(out var targetPort);
        var port = await _pair.ForwardAsync(targetPort);
        using var visitor = await Payload.ConnectAsync(port);
        using var accepted = await target.AcceptTcpClientAsync().WaitAsync(TestTimeouts.Step);
        var (writer, reader) = visitorStalls ? (accepted, visitor) : (visitor, accepted);

        var writing = StallingWriter.Start(writer);
        Assert.InRange(await writing.WaitForStallAsync(), 1, StallingWriter.BoundedBytes);

        var receiving = Payload.ReceiveAsync(reader.GetStream());
        var sent = await writing.StopAsync();
        writer.Close();
        Assert.Equal(sent, await receiving.WaitAsync(TestTimeouts.Step));
    }

    [Fact]
    public async Task Many_short_connections_in_a_row_leave_nothing_behind()
    {
        await using var echo = TargetServer.StartEcho();
        var port = await _pair.ForwardAsync(echo.Port);
        for (var i = 0; i < 300; i++)
            await Payload.EchoOnceAsync(port, 10).WaitAsync(TestTimeouts.Step);

        await _pair.Host.Log.Lines.WaitForAsync("session-1 stream 300 ends");
        Assert.Equal(300, echo.ConnectionCount);
        Assert.Equal(0, _pair.Host.Log.Lines.CountOf("Error"));
    }

    private static void Reset(TcpClient client)
    {
        client.LingerState = new LingerOption(true, 0);
        client.Client.Close();
    }

    private static TcpListener Listen(out int port)
    {
        var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        port = ((IPEndPoint)listener.LocalEndpoint).Port;
        return listener;
    }
}
