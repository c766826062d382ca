using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using VTunnel.Cli;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;

namespace VTunnel.EndToEnd.Tests.CommandLine;

public sealed class TokenCommandTests
{
    private const string TokenPattern = "^vtn_[A-Za-z0-9_-]{43}$";

    [Fact]
    public async Task With_a_file_the_token_is_printed_alone_and_its_hash_is_added()
    {
        using var folder = new TempDirectory();
        string[] names = ["alice", "bob"];
        var tokens = new List<string>();
        foreach (var name in names)
        {
            var result = await VTunnelProgram.RunAsync(["token", "create", "--name", name, "-ports", "9000,9100-9199", "-tokens", "tokens.json"], folder: folder.Path);
            Assert.Equal(ExitCodes.Success, result.ExitCode);
            Assert.Contains($"'{name}' is in tokens.json", Assert.Single(result.Errors), StringComparison.Ordinal);
            tokens.Add(Assert.Single(VTunnelProgram.Lines(result.Output)));
        }

        Assert.All(tokens, token => Assert.Matches(TokenPattern, token));
        using var file = JsonDocument.Parse(File.ReadAllText(folder.File("tokens.json")));
        var entries = file.RootElement.GetProperty("tokens").EnumerateArray().ToList();
        Assert.Equal(names, entries.Select(entry => entry.GetProperty("name").GetString()!));
        Assert.Equal(
            tokens.Select(token => Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(token)))),
            entries.Select(entry => entry.GetProperty("sha256").GetString()!));
        Assert.All(entries, entry => Assert.Equal("[\"9000\",\"9100-9199\"]", JsonSerializer.Serialize(entry.GetProperty("ports"))));
        if (!OperatingSystem.IsWindows())
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(folder.File("tokens.json")));
    }

    [Fact]
    public async Task Without_a_file_the_entry_is_printed_below_the_token()
    {
        var result = await VTunnelProgram.RunAsync("token", "create", "--name", "alice");
        Assert.Equal(ExitCodes.Success, result.ExitCode);
        var lines = VTunnelProgram.Lines(result.Output);
        Assert.Matches(TokenPattern, lines[0]);
        using var entry = JsonDocument.Parse(string.Join('\n', lines.Skip(1)));
        Assert.Equal("alice", entry.RootElement.GetProperty("name").GetString());
        Assert.Equal(Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(lines[0]))), entry.RootElement.GetProperty("sha256").GetString());
    }

    [Fact]
    public async Task A_name_is_given_once()
    {
        using var folder = new TempDirectory();
        var variables = new Dictionary<string, string?> { ["VTUNNEL_TOKENS"] = "tokens.json" };
        await VTunnelProgram.RunAsync(["token", "create", "--name", "alice"], variables, folder.Path);
        var before = File.ReadAllText(folder.File("tokens.json"));

        var result = await VTunnelProgram.RunAsync(["token", "create", "--name", "alice"], variables, folder.Path);

        Assert.Equal(["vtunnel: VTUNNEL_TOKENS 'tokens.json': there is a token named 'alice' already; choose another name or remove that entry"], result.Errors);
        Assert.Equal(ExitCodes.Usage, result.ExitCode);
        Assert.Empty(result.Output);
        Assert.Equal(before, File.ReadAllText(folder.File("tokens.json")));
    }

    [Theory]
    [InlineData("> /dev/full", "no space left on device")]
    [InlineData(">&-", "bad file descriptor")]
    public async Task A_token_that_cannot_be_printed_is_not_added_and_its_name_stays_free(string redirection, string reason)
    {
        using var folder = new TempDirectory();
        await VTunnelProgram.RunAsync(["token", "create", "--name", "alice", "--tokens", "tokens.json"], folder: folder.Path);
        var before = File.ReadAllText(folder.File("tokens.json"));

        var result = await Tools.TryRunAsync("bash", ["-c", $"'{VTunnelProgram.Path}' token create --name bob --tokens tokens.json {redirection}"], folder.Path);

        Assert.Equal([$"vtunnel: standard output cannot be written: {reason}; nothing was added to tokens.json"], VTunnelProgram.Lines(result.StandardError));
        Assert.Equal(ExitCodes.InternalError, result.ExitCode);
        Assert.Equal(before, File.ReadAllText(folder.File("tokens.json")));
        var again = await VTunnelProgram.RunAsync(["token", "create", "--name", "bob", "--tokens", "tokens.json"], folder: folder.Path);
        Assert.Equal(ExitCodes.Success, again.ExitCode);
    }
}
