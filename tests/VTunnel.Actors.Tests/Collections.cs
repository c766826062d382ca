namespace VTunnel.Actors.Tests;

/// <summary>
/// Tests that count what they allocate run alone: the pools that make it nothing belong to the whole process, and a test beside
/// them that rents and does not give back takes what they have just put there.
/// </summary>
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class Alone
{
    public const string Name = "alone";
}
