using System.Text.Json;
using System.Text.Json.Serialization;

namespace VTunnel.Bridge.Relay;

/// <summary>What a relay says to a publisher on its control connection.</summary>
/// <param name="Type"><c>incoming</c>; other types are ignored.</param>
/// <param name="Stream">What to answer with.</param>
/// <param name="Remote">Where the consumer dialled from, for logs.</param>
/// <param name="User">The fingerprint of the user that the relay took it for; earlier relays do not say.</param>
internal sealed record RelayMessage(string Type, string? Stream = null, string? Remote = null, string? User = null);

/// <summary>Writes and reads them.</summary>
internal static class RelayMessages
{
    /// <summary>The longest message that a publisher takes, in bytes.</summary>
    public const int MaxBytes = 4096;

    /// <summary>A consumer waits.</summary>
    public static byte[] Incoming(string stream, string remote, string user) =>
        JsonSerializer.SerializeToUtf8Bytes(new RelayMessage("incoming", stream, remote, user), RelayJson.Default.RelayMessage);

    /// <summary>Null for anything that is not one.</summary>
    public static RelayMessage? Read(ReadOnlySpan<byte> json)
    {
        try
        {
            return JsonSerializer.Deserialize(json, RelayJson.Default.RelayMessage);
        }
        catch (JsonException)
        {
            // The relay is not to be trusted: what cannot be read is not obeyed.
            return null;
        }
    }
}

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    RespectNullableAnnotations = true)]
[JsonSerializable(typeof(RelayMessage))]
internal sealed partial class RelayJson : JsonSerializerContext;
