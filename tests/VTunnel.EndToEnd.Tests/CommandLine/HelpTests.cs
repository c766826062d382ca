using VTunnel.Cli.Commands;
using VTunnel.Cli.Syntax;

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
    [InlineData("vtunnel se", "server")]
    [InlineData("vtunnel server --idle", "--idle-timeout")]
    [InlineData("vtunnel client --target", "--target-ca\n--target-connect-timeout\n--target-insecure")]
    [InlineData("vtunnel server --log-format ", "json\ntext")]
    public async Task Completion_answers_what_the_shell_asks(string typed, string expected)
    {
        var result = await VTunnelProgram.RunAsync($"[suggest:{typed.Length}]", typed);
        Assert.Equal(0, result.ExitCode);
        Assert.Equal(expected.Split('\n'), VTunnelProgram.Lines(result.Output).Select(line => line.Trim()).Take(expected.Split('\n').Length));
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
