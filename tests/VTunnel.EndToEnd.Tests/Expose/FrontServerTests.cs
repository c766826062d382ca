using System.Net.Sockets;
using Microsoft.AspNetCore.Builder;
using VTunnel.EndToEnd.Tests.CommandLine;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Expose;

/// <summary>Other people's web servers in front of the server, as operators put them there.</summary>
public sealed class FrontServerTests
{
    [Fact]
    public async Task A_client_reaches_its_server_through_nginx()
    {
        await using var web = await WebServer.StartAsync(app => app.MapGet("/", () => "behind nginx and the tunnel"));
        await using var echo = TargetServer.StartEcho();
        await using var server = await ServerProgram.StartAsync();
        await using var nginx = await StartInFrontAsync(server.Port, "60s");
        var (webPort, echoPort) = (FreePorts.Next(), FreePorts.Next());
        await using var client = await ClientProgram.StartAsync(
            $"ws://127.0.0.1:{nginx.Port}/", [(webPort, $"127.0.0.1:{web.Port}"), (echoPort, $"127.0.0.1:{echo.Port}")]);

        var page = await Tools.RunAsync("curl", ["-sS", "--fail", $"http://127.0.0.1:{webPort}/"]);
        Assert.Equal("behind nginx and the tunnel", page.StandardOutput);
        await Payload.EchoOnceAsync(echoPort, 5_000_000).WaitAsync(TestTimeouts.Step);
        var health = await Tools.RunAsync("curl", ["-sS", "--fail", $"http://127.0.0.1:{nginx.Port}/health"]);
        Assert.Equal("ok", health.StandardOutput);
    }

    [Theory]
    [InlineData("v1")]
    [InlineData("v2")]
    public async Task A_tunnel_that_nginx_drops_for_idleness_comes_back(string protocol)
    {
        await using var echo = TargetServer.StartEcho();
        await using var server = await ServerProgram.StartAsync();
        await using var nginx = await StartInFrontAsync(server.Port, "1s");
        var port = FreePorts.Next();
        await using var client = await ClientProgram.StartAsync(
            $"ws://127.0.0.1:{nginx.Port}/", port, echo.Port, "-ping-interval", "-1s", "-reconnect-min", "20ms", "-protocol", protocol);

        // Over v1 the port closes and is asked for again; over v2 the session outlives its connection.
        await (protocol == "v1" ? client.WaitForForwardsAsync(2) : server.Program.Output.WaitForAsync(" goes on over "));
        await EchoAtLastAsync(port);
    }

    /// <summary>What has come back may be dropped again before it is used; then the next one serves.</summary>
    private static async Task EchoAtLastAsync(int port)
    {
        using var clock = new PeriodicTimer(TimeSpan.FromMilliseconds(20));
        using var deadline = new CancellationTokenSource(TestTimeouts.Step);
        while (true)
        {
            try
            {
                await Payload.EchoOnceAsync(port).WaitAsync(TestTimeouts.Step);
                return;
            }
            catch (Exception e) when (e is IOException or SocketException)
            {
                await clock.WaitForNextTickAsync(deadline.Token);
            }
        }
    }

    [Fact]
    public async Task A_server_that_nginx_cannot_reach_is_waited_for()
    {
        await using var echo = TargetServer.StartEcho();
        var serverPort = FreePorts.Next();
        await using var nginx = await StartInFrontAsync(serverPort, "60s");
        var port = FreePorts.Next();
        await using var client = ClientProgram.Start(
            $"ws://127.0.0.1:{nginx.Port}/", [(port, $"127.0.0.1:{echo.Port}")], "-reconnect-min", "20ms", "-reconnect-max", "100ms");
        await client.Program.Output.WaitForAsync("502");

        await using var server = await ServerProgram.StartAsync(port: serverPort);
        await client.WaitForForwardsAsync();
        await Payload.EchoOnceAsync(port).WaitAsync(TestTimeouts.Step);
    }

    [Theory]
    [InlineData("nginx")]
    [InlineData("caddy")]
    public async Task What_the_operations_page_puts_in_front_of_a_server_passes_a_tunnel_on(string front)
    {
        var page = await File.ReadAllTextAsync(Path.Combine(DocumentationTests.FindRoot(), "docs", "operations.md"));
        var start = page.IndexOf($"```{front}\n", StringComparison.Ordinal) + front.Length + 4;
        var block = page[start..page.IndexOf("```", start, StringComparison.Ordinal)];
        Assert.Contains("127.0.0.1:3001", block, StringComparison.Ordinal);
        await using var echo = TargetServer.StartEcho();
        await using var server = await ServerProgram.StartAsync();
        block = block.Replace("127.0.0.1:3001", $"127.0.0.1:{server.Port}", StringComparison.Ordinal);
        var (frontPort, port) = (FreePorts.Next(), FreePorts.Next());
        await using IAsyncDisposable running = front == "nginx"
            ? await Nginx.StartAsync(_ => $"server {{ listen 127.0.0.1:{frontPort}; {block} }}")
            : await Caddy.StartAsync($"http://127.0.0.1:{frontPort} {{\n{block}}}");

        await using var client = await ClientProgram.StartAsync($"ws://127.0.0.1:{frontPort}/tunnel", port, echo.Port);

        await Payload.EchoOnceAsync(port, 1_000_000).WaitAsync(TestTimeouts.Step);
    }

    private static Task<Nginx> StartInFrontAsync(int serverPort, string readTimeout) => Nginx.StartAsync(port => $$"""
        server {
          listen 127.0.0.1:{{port}};
          location / {
            proxy_pass http://127.0.0.1:{{serverPort}};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_set_header Host $host;
            proxy_read_timeout {{readTimeout}};
          }
        }
        """);
}
