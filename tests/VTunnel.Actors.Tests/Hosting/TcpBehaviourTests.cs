using System.Net.Sockets;
using System.Text;
using VTunnel.Carriers;
using VTunnel.Options;
using VTunnel.Routing;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.Actors.Tests.Hosting;

/// <summary>Half-close, reset and refusal through a v2 session, as TCP has them.</summary>
public sealed class TcpBehaviourTests
{
    [Fact]
    public async Task A_visitor_who_finishes_first_gets_the_whole_reply()
    {
        await using var target = TargetServer.Start(async (client, cancellationToken) =>
        {
            var request = await new StreamReader(client.GetStream(), leaveOpen: true).ReadToEndAsync(cancellationToken);
            await client.GetStream().WriteAsync(Encoding.ASCII.GetBytes($"you said {request.Length} bytes: ").AsMemory(), cancellationToken);
            await client.GetStream().WriteAsync(new byte[2 * 1024 * 1024].AsMemory(), cancellationToken);
        });
        await using var pair = await TunnelPair.StartAsync();
        using var visitor = await Payload.ConnectAsync(await pair.ForwardAsync(target.Port));
        var stream = visitor.GetStream();
        await stream.WriteAsync(new byte[300_000]);
        visitor.Client.Shutdown(SocketShutdown.Send);
        var reply = await Payload.ReceiveAsync(stream).WaitAsync(TestTimeouts.Long);
        Assert.Equal("you said 300000 bytes: ".Length + (2 * 1024 * 1024), reply.Length);
    }

    [Fact]
    public async Task A_target_that_finishes_first_still_gets_what_the_visitor_sends()
    {
        var received = new TaskCompletionSource<Digest>(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var target = TargetServer.Start(async (client, cancellationToken) =>
        {
            var stream = client.GetStream();
            client.Client.Shutdown(SocketShutdown.Send);
            received.SetResult(await Payload.ReceiveAsync(stream, cancellationToken: cancellationToken));
        });
        await using var pair = await TunnelPair.StartAsync();
        using var visitor = await Payload.ConnectAsync(await pair.ForwardAsync(target.Port));
        var toTarget = visitor.GetStream();
        Assert.Equal(0, await toTarget.ReadAsync(new byte[1]).AsTask().WaitAsync(TestTimeouts.Long));
        var sent = await Payload.SendRandomAsync(toTarget, 3_000_000);
        visitor.Client.Shutdown(SocketShutdown.Send);
        Assert.Equal(sent, await received.Task.WaitAsync(TestTimeouts.Long));
    }

    [Fact]
    public async Task A_reset_of_the_visitor_is_a_reset_at_the_target()
    {
        var ended = new TaskCompletionSource<Exception?>(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var target = TargetServer.Start(async (client, cancellationToken) =>
        {
            try
            {
                await Payload.ReceiveAsync(client.GetStream(), cancellationToken: cancellationToken);
                ended.SetResult(null);
            }
            catch (IOException e)
            {
                ended.SetResult(e.InnerException);
            }
        });
        await using var pair = await TunnelPair.StartAsync();
        using (var visitor = await Payload.ConnectAsync(await pair.ForwardAsync(target.Port)))
        {
            await visitor.GetStream().WriteAsync(new byte[1000]);
            await Until.TrueAsync(() => target.ConnectionCount == 1);
            // Closing the socket under its stream resets; disposing the stream would shut it down in order first.
            visitor.Client.LingerState = new LingerOption(true, 0);
            visitor.Client.Close();
        }

        var cause = await ended.Task.WaitAsync(TestTimeouts.Long);
        Assert.Equal(SocketError.ConnectionReset, Assert.IsType<SocketException>(cause).SocketErrorCode);
    }

    [Fact]
    public async Task A_reset_of_the_target_is_a_reset_at_the_visitor()
    {
        await using var target = TargetServer.Start(async (client, cancellationToken) =>
        {
            await client.GetStream().ReadExactlyAsync(new byte[1], cancellationToken);
            client.Client.LingerState = new LingerOption(true, 0);
            client.Client.Close();
        });
        await using var pair = await TunnelPair.StartAsync();
        using var visitor = await Payload.ConnectAsync(await pair.ForwardAsync(target.Port));
        await visitor.GetStream().WriteAsync(new byte[1]);
        await AssertResetAsync(visitor);
    }

    [Fact]
    public async Task A_refused_target_is_a_reset_at_the_visitor()
    {
        await using var pair = await TunnelPair.StartAsync();
        var port = await pair.ForwardAsync(FreePorts.Next());
        try
        {
            using var visitor = await Payload.ConnectAsync(port);
            await AssertResetAsync(visitor);
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.ConnectionReset)
        {
            // The reset was there before the visitor's system had reported the connection.
        }
    }

    [Fact]
    public async Task Both_directions_saturated_with_stalled_readers_move_on_when_released()
    {
        // More than the windows and the kernel's buffers on the way can hold.
        const int length = 32_000_000;
        var release = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var target = TargetServer.Start(async (client, cancellationToken) =>
        {
            var sending = Payload.SendRandomAsync(client.GetStream(), length, cancellationToken);
            await release.Task.WaitAsync(cancellationToken);
            var received = await Payload.ReceiveAsync(client.GetStream(), length, cancellationToken);
            await sending;
            Assert.Equal(length, received.Length);
        });
        await using var pair = await TunnelPair.StartAsync();
        var port = await pair.ForwardAsync(target.Port);
        var visitors = await Task.WhenAll(Enumerable.Range(0, 3).Select(_ => Payload.ConnectAsync(port)));
        var sending = visitors.Select(visitor => Payload.SendRandomAsync(visitor.GetStream(), length)).ToArray();
        await Until.TrueAsync(() => target.ConnectionCount == 3);
        Assert.DoesNotContain(sending, task => task.IsCompleted);

        // Others on the same session do not notice.
        await using var echo = TargetServer.StartEcho();
        await Payload.EchoOnceAsync(await pair.ForwardAsync(echo.Port), 500_000).WaitAsync(TestTimeouts.Long);

        release.SetResult();
        foreach (var visitor in visitors)
            Assert.Equal(length, (await Payload.ReceiveAsync(visitor.GetStream(), length).WaitAsync(TestTimeouts.Long)).Length);
        await Task.WhenAll(sending).WaitAsync(TestTimeouts.Long);
        foreach (var visitor in visitors)
            visitor.Dispose();
    }

    [Theory]
    [InlineData(ProtocolPreference.Auto, ProtocolPreference.Auto)]
    [InlineData(ProtocolPreference.V1, ProtocolPreference.Auto)]
    [InlineData(ProtocolPreference.Auto, ProtocolPreference.V1)]
    [InlineData(ProtocolPreference.V1, ProtocolPreference.V1)]
    [InlineData(ProtocolPreference.V2, ProtocolPreference.V2)]
    public async Task Every_pairing_of_protocols_carries_streams(ProtocolPreference server, ProtocolPreference client)
    {
        await using var echo = TargetServer.StartEcho();
        await using var pair = await TunnelPair.StartAsync(s => s.Protocol = server, c => c.Protocol = client);
        await Payload.EchoOnceAsync(await pair.ForwardAsync(echo.Port), 1_000_000).WaitAsync(TestTimeouts.Long);
    }

    [Theory]
    [InlineData(ProtocolPreference.V1, ProtocolPreference.V2)]
    [InlineData(ProtocolPreference.V2, ProtocolPreference.V1)]
    public async Task A_forced_protocol_that_the_other_side_does_not_speak_is_refused_with_a_reason(
        ProtocolPreference server, ProtocolPreference client)
    {
        var refused = await Assert.ThrowsAsync<TunnelConnectException>(
            () => TunnelPair.StartAsync(s => s.Protocol = server, c => c.Protocol = client));
        Assert.Equal(ConnectError.Refused, refused.Code);
    }

    private static async Task AssertResetAsync(TcpClient visitor)
    {
        var broken = await Assert.ThrowsAsync<IOException>(async () =>
            await visitor.GetStream().ReadExactlyAsync(new byte[1]).AsTask().WaitAsync(TestTimeouts.Long));
        Assert.Equal(SocketError.ConnectionReset, Assert.IsType<SocketException>(broken.InnerException).SocketErrorCode);
    }
}

internal static class Until
{
    /// <summary>Waits for something that raises no event.</summary>
    public static async Task TrueAsync(Func<bool> condition)
    {
        using var deadline = new CancellationTokenSource(TestTimeouts.Long);
        while (!condition())
        {
            deadline.Token.ThrowIfCancellationRequested();
            await Ticks.NextAsync();
        }
    }
}
