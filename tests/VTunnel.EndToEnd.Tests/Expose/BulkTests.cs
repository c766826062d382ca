using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Expose;

[Collection(Heavy.Name)]
public sealed class BulkTests
{
    [Theory]
    [InlineData("v1")]
    [InlineData("v2")]
    public async Task Sixty_four_MiB_pass_both_ways_at_once_unchanged(string protocol)
    {
        const long Length = 64L * 1024 * 1024;
        var atTarget = new TaskCompletionSource<(Digest Sent, Digest Received)>();
        await using var target = TargetServer.Start(async (connection, cancellationToken) =>
        {
            atTarget.SetResult(await Payload.ExchangeAsync(connection.GetStream(), Length, cancellationToken));
            await Payload.ReceiveAsync(connection.GetStream(), cancellationToken: cancellationToken);
        });
        await using var server = await ServerProgram.StartAsync();
        var port = FreePorts.Next();
        await using var client = await ClientProgram.StartAsync(server.Url, port, target.Port, "-protocol", protocol);

        using var visitor = await Payload.ConnectAsync(port);
        var here = await Payload.ExchangeAsync(visitor.GetStream(), Length).WaitAsync(TestTimeouts.Long);
        var there = await atTarget.Task.WaitAsync(TestTimeouts.Step);

        Assert.Equal(Length, here.Received.Length);
        Assert.Equal(here.Sent, there.Received);
        Assert.Equal(there.Sent, here.Received);
    }

    [Theory]
    [InlineData("v1")]
    [InlineData("v2")]
    public async Task Two_hundred_connections_at_once_are_each_served_right(string protocol)
    {
        await using var echo = TargetServer.StartEcho();
        await using var server = await ServerProgram.StartAsync();
        var port = FreePorts.Next();
        await using var client = await ClientProgram.StartAsync(server.Url, port, echo.Port, "-protocol", protocol);

        // Nobody leaves before everybody is there.
        var everybody = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var here = 0;
        await Task.WhenAll(Enumerable.Range(0, 200).Select(async number =>
        {
            using var visitor = await Payload.ConnectAsync(port);
            await Payload.EchoAsync(visitor.GetStream(), 1 + number * 500);
            if (Interlocked.Increment(ref here) == 200)
                everybody.SetResult();
            await everybody.Task;
            await Payload.EchoAsync(visitor.GetStream(), 20_000);
        })).WaitAsync(TestTimeouts.Long);

        Assert.Equal(200, echo.ConnectionCount);
    }
}
