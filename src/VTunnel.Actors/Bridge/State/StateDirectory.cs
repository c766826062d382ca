using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using VTunnel.Bridge.Identity;
using VTunnel.Protocol.Bridge;

namespace VTunnel.Bridge.State;

/// <summary>What a context is for.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<ContextKind>))]
public enum ContextKind
{
    /// <summary>A publisher, enrolled at a relay.</summary>
    Publisher = 1,

    /// <summary>A user of a publisher.</summary>
    Consumer = 2,
}

/// <summary>One identity on this machine.</summary>
/// <param name="Version">1.</param>
/// <param name="Kind">Publisher or consumer.</param>
/// <param name="Relay">Where to dial.</param>
/// <param name="RelayId">Which relay that is.</param>
/// <param name="Publisher">The publisher's fingerprint.</param>
/// <param name="PublisherName">What the publisher calls itself.</param>
/// <param name="RelayAuthority">Whom to trust for the relay's certificate, in PEM; null for the system's authorities.</param>
/// <param name="User">A consumer's name at the publisher.</param>
/// <param name="Certificate">A consumer's certificate, in PEM.</param>
/// <param name="Expires">When a consumer expires, as far as known.</param>
/// <param name="Grants">What a consumer may reach, as far as known.</param>
public sealed record BridgeContext(
    int Version,
    ContextKind Kind,
    Uri Relay,
    string RelayId,
    string Publisher,
    string PublisherName,
    string? RelayAuthority = null,
    string? User = null,
    string? Certificate = null,
    DateTimeOffset? Expires = null,
    IReadOnlyList<BridgeGrant>? Grants = null);

/// <summary>The folder that holds the state of all roles on this machine.</summary>
public sealed class StateDirectory
{
    private const string ContextFile = "context.json";
    private const string PublisherPem = "publisher.pem";
    private const string PublisherDatabase = "publisher.db";
    private const string UserKey = "user.key";
    private const string AuthorityPem = "relay-ca.pem";
    private readonly string _path;

    /// <summary>Nothing is made or read yet.</summary>
    public StateDirectory(string path) => _path = System.IO.Path.GetFullPath(path);

    /// <summary>What the system's addresses of Unix sockets can hold.</summary>
    public const int MaxSocketPathBytes = 107;

    private const int ShortRoleLength = 16;

    /// <summary>The folder.</summary>
    public string Path => _path;

    /// <summary>Where the state is unless told otherwise: <c>$XDG_STATE_HOME/vtunnel</c>, else <c>~/.local/state/vtunnel</c>.</summary>
    /// <exception cref="BridgeException">There is no home folder, either.</exception>
    public static string DefaultPath(Func<string, string?> environment) =>
        DefaultPath(environment, static () => Environment.GetFolderPath(Environment.SpecialFolder.UserProfile, Environment.SpecialFolderOption.DoNotVerify));

    /// <param name="environment">The variables.</param>
    /// <param name="account">The home folder that the system knows for this user, which is asked for where no variable names one.</param>
    internal static string DefaultPath(Func<string, string?> environment, Func<string> account)
    {
        ArgumentNullException.ThrowIfNull(environment);
        if (environment("XDG_STATE_HOME") is { Length: > 0 } state && System.IO.Path.IsPathRooted(state))
            return System.IO.Path.Combine(state, "vtunnel");

        // As it is, whether it exists or not: state that lands somewhere else is not found again.
        var given = OperatingSystem.IsWindows() ? null : environment("HOME");
        var home = string.IsNullOrEmpty(given) ? account() : given;

        // A user whom the system does not know, as in a container, is said to live in "/".
        if (!System.IO.Path.IsPathRooted(home) || (string.IsNullOrEmpty(given) && home == "/"))
            throw new BridgeException(BridgeError.Invalid, $"there is no home folder for the state ({(string.IsNullOrEmpty(given) ? "HOME is not set" : $"HOME is '{given}'")}); give --state-dir DIR");
        return System.IO.Path.Combine(home, ".local", "state", "vtunnel");
    }

    /// <summary>Sees to it that the folder can be looked into, or is not there yet: else it would seem that nothing is set up.</summary>
    /// <exception cref="BridgeException">It cannot.</exception>
    public void RequireReadable()
    {
        if (StateFiles.Exists(_path))
            StateFiles.Guard(_path, () => _ = Directory.EnumerateFileSystemEntries(_path).Any());
    }

    /// <summary>Keys and databases that others than their owner may read or change: copied without their permissions, for example.</summary>
    public IReadOnlyList<string> LooseFiles()
    {
        var folders = ContextNames.Select(Folder).Append(System.IO.Path.Combine(_path, "requests")).Append(System.IO.Path.Combine(_path, "joining")).Where(StateFiles.Exists);
        var files = new List<string> { System.IO.Path.Combine(_path, RelayStore.FileName) };
        foreach (var folder in folders)
            StateFiles.Guard(folder, () => files.AddRange(Directory.GetFiles(folder).Order(StringComparer.Ordinal)));
        return [.. files.Where(StateFiles.IsLoose)];
    }

    /// <summary>Whether a relay is set up here.</summary>
    public bool HasRelay => StateFiles.Exists(System.IO.Path.Combine(_path, RelayStore.FileName));

    /// <summary>The contexts that there are, by name.</summary>
    public IReadOnlyList<string> ContextNames
    {
        get
        {
            var folder = System.IO.Path.Combine(_path, "contexts");
            string[] children = [];
            if (StateFiles.Exists(folder))
                StateFiles.Guard(folder, () => children = Directory.GetDirectories(folder));
            return [.. children.Where(child => StateFiles.Exists(System.IO.Path.Combine(child, ContextFile))).Select(child => System.IO.Path.GetFileName(child)).Order(StringComparer.Ordinal)];
        }
    }

    /// <summary>The context that is used where none is named; null if none was chosen.</summary>
    public string? CurrentContext
    {
        get
        {
            var path = System.IO.Path.Combine(_path, "config.json");
            return StateFiles.TryRead(path) is { } bytes ? Parse(path, bytes, StateJson.Default.StateConfig).Current : null;
        }
    }

    /// <summary>Chooses the context that is used where none is named.</summary>
    public void UseContext(string? name)
    {
        if (name is not null)
            RequireContext(name);
        StateFiles.CreateFolder(_path);
        StateFiles.Write(
            System.IO.Path.Combine(_path, "config.json"), JsonSerializer.SerializeToUtf8Bytes(new StateConfig(1, name), StateJson.Default.StateConfig));
    }

    private void UseContextUnlessThereIsOne(string name)
    {
        if (CurrentContext is not { } current || !HasContext(current))
            UseContext(name);
    }

    /// <summary>Whether a text can be the name of a context, a user or an application; else what would be right.</summary>
    public static string? NameProblem(string name)
    {
        ArgumentNullException.ThrowIfNull(name);
        return name.Length is >= 1 and <= 64 && name.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_' or '.' or '@') && name[0] is not ('.' or '-')
            ? null
            : "a name is 1 to 64 letters, digits and -_.@, and does not begin with a dot or a hyphen";
    }

    /// <summary>The name of the context to use.</summary>
    /// <param name="kind">What it must be for.</param>
    /// <param name="name">As the user named it; null for the current one, or the only one of its kind.</param>
    /// <exception cref="BridgeException">There is none, or none can be told from the others.</exception>
    public string Resolve(ContextKind kind, string? name)
    {
        if (name is not null)
        {
            if (Load(name).Kind != kind)
                throw new BridgeException(BridgeError.Invalid, $"context '{name}' is that of a {(kind == ContextKind.Publisher ? "consumer" : "publisher")}; 'vtunnel config get-contexts' shows them");
            return name;
        }

        var fitting = OfKind(kind);
        return Default(fitting) ?? throw fitting switch
        {
            [] when kind == ContextKind.Publisher => new BridgeException(
                BridgeError.Invalid, $"no publisher is set up in {_path}; get a code from the relay's operator and write: vtunnel join RELAY-URL CODE"),
            [] => new BridgeException(BridgeError.Invalid, $"no identity is set up in {_path}; give the file that the publisher exported: vtunnel connect NAME-vtunnel-config.zip"),
            _ => new BridgeException(
                BridgeError.Invalid, $"there are several: {string.Join(", ", fitting)}; choose one with --context NAME, or with 'vtunnel config use-context NAME'"),
        };
    }

    /// <summary>Whether <see cref="Resolve"/> gives a context without its name.</summary>
    public bool IsDefault(ContextKind kind, string name) => Default(OfKind(kind)) == name;

    private List<string> OfKind(ContextKind kind) => [.. ContextNames.Where(known => Load(known).Kind == kind)];

    private string? Default(List<string> fitting) =>
        CurrentContext is { } current && fitting.Contains(current) ? current : fitting is [var only] ? only : null;

    /// <summary>Reads a context and checks it.</summary>
    /// <exception cref="BridgeException">There is none of that name, or it is damaged.</exception>
    public BridgeContext Load(string name)
    {
        RequireContext(name);
        return LoadFrom(Folder(name));
    }

    /// <summary>Reads the context that lies in a folder and checks it.</summary>
    internal static BridgeContext LoadFrom(string folder)
    {
        var path = System.IO.Path.Combine(folder, ContextFile);
        var context = Parse(path, StateFiles.TryRead(path) ?? throw new BridgeException(BridgeError.Damaged, $"{path} is missing"), StateJson.Default.BridgeContext);
        if (context.Version != 1)
            throw new BridgeException(BridgeError.Damaged, $"{path} is of version {context.Version}, and this program reads version 1");
        if (!Enum.IsDefined(context.Kind) || !context.Relay.IsAbsoluteUri || context.Publisher.Length != 64
            || (context.Kind == ContextKind.Consumer && (context.User is null || context.Certificate is null))
            || context.Grants?.Any(grant => grant is not { IsValid: true }) == true)
            throw new BridgeException(BridgeError.Damaged, $"{path} is damaged: a field is missing or makes no sense; delete the context and set it up again");
        return context;
    }

    /// <summary>
    /// The key with which a publisher enrols by a code. It is kept until it is known what became of that: a relay takes a code from
    /// one key alone, and may have taken it where its answer was lost.
    /// </summary>
    public PublisherIdentity BeginJoin(string code)
    {
        var path = JoiningKey(code);
        if (StateFiles.TryRead(path) is { } pem)
        {
            try
            {
                return PublisherIdentity.FromPem(Encoding.UTF8.GetString(pem));
            }
            catch (CryptographicException)
            {
                // What cannot be read can be of no publisher.
            }
        }

        var identity = PublisherIdentity.Create();
        StateFiles.CreateFolder(System.IO.Path.GetDirectoryName(path)!);
        StateFiles.Write(path, identity.ToPem());
        return identity;
    }

    /// <summary>The key is kept elsewhere, or is of no use.</summary>
    public void EndJoin(string code)
    {
        var path = JoiningKey(code);
        if (StateFiles.Exists(path))
            StateFiles.Guard(path, () => File.Delete(path));
    }

    private string JoiningKey(string code) => System.IO.Path.Combine(_path, "joining", InvitationCode.Hash(code)[..ShortRoleLength] + ".pem");

    /// <summary>
    /// The publisher's key in a folder that is no context, because its <c>context.json</c> is gone or was not restored; null if there is
    /// no such folder. Bundles are made for that key: it must not be replaced.
    /// </summary>
    public PublisherIdentity? FindKeyWithoutContext(string name)
    {
        if (HasContext(name) || !StateFiles.Exists(Folder(name)))
            return null;
        return StateFiles.Exists(System.IO.Path.Combine(Folder(name), PublisherPem))
            ? ReadKey(name)
            : throw new BridgeException(BridgeError.Invalid, $"{Folder(name)} is in the way, which is no whole context; restore its files from a copy, remove it, or choose another name");
    }

    /// <summary>Makes a publisher's context, and makes it the current one if there is none: what is set up beside an identity must not take its place.</summary>
    public void CreatePublisher(string name, BridgeContext context, PublisherIdentity identity)
    {
        ArgumentNullException.ThrowIfNull(identity);
        StateFiles.CreateFolder(Folder(name));
        StateFiles.Write(System.IO.Path.Combine(Folder(name), PublisherPem), identity.ToPem());
        Save(name, context);
        UseContextUnlessThereIsOne(name);
    }

    /// <summary>Keeps what has changed of a publisher that has enrolled its key again.</summary>
    public void UpdatePublisher(string name, BridgeContext context) => Save(name, context);

    /// <summary>Whether a name is taken.</summary>
    public bool HasContext(string name) => StateFiles.Exists(System.IO.Path.Combine(Folder(name), ContextFile));

    /// <summary>A publisher's key.</summary>
    public PublisherIdentity LoadPublisher(string name)
    {
        var identity = ReadKey(name);
        if (identity.Fingerprint == Load(name).Publisher)
            return identity;
        identity.Dispose();
        throw new BridgeException(BridgeError.Damaged, $"{System.IO.Path.Combine(Folder(name), PublisherPem)} is the key of another publisher than {ContextFile} beside it");
    }

    private PublisherIdentity ReadKey(string name)
    {
        var path = System.IO.Path.Combine(Folder(name), PublisherPem);
        var pem = StateFiles.TryRead(path) ?? throw new BridgeException(BridgeError.Damaged, $"{path} is missing: restore it from a copy; to join again makes another key, and every user needs a new bundle then");
        try
        {
            return PublisherIdentity.FromPem(Encoding.UTF8.GetString(pem));
        }
        catch (CryptographicException e)
        {
            throw new BridgeException(BridgeError.Damaged, $"{path} is damaged: {e.Message.TrimEnd('.')}; restore it from a copy; to join again makes another key, and every user needs a new bundle then", e);
        }
    }

    /// <summary>A publisher's users.</summary>
    public PublisherStore OpenPublisherStore(string name) => new(System.IO.Path.Combine(Folder(name), PublisherDatabase));

    /// <summary>A context that stands for a bundle: the one that is there, brought up to date, or a new one.</summary>
    /// <returns>The name of the context, and whether it is new.</returns>
    public (string Name, bool IsNew) Import(Bundle bundle, string? passphrase, string? name)
    {
        ArgumentNullException.ThrowIfNull(bundle);
        var manifest = bundle.Manifest;
        using var certificate = X509Certificate2.CreateFromPem(manifest.Certificate);
        var fingerprint = Keys.Fingerprint(certificate);
        using var key = bundle.KeyPem is null ? TakeRequestedKey(fingerprint) : bundle.OpenKey(passphrase);
        var known = ContextNames.FirstOrDefault(other => IsOf(Load(other), manifest, fingerprint));
        var chosen = name ?? known ?? FreeName($"{manifest.User}@{manifest.PublisherName}");
        if (name is not null && HasContext(name) && !IsOf(Load(name), manifest, fingerprint))
            throw new BridgeException(BridgeError.Invalid, $"there is a context '{name}' already, of somebody else; choose another name");
        StateFiles.CreateFolder(Folder(chosen));
        StateFiles.Write(System.IO.Path.Combine(Folder(chosen), UserKey), Keys.ExportPem(key));
        Save(chosen, new BridgeContext(
            1,
            ContextKind.Consumer,
            manifest.Relay,
            manifest.RelayId,
            manifest.Publisher,
            manifest.PublisherName,
            manifest.RelayAuthority,
            manifest.User,
            manifest.Certificate,
            manifest.Expires,
            manifest.Grants));
        UseContextUnlessThereIsOne(chosen);
        return (chosen, known is null);
    }

    /// <summary>A consumer's certificate with its key.</summary>
    public X509Certificate2 LoadUser(string name)
    {
        var context = Load(name);
        var path = System.IO.Path.Combine(Folder(name), UserKey);
        var pem = StateFiles.TryRead(path) ?? throw new BridgeException(BridgeError.Damaged, $"{path} is missing: import the bundle again");
        try
        {
            return X509Certificate2.CreateFromPem(context.Certificate, Encoding.UTF8.GetString(pem));
        }
        catch (Exception e) when (e is CryptographicException or ArgumentException)
        {
            throw new BridgeException(BridgeError.Damaged, $"{path} is damaged, or is not the key of the certificate in {ContextFile} beside it: import the bundle again", e);
        }
    }

    /// <summary>Keeps what the publisher said last of what a consumer may reach.</summary>
    public void SaveGrants(string name, IReadOnlyList<BridgeGrant> grants) => Save(name, Load(name) with { Grants = grants });

    /// <summary>Makes a key here and gives the request for it, in PEM.</summary>
    public string CreateRequest(string user)
    {
        using var key = Keys.Create();
        var folder = System.IO.Path.Combine(_path, "requests");
        StateFiles.CreateFolder(folder);
        StateFiles.Write(System.IO.Path.Combine(folder, Keys.Fingerprint(key) + ".key"), Keys.ExportPem(key));
        return new CertificateRequest(Keys.Name(user), key, HashAlgorithmName.SHA256).CreateSigningRequestPem();
    }

    /// <summary>Gives a context another name.</summary>
    public void RenameContext(string name, string newName)
    {
        RequireContext(name);
        if (NameProblem(newName) is { } problem)
            throw new BridgeException(BridgeError.Invalid, $"'{newName}': {problem}");
        if (StateFiles.Exists(Folder(newName)))
            throw new BridgeException(BridgeError.Invalid, $"there is a context '{newName}' already");
        StateFiles.Guard(Folder(name), () => Directory.Move(Folder(name), Folder(newName)));
        if (CurrentContext == name)
            UseContext(newName);
    }

    /// <summary>Removes a context with its keys.</summary>
    public void DeleteContext(string name)
    {
        RequireContext(name);
        StateFiles.Guard(Folder(name), () => Directory.Delete(Folder(name), recursive: true));
        if (CurrentContext == name)
            UseContext(null);
    }

    /// <summary>A name that is free, made of a text that may hold anything.</summary>
    public string FreeName(string wanted)
    {
        ArgumentNullException.ThrowIfNull(wanted);
        var name = new string([.. wanted.Select(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_' or '.' or '@' ? c : '-').Take(56)]).TrimStart('.', '-');
        name = name.Length == 0 ? "context" : name;
        if (!StateFiles.Exists(Folder(name)))
            return name;
        return Enumerable.Range(2, int.MaxValue - 2).Select(number => $"{name}-{number}").First(free => !StateFiles.Exists(Folder(free)));
    }

    /// <summary>The folder of a context, whether it exists or not.</summary>
    internal string FolderOf(string name) => Folder(name);

    /// <summary>Where a context's relay is, as a dialler takes it.</summary>
    public Wire.RelayAddress Relay(string name)
    {
        var context = Load(name);
        return new Wire.RelayAddress(
            context.Relay, context.RelayId, context.RelayAuthority is null ? null : System.IO.Path.Combine(Folder(name), AuthorityPem));
    }

    /// <summary>Where a running process of this state answers.</summary>
    /// <param name="role"><c>relay</c>, or the name of a context.</param>
    public string SocketPath(string role)
    {
        ArgumentNullException.ThrowIfNull(role);
        var path = System.IO.Path.Combine(_path, "run", role + ".sock");
        if (Encoding.UTF8.GetByteCount(path) <= MaxSocketPathBytes || role.Length <= ShortRoleLength)
            return path;

        // A context may be called longer than a socket can be.
        return System.IO.Path.Combine(_path, "run", Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(role)))[..ShortRoleLength] + ".sock");
    }

    /// <summary>The sockets whose role begins so, of processes that run or were killed.</summary>
    /// <exception cref="BridgeException">Their folder cannot be looked into.</exception>
    public IReadOnlyList<string> SocketPaths(string prefix)
    {
        var folder = System.IO.Path.Combine(_path, "run");
        string[] paths = [];
        if (StateFiles.Exists(folder))
            StateFiles.Guard(folder, () => paths = Directory.GetFiles(folder, prefix + "*.sock"));
        return paths;
    }

    private static bool IsOf(BridgeContext context, BundleManifest manifest, string fingerprint)
    {
        if (context.Kind != ContextKind.Consumer || context.Publisher != manifest.Publisher)
            return false;
        using var certificate = X509Certificate2.CreateFromPem(context.Certificate);
        return Keys.Fingerprint(certificate) == fingerprint;
    }

    private ECDsa TakeRequestedKey(string fingerprint)
    {
        var path = System.IO.Path.Combine(_path, "requests", fingerprint + ".key");
        var pem = StateFiles.TryRead(path)
            ?? ContextNames.Where(name => Load(name).Kind == ContextKind.Consumer)
                .Select(name => System.IO.Path.Combine(Folder(name), UserKey))
                .Where(File.Exists)
                .Select(File.ReadAllBytes)
                .FirstOrDefault(bytes => FingerprintOf(bytes) == fingerprint)
            ?? throw new BridgeException(
                BridgeError.Invalid,
                $"there is no key in this bundle, and none for it in {_path}: use the machine, the user and the --state-dir of the 'vtunnel request'");
        try
        {
            return Keys.ImportPem(Encoding.UTF8.GetString(pem));
        }
        catch (CryptographicException e)
        {
            throw new BridgeException(BridgeError.Damaged, $"{path} is damaged: make another request: vtunnel request --name NAME", e);
        }
    }

    private static string? FingerprintOf(byte[] pem)
    {
        try
        {
            using var key = Keys.ImportPem(Encoding.UTF8.GetString(pem));
            return Keys.Fingerprint(key);
        }
        catch (CryptographicException)
        {
            // A damaged key of another context is told when that one is used.
            return null;
        }
    }

    private void Save(string name, BridgeContext context)
    {
        if (context.RelayAuthority is { } authority)
            StateFiles.Write(System.IO.Path.Combine(Folder(name), AuthorityPem), authority);
        StateFiles.Write(System.IO.Path.Combine(Folder(name), ContextFile), JsonSerializer.SerializeToUtf8Bytes(context, StateJson.Default.BridgeContext));
    }

    private string Folder(string name) => NameProblem(name) is { } problem
        ? throw new BridgeException(BridgeError.Invalid, $"'{name}': {problem}")
        : System.IO.Path.Combine(_path, "contexts", name);

    private void RequireContext(string name)
    {
        if (!HasContext(name))
            throw new BridgeException(BridgeError.Invalid, $"there is no context '{name}'; 'vtunnel config get-contexts' shows those that there are");
    }

    private static T Parse<T>(string path, byte[] bytes, System.Text.Json.Serialization.Metadata.JsonTypeInfo<T> type)
        where T : class
    {
        try
        {
            return JsonSerializer.Deserialize(bytes, type) ?? throw new JsonException("it says nothing");
        }
        catch (JsonException e)
        {
            throw new BridgeException(BridgeError.Damaged, $"{path} is damaged: {e.Message.TrimEnd('.')}; restore it, or remove it and set it up again", e);
        }
    }
}

internal sealed record StateConfig(int Version, string? Current);

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    RespectNullableAnnotations = true,
    WriteIndented = true)]
[JsonSerializable(typeof(BridgeContext))]
[JsonSerializable(typeof(StateConfig))]
internal sealed partial class StateJson : JsonSerializerContext;
