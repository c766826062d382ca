using VTunnel.Protocol.Buffers;
using VTunnel.Testing.Simulation;

namespace VTunnel.Protocol.Tests.Simulation;

/// <summary>What the simulations have in common.</summary>
internal static class Seeds
{
    /// <summary>The run, and then the books: every chunk that it rented must have been released.</summary>
    public static Func<int, Action<string>?, SimulationOutcome> Balanced(Func<int, Action<string>?, SimulationOutcome> run) => (seed, log) =>
    {
        using var ledger = ChunkLedger.Open();
        var outcome = run(seed, log);
        return ledger.Outstanding == 0
            ? outcome
            : throw new SimulationFailedException($"{ledger.Outstanding} of {ledger.Rented} chunks were never released");
    };

    /// <summary>Both kinds of run must be among many, or the faults are too mild or too harsh to show anything.</summary>
    public static void AssertVaried(IReadOnlyDictionary<SimulationOutcome, int> outcomes)
    {
        if (SimulationRunner.IsNarrowed)
            return;
        Assert.True(outcomes[SimulationOutcome.Completed] > outcomes[SimulationOutcome.Expired]);
        Assert.True(outcomes[SimulationOutcome.Expired] > 0);
    }
}
