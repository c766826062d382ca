using VTunnel.Testing.Simulation;
using Xunit.Abstractions;

namespace VTunnel.Protocol.Tests.Simulation;

public sealed class LinkSimulationTests(ITestOutputHelper output)
{
    [Fact]
    public void Every_seed_keeps_the_invariants_of_the_link()
    {
        var outcomes = SimulationRunner.Run(nameof(LinkSimulationTests), LinkSimulation.Run, output.WriteLine);

        // Both kinds of run must be among many, or the faults are too mild or too harsh to show anything.
        if (SimulationRunner.IsNarrowed)
            return;
        Assert.True(outcomes[SimulationOutcome.Completed] > outcomes[SimulationOutcome.Expired]);
        Assert.True(outcomes[SimulationOutcome.Expired] > 0);
    }
}
