using System.IO.Compression;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using VTunnel.Protocol.Bridge;

namespace VTunnel.Bridge.Identity;

/// <summary>What a bundle says, signed by the publisher.</summary>
/// <param name="Version">1.</param>
/// <param name="User">Whom it is for.</param>
/// <param name="Relay">Where to dial.</param>
/// <param name="RelayId">Which relay that is.</param>
/// <param name="Publisher">The fingerprint to pin.</param>
/// <param name="PublisherName">What the publisher calls itself.</param>
/// <param name="Certificate">The user's certificate, in PEM.</param>
/// <param name="Expires">When the user expires; null for never.</param>
/// <param name="Grants">As they were at export; the publisher tells changes.</param>
/// <param name="RelayAuthority">In PEM: whom to trust for the relay's certificate instead of the system's authorities; null for those.</param>
public sealed record BundleManifest(
    int Version,
    string User,
    Uri Relay,
    string RelayId,
    string Publisher,
    string PublisherName,
    string Certificate,
    DateTimeOffset? Expires,
    IReadOnlyList<BridgeGrant> Grants,
    string? RelayAuthority);

/// <summary>
/// Everything a user needs, in one zip file: <c>bundle.json</c>, its signature with the publisher's certificate, and the
/// user's key unless the user made that.
/// </summary>
/// <param name="Manifest">What it says.</param>
/// <param name="KeyPem">The user's private key, encrypted if there is a passphrase; null if the user has it.</param>
public sealed record Bundle(BundleManifest Manifest, string? KeyPem)
{
    /// <summary>The version of the format that is written and read.</summary>
    public const int CurrentVersion = 1;

    /// <summary>The largest file that is looked at: 1 MiB.</summary>
    public const int MaxBytes = 1024 * 1024;

    private const string Purpose = "vtunnel bridge bundle 1";
    private const string ManifestName = "bundle.json";
    private const string SignatureName = "bundle.sig";
    private const string PublisherName = "publisher.pem";
    private const string KeyName = "user.key";

    /// <summary>Whether the key needs a passphrase.</summary>
    public bool NeedsPassphrase => KeyPem?.Contains("BEGIN ENCRYPTED PRIVATE KEY", StringComparison.Ordinal) == true;

    /// <summary>The zip file.</summary>
    public byte[] ToZip(PublisherIdentity publisher)
    {
        ArgumentNullException.ThrowIfNull(publisher);
        var manifest = JsonSerializer.SerializeToUtf8Bytes(Manifest, BundleJson.Default.BundleManifest);
        using var file = new MemoryStream();
        using (var zip = new ZipArchive(file, ZipArchiveMode.Create, leaveOpen: true))
        {
            Add(zip, ManifestName, manifest);
            Add(zip, SignatureName, publisher.Sign(Purpose, Signed(manifest, KeyPem)));
            Add(zip, PublisherName, Encoding.ASCII.GetBytes(publisher.Certificate.ExportCertificatePem()));
            if (KeyPem is not null)
                Add(zip, KeyName, Encoding.ASCII.GetBytes(KeyPem));
        }

        return file.ToArray();
    }

    /// <summary>Reads a zip file and checks that nothing in it was changed since the publisher wrote it.</summary>
    /// <exception cref="BridgeException">It is no bundle, of another version, truncated or changed.</exception>
    public static Bundle FromZip(byte[] file)
    {
        ArgumentNullException.ThrowIfNull(file);
        try
        {
            using var zip = new ZipArchive(new MemoryStream(file, writable: false), ZipArchiveMode.Read);
            var manifestBytes = Read(zip, ManifestName) ?? throw Damaged($"{ManifestName} is missing");
            var signature = Read(zip, SignatureName) ?? throw Damaged($"{SignatureName} is missing");
            var publisherPem = Read(zip, PublisherName) ?? throw Damaged($"{PublisherName} is missing");
            var key = Read(zip, KeyName) is { } keyBytes ? Encoding.ASCII.GetString(keyBytes) : null;
            using var publisher = X509Certificate2.CreateFromPem(Encoding.ASCII.GetString(publisherPem));
            using var publisherKey = publisher.GetECDsaPublicKey();
            if (publisherKey?.VerifyData(Keys.ForPurpose(Purpose, Signed(manifestBytes, key)), signature, HashAlgorithmName.SHA256) != true)
                throw Damaged("it was changed after the publisher wrote it");

            var manifest = JsonSerializer.Deserialize(manifestBytes, BundleJson.Default.BundleManifest) ?? throw Damaged($"{ManifestName} says nothing");
            if (manifest.Version != CurrentVersion)
                throw Damaged($"it is of version {manifest.Version}, and this program reads version {CurrentVersion}");
            if (manifest.Publisher != Keys.Fingerprint(publisher))
                throw Damaged("it names another publisher than the one that signed it");
            using var user = X509Certificate2.CreateFromPem(manifest.Certificate);
            if (!Keys.IsIssuedBy(user, publisher))
                throw Damaged("the user's certificate is not the publisher's");
            if (manifest.Grants.Any(grant => grant is not { IsValid: true }))
                throw Damaged("a grant is not valid");
            return new Bundle(manifest, key);
        }
        catch (Exception e) when (e is InvalidDataException or JsonException or CryptographicException or ArgumentException or IOException or NotSupportedException)
        {
            throw new BridgeException(
                BridgeError.Damaged, $"this is not a whole bundle ({e.Message.TrimEnd('.')}); get it again from the publisher: vtunnel export user NAME", e);
        }
    }

    /// <summary>The user's key out of the bundle.</summary>
    /// <exception cref="BridgeException">There is none, the passphrase is missing or wrong, or the key is another's.</exception>
    public ECDsa OpenKey(string? passphrase)
    {
        if (KeyPem is null)
            throw new BridgeException(BridgeError.Invalid, "there is no key in this bundle: it belongs to the machine that made the request");
        if (NeedsPassphrase && passphrase is null)
            throw new BridgeException(BridgeError.Invalid, "this bundle has a passphrase; give it in VTUNNEL_PASSPHRASE or with --passphrase");
        ECDsa key;
        try
        {
            key = Keys.ImportPem(KeyPem, NeedsPassphrase ? passphrase : null);
        }
        catch (CryptographicException e)
        {
            throw NeedsPassphrase
                ? new BridgeException(BridgeError.Invalid, "the passphrase is not the one of this bundle", e)
                : Damaged("its key cannot be read");
        }

        using var certificate = X509Certificate2.CreateFromPem(Manifest.Certificate);
        if (Keys.Fingerprint(key) == Keys.Fingerprint(certificate))
            return key;
        key.Dispose();
        throw Damaged("its key is not the one of its certificate");
    }

    private static BridgeException Damaged(string what) =>
        new(BridgeError.Damaged, $"the bundle is damaged: {what}; get it again from the publisher: vtunnel export user NAME");

    private static byte[] Signed(byte[] manifest, string? key) =>
        [.. SHA256.HashData(manifest), .. SHA256.HashData(Encoding.ASCII.GetBytes(key ?? ""))];

    private static void Add(ZipArchive zip, string name, byte[] content)
    {
        using var entry = zip.CreateEntry(name).Open();
        entry.Write(content);
    }

    private static byte[]? Read(ZipArchive zip, string name)
    {
        if (zip.GetEntry(name) is not { } entry)
            return null;

        // What an entry says of its length is not to be relied upon.
        using var stream = entry.Open();
        using var content = new MemoryStream();
        var buffer = new byte[8192];
        while (stream.Read(buffer) is > 0 and var count)
        {
            content.Write(buffer, 0, count);
            if (content.Length > MaxBytes)
                throw new InvalidDataException($"{name} is larger than {MaxBytes} bytes");
        }

        return content.ToArray();
    }
}

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    RespectNullableAnnotations = true,
    WriteIndented = true)]
[JsonSerializable(typeof(BundleManifest))]
internal sealed partial class BundleJson : JsonSerializerContext;
