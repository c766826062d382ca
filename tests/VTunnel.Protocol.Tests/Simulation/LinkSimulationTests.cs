using VTunnel.Testing.Simulation;
using Xunit.Abstractions;

namespace VTunnel.Protocol.Tests.Simulation;

public sealed class LinkSimulationTests(ITestOutputHelper output)
{
    [Fact]
    public void Every_seed_keeps_the_invariants_of_the_link()
    {
        var outcomes = SimulationRunner.Run(nameof(LinkSimulationTests), Seeds.Balanced(LinkSimulation.Run), output.WriteLine);
        Seeds.AssertVaried(outcomes);
    }
}
