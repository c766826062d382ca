using System.Net;
using System.Net.Sockets;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;
using VTunnel.Testing.Network;
using VTunnel.Testing.Programs;

namespace VTunnel.EndToEnd.Tests.Expose;

/// <summary>Where the server opens ports, and where it may not.</summary>
public sealed class PortTests
{
    /// <summary>
    /// In a network of its own, where no other limit is set than the system's, and without the right to ports below 1024; root has
    /// no others then either.
    /// </summary>
    private const string WithoutTheRight =
        """
        ip link set lo up
        server="setpriv --bounding-set=-net_bind_service $VTUNNEL server --host 127.0.0.1 --port"
        $server 80
        echo "exit code $?"
        $server 3001 &
        $VTUNNEL client --server ws://127.0.0.1:3001/ --reconnect-min 50ms --reconnect-max 100ms --forward 80=localhost:1 --forward 8080=localhost:1
        """;

    [Fact]
    public async Task A_port_that_needs_a_right_is_refused_with_the_reason_and_the_others_are_opened()
    {
        // Whoever is not root is root in a namespace of its own.
        string[] user = Environment.IsPrivilegedProcess ? [] : ["--user", "--map-root-user"];
        await using var programs = RunningProgram.Start(
            Tools.Find("unshare"),
            [.. user, "--net", "--pid", "--fork", "--kill-child", "bash", "-c", WithoutTheRight],
            new Dictionary<string, string?>(Tools.Direct) { ["VTUNNEL"] = BuiltProgram.File, ["PATH"] = Tools.SearchPath });

        await programs.Output.WaitForAsync("Cannot listen on 127.0.0.1:80: permission denied; ports below 1024 need a privilege");
        await programs.Output.WaitForAsync("exit code 3");
        await programs.Output.WaitForAsync("The server refused to listen on port 80: the server may not open port 80: ports below 1024 need a privilege");
        await programs.Output.WaitForAsync("Forwarding 8080 on the server");
        Assert.Equal(0, programs.Output.CountOf(" down after"));
    }

    [Fact]
    public async Task Ports_are_opened_on_the_listen_address_alone()
    {
        await using var echo = TargetServer.StartEcho();
        await using var server = await ServerProgram.StartAsync(["-listen-address", "127.0.0.5"]);
        var port = FreePorts.Next();
        await using var client = await ClientProgram.StartAsync(server.Url, port, echo.Port);

        using var visitor = new TcpClient();
        await visitor.ConnectAsync(IPAddress.Parse("127.0.0.5"), port);
        await Payload.EchoAsync(visitor.GetStream(), 1000).WaitAsync(TestTimeouts.Step);
        await Assert.ThrowsAsync<SocketException>(() => Payload.ConnectAsync(port));
    }
}
