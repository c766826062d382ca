using System.Security.Cryptography;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Expose;

public sealed class HttpTests
{
    [Theory]
    [InlineData("v1")]
    [InlineData("v2")]
    public async Task Curl_fetches_and_uploads_through_a_forward(string protocol)
    {
        await using var server = await ServerProgram.StartAsync();
        await using var web = await WebServer.StartAsync(app =>
        {
            app.MapGet("/hello", () => "hello from behind the tunnel");
            app.MapPost("/sum", async (HttpRequest request) => Convert.ToHexString(await SHA256.HashDataAsync(request.Body)));
        });
        var port = FreePorts.Next();
        await using var client = await ClientProgram.StartAsync(server.Url, port, web.Port, "-protocol", protocol);

        // The server's own page, then two requests on one connection, then one with a body that does not fit into any buffer.
        var health = await Tools.RunAsync("curl", ["-sS", "-w", " %{http_code}", $"http://127.0.0.1:{server.Port}/health"]);
        Assert.Equal("ok 200", health.StandardOutput);
        var page = await Tools.RunAsync("curl", ["-sS", "--fail", "-w", "|%{num_connects}|", $"http://127.0.0.1:{port}/hello", $"http://127.0.0.1:{port}/hello"]);
        Assert.Equal("hello from behind the tunnel|1|hello from behind the tunnel|0|", page.StandardOutput);

        using var folder = new TempDirectory();
        var body = RandomNumberGenerator.GetBytes(5_000_000);
        await File.WriteAllBytesAsync(folder.File("body"), body);
        var sum = await Tools.RunAsync("curl", ["-sS", "--fail", "--data-binary", "@" + folder.File("body"), $"http://127.0.0.1:{port}/sum"]);
        Assert.Equal(Convert.ToHexString(SHA256.HashData(body)), sum.StandardOutput);
    }

    [Fact]
    public async Task Each_forward_of_each_client_leads_to_its_own_target()
    {
        await using var server = await ServerProgram.StartAsync();
        var targets = await Task.WhenAll(Enumerable.Range(0, 6).Select(i => WebServer.StartAsync(app => app.MapGet("/", () => $"target {i}"))));
        var ports = FreePorts.Next(6);
        var clients = await Task.WhenAll(Enumerable.Range(0, 3).Select(i => ClientProgram.StartAsync(
            server.Url, [(ports[2 * i], $"127.0.0.1:{targets[2 * i].Port}"), (ports[2 * i + 1], $"localhost:{targets[2 * i + 1].Port}")])));

        for (var i = 0; i < ports.Length; i++)
        {
            var page = await Tools.RunAsync("curl", ["-sS", "--fail", $"http://127.0.0.1:{ports[i]}/"]);
            Assert.Equal($"target {i}", page.StandardOutput);
        }

        foreach (var client in clients)
            await client.DisposeAsync();
        foreach (var target in targets)
            await target.DisposeAsync();
    }
}
