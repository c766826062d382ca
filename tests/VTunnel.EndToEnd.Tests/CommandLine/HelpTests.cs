using VTunnel.Cli.Commands;
using VTunnel.Cli.Syntax;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;

namespace VTunnel.EndToEnd.Tests.CommandLine;

public sealed class HelpTests
{
    public static TheoryData<string> Commands => [.. Paths(CommandSpecs.Root, "").Select(found => found.Path)];

    internal static IEnumerable<(string Path, CommandSpec Spec)> Paths(CommandSpec spec, string path) =>
        spec.Commands.SelectMany(child => Paths(child, $"{path} {child.Name}".Trim())).Prepend((path, spec));

    [Theory]
    [MemberData(nameof(Commands))]
    public async Task Help_shows_every_option_with_its_variable_and_an_example(string path)
    {
        var spec = Paths(CommandSpecs.Root, "").Single(found => found.Path == path).Spec;

        var result = await VTunnelProgram.RunAsync([.. path.Split(' ', StringSplitOptions.RemoveEmptyEntries), "--help"]);

        Assert.Equal(0, result.ExitCode);
        Assert.Empty(result.Errors);
        Assert.Contains("Usage:", result.Output, StringComparison.Ordinal);
        Assert.Contains("Examples:", result.Output, StringComparison.Ordinal);
        foreach (var option in spec.Options)
        {
            Assert.Contains($"  {option.LongName}", result.Output, StringComparison.Ordinal);
            if (option.Variable is { } variable)
                Assert.Contains($"[{variable}]", result.Output, StringComparison.Ordinal);
        }

        foreach (var child in spec.Commands)
            Assert.Contains($"  {child.Name} ", result.Output, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("--help")]
    [InlineData("-help")]
    [InlineData("-h")]
    [InlineData("-?")]
    public async Task Help_has_the_usual_spellings_and_wins_over_errors(string spelling)
    {
        var result = await VTunnelProgram.RunAsync("server", "--port", "nonsense", "--bogus", spelling);
        Assert.Equal(0, result.ExitCode);
        Assert.Contains("vtunnel server [options]", result.Output, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("version")]
    [InlineData("--version")]
    [InlineData("-version")]
    public async Task The_version_is_shown(string spelling)
    {
        var result = await VTunnelProgram.RunAsync(spelling);
        Assert.Equal(0, result.ExitCode);
        Assert.Matches(@"^vtunnel \d+\.\d+\.\d+\S* \(.*\.NET \d+.*\)\n$", result.Output);
    }

    [Theory]
    [InlineData("vtunnel se", "serve\nserver")]
    [InlineData("vtunnel vers", "version")]
    [InlineData("se", "serve\nserver")]
    [InlineData("vtunnel token ", "--help\ncreate")]
    [InlineData("vtunnel --ver", "--version")]
    [InlineData("vtunnel server --idle", "--idle-timeout")]
    [InlineData("vtunnel server -idle", "--idle-timeout")]
    [InlineData("vtunnel client --target", "--target-ca\n--target-connect-timeout\n--target-insecure")]
    [InlineData("vtunnel demo ", "--help\n--log-format\n--log-level\n--once")]
    [InlineData("vtunnel server --log-format ", "json\ntext")]
    [InlineData("vtunnel server --log-format=j", "json")]
    [InlineData("vtunnel server --tokens tokens.js", "")]
    [InlineData("vtunnel server --tokens ", "")]
    [InlineData("vtunnel client -H ", "")]
    [InlineData("vtunnel client --no-reconnect --for", "--forward")]
    [InlineData("vtunnel connect ", "")]
    public async Task Completion_answers_what_the_shell_asks_and_nothing_where_there_is_nothing(string typed, string expected)
    {
        var result = await VTunnelProgram.RunAsync($"[suggest:{typed.Length}]", typed);
        Assert.Equal(0, result.ExitCode);
        Assert.Equal(expected.Length == 0 ? "" : expected + "\n", result.Output);
    }

    [Fact]
    public async Task Completion_answers_for_the_place_of_the_cursor()
    {
        var result = await VTunnelProgram.RunAsync("[suggest:10]", "vtunnel se --port 3001");
        Assert.Equal("serve\nserver\n", result.Output);
    }

    [Fact]
    public async Task In_bash_the_documented_function_completes_commands_options_and_the_names_of_files()
    {
        using var folder = new TempDirectory();
        folder.Write("tokens.json", "none");
        var reference = File.ReadAllText(Path.Combine(DocumentationTests.FindRoot(), "docs", "cli.md"));
        var start = reference.IndexOf("_vtunnel() {", StringComparison.Ordinal);
        folder.Write("setup", $"PATH='{Path.GetDirectoryName(VTunnelProgram.Path)}':$PATH\n{reference[start..reference.IndexOf("```", start, StringComparison.Ordinal)]}");

        // A tab does what it does for whoever sits there; the program's answers say what it made of the words.
        folder.Write("typed", "source ./setup\nvtunnel vers\t\nvtunnel server --tokens tokens.js\t\nvtunnel server --max-li\t0\nexit\n");
        var result = await Tools.TryRunAsync("bash", ["-c", "TERM=dumb script -qec 'bash --norc --noprofile -i' /dev/null < typed"], folder.Path);

        Assert.Contains("vtunnel 0.", result.StandardOutput, StringComparison.Ordinal);
        Assert.Contains("--tokens 'tokens.json': not valid JSON", result.StandardOutput, StringComparison.Ordinal);
        Assert.Contains("--max-listeners '0': must be from", result.StandardOutput, StringComparison.Ordinal);
    }

    [Fact]
    public void Every_option_is_known_by_one_dash_and_by_no_shorter_name()
    {
        foreach (var (_, spec) in Paths(CommandSpecs.Root, ""))
        {
            Assert.Equal(spec.Options.Count, spec.Options.Select(option => option.Name).Distinct().Count());
            Assert.All(spec.Options, option => Assert.Matches("^[a-z]+(-[a-z]+)*$", option.Name));
        }
    }
}
