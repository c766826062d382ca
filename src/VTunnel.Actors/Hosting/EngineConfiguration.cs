using Akka.Configuration;

namespace VTunnel.Hosting;

/// <summary>What the engine asks of an actor system that it makes itself.</summary>
internal static class EngineConfiguration
{
    /// <summary>The contents of <c>akka.conf</c> beside this file.</summary>
    public static Config Akka { get; } = ConfigurationFactory.FromResource("VTunnel.Hosting.akka.conf", typeof(EngineConfiguration).Assembly);

    /// <summary>
    /// What is to stand before it where nobody but the engine has actors. Akka makes every serialiser when it starts, and no
    /// message of the engine's leaves the process: so the one for JSON, which brings a library of its own, is not made.
    /// </summary>
    public static Config WithoutSerializers { get; } = ConfigurationFactory.ParseString(
        "akka.actor.serializers.json = \"VTunnel.Hosting.NoSerializer, VTunnel.Actors\"");

    /// <summary>For a system that nobody but the engine has actors in.</summary>
    public static Config Own { get; } = WithoutSerializers.WithFallback(Akka);
}
