using Akka.Actor;
using Akka.Actor.Setup;
using Akka.Configuration;
using Akka.Hosting.Logging;
using Microsoft.Extensions.Logging;

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

    /// <summary>Makes a system that nobody but the engine has actors in. What Akka logs of it goes where the engine's lines go, or nowhere.</summary>
    public static ActorSystem CreateSystem(string name, ILoggerFactory? loggers)
    {
        // Unasked, Akka writes to standard output.
        var config = ConfigurationFactory.ParseString(loggers is null ? "akka.loggers = []" : $"akka.loggers = [\"{typeof(LoggerFactoryLogger).FullName}, Akka.Hosting\"]");
        var setup = ActorSystemSetup.Create(BootstrapSetup.Create().WithConfig(config.WithFallback(Own)));
        return ActorSystem.Create(name, loggers is null ? setup : setup.And(new LoggerFactorySetup(loggers)));
    }
}
