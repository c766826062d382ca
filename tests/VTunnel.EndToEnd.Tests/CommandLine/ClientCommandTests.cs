using System.Net;
using System.Net.Sockets;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using VTunnel.Cli;
using VTunnel.Testing;
using VTunnel.Testing.Network;
using VTunnel.Testing.Programs;

namespace VTunnel.EndToEnd.Tests.CommandLine;

public sealed class ClientCommandTests
{
    private static async Task<string> PageAsync(int port)
    {
        using var http = new HttpClient();
        return await http.GetStringAsync(new Uri($"http://127.0.0.1:{port}/health"));
    }

    [Fact]
    public async Task A_command_line_of_the_Go_program_runs_unchanged()
    {
        var port = FreePorts.Next();
        await using var server = VTunnelProgram.Start("server", "-port", "0", "-host", "127.0.0.1");
        var address = await server.ListeningAsync();
        await using var client = VTunnelProgram.Start("client", "-server", $"ws://{address}/", "-forward", $"{port}={address}");
        await client.Output.WaitForAsync($"Forwarding {port}");

        // The server's own health page, through its own tunnel.
        Assert.Equal("ok", await PageAsync(port));

        client.Signal(ProgramSignal.Terminate);
        Assert.Equal(ExitCodes.Success, await client.WaitForExitAsync());
        server.Signal(ProgramSignal.Interrupt);
        Assert.Equal(ExitCodes.Success, await server.WaitForExitAsync());
    }

    [Fact]
    public async Task Tokens_made_by_the_program_open_the_server_to_the_client_and_are_in_no_log()
    {
        using var folder = new TempDirectory();
        var port = FreePorts.Next();
        var made = await VTunnelProgram.RunAsync(["token", "create", "--name", "alice", "--ports", $"{port}", "--tokens", "tokens.json"], folder: folder.Path);
        folder.Write("alice.token", made.Output);
        await using var server = VTunnelProgram.Start(["server", "--host", "127.0.0.1", "--port", "0", "--tokens", "tokens.json", "--log-level", "trace"], folder: folder.Path);
        var address = await server.ListeningAsync();
        await using var client = VTunnelProgram.Start(
            ["client", "--server", $"ws://{address}/", "--forward", $"{port}={address}", "--token-file", "alice.token", "--log-level", "trace"], folder: folder.Path);
        await client.Output.WaitForAsync($"Forwarding {port}");
        Assert.Equal("ok", await PageAsync(port));

        client.Signal(ProgramSignal.Terminate);
        await client.WaitForExitAsync();
        server.Signal(ProgramSignal.Terminate);
        await server.WaitForExitAsync();
        var token = made.Output.Trim();
        Assert.DoesNotContain(client.Output.Lines.Concat(server.Output.Lines), line => line.Contains(token, StringComparison.Ordinal));
        Assert.Contains(server.Output.Lines, line => line.Contains("alice", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Without_reconnecting_a_server_that_is_not_there_ends_it()
    {
        var port = FreePorts.Next();
        var result = await VTunnelProgram.RunAsync("client", "--server", $"ws://127.0.0.1:{port}/", "--forward", "9000=localhost:3000", "--no-reconnect");
        Assert.Equal(ExitCodes.CannotConnect, result.ExitCode);
        Assert.Contains($" fatal No connection to ws://127.0.0.1:{port}/, and reconnecting is off: ", result.Errors[^1], StringComparison.Ordinal);
    }

    [Fact]
    public async Task With_reconnecting_a_server_that_is_not_there_is_waited_for()
    {
        var (serverPort, port) = (FreePorts.Next(), FreePorts.Next());
        await using var client = VTunnelProgram.Start(
            "client", "--server", $"ws://127.0.0.1:{serverPort}/", "--forward", $"{port}=127.0.0.1:{serverPort}", "--reconnect-min", "10ms", "--reconnect-max", "100ms");
        await client.Output.WaitForAsync("trying again");

        await using var server = VTunnelProgram.Start("server", "--host", "127.0.0.1", "--port", $"{serverPort}");
        await client.Output.WaitForAsync($"Forwarding {port}");
        Assert.Equal("ok", await PageAsync(port));
    }

    [Fact]
    public async Task A_signal_ends_it_while_it_waits_for_a_server()
    {
        await using var client = VTunnelProgram.Start(
            "client", "--server", $"ws://127.0.0.1:{FreePorts.Next()}/", "--forward", "9000=localhost:3000", "--reconnect-min", "1h", "--reconnect-max", "1h");
        await client.Output.WaitForAsync("trying again");
        client.Signal(ProgramSignal.Interrupt);
        Assert.Equal(ExitCodes.Success, await client.WaitForExitAsync());
    }

    [Fact]
    public async Task Without_reconnecting_the_loss_of_the_server_ends_it()
    {
        var port = FreePorts.Next();
        await using var server = VTunnelProgram.Start("server", "--host", "127.0.0.1", "--port", "0");
        var address = await server.ListeningAsync();
        await using var client = VTunnelProgram.Start("client", "--server", $"ws://{address}/", "--forward", $"{port}={address}", "--no-reconnect");
        await client.Output.WaitForAsync($"Forwarding {port}");
        server.Signal(ProgramSignal.Terminate);
        Assert.Equal(ExitCodes.CannotConnect, await client.WaitForExitAsync());
    }

    [Fact]
    public async Task Without_reconnecting_a_forward_that_the_server_refuses_ends_it()
    {
        using var holder = new TcpListener(IPAddress.Loopback, 0);
        holder.Start();
        var port = ((IPEndPoint)holder.LocalEndpoint).Port;
        await using var server = VTunnelProgram.Start("server", "--host", "127.0.0.1", "--port", "0", "--listen-retry-timeout", "100ms");
        var address = await server.ListeningAsync();
        var result = await VTunnelProgram.RunAsync("client", "--server", $"ws://{address}/", "--forward", $"{port}=localhost:3000", "--no-reconnect");
        Assert.Equal(ExitCodes.ListenRefused, result.ExitCode);
        Assert.Contains(result.Errors, line => line.Contains($" fatal The server refuses to listen on port {port}, and reconnecting is off: ", StringComparison.Ordinal));
    }

    [Fact]
    public async Task With_reconnecting_the_other_forwards_go_on_when_one_is_refused()
    {
        using var holder = new TcpListener(IPAddress.Loopback, 0);
        holder.Start();
        var taken = ((IPEndPoint)holder.LocalEndpoint).Port;
        var port = FreePorts.Next();
        await using var server = VTunnelProgram.Start("server", "--host", "127.0.0.1", "--port", "0", "--listen-retry-timeout", "100ms");
        var address = await server.ListeningAsync();
        await using var client = VTunnelProgram.Start("client", "--server", $"ws://{address}/", "--forward", $"{taken}={address}", "--forward", $"{port}={address}");
        await client.Output.WaitForAsync($"refused to listen on port {taken}");
        Assert.Equal("ok", await PageAsync(port));
        Assert.False(client.HasExited);
    }

    [Theory]
    [InlineData(StatusCodes.Status401Unauthorized, ExitCodes.AccessRefused)]
    [InlineData(StatusCodes.Status403Forbidden, ExitCodes.AccessRefused)]
    [InlineData(StatusCodes.Status404NotFound, ExitCodes.CannotConnect)]
    [InlineData(StatusCodes.Status200OK, ExitCodes.CannotConnect)]
    public async Task What_the_server_answers_instead_of_upgrading_decides_on_the_exit_code(int status, int exitCode)
    {
        var seen = new TaskCompletionSource<IHeaderDictionary>(TaskCreationOptions.RunContinuationsAsynchronously);
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel => kestrel.Listen(IPAddress.Loopback, 0));
        await using var web = builder.Build();
        web.Run(context =>
        {
            seen.TrySetResult(new HeaderDictionary(context.Request.Headers.ToDictionary(header => header.Key, header => header.Value)));
            context.Response.StatusCode = status;
            return Task.CompletedTask;
        });
        await web.StartAsync();
        var address = new Uri(web.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.First()).Authority;

        var result = await VTunnelProgram.RunAsync(
            ["client", "--server", $"ws://{address}/tunnel", "--forward", "9000=localhost:3000", "--no-reconnect", "-server-header", "X-Room: 7"],
            new Dictionary<string, string?> { ["VTUNNEL_TOKEN"] = "hunter2" });

        Assert.Equal(exitCode, result.ExitCode);
        Assert.DoesNotContain(result.Errors, line => line.Contains("hunter2", StringComparison.Ordinal));
        var headers = await seen.Task.WaitAsync(VTunnelProgram.Deadline);
        Assert.Equal("Bearer hunter2", headers.Authorization);
        Assert.Equal("7", headers["X-Room"]);
    }

    [Fact]
    public async Task A_server_of_a_private_authority_is_trusted_by_its_file_or_not_checked_at_all()
    {
        using var certificates = new TestCertificates();
        await using var server = VTunnelProgram.Start(
            "server", "--host", "127.0.0.1", "--port", "0", "--tls-cert", certificates.CertificateFile, "--tls-key", certificates.KeyFile);
        var address = await server.ListeningAsync();
        string[] common = ["client", "--server", $"wss://{address}/", "--no-reconnect"];

        var distrusted = await VTunnelProgram.RunAsync([.. common, "--forward", "9000=localhost:3000"]);
        Assert.Equal(ExitCodes.CannotConnect, distrusted.ExitCode);

        foreach (var trust in new string[][] { ["--ca", certificates.AuthorityFile], ["--insecure"] })
        {
            var port = FreePorts.Next();
            await using var client = VTunnelProgram.Start([.. common, .. trust, "--forward", $"{port}=localhost:3000"]);
            await client.Output.WaitForAsync($"Forwarding {port}");
            Assert.Equal(trust[0] == "--insecure", client.Output.Lines.Any(line => line.Contains("certificate is not checked (--insecure)", StringComparison.Ordinal)));
        }
    }
}
