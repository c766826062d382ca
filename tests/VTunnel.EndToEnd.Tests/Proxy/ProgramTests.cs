using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Proxy;

/// <summary>The command lines of the proxy.</summary>
public sealed class ProgramTests
{
    private static async Task<string> ProxyOfAsync(ServerProgram server) =>
        "http://127.0.0.1:" + (await server.Program.Output.WaitForAsync("Proxy listening on ")).Split(':')[^1];

    private static async Task<string> CurlAsync(string proxy, params string[] arguments) =>
        (await Tools.RunAsync("curl", ["-sS", "-x", proxy, .. arguments])).StandardOutput;

    [Theory]
    [InlineData("v1")]
    [InlineData("v2")]
    public async Task Headers_belong_to_the_forward_before_them_and_nobody_writes_them_down(string protocol)
    {
        using var folder = new TempDirectory();
        await using var site = await WebServer.StartAsync(app => app.Run(context =>
            context.Response.WriteAsync($"{context.Request.Host.Host} {context.Request.Headers.Authorization}|{context.Request.Headers["X-Env"]}|{context.Request.Headers["X-Other"]}")));
        await using var server = await ServerProgram.StartAsync(["-proxy", "0", "-proxy-direct", "deny"]);
        var proxy = await ProxyOfAsync(server);
        var target = $"127.0.0.1:{site.Port}";
        await using var client = BuiltProgram.Start(
        [
            "client", "-server", server.Url, "-protocol", protocol, "-log-level", "trace",
            "-forward", $"api.example.test={target}", "-H", "Authorization: Bearer s3cret", "-H", "X-Env: preview",
            "-forward", $"bare.example.test={target}",
            "-forward", $"file.example.test={target}", "-H", "@" + folder.Write("headers.txt", "X-Other: s3cret-too\n"),
        ]);
        foreach (var name in new[] { "api", "bare", "file" })
            await client.Output.WaitForCountAsync($"Forwarding {name}.example.test", protocol == "v1" ? 2 : 1);
        Assert.Equal("api.example.test Bearer s3cret|preview| 200", await CurlAsync(proxy, "-w", " %{http_code}", "-H", "Authorization: mine", "-H", "x-env: mine", "http://api.example.test/"));
        Assert.Equal("bare.example.test mine||", await CurlAsync(proxy, "-H", "Authorization: mine", "http://bare.example.test/"));
        Assert.Equal("file.example.test ||s3cret-too", await CurlAsync(proxy, "http://file.example.test/"));
        Assert.EndsWith(" 403", await CurlAsync(proxy, "-w", " %{http_code}", "http://example.org/"), StringComparison.Ordinal);

        await server.Program.Output.WaitForAsync("GET file.example.test:80, tunnel session-1: 200");
        Assert.DoesNotContain("s3cret", server.Program.Output.Text(), StringComparison.Ordinal);
        Assert.DoesNotContain("s3cret", client.Output.Text(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_proxy_that_others_can_reach_is_open_or_asks_for_a_password_as_its_operator_says()
    {
        await using var site = await WebServer.StartAsync(app => app.Run(context => context.Response.WriteAsync("hello")));
        var url = $"http://site.test:{site.Port}/";
        await using var open = await ServerProgram.StartAsync(["-proxy", "0", "-proxy-host", "0.0.0.0", "-proxy-open", "-proxy-resolve", "site.test=127.0.0.1"]);
        Assert.Equal("hello", await CurlAsync(await ProxyOfAsync(open), url));

        await using var closed = await ServerProgram.StartAsync(["-proxy", "0", "-proxy-host", "0.0.0.0", "-proxy-auth", "ci:s3cret", "-proxy-resolve", "site.test=127.0.0.1"]);
        var proxy = await ProxyOfAsync(closed);
        Assert.EndsWith(" 407", await CurlAsync(proxy, "-w", " %{http_code}", url), StringComparison.Ordinal);
        Assert.Equal("hello", await CurlAsync(proxy, "-U", "ci:s3cret", url));
        Assert.DoesNotContain("s3cret", closed.Program.Output.Text(), StringComparison.Ordinal);
    }
}
