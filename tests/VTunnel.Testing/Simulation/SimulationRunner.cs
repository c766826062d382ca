using System.Globalization;

namespace VTunnel.Testing.Simulation;

/// <summary>Runs many seeds, or the one that failed.</summary>
/// <remarks>
/// <c>VTUNNEL_SIM_SEEDS</c> is how many (default 2,000), <c>VTUNNEL_SIM_FIRST_SEED</c> where they begin (default 1),
/// <c>VTUNNEL_SIM_SEED</c> the only one to run, with its whole story.
/// </remarks>
public static class SimulationRunner
{
    private const int StoryLines = 60;

    /// <summary>Runs the seeds that the environment asks for.</summary>
    /// <param name="test">The name of the test, for the command that repeats a failure.</param>
    /// <param name="run">Runs one seed.</param>
    /// <param name="output">Where to write.</param>
    /// <param name="defaultCount">How many seeds unless the environment says so.</param>
    /// <returns>How many runs came to each outcome.</returns>
    public static IReadOnlyDictionary<SimulationOutcome, int> Run(
        string test,
        Func<int, Action<string>?, SimulationOutcome> run,
        Action<string> output,
        int defaultCount = 2000)
    {
        ArgumentNullException.ThrowIfNull(run);
        ArgumentNullException.ThrowIfNull(output);
        var outcomes = new Dictionary<SimulationOutcome, int> { [SimulationOutcome.Completed] = 0, [SimulationOutcome.Expired] = 0 };
        if (Number("VTUNNEL_SIM_SEED") is { } single)
        {
            outcomes[run(single, output)]++;
            return outcomes;
        }

        var first = Number("VTUNNEL_SIM_FIRST_SEED") ?? 1;
        var count = Number("VTUNNEL_SIM_SEEDS") ?? defaultCount;
        for (var seed = first; seed < first + count; seed++)
        {
            try
            {
                outcomes[run(seed, null)]++;
            }
            catch (Exception e)
            {
                throw new SimulationFailedException(Explain(test, seed, seed - first + 1, run, e));
            }
        }

        output($"{count} seeds from {first}: {string.Join(", ", outcomes.Select(pair => $"{pair.Value} {pair.Key}"))}");
        return outcomes;
    }

    /// <summary>Whether the environment asks for particular seeds, so that statistics over all of them mean nothing.</summary>
    public static bool IsNarrowed => Number("VTUNNEL_SIM_SEED") is not null || Number("VTUNNEL_SIM_SEEDS") < 200;

    private static string Explain(string test, int seed, int tried, Func<int, Action<string>?, SimulationOutcome> run, Exception failure)
    {
        // The same seed once more, this time with its story.
        var story = new Queue<string>();
        var again = "the second run of the seed kept all invariants: the simulation is not deterministic";
        try
        {
            run(seed, line =>
            {
                story.Enqueue(line);
                if (story.Count > StoryLines)
                    story.Dequeue();
            });
        }
        catch (Exception e)
        {
            again = e.GetType() == failure.GetType() && e.Message == failure.Message ? "" : $"the second run of the seed failed in another way: {e}";
        }

        return $"""
            Seed {seed} ({tried} tried) breaks an invariant: {(failure is SimulationFailedException ? failure.Message : failure.ToString())}
            To repeat it with its whole story:
              VTUNNEL_SIM_SEED={seed} dotnet test tests/VTunnel.Protocol.Tests --filter FullyQualifiedName~{test} --logger "console;verbosity=detailed"
            {again}
            The last that happened:
            {string.Join('\n', story)}
            """;
    }

    private static int? Number(string name)
    {
        var value = Environment.GetEnvironmentVariable(name);
        if (string.IsNullOrEmpty(value))
            return null;
        return int.TryParse(value, NumberStyles.Integer, CultureInfo.InvariantCulture, out var number)
            ? number
            : throw new FormatException($"{name} is '{value}'; it is a whole number.");
    }
}
