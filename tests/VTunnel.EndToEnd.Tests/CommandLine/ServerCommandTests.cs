using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Json;
using VTunnel.Cli;
using VTunnel.Testing;
using VTunnel.Testing.Network;
using VTunnel.Testing.Programs;

namespace VTunnel.EndToEnd.Tests.CommandLine;

public sealed class ServerCommandTests
{
    private const string OpenToAnyone = "No token is asked for";

    [Theory]
    [InlineData("127.0.0.1")]
    [InlineData("::1")]
    [InlineData("*")]
    public async Task Health_answers_ok(string host)
    {
        await using var server = VTunnelProgram.Start("server", "--host", host, "--port", "0");
        var address = (await server.ListeningAsync()).Replace("[::]", "127.0.0.1", StringComparison.Ordinal);

        using var http = new HttpClient();
        using var response = await http.GetAsync(new Uri($"http://{address}/health"));

        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        Assert.Equal("text/plain", response.Content.Headers.ContentType?.MediaType);
        Assert.Equal("ok", await response.Content.ReadAsStringAsync());
    }

    [Fact]
    public async Task Health_answers_ok_over_TLS_with_the_given_certificate()
    {
        using var certificates = new TestCertificates();
        await using var server = VTunnelProgram.Start(
            "server", "--host", "127.0.0.1", "--port", "0", "--tls-cert", certificates.CertificateFile, "--tls-key", certificates.KeyFile);
        var address = (await server.Output.WaitForAsync("Listening on wss://127.0.0.1:")).Split("wss://")[1];

        using var expected = X509CertificateLoader.LoadCertificateFromFile(certificates.CertificateFile);
        using var handler = new HttpClientHandler();
        handler.ServerCertificateCustomValidationCallback = (_, presented, _, _) => presented?.Thumbprint == expected.Thumbprint;
        using var http = new HttpClient(handler);
        Assert.Equal("ok", await http.GetStringAsync(new Uri($"https://{address}/health")));
    }

    [Theory]
    [InlineData(ProgramSignal.Terminate)]
    [InlineData(ProgramSignal.Interrupt)]
    [InlineData(ProgramSignal.HangUp)]
    public async Task A_signal_ends_it_in_good_order(ProgramSignal signal)
    {
        await using var server = VTunnelProgram.Start("server", "--host", "127.0.0.1", "--port", "0");
        await server.ListeningAsync();
        server.Signal(signal);
        Assert.Equal(ExitCodes.Success, await server.WaitForExitAsync());
        Assert.Contains("Server stopped", server.Output.Lines[^1], StringComparison.Ordinal);
    }

    [Fact]
    public async Task Nohup_keeps_it_running()
    {
        await using var server = VTunnelProgram.Start(["server", "--host", "127.0.0.1", "--port", "0"], launcher: ["nohup"]);
        var address = await server.ListeningAsync();

        server.Signal(ProgramSignal.HangUp);
        using var http = new HttpClient();
        Assert.Equal("ok", await http.GetStringAsync(new Uri($"http://{address}/health")));

        server.Signal(ProgramSignal.Terminate);
        Assert.Equal(ExitCodes.Success, await server.WaitForExitAsync());
    }

    [Fact]
    public async Task A_second_SIGTERM_changes_nothing()
    {
        await using var server = VTunnelProgram.Start("server", "--host", "127.0.0.1", "--port", "0");
        await server.ListeningAsync();
        server.Signal(ProgramSignal.Terminate);
        server.Signal(ProgramSignal.Terminate);
        Assert.Equal(ExitCodes.Success, await server.WaitForExitAsync());
    }

    [Fact]
    public async Task Another_Ctrl_C_ends_it_at_once()
    {
        await using var server = VTunnelProgram.Start("server", "--host", "127.0.0.1", "--port", "0");
        var address = IPEndPoint.Parse(await server.ListeningAsync());

        // A request whose body never comes keeps the server from stopping for seconds.
        using var visitor = new TcpClient();
        await visitor.ConnectAsync(address);
        await visitor.GetStream().WriteAsync(Encoding.ASCII.GetBytes("GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"));
        await visitor.GetStream().ReadExactlyAsync(new byte[1]).AsTask().WaitAsync(TestTimeouts.Step);

        using var timer = new PeriodicTimer(TimeSpan.FromMilliseconds(50));
        using var deadline = new CancellationTokenSource(TestTimeouts.Step);
        while (!server.HasExited && await timer.WaitForNextTickAsync(deadline.Token))
            server.TrySignal(ProgramSignal.Interrupt);
        Assert.Equal(ExitCodes.Interrupted, await server.WaitForExitAsync());
    }

    [Fact]
    public async Task An_address_in_use_is_named_with_the_reason()
    {
        using var holder = new TcpListener(IPAddress.Loopback, 0);
        holder.Start();
        var port = ((IPEndPoint)holder.LocalEndpoint).Port;
        var result = await VTunnelProgram.RunAsync("server", "--host", "127.0.0.1", "--port", $"{port}");
        Assert.Equal(ExitCodes.CannotListen, result.ExitCode);
        Assert.EndsWith($" fatal Cannot listen on 127.0.0.1:{port}: the address is in use", Assert.Single(result.Errors), StringComparison.Ordinal);
    }

    [Fact]
    public async Task An_address_that_is_not_this_machines_is_named_with_the_reason()
    {
        var result = await VTunnelProgram.RunAsync("server", "--host", "192.0.2.1", "--port", "0");
        Assert.Equal(ExitCodes.CannotListen, result.ExitCode);
        Assert.EndsWith(" fatal Cannot listen on 192.0.2.1:0: this machine has no such address", Assert.Single(result.Errors), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("*", "", true)]
    [InlineData("0.0.0.0", "", true)]
    [InlineData("127.0.0.1", "", false)]
    [InlineData("::1", "", false)]
    [InlineData("*", "secret-token", false)]
    public async Task Being_open_to_anyone_is_warned_of_once(string host, string token, bool warned)
    {
        await using var server = VTunnelProgram.Start(
            ["server", "--host", host, "--port", "0"], new Dictionary<string, string?> { ["VTUNNEL_TOKEN"] = token });
        await server.ListeningAsync();
        server.Signal(ProgramSignal.Terminate);
        await server.WaitForExitAsync();
        Assert.Equal(warned ? 1 : 0, server.Output.Lines.Count(line => line.Contains(" warn  " + OpenToAnyone, StringComparison.Ordinal)));
        Assert.DoesNotContain(server.Output.Lines, line => line.Contains("secret-token", StringComparison.Ordinal));
    }

    [Fact]
    public async Task The_log_can_be_JSON()
    {
        await using var server = VTunnelProgram.Start("server", "--host", "0.0.0.0", "--port", "0", "--log-format", "json");
        await server.ListeningAsync();
        server.Signal(ProgramSignal.Terminate);
        await server.WaitForExitAsync();

        var entries = server.Output.Lines.Select(line => JsonDocument.Parse(line).RootElement).ToList();
        Assert.All(entries, entry => Assert.Matches(@"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", entry.GetProperty("Timestamp").GetString()!));
        Assert.Contains(entries, entry => entry.GetProperty("Message").GetString()!.StartsWith("Listening on ws://0.0.0.0:", StringComparison.Ordinal));
        Assert.Contains(entries, entry => entry.GetProperty("LogLevel").GetString() == "Warning");
    }

    [Fact]
    public async Task The_log_is_a_line_per_entry_with_time_and_level()
    {
        await using var server = VTunnelProgram.Start("server", "--host", "0.0.0.0", "--port", "0");
        await server.ListeningAsync();
        server.Signal(ProgramSignal.Terminate);
        await server.WaitForExitAsync();
        Assert.All(server.Output.Lines, line => Assert.Matches(@"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (info |warn ) \S", line));
    }

    [Fact]
    public async Task The_log_level_silences_what_is_below()
    {
        await using var server = VTunnelProgram.Start("server", "--host", "0.0.0.0", "--port", "0", "--log-level", "warning");
        await server.Output.WaitForAsync(OpenToAnyone);
        server.Signal(ProgramSignal.Terminate);
        Assert.Equal(ExitCodes.Success, await server.WaitForExitAsync());
        Assert.Single(server.Output.Lines);
    }

    [Fact]
    public async Task A_token_from_the_environment_is_asked_for()
    {
        await using var server = VTunnelProgram.Start(
            ["server", "--host", "127.0.0.1", "--port", "0"], new Dictionary<string, string?> { ["VTUNNEL_TOKEN"] = "other,right" });
        var address = await server.ListeningAsync();
        using var http = new HttpClient();
        foreach (var (authorization, expected) in new[]
        {
            ("", HttpStatusCode.Unauthorized),
            ("Bearer wrong", HttpStatusCode.Unauthorized),
            ("Basic right", HttpStatusCode.Unauthorized),
            ("Bearer right", HttpStatusCode.UpgradeRequired),
            ("Bearer other", HttpStatusCode.UpgradeRequired),
        })
        {
            using var request = new HttpRequestMessage(HttpMethod.Get, new Uri($"http://{address}/"));
            if (authorization.Length > 0)
                request.Headers.TryAddWithoutValidation("Authorization", authorization);
            using var response = await http.SendAsync(request);
            Assert.True(response.StatusCode == expected, $"'{authorization}': {response.StatusCode}");
        }
    }
}
