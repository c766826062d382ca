using Akka.Configuration;

namespace VTunnel.Hosting;

/// <summary>What the engine asks of an actor system that it makes itself.</summary>
internal static class EngineConfiguration
{
    /// <summary>The contents of <c>akka.conf</c> beside this file.</summary>
    public static Config Akka { get; } = ConfigurationFactory.FromResource("VTunnel.Hosting.akka.conf", typeof(EngineConfiguration).Assembly);
}
