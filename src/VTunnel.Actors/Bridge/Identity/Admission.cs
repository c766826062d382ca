using System.Buffers.Text;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace VTunnel.Bridge.Identity;

/// <summary>What somebody wants of a relay.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<AdmissionKind>))]
public enum AdmissionKind
{
    /// <summary>A publisher with an invitation wants to be enrolled.</summary>
    Enrol = 1,

    /// <summary>An enrolled publisher wants to be told of consumers.</summary>
    Publish = 2,

    /// <summary>An enrolled publisher answers a consumer.</summary>
    Answer = 3,

    /// <summary>A user of an enrolled publisher wants to be connected with it.</summary>
    Consume = 4,
}

/// <summary>
/// What is shown to a relay in the <c>Authorization</c> header: a claim, the certificate of whoever makes it, and a
/// signature over both with that certificate's key. A relay can check it with public keys alone.
/// </summary>
/// <param name="Kind">What is wanted.</param>
/// <param name="Audience">The relay's id; for <see cref="AdmissionKind.Enrol"/> the invitation's code.</param>
/// <param name="Tenant">The fingerprint of the publisher that it is about.</param>
/// <param name="Time">When it was made, in Unix seconds.</param>
/// <param name="Nonce">At random; a relay takes each one once.</param>
/// <param name="Certificate">In DER.</param>
/// <param name="Stream">For <see cref="AdmissionKind.Answer"/>: which consumer.</param>
/// <param name="Name">For <see cref="AdmissionKind.Enrol"/>: what the publisher calls itself.</param>
public sealed record Admission(
    AdmissionKind Kind,
    string Audience,
    string Tenant,
    long Time,
    string Nonce,
    byte[] Certificate,
    string? Stream = null,
    string? Name = null)
{
    /// <summary>The scheme in the <c>Authorization</c> header.</summary>
    public const string Scheme = "Bearer";

    /// <summary>The longest text that is looked at: 8 KiB.</summary>
    public const int MaxLength = 8 * 1024;

    private const string Purpose = "vtunnel bridge admission 1";

    /// <summary>Signs it: the text for the header.</summary>
    public string Sign(ECDsa key)
    {
        ArgumentNullException.ThrowIfNull(key);
        var content = JsonSerializer.SerializeToUtf8Bytes(this, AdmissionJson.Default.Admission);
        var signature = key.SignData(Keys.ForPurpose(Purpose, content), HashAlgorithmName.SHA256);
        return $"{Base64Url.EncodeToString(content)}.{Base64Url.EncodeToString(signature)}";
    }

    /// <summary>
    /// Reads a text and checks that whoever signed it holds the key of the certificate in it. What the certificate is worth,
    /// whether the time is near and the nonce new, is for the caller to check. Null for anything else; never throws.
    /// </summary>
    public static Admission? Read(string text)
    {
        if (text is not { Length: > 0 and <= MaxLength } || text.Split('.') is not [var first, var second])
            return null;
        try
        {
            var content = Base64Url.DecodeFromChars(first);
            if (JsonSerializer.Deserialize(content, AdmissionJson.Default.Admission) is not { } admission || !Enum.IsDefined(admission.Kind))
                return null;
            using var certificate = admission.LoadCertificate();
            using var key = certificate.GetECDsaPublicKey();
            return key is { KeySize: 256 }
                && key.VerifyData(Keys.ForPurpose(Purpose, content), Base64Url.DecodeFromChars(second), HashAlgorithmName.SHA256)
                ? admission
                : null;
        }
        catch (Exception e) when (e is FormatException or JsonException or CryptographicException or ArgumentException or NotSupportedException)
        {
            // Anything that is not one of ours, on purpose or not: there is nobody to explain it to.
            return null;
        }
    }

    /// <summary>The certificate, public part only.</summary>
    public X509Certificate2 LoadCertificate() => X509CertificateLoader.LoadCertificate(Certificate);

    /// <summary>A nonce.</summary>
    public static string NewNonce() => Base64Url.EncodeToString(RandomNumberGenerator.GetBytes(16));

    /// <inheritdoc />
    public override string ToString() => $"{Kind} of {Tenant[..Math.Min(12, Tenant.Length)]}";
}

/// <summary>Invitations: 160 random bits that a relay keeps as a hash.</summary>
public static class InvitationCode
{
    private const string Alphabet = "abcdefghijkmnpqrstuvwxyz23456789";

    /// <summary>A new one, in groups of four letters and digits that cannot be mistaken for each other.</summary>
    public static string Create()
    {
        var letters = RandomNumberGenerator.GetItems<char>(Alphabet, 32);
        return string.Join('-', letters.Chunk(4).Select(group => new string(group)));
    }

    /// <summary>What the relay keeps. Case, blanks and hyphens do not count.</summary>
    public static string Hash(string code)
    {
        ArgumentNullException.ThrowIfNull(code);
        var letters = code.Where(char.IsAsciiLetterOrDigit).Select(char.ToLowerInvariant).ToArray();
        return Convert.ToHexStringLower(SHA256.HashData(Keys.ForPurpose("vtunnel bridge invitation", Encoding.ASCII.GetBytes(letters))));
    }
}

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    RespectNullableAnnotations = true,
    RespectRequiredConstructorParameters = true,
    AllowDuplicateProperties = false)]
[JsonSerializable(typeof(Admission))]
internal sealed partial class AdmissionJson : JsonSerializerContext;
