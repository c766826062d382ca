using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;
using VTunnel.Bridge.Consuming;
using VTunnel.Bridge.Publishing;
using VTunnel.Bridge.Relay;
using VTunnel.Bridge.State;
using VTunnel.Cli.Commands.Bridge;

namespace VTunnel.Cli.Hosting;

/// <summary>
/// The JSON that commands print for <c>--json</c> and that running processes answer with. What is not named here cannot be written:
/// a program that was compiled ahead of time does not find out at run time what a type is made of.
/// </summary>
[JsonSourceGenerationOptions(GenerationMode = JsonSourceGenerationMode.Metadata)]
[JsonSerializable(typeof(RunningServer))]
[JsonSerializable(typeof(RunningClient))]
[JsonSerializable(typeof(RelayStatus))]
[JsonSerializable(typeof(PublisherState))]
[JsonSerializable(typeof(ConsumerState))]
[JsonSerializable(typeof(CheckAnswer))]
[JsonSerializable(typeof(BridgeContext))]
[JsonSerializable(typeof(BridgeUser))]
[JsonSerializable(typeof(IReadOnlyList<BridgeUser>))]
[JsonSerializable(typeof(IReadOnlyList<BridgeApp>))]
[JsonSerializable(typeof(IReadOnlyList<AuditRecord>))]
[JsonSerializable(typeof(IReadOnlyList<ListedContext>))]
[JsonSerializable(typeof(IReadOnlyList<ListedPublisher>))]
[JsonSerializable(typeof(IReadOnlyList<OpenInvitation>))]
[JsonSerializable(typeof(JsonObject))]
internal sealed partial class CliJson : JsonSerializerContext
{
    private static readonly CliJson Readable = new(new JsonSerializerOptions
    {
        WriteIndented = true,
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    });

    /// <summary>How a type is written and read.</summary>
    public static JsonTypeInfo<T> Of<T>() => (JsonTypeInfo<T>)Of(typeof(T));

    /// <inheritdoc cref="Of{T}"/>
    public static JsonTypeInfo Of(Type type) => Readable.GetTypeInfo(type) ?? throw new NotSupportedException($"{type} is not among the types of {nameof(CliJson)}");
}
