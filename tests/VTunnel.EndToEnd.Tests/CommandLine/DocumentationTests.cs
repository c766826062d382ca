using System.Reflection;
using VTunnel.Cli;
using VTunnel.Cli.Commands;
using VTunnel.Options;

namespace VTunnel.EndToEnd.Tests.CommandLine;

/// <summary>What the documents say about the command line is true.</summary>
public sealed class DocumentationTests
{
    private static readonly string Root = FindRoot();
    private static readonly string Reference = File.ReadAllText(Path.Combine(Root, "docs", "cli.md"));

    internal static string FindRoot()
    {
        var folder = new DirectoryInfo(AppContext.BaseDirectory);
        while (!File.Exists(Path.Combine(folder.FullName, "VTunnel.sln")))
            folder = folder.Parent ?? throw new InvalidOperationException("The tests do not run inside the repository.");
        return folder.FullName;
    }

    /// <summary>The part of the reference about one command, from its heading to the next of the same level.</summary>
    private static string Section(string path)
    {
        var heading = $"\n## vtunnel {path}\n";
        var start = Reference.IndexOf(heading, StringComparison.Ordinal);
        Assert.True(start >= 0, $"docs/cli.md has no section 'vtunnel {path}'");
        var end = Reference.IndexOf("\n## ", start + heading.Length, StringComparison.Ordinal);
        return end < 0 ? Reference[start..] : Reference[start..end];
    }

    [Theory]
    [InlineData("server")]
    [InlineData("client")]
    [InlineData("demo")]
    [InlineData("token create")]
    [InlineData("ca create")]
    [InlineData("version")]
    public void The_reference_has_every_option_with_variable_and_default_and_no_other(string path)
    {
        var spec = HelpTests.Paths(CommandSpecs.Root, "").Single(found => found.Path == path).Spec;
        var rows = Section(path).Split('\n').Where(line => line.StartsWith("| `--", StringComparison.Ordinal)).ToList();

        foreach (var option in spec.Options)
        {
            var row = rows.SingleOrDefault(row => row.StartsWith($"| `{option.LongName} ", StringComparison.Ordinal) || row.StartsWith($"| `{option.LongName}`", StringComparison.Ordinal));
            Assert.True(row is not null, $"docs/cli.md, vtunnel {path}: no row for {option.LongName}");
            var cells = row.Split(" | ");
            Assert.Equal(option.Variable is { } variable ? $"`{variable}`" : "–", cells[1]);
            Assert.Equal(option.Default is { } value ? value.Replace("*", "\\*", StringComparison.Ordinal) : "–", cells[2]);
        }

        Assert.Equal(spec.Options.Count, rows.Count);
    }

    [Theory]
    [InlineData("server", typeof(TunnelServerOptions))]
    [InlineData("client", typeof(TunnelClientOptions))]
    public void Every_option_of_the_engine_is_on_the_command_line(string path, Type options)
    {
        var spec = HelpTests.Paths(CommandSpecs.Root, "").Single(found => found.Path == path).Spec;
        var offered = spec.Options.Select(option => option.Property?.Split('.')[0]).ToHashSet();

        // The command line has it the other way round: --no-reconnect.
        offered.Add(nameof(TunnelClientOptions.AutoReconnect));
        var missing = options.GetProperties().Select(property => property.Name).Except(offered);
        Assert.Empty(missing);
    }

    [Fact]
    public void Every_command_is_in_the_reference()
    {
        foreach (var (path, spec) in HelpTests.Paths(CommandSpecs.Root, ""))
        {
            if (spec.Run is not null)
                Assert.Contains($"\n## vtunnel {path}\n", Reference, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Every_exit_code_is_in_the_reference()
    {
        var codes = typeof(ExitCodes).GetFields(BindingFlags.Public | BindingFlags.Static).Select(field => (int)field.GetRawConstantValue()!).ToList();
        Assert.All(codes, code => Assert.Contains($"\n| {code} | ", Reference, StringComparison.Ordinal));
        Assert.Equal(codes.Distinct().Count(), codes.Count);
    }

    [Fact]
    public void The_readme_names_every_option_of_server_and_client()
    {
        var readme = File.ReadAllText(Path.Combine(Root, "README.md"));
        foreach (var option in ServerCommand.Spec.Options.Concat(ClientCommand.Spec.Options))
            Assert.Contains($"`{option.LongName}", readme, StringComparison.Ordinal);
    }
}
