using System.Diagnostics;
using System.Globalization;
using System.Net;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Proxy;

/// <summary>Much at a time. <c>VTUNNEL_PROXY_BULK_MIB</c> says how much is moved; 96 unless it does, 2048 to prove what is claimed.</summary>
[Collection(Heavy.Name)]
public sealed class LoadTests
{
    private static readonly long BulkBytes =
        1024L * 1024 * (int.TryParse(Environment.GetEnvironmentVariable("VTUNNEL_PROXY_BULK_MIB"), CultureInfo.InvariantCulture, out var mib) ? mib : 96);

    private static readonly TimeSpan BulkTimeout = TestTimeouts.Long * Math.Max(1, BulkBytes / (256L * 1024 * 1024));

    private static Task<WebServer> StartStoreAsync() => WebServer.StartAsync(app => app.Run(async context =>
    {
        var buffer = new byte[64 * 1024];
        if (context.Request.Method == "GET")
        {
            var left = long.Parse(context.Request.Path.Value!.TrimStart('/'), CultureInfo.InvariantCulture);
            context.Response.ContentLength = left;
            for (; left > 0; left -= Math.Min(left, buffer.Length))
                await context.Response.Body.WriteAsync(buffer.AsMemory(0, (int)Math.Min(left, buffer.Length)));
            return;
        }

        var length = 0L;
        while (await context.Request.Body.ReadAsync(buffer) is > 0 and var count)
            length += count;
        await context.Response.WriteAsync(length.ToString(CultureInfo.InvariantCulture));
    }));

    private static long ResidentMiB(int process)
    {
        using var found = Process.GetProcessById(process);
        return found.WorkingSet64 / (1024 * 1024);
    }

    [Theory]
    [InlineData("http://store.test", false)]
    [InlineData("http://store.test", false, "-p")]
    [InlineData("https://store.test", true)]
    [InlineData("https://store.test", true, "--http1.1")]
    public async Task Large_uploads_and_downloads_pass_at_constant_memory(string url, bool isIntercepted, params string[] way)
    {
        const long GrowthMiB = 160;
        using var folder = new TempDirectory();
        var authority = folder.File("ca.pem");
        if (isIntercepted)
        {
            await Tools.RunAsync(BuiltProgram.File, ["ca", "create", "--out", authority]);
            way = [.. way, "--cacert", authority];
        }

        await using var store = await StartStoreAsync();
        await using var server = await ServerProgram.StartAsync(["--proxy", "0", .. isIntercepted ? (string[])["--proxy-mitm-ca", authority] : []]);
        var proxy = "http://" + (await server.Program.Output.WaitForAsync("Proxy listening on ")).Split(' ')[^1];
        await using var client = BuiltProgram.Start(["client", "--server", server.Url, "--forward", $"store.test=127.0.0.1:{store.Port}"]);
        await client.Output.WaitForAsync("Forwarding store.test");
        string[] curl = ["-sS", "-x", proxy, .. way];

        // Warm: what the first megabytes cost is code, pools and windows.
        await Tools.RunAsync("curl", [.. curl, "-o", "/dev/null", $"{url}/33554432"], timeout: BulkTimeout);
        var (serverBefore, clientBefore) = (ResidentMiB(server.Program.Id), ResidentMiB(client.Id));
        var down = await Tools.RunAsync("curl", [.. curl, "-o", "/dev/null", "-w", "%{size_download}", $"{url}/{BulkBytes}"], timeout: BulkTimeout);
        Assert.Equal($"{BulkBytes}", down.StandardOutput);
        var up = await Tools.RunAsync(
            "bash", ["-c", $"head -c {BulkBytes} /dev/zero | curl {string.Join(' ', curl)} -T - {url}/"], timeout: BulkTimeout);
        Assert.Equal($"{BulkBytes}", up.StandardOutput);
        Assert.InRange(ResidentMiB(server.Program.Id), 0, serverBefore + GrowthMiB);
        Assert.InRange(ResidentMiB(client.Id), 0, clientBefore + GrowthMiB);
    }

    [Fact]
    public async Task Five_hundred_connections_at_once_are_each_served_right()
    {
        const int Connections = 500;
        await using var echo = TargetServer.StartEcho();
        await using var pair = await ProxyPair.StartAsync([$"echo.test:9000=127.0.0.1:{echo.Port}"]);
        var everybody = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var here = 0;
        await Task.WhenAll(Enumerable.Range(0, Connections).Select(async number =>
        {
            using var visitor = await pair.ConnectAsync();
            await visitor.WriteAsync("CONNECT echo.test:9000 HTTP/1.1\r\nHost: echo.test:9000\r\n\r\n");
            await visitor.ReadUntilAsync("\r\n\r\n");
            await Payload.EchoAsync(visitor.Stream, 1 + (number * 100));
            if (Interlocked.Increment(ref here) == Connections)
                everybody.SetResult();
            await everybody.Task;
            await Payload.EchoAsync(visitor.Stream, 10_000);
        })).WaitAsync(TestTimeouts.Long);
        Assert.Equal(Connections, echo.ConnectionCount);
    }

    [Fact]
    public async Task Requests_of_many_visitors_at_once_are_not_mixed_up()
    {
        await using var site = await WebServer.StartAsync(app => app.Run(context => context.Response.WriteAsync($"{context.Request.Path} of {context.Request.Host}")));
        await using var pair = await ProxyPair.StartAsync([$"*.site.test=127.0.0.1:{site.Port}"]);
        using var handler = new SocketsHttpHandler { Proxy = new WebProxy(pair.Url), MaxConnectionsPerServer = 50 };
        using var client = new HttpClient(handler);
        await Task.WhenAll(Enumerable.Range(0, 1000).Select(async number =>
        {
            var answer = await client.GetStringAsync($"http://h{number % 10}.site.test/{number}");
            Assert.Equal($"/{number} of h{number % 10}.site.test", answer);
        })).WaitAsync(TestTimeouts.Long);
    }
}
