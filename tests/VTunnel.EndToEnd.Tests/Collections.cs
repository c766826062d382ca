namespace VTunnel.EndToEnd.Tests;

/// <summary>
/// Tests that need the machine for themselves: bulk data, hundreds of connections, many cuts, what measures. They run one
/// after the other, when all others are done.
/// </summary>
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class Heavy
{
    public const string Name = "heavy";
}
