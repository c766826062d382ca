using System.Text.Json;
using CliWrap;
using CliWrap.Buffered;
using VTunnel.Bench;
using VTunnel.Bench.Candidates;
using VTunnel.Bench.Load;
using VTunnel.Bench.Reports;
using VTunnel.Bench.Results;
using VTunnel.EndToEnd.Tests.CommandLine;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;

namespace VTunnel.EndToEnd.Tests.Bench;

/// <summary>The bench works and cannot be taken in. What it measures is not looked at here: a test's machine is not quiet.</summary>
[Collection(Heavy.Name)]
public sealed class BenchTests
{
    private static readonly TimeSpan Deadline = TimeSpan.FromMinutes(2);
    private static readonly string Document = File.ReadAllText(Path.Combine(DocumentationTests.FindRoot(), "docs", "bench.md"));

    private static async Task<BufferedCommandResult> RunAsync(params string[] arguments)
    {
        using var deadline = new CancellationTokenSource(Deadline);
        return await CliWrap.Cli.Wrap(Path.Combine(AppContext.BaseDirectory, "VTunnel.Bench"))
            .WithArguments(arguments)
            .WithValidation(CommandResultValidation.None)
            .ExecuteBufferedAsync(deadline.Token);
    }

    [Fact]
    public async Task A_bridge_and_OpenSSH_in_its_place_are_measured_party_by_party()
    {
        await Tools.EnsureInstalledAsync();
        using var folder = new TempDirectory();
        var json = folder.File("result.json");
        var run = await RunAsync("tunnel", "--program", BuiltProgram.File, "--scenario", "bridge", "--protocol", "v2", "--rounds", "1", "--seconds", "0.1", "--json", json);

        Assert.True(run.ExitCode == 0, run.StandardOutput + run.StandardError);
        var result = JsonSerializer.Deserialize(File.ReadAllText(json), BenchJson.Default.BenchResult)!;
        foreach (var metric in new[] { "rate", "cpu", "cpu-relay", "cpu-publisher", "cpu-consumer" })
            Assert.Equal(["bridge", "openssh-bridge"], result.Series.Where(series => series.Case == "pull-1" && series.Metric == metric).Select(series => series.Candidate).Order());
        Assert.All(result.Series, series => Assert.Contains($"| `{series.Scenario}` |", Document, StringComparison.Ordinal));
        Assert.All(result.Series.Where(series => series.Case == "memory"), series => Assert.InRange(series.Median, 1, 5000));
    }

    [Fact]
    public async Task A_short_run_gives_tables_and_json_as_documented_and_a_page_with_charts()
    {
        using var folder = new TempDirectory();
        var json = folder.File("result.json");
        var run = await RunAsync(
            "tunnel", "--program", BuiltProgram.File, "--scenario", "throughput,latency", "--protocol", "v2", "--streams", "1", "--rounds", "2", "--seconds", "0.05", "--json", json);

        Assert.True(run.ExitCode == 0, run.StandardOutput + run.StandardError);
        Assert.Contains("pull-1: rate, MB/s", run.StandardOutput, StringComparison.Ordinal);
        Assert.Contains("round 2 of 2", run.StandardError, StringComparison.Ordinal);

        using var parsed = JsonDocument.Parse(File.ReadAllText(json));
        Assert.All(FieldNames(parsed.RootElement).Distinct(), name => Assert.Contains($"| `{name}` |", Document, StringComparison.Ordinal));

        var result = JsonSerializer.Deserialize(File.ReadAllText(json), BenchJson.Default.BenchResult)!;
        Assert.Equal(["direct", "floor", "v2"], result.Series.Where(series => series is { Case: "pull-1", Metric: "rate" }).Select(series => series.Candidate).Order());
        Assert.Equal(["floor", "v2"], result.Series.Where(series => series is { Case: "push-1", Metric: "cpu" }).Select(series => series.Candidate).Order());
        Assert.All(result.Series, series =>
        {
            Assert.InRange(series.Median, series.Low, series.High);
            Assert.True(series.Metric == "allocated" ? series.Median >= 0 : series.Low > 0, $"{series}");
            Assert.Equal(series.Metric == "allocated" ? 1 : 2, series.Values.Count);
            Assert.Contains($"| `{series.Scenario}` |", Document, StringComparison.Ordinal);
            Assert.Contains($"`{series.Metric}`", Document, StringComparison.Ordinal);
        });
        Assert.Contains(result.Targets, target => target is { Name: "throughput, pull-1", Candidate: "v2", Limit: 0.9 });

        var page = folder.Write("performance.md", "# Speed\n\nwritten by people\n\n<!-- figures: written by 'bench report', do not edit -->\nold\n<!-- end of figures -->\n\nand this too\n");
        var written = PerformancePage.Update(result, page);
        var text = File.ReadAllText(page);
        Assert.StartsWith("# Speed\n\nwritten by people\n", text, StringComparison.Ordinal);
        Assert.EndsWith("<!-- end of figures -->\n\nand this too\n", text, StringComparison.Ordinal);
        Assert.DoesNotContain("old", text, StringComparison.Ordinal);
        Assert.Contains("| pull-1: rate, MB/s |", text, StringComparison.Ordinal);
        Assert.All(written.Skip(1), file => Assert.Equal("svg", System.Xml.Linq.XDocument.Load(file).Root!.Name.LocalName));
        Assert.Equal(4, written.Count(file => file.EndsWith(".svg", StringComparison.Ordinal)));
    }

    [Theory]
    [InlineData("Flip", "wrong bytes arrived")]
    [InlineData("Drop", "wrong bytes arrived")]
    [InlineData("Cut", "a transfer is short")]
    public void A_tunnel_that_loses_or_changes_bytes_fails_the_run(string fault, string message)
    {
        using var target = new LoadTarget();
        using var broken = new PeerCandidate(
            new Peer("broken", null, null, ["{BENCH}", "relay", "{L}", "--listen", "{R}", "--fault", fault, "--at", "1000000"]), target);

        var e = Assert.Throws<BenchException>(() => Loads.Bulk(broken, target, Direction.Pull, 2, TimeSpan.FromSeconds(0.3)));

        Assert.Contains("broken, pull, 2 streams", e.Message, StringComparison.Ordinal);
        Assert.Contains(message, e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task OpenSSH_is_measured_beside_the_program_with_the_file_in_the_repository()
    {
        await Tools.EnsureInstalledAsync();
        var run = await RunAsync(
            "compare", "--peers", Path.Combine(DocumentationTests.FindRoot(), "bench", "peers", "openssh.json"), "--program", BuiltProgram.File,
            "--protocol", "v2", "--scenario", "connects", "--rounds", "1", "--seconds", "0.05");

        Assert.True(run.ExitCode == 0, run.StandardOutput + run.StandardError);
        Assert.Contains("openssh", run.StandardOutput, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_run_that_cannot_be_counted_ends_with_1_and_says_why()
    {
        using var folder = new TempDirectory();
        var peers = folder.Write("peers.json", """{"peers": [{"name": "broken", "client": ["{BENCH}", "relay", "{L}", "--listen", "{R}", "--fault", "Flip", "--at", "100000"]}]}""");

        var run = await RunAsync("compare", "--peers", peers, "--program", BuiltProgram.File, "--protocol", "v2", "--rounds", "1", "--seconds", "0.05");

        Assert.Equal(1, run.ExitCode);
        Assert.Contains("bench: broken, pull, 1 streams: wrong bytes arrived", run.StandardError, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Wrong_options_are_all_named_before_anything_starts()
    {
        var run = await RunAsync("tunnel", "--scenario", "speed", "--rounds", "0", "--streams", "many", "--connecting", "0", "--program", "/no/such/file");

        Assert.Equal(2, run.ExitCode);
        Assert.Contains("--scenario 'speed': it is one of throughput, latency", run.StandardError, StringComparison.Ordinal);
        Assert.Contains("--rounds '0': it is 1 to 1000", run.StandardError, StringComparison.Ordinal);
        Assert.Contains("--streams 'many': it is a number from 1 to 1000", run.StandardError, StringComparison.Ordinal);
        Assert.Contains("--connecting '0': it is a number from 1 to 1000", run.StandardError, StringComparison.Ordinal);
        Assert.Contains("--program '/no/such/file': there is no such file", run.StandardError, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_micro_benchmark_runs_and_tells_what_it_allocates()
    {
        var run = await RunAsync("micro", "--filter", "*Scheduler*", "--job", "dry");

        Assert.True(run.ExitCode == 0, run.StandardOutput + run.StandardError);
        Assert.Contains("Allocated", run.StandardOutput, StringComparison.Ordinal);
    }

    private static IEnumerable<string> FieldNames(JsonElement element) => element.ValueKind switch
    {
        JsonValueKind.Object => element.EnumerateObject().SelectMany(property => FieldNames(property.Value).Prepend(property.Name)),
        JsonValueKind.Array => element.EnumerateArray().SelectMany(FieldNames),
        _ => [],
    };
}
