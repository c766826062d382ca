using Akka.Actor;
using Akka.Configuration;
using Akka.Serialization;

namespace VTunnel.Hosting;

/// <summary>Stands where Akka has its serialiser for JSON, in systems whose messages never leave the process.</summary>
internal sealed class NoSerializer : Serializer
{
    /// <summary>Made by the actor system.</summary>
    public NoSerializer(ExtendedActorSystem system, Config config)
        : base(system)
    {
    }

    /// <summary>Akka's own serialiser for JSON has 1; above 100 they are anybody's.</summary>
    public override int Identifier => 7301;

    public override bool IncludeManifest => false;

    public override byte[] ToBinary(object obj) => throw NotSupported(obj.GetType());

    public override object FromBinary(byte[] bytes, Type type) => throw NotSupported(type);

    private static NotSupportedException NotSupported(Type type) =>
        new($"{type} cannot be serialised: the messages of this actor system stay in the process");
}
