using System.Reflection;
using System.Text.RegularExpressions;
using Akka.Actor;
using Akka.Streams.Stage;
using ArchUnitNET.Domain;
using ArchUnitNET.Loader;
using ArchUnitNET.xUnit;
using VTunnel.Actors.Tests.Testing;
using VTunnel.Hosting;
using VTunnel.Protocol.V1;
using static ArchUnitNET.Fluent.ArchRuleDefinition;
using Assembly = System.Reflection.Assembly;

namespace VTunnel.Actors.Tests.Architecture;

/// <summary>The house stays as <c>docs/architecture.md</c> draws it: its tables of folders are what these tests read.</summary>
public sealed class LayerTests
{
    private static readonly Assembly Engine = typeof(TunnelClient).Assembly;
    private static readonly Assembly Protocol = typeof(V1Session).Assembly;
    private static readonly ArchUnitNET.Domain.Architecture House = new ArchLoader().LoadAssemblies(Engine, Protocol).Build();

    /// <summary>The folders of a project and those that each may use, from the table under its heading.</summary>
    private static Dictionary<string, HashSet<string>> Allowed(string project)
    {
        var text = RepositoryFiles.Read("docs", "architecture.md");
        var start = text.IndexOf($"### `{project}`", StringComparison.Ordinal);
        Assert.True(start >= 0, $"docs/architecture.md has no section '### `{project}`'");
        var end = text.IndexOf("\n#", start + 1, StringComparison.Ordinal);
        var rows = Regex.Matches(text[start..(end < 0 ? text.Length : end)], @"^\| `(\w+)` \|[^|]+\|([^|]*)\|$", RegexOptions.Multiline);
        return rows.ToDictionary(row => row.Groups[1].Value, row => Regex.Matches(row.Groups[2].Value, @"`(\w+)`").Select(used => used.Groups[1].Value).ToHashSet());
    }

    /// <summary>The arrows between the folders of a project, each with an example.</summary>
    private static Dictionary<(string From, string To), string> Arrows(Assembly assembly, string root)
    {
        var arrows = new Dictionary<(string, string), string>();
        var name = assembly.GetName().Name!;
        foreach (var type in House.Types.Where(type => IsIn(type, name)))
        {
            if (Folder(type, root) is not { } from)
                continue;
            foreach (var dependency in type.Dependencies)
            {
                if (IsIn(dependency.Target, name) && Folder(dependency.Target, root) is { } to && to != from)
                    arrows.TryAdd((from, to), $"{type.FullName} uses {dependency.Target.FullName}");
            }
        }

        return arrows;
    }

    private static bool IsIn(IType type, string assembly) => type.Assembly?.Name.Split(',')[0] == assembly;

    private static string? Folder(IType type, string root) =>
        type.Namespace.FullName.StartsWith(root, StringComparison.Ordinal) ? type.Namespace.FullName[root.Length..].Split('.')[0] : null;

    [Theory]
    [InlineData("VTunnel.Actors")]
    [InlineData("VTunnel.Protocol")]
    public void Folders_use_only_the_folders_that_the_document_allows(string project)
    {
        var allowed = Allowed(project);
        var arrows = ArrowsOf(project);
        Assert.True(arrows.Count > 5, $"only {arrows.Count} arrows were found");
        var forbidden = arrows
            .Where(arrow => !allowed.TryGetValue(arrow.Key.From, out var uses) || !uses.Contains(arrow.Key.To))
            .Select(arrow => $"{arrow.Key.From} -> {arrow.Key.To}: {arrow.Value}");
        Assert.Empty(forbidden);
    }

    [Theory]
    [InlineData("VTunnel.Actors")]
    [InlineData("VTunnel.Protocol")]
    public void The_document_names_every_folder_and_no_arrow_that_nobody_needs(string project)
    {
        var allowed = Allowed(project);
        var folders = Directory.EnumerateDirectories(Path.Combine(RepositoryFiles.Root, "src", project))
            .Select(Path.GetFileName)
            .Where(name => name is not ("bin" or "obj"))
            .Order(StringComparer.Ordinal);
        Assert.Equal(folders, allowed.Keys.Order(StringComparer.Ordinal));
        var arrows = ArrowsOf(project);
        var unneeded = allowed.SelectMany(row => row.Value.Select(to => (row.Key, to))).Except(arrows.Keys);
        Assert.Empty(unneeded);
    }

    [Theory]
    [InlineData("VTunnel.Actors")]
    [InlineData("VTunnel.Protocol")]
    public void No_two_folders_use_each_other_in_a_circle(string project)
    {
        var allowed = Allowed(project);
        var settled = new HashSet<string>();
        while (allowed.FirstOrDefault(row => !settled.Contains(row.Key) && row.Value.All(settled.Contains)) is { Key: { } bottom })
            settled.Add(bottom);
        Assert.Empty(allowed.Keys.Except(settled));
    }

    private static Dictionary<(string From, string To), string> ArrowsOf(string project) => project == "VTunnel.Actors"
        ? Arrows(Engine, "VTunnel.")
        : Arrows(Protocol, "VTunnel.Protocol.");

    [Fact]
    public void The_protocol_needs_the_base_class_library_and_nothing_else()
    {
        var references = Protocol.GetReferencedAssemblies().Select(reference => reference.Name!).ToArray();
        Assert.NotEmpty(references);
        Assert.All(references, name => Assert.Matches(@"^(System(\..+)?|netstandard)$", name));
        Assert.DoesNotContain(references, name => name.StartsWith("System.Net", StringComparison.Ordinal));
    }

    [Fact]
    public void Graphs_are_composed_in_one_folder()
    {
        Types().That().ResideInNamespaceMatching(@"^VTunnel\.(?!Stages)").And().DoNotResideInNamespaceMatching("^VTunnel.Protocol")
            .Should().NotDependOnAnyTypesThat().ResideInNamespaceMatching(@"^Akka\.Streams\.Dsl")
            .Check(House);
    }

    [Fact]
    public void Actors_and_stages_are_named_as_such()
    {
        var types = Engine.GetTypes().Where(type => !type.IsNested).ToArray();
        Assert.All(types.Where(type => type.IsAssignableTo(typeof(ActorBase))), type => Assert.EndsWith("Actor", type.Name, StringComparison.Ordinal));
        Assert.All(
            types.Where(type => type.IsAssignableTo(typeof(Akka.Streams.IGraph<Akka.Streams.Shape>))),
            type => Assert.EndsWith("Stage", type.Name.Split('`')[0], StringComparison.Ordinal));
        Assert.Contains(types, type => type.IsAssignableTo(typeof(ActorBase)));
    }

    [Fact]
    public void Messages_of_actors_cannot_be_changed()
    {
        var messages = Engine.GetTypes()
            .Where(type => type is { IsNested: true, IsPublic: false, DeclaringType.IsAbstract: true, DeclaringType.IsSealed: true })
            .Where(type => type.DeclaringType!.Name.EndsWith("Protocol", StringComparison.Ordinal) || type.DeclaringType!.Name.EndsWith("Events", StringComparison.Ordinal))
            .ToArray();
        Assert.True(messages.Length > 30, $"only {messages.Length} messages were found");
        Assert.All(messages, type =>
        {
            Assert.True(type.IsSealed || type.IsAbstract, $"{type} is not sealed");
            Assert.All(type.GetProperties(BindingFlags.Public | BindingFlags.Instance), property => Assert.True(
                property.SetMethod?.ReturnParameter.GetRequiredCustomModifiers().Contains(typeof(System.Runtime.CompilerServices.IsExternalInit)) ?? true,
                $"{type}.{property.Name} can be set"));
        });
    }
}
