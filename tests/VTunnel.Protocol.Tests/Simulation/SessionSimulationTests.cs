using VTunnel.Testing.Simulation;
using Xunit.Abstractions;

namespace VTunnel.Protocol.Tests.Simulation;

public sealed class SessionSimulationTests(ITestOutputHelper output)
{
    [Fact]
    public void Every_seed_keeps_the_invariants_of_the_whole_stack()
    {
        var outcomes = SimulationRunner.Run(nameof(SessionSimulationTests), Seeds.Balanced(SessionSimulation.Run), output.WriteLine);
        Seeds.AssertVaried(outcomes);
    }
}
