using System.Reflection;
using System.Text.RegularExpressions;
using VTunnel.Actors.Tests.Diagnostics;
using VTunnel.Actors.Tests.Testing;
using VTunnel.Carriers;
using VTunnel.Diagnostics;
using VTunnel.Hosting;
using VTunnel.Targets;

namespace VTunnel.Actors.Tests.Docs;

/// <summary>What documents say about the code is true.</summary>
public sealed partial class DocumentTests
{
    private static readonly Lazy<HashSet<string>> KnownNames = new(FindNames);

    public static TheoryData<string> Documents() => [.. RepositoryFiles.Documents()];

    /// <summary>Names of at least two words in capitals' case, such as <c>SessionActor</c>, are those of types or their members.</summary>
    [Theory]
    [MemberData(nameof(Documents))]
    public void Names_of_types_and_members_exist(string document)
    {
        var named = CodeName().Matches(WithoutFences(RepositoryFiles.Read(document)))
            .SelectMany(match => match.Groups[1].Value.Split('.'))
            .Select(name => name.Split('<')[0]);
        Assert.Empty(named.Where(name => !KnownNames.Value.Contains(name)).Distinct());
    }

    [Theory]
    [MemberData(nameof(Documents))]
    public void Links_lead_to_files_and_headings_that_exist(string document)
    {
        var text = RepositoryFiles.Read(document);
        foreach (Match link in Link().Matches(WithoutFences(text)))
        {
            var (path, fragment) = (link.Groups[1].Value, link.Groups[2].Value);
            if (path.Contains("://", StringComparison.Ordinal))
                continue;
            var file = path.Length == 0 ? document : Path.Combine(Path.GetDirectoryName(document)!, path);
            var full = Path.GetFullPath(Path.Combine(RepositoryFiles.Root, file));
            Assert.True(File.Exists(full) || Directory.Exists(full), $"{document} leads to {path}, which does not exist");
            if (fragment.Length > 0)
                Assert.Contains(fragment, Anchors(File.ReadAllText(full)));
        }
    }

    [Theory]
    [InlineData(typeof(ConnectError))]
    [InlineData(typeof(TargetError))]
    [InlineData(typeof(StreamEnd))]
    public void Tables_of_codes_are_complete(Type type)
    {
        var text = RepositoryFiles.Read("docs", "errors.md");
        var start = text.IndexOf($"<!-- enum {type.Name} -->", StringComparison.Ordinal);
        Assert.True(start >= 0, $"docs/errors.md has no table of {type.Name}");
        var end = text.IndexOf("\n\n", start, StringComparison.Ordinal);
        var rows = Row().Matches(text[start..(end < 0 ? text.Length : end)]).Select(row => (row.Groups[1].Value, row.Groups[2].Value));
        Assert.Equal(Enum.GetValues(type).Cast<object>().Select(value => (Convert.ToInt32(value).ToString(), value.ToString()!)), rows);
    }

    [Fact]
    public void Metrics_and_their_units_are_listed()
    {
        var text = RepositoryFiles.Read("docs", "operations.md");
        var listed = Metric().Matches(text).Select(row => (row.Groups[1].Value, row.Groups[2].Value)).Order();
        Assert.Equal(TunnelMetricsNames.All, listed);
    }

    private static string WithoutFences(string text) => Fence().Replace(text, "");

    private static IEnumerable<string> Anchors(string text) => Heading().Matches(WithoutFences(text))
        .Select(heading => NotInAnchors().Replace(heading.Groups[1].Value.ToLowerInvariant(), "").Replace(' ', '-'));

    private static HashSet<string> FindNames()
    {
        const BindingFlags Everything = BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Instance | BindingFlags.Static | BindingFlags.DeclaredOnly;
        var tests = typeof(DocumentTests).Assembly;
        var ours = new[] { typeof(TunnelClient).Assembly, typeof(VTunnel.Protocol.V1.V1Session).Assembly, typeof(Extending.AuditLogActor).Assembly, tests };
        var names = ours.SelectMany(assembly => assembly.GetTypes())
            .SelectMany(type => type.GetMembers(Everything).Select(member => member.Name).Append(type.Name.Split('`')[0]));
        var sources = Directory.EnumerateFiles(Path.Combine(RepositoryFiles.Root, "src"), "*.cs", SearchOption.AllDirectories)
            .Concat(Directory.EnumerateFiles(Path.Combine(RepositoryFiles.Root, "tests"), "*.cs", SearchOption.AllDirectories))
            .Select(file => Path.GetFileNameWithoutExtension(file));
        var others = ours.SelectMany(assembly => assembly.GetReferencedAssemblies()).DistinctBy(name => name.FullName)
            .SelectMany(name => Assembly.Load(name).GetExportedTypes())
            .Select(type => type.Name.Split('`')[0]);
        return [.. names, .. sources, .. others];
    }

    [GeneratedRegex(@"`((?:[A-Z][a-z0-9]+\.)*[A-Z]\w*[a-z0-9][A-Z]\w*(?:<\w+>)?(?:\.[A-Z]\w+)*)`")]
    private static partial Regex CodeName();

    [GeneratedRegex(@"\]\(([^)#\s]*)#?([^)\s]*)\)")]
    private static partial Regex Link();

    [GeneratedRegex(@"^```.*?^```$", RegexOptions.Multiline | RegexOptions.Singleline)]
    private static partial Regex Fence();

    [GeneratedRegex(@"^#+ (.+)$", RegexOptions.Multiline)]
    private static partial Regex Heading();

    [GeneratedRegex(@"[^\w\- ]")]
    private static partial Regex NotInAnchors();

    [GeneratedRegex(@"^\| (\d+) \| `(\w+)` \|", RegexOptions.Multiline)]
    private static partial Regex Row();

    [GeneratedRegex(@"^\| `(vtunnel\.[a-z.]+)` \| (\S+) \|", RegexOptions.Multiline)]
    private static partial Regex Metric();
}
