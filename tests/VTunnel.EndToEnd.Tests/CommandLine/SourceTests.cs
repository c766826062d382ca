using VTunnel.Cli;
using VTunnel.Testing;
using VTunnel.Testing.Programs;

namespace VTunnel.EndToEnd.Tests.CommandLine;

/// <summary>Where values come from: the command line wins over the environment, and that over the config file.</summary>
public sealed class SourceTests
{
    private static async Task<string> HostOfAsync(IReadOnlyList<string> arguments, Dictionary<string, string?>? environment, string? folder)
    {
        await using var server = VTunnelProgram.Start(["server", "--port", "0", .. arguments], environment, folder);
        return (await server.ListeningAsync()).Split(':')[0];
    }

    [Theory]
    [InlineData("server.json", "{ // comments are welcome\n \"host\": \"127.0.0.4\" }")]
    [InlineData("server.yaml", "# comments are welcome\nhost: 127.0.0.4\n")]
    public async Task The_command_line_wins_over_the_environment_and_that_over_the_file(string name, string text)
    {
        using var folder = new TempDirectory();
        folder.Write(name, text);
        var variables = new Dictionary<string, string?> { ["VTUNNEL_HOST"] = "127.0.0.3" };

        Assert.Equal("127.0.0.2", await HostOfAsync(["-host", "127.0.0.2", "-config", name], variables, folder.Path));
        Assert.Equal("127.0.0.3", await HostOfAsync(["--config", name], variables, folder.Path));
        Assert.Equal("127.0.0.4", await HostOfAsync(["--config", name], new() { ["VTUNNEL_HOST"] = "" }, folder.Path));
        Assert.Equal("127.0.0.4", await HostOfAsync([], new() { ["VTUNNEL_CONFIG"] = name }, folder.Path));
    }

    [Fact]
    public async Task A_value_that_is_overridden_does_not_matter()
    {
        var variables = new Dictionary<string, string?> { ["VTUNNEL_HOST"] = "nonsense" };
        Assert.Equal("127.0.0.2", await HostOfAsync(["--host=127.0.0.2"], variables, folder: null));
    }

    [Fact]
    public async Task Lists_come_from_variables_and_files_too_and_are_not_mixed()
    {
        using var folder = new TempDirectory();
        folder.Write("client.yaml", "server: ws://host/\nforward:\n  - 9000\n  - 9001\nserver-header: ['a b: c']\n");

        var file = await VTunnelProgram.RunAsync(["client", "--config", "client.yaml"], folder: folder.Path);
        Assert.Equal(["'9000'", "'9001'"], file.Errors.Where(line => line.Contains("forward in", StringComparison.Ordinal)).Select(line => line.Split(' ')[4].TrimEnd(':')));

        var variables = new Dictionary<string, string?> { ["VTUNNEL_FORWARD"] = "1, 2\n3", ["VTUNNEL_SERVER_HEADER"] = "X-A: 1, 2\nX B: 3" };
        var environment = await VTunnelProgram.RunAsync(["client", "--config", "client.yaml"], variables, folder.Path);
        Assert.Equal(
            [
                "vtunnel: VTUNNEL_FORWARD '1': a forward is PORT=HOST:PORT, such as 9000=localhost:3000",
                "vtunnel: VTUNNEL_FORWARD '2': a forward is PORT=HOST:PORT, such as 9000=localhost:3000",
                "vtunnel: VTUNNEL_FORWARD '3': a forward is PORT=HOST:PORT, such as 9000=localhost:3000",
                "vtunnel: VTUNNEL_SERVER_HEADER (2 of 2): the name of a header consists of letters, digits and hyphens; write 'Name: value'",
            ],
            environment.Errors);
    }

    [Fact]
    public async Task The_token_comes_from_the_higher_of_its_two_options()
    {
        using var folder = new TempDirectory();
        folder.Write("bad.token", "two words\n");
        string[] client = ["client", "--server", "ws://host/", "--forward", "9000"];
        const string forward = "vtunnel: --forward '9000': a forward is PORT=HOST:PORT, such as 9000=localhost:3000";

        var file = await VTunnelProgram.RunAsync([.. client, "--token-file", "bad.token"], new Dictionary<string, string?> { ["VTUNNEL_TOKEN"] = "fine" }, folder.Path);
        Assert.Equal([forward, "vtunnel: --token-file 'bad.token': the file must hold one token and nothing else; a token consists of letters, digits and -._~+/= only"], file.Errors);

        var plain = await VTunnelProgram.RunAsync([.. client, "--token", "fine"], new Dictionary<string, string?> { ["VTUNNEL_TOKEN_FILE"] = "bad.token" }, folder.Path);
        Assert.Equal([forward], plain.Errors);
    }

    [Fact]
    public async Task Settings_of_ASP_NET_lying_around_change_nothing()
    {
        using var folder = new TempDirectory();
        folder.Write("appsettings.json", """{ "Kestrel": { "Endpoints": { "Other": { "Url": "http://127.0.0.9:0" } } }, "Logging": { "LogLevel": { "Default": "Trace" } }, "AllowedHosts": "none.example" }""");
        var variables = new Dictionary<string, string?>
        {
            ["ASPNETCORE_URLS"] = "http://127.0.0.8:0",
            ["ASPNETCORE_HTTP_PORTS"] = "1",
            ["ASPNETCORE_ENVIRONMENT"] = "Development",
            ["DOTNET_URLS"] = "http://127.0.0.7:0",
            ["Logging__LogLevel__Default"] = "Trace",
        };
        await using var server = VTunnelProgram.Start(["server", "--host", "127.0.0.1", "--port", "0"], variables, folder.Path);

        var address = await server.ListeningAsync();
        server.Signal(ProgramSignal.Terminate);

        Assert.Equal(ExitCodes.Success, await server.WaitForExitAsync());
        Assert.StartsWith("127.0.0.1:", address, StringComparison.Ordinal);
        Assert.Single(server.Output.Lines, line => line.Contains("Listening on", StringComparison.Ordinal));
        Assert.DoesNotContain(server.Output.Lines, line => line.Contains(" debug ", StringComparison.Ordinal) || line.Contains(" trace ", StringComparison.Ordinal));
    }
}
