using System.Text.Json;
using System.Text.Json.Serialization;
using VTunnel.Protocol.Control;
using VTunnel.Protocol.Errors;

namespace VTunnel.Protocol.Bridge;

/// <summary>What publisher and consumer say to each other on the control stream of their end-to-end session.</summary>
[JsonPolymorphic(TypeDiscriminatorPropertyName = "type")]
[JsonDerivedType(typeof(BridgeGrants), "bridge_grants")]
[JsonDerivedType(typeof(BridgeNotice), "bridge_notice")]
[JsonDerivedType(typeof(BridgeProbe), "bridge_probe")]
[JsonDerivedType(typeof(BridgeProbeAnswer), "bridge_probe_ok")]
[JsonDerivedType(typeof(BridgeCheck), "bridge_check")]
[JsonDerivedType(typeof(BridgeCheckResult), "bridge_check_result")]
public abstract record BridgeMessage
{
    /// <summary>The form on the control stream.</summary>
    /// <exception cref="ArgumentException">The line would be longer than the control stream allows.</exception>
    public BridgeLine ToLine()
    {
        var json = ToJson();
        return json.Length < ControlLineReader.MaxLineBytes
            ? new BridgeLine(json)
            : throw new ArgumentException($"A line of {json.Length} bytes is longer than the limit of {ControlLineReader.MaxLineBytes}.");
    }

    /// <summary>The length of that form, in bytes; it must be below <see cref="ControlLineReader.MaxLineBytes"/>.</summary>
    [JsonIgnore]
    public int Length => ToJson().Length;

    private byte[] ToJson() => JsonSerializer.SerializeToUtf8Bytes(this, BridgeJson.Default.BridgeMessage);

    /// <summary>Reads a line; null for a type that this version does not know.</summary>
    /// <exception cref="SessionProtocolException">A field is missing or has the wrong shape.</exception>
    public static BridgeMessage? Read(BridgeLine line)
    {
        ArgumentNullException.ThrowIfNull(line);
        BridgeMessage? message;
        try
        {
            message = JsonSerializer.Deserialize(line.Json.Span, BridgeJson.Default.BridgeMessage);
        }
        catch (JsonException e) when (e.Message.Contains("type discriminator", StringComparison.Ordinal))
        {
            return null;
        }
        catch (Exception e) when (e is JsonException or NotSupportedException)
        {
            throw new SessionProtocolException(SessionError.ProtocolViolation, $"A message of the bridge is malformed: {e.Message}", e);
        }

        if (message is BridgeGrants grants && grants.Grants.Any(grant => grant is not { IsValid: true }))
            throw new SessionProtocolException(SessionError.ProtocolViolation, "A grant needs ports from 1 to 65535 and a host of at most 253 characters.");
        return message;
    }
}

/// <summary>One <c>host:port</c> at the publisher that a user may reach, and the local port that the consumer opens for it.</summary>
/// <param name="Local">The consumer's port, 1 to 65535.</param>
/// <param name="Host">A name or address as the publisher dials it; IPv6 without brackets.</param>
/// <param name="Port">1 to 65535.</param>
public sealed record BridgeGrant(
    [property: JsonRequired] int Local, [property: JsonRequired] string Host, [property: JsonRequired] int Port)
{
    /// <summary>The longest host name: 253 characters.</summary>
    public const int MaxHostLength = 253;

    /// <summary>The target as users write it: <c>host:port</c>, IPv6 in brackets.</summary>
    [JsonIgnore]
    public string Target => Host.Contains(':', StringComparison.Ordinal) ? $"[{Host}]:{Port}" : $"{Host}:{Port}";

    /// <summary>Whether numbers and lengths are within their bounds.</summary>
    [JsonIgnore]
    public bool IsValid => Local is >= 1 and <= 65535 && Port is >= 1 and <= 65535 && Host is { Length: >= 1 and <= MaxHostLength };

    /// <inheritdoc />
    public override string ToString() => $"{Local}:{Target}";
}

/// <summary>Publisher to consumer, first of all and after every change: all that the user may reach from now on.</summary>
/// <param name="User">Who the consumer is.</param>
/// <param name="Grants">Everything; what is not in it is denied.</param>
public sealed record BridgeGrants([property: JsonRequired] string User, [property: JsonRequired] IReadOnlyList<BridgeGrant> Grants) : BridgeMessage;

/// <summary>Publisher to consumer: why something was refused or reset. For people.</summary>
/// <param name="Text">One line.</param>
public sealed record BridgeNotice([property: JsonRequired] string Text) : BridgeMessage;

/// <summary>Either side: are you there? To be answered with <see cref="BridgeProbeAnswer"/> and the same id.</summary>
public sealed record BridgeProbe([property: JsonRequired] long Id) : BridgeMessage;

/// <summary>The answer to <see cref="BridgeProbe"/>.</summary>
public sealed record BridgeProbeAnswer([property: JsonRequired] long Id) : BridgeMessage;

/// <summary>Consumer to publisher: could this target be connected to now? Answered with <see cref="BridgeCheckResult"/>.</summary>
public sealed record BridgeCheck([property: JsonRequired] long Id, [property: JsonRequired] string Host, [property: JsonRequired] int Port) : BridgeMessage;

/// <summary>The answer to <see cref="BridgeCheck"/>; without an error the target took the connection.</summary>
public sealed record BridgeCheckResult([property: JsonRequired] long Id, string? Error = null) : BridgeMessage;

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    AllowOutOfOrderMetadataProperties = true,
    RespectNullableAnnotations = true)]
[JsonSerializable(typeof(BridgeMessage))]
internal sealed partial class BridgeJson : JsonSerializerContext;
