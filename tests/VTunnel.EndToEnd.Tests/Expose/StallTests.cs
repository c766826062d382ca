using System.Net;
using System.Net.Sockets;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Expose;

/// <summary>Readers that stall, through the real program.</summary>
public sealed class StallTests
{
    [Theory]
    [InlineData("v1", true)]
    [InlineData("v1", false)]
    [InlineData("v2", true)]
    [InlineData("v2", false)]
    public async Task A_reader_that_stalls_for_longer_than_the_keepalive_does_not_lose_the_connection(string protocol, bool visitorStalls)
    {
        using var target = new TcpListener(IPAddress.Loopback, 0);
        target.Start();
        await using var server = await ServerProgram.StartAsync(["-idle-timeout", "2s"]);
        var port = FreePorts.Next();
        await using var client = await ClientProgram.StartAsync(
            server.Url, port, ((IPEndPoint)target.LocalEndpoint).Port, "-protocol", protocol, "-ping-interval", "1s");
        using var visitor = await Payload.ConnectAsync(port);
        using var accepted = await target.AcceptTcpClientAsync().WaitAsync(TestTimeouts.Step);
        var (writer, reader) = visitorStalls ? (accepted, visitor) : (visitor, accepted);

        // The stall goes on until two who really said nothing have been given up, one after the other.
        var writing = StallingWriter.Start(writer);
        Assert.InRange(await writing.WaitForStallAsync(), 1, StallingWriter.BoundedBytes);
        foreach (var session in (int[])[2, 3])
        {
            await using var silent = await HandPeer.ConnectAsync(new Uri(server.Url));
            await server.Program.Output.WaitForAsync($"session-{session} down");
        }

        var receiving = Payload.ReceiveAsync(reader.GetStream());
        var sent = await writing.StopAsync();
        writer.Close();
        Assert.Equal(sent, await receiving.WaitAsync(TestTimeouts.Step));
        Assert.Equal(0, server.Program.Output.CountOf("session-1 down"));
        Assert.Equal(0, server.Program.Output.CountOf("has lost its connection"));
        Assert.Equal(0, client.Program.Output.CountOf("has lost its connection"));
        Assert.Equal(0, client.Program.Output.CountOf("trying again in"));
    }
}
