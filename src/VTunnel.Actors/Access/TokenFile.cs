using System.Text;
using System.Text.Json;
using VTunnel.Options;

namespace VTunnel.Access;

/// <summary>
/// Reads and writes the file that lists who may open sessions:
/// <c>{ "tokens": [ { "name": "alice", "sha256": "&lt;64 hex digits&gt;", "ports": ["9000", "9100-9199"] } ] }</c>.
/// Tokens stand in it as hashes only. <c>ports</c> may be absent: every port, then.
/// </summary>
public static class TokenFile
{
    private const string Form = "write { \"tokens\": [ { \"name\": …, \"sha256\": …, \"ports\": [ … ] } ] }";
    private const int HashHexDigits = 64;
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite;

    private static readonly JsonDocumentOptions ReadOptions = new() { AllowDuplicateProperties = false };

    private static readonly JsonWriterOptions WriteOptions = new()
    {
        Indented = true,
        Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    /// <summary>Reads <paramref name="path"/>.</summary>
    /// <exception cref="TokenFileException">It is missing, not to be read, or not in the right form.</exception>
    public static IReadOnlyList<AccessToken> Read(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        try
        {
            return Parse(File.ReadAllBytes(path), path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or NotSupportedException)
        {
            throw new TokenFileException(path, [OptionRules.FileProblem(path, e)]);
        }
    }

    /// <summary>
    /// Adds <paramref name="token"/> to <paramref name="path"/>, which is made if it does not exist, readable by its owner alone.
    /// Whoever reads meanwhile sees the old file or the new one, and nothing in between.
    /// </summary>
    /// <exception cref="TokenFileException">The file cannot be used, or has a token of that name already.</exception>
    public static void Add(string path, AccessToken token) => Add(path, token, static () => { });

    /// <summary>Adds <paramref name="token"/> to <paramref name="path"/>, unless what comes before fails: then the file is as it was.</summary>
    /// <param name="path">As above.</param>
    /// <param name="token">As above.</param>
    /// <param name="before">Called when nothing but the renaming of a file is left to do.</param>
    internal static void Add(string path, AccessToken token, Action before)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        ArgumentNullException.ThrowIfNull(token);
        try
        {
            // A link stays a link: what it leads to is replaced.
            if (new FileInfo(path).LinkTarget is not null)
                path = File.ResolveLinkTarget(path, returnFinalTarget: true)!.FullName;
            Replace(path, token, before);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or NotSupportedException)
        {
            throw new TokenFileException(path, [WriteProblem(e)]);
        }
    }

    /// <summary>The system's words name the file that is made first, which whoever reads them has never heard of.</summary>
    private static string WriteProblem(Exception error) => error switch
    {
        DirectoryNotFoundException => "the file cannot be written: there is no such folder",
        UnauthorizedAccessException => "the file cannot be written: permission denied",
        _ => $"the file cannot be written: {error.Message}",
    };

    /// <summary>The entry as it stands in a file.</summary>
    public static string Format(AccessToken token)
    {
        ArgumentNullException.ThrowIfNull(token);
        return Render(writer => WriteEntry(writer, token));
    }

    private static void Replace(string path, AccessToken token, Action before)
    {
        // The new file is the lock at the same time: two that add at once would otherwise lose one of the entries.
        var next = path + ".new";
        FileStream file;
        try
        {
            var options = new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write };
            if (!OperatingSystem.IsWindows())
                options.UnixCreateMode = OwnerOnly;
            file = new FileStream(next, options);
        }
        catch (IOException e) when (e is not (DirectoryNotFoundException or FileNotFoundException or PathTooLongException))
        {
            throw new TokenFileException(path, [$"it is being changed by another process; if there is none, remove {next}"]);
        }

        try
        {
            using (file)
            {
                var exists = File.Exists(path);
                var tokens = exists ? Read(path) : [];
                if (tokens.Any(known => known.Name == token.Name))
                    throw new TokenFileException(path, [$"there is a token named '{token.Name}' already; choose another name or remove that entry"]);
                if (exists && !OperatingSystem.IsWindows())
                    File.SetUnixFileMode(file.SafeFileHandle, File.GetUnixFileMode(path));

                file.Write(Encoding.UTF8.GetBytes(Render(writer => WriteFile(writer, [.. tokens, token])) + "\n"));
                file.Flush(flushToDisk: true);
            }

            before();
            File.Move(next, path, overwrite: true);
        }
        catch
        {
            File.Delete(next);
            throw;
        }
    }

    private static string Render(Action<Utf8JsonWriter> write)
    {
        using var buffer = new MemoryStream();
        using (var writer = new Utf8JsonWriter(buffer, WriteOptions))
            write(writer);
        return Encoding.UTF8.GetString(buffer.GetBuffer(), 0, (int)buffer.Length);
    }

    private static void WriteFile(Utf8JsonWriter writer, IEnumerable<AccessToken> tokens)
    {
        writer.WriteStartObject();
        writer.WriteStartArray("tokens");
        foreach (var token in tokens)
            WriteEntry(writer, token);
        writer.WriteEndArray();
        writer.WriteEndObject();
    }

    private static void WriteEntry(Utf8JsonWriter writer, AccessToken token)
    {
        writer.WriteStartObject();
        writer.WriteString("name", token.Name);
        writer.WriteString("sha256", Convert.ToHexStringLower(token.Sha256.Span));
        if (token.Ports.Count > 0)
        {
            writer.WriteStartArray("ports");
            foreach (var range in token.Ports)
                writer.WriteStringValue(range.ToString());
            writer.WriteEndArray();
        }

        writer.WriteEndObject();
    }

    internal static IReadOnlyList<AccessToken> Parse(ReadOnlyMemory<byte> json, string path)
    {
        try
        {
            using var document = JsonDocument.Parse(WithoutMark(json), ReadOptions);
            var problems = new List<string>();
            var tokens = ParseFile(document.RootElement, problems);
            return problems.Count == 0 ? tokens : throw new TokenFileException(path, problems);
        }
        catch (JsonException e)
        {
            var where = e.LineNumber is { } line ? $" (line {line + 1})" : "";
            throw new TokenFileException(path, [$"not valid JSON{where}; {Form}"]);
        }
    }

    /// <summary>Editors on Windows put a byte order mark in front, which JSON does not have.</summary>
    private static ReadOnlyMemory<byte> WithoutMark(ReadOnlyMemory<byte> json) =>
        json.Span.StartsWith(Encoding.UTF8.Preamble) ? json[Encoding.UTF8.Preamble.Length..] : json;

    private static List<AccessToken> ParseFile(JsonElement root, List<string> problems)
    {
        var tokens = new List<AccessToken>();
        if (root.ValueKind != JsonValueKind.Object
            || !root.TryGetProperty("tokens", out var list)
            || list.ValueKind != JsonValueKind.Array)
        {
            problems.Add($"no list of tokens; {Form}");
            return tokens;
        }

        foreach (var property in root.EnumerateObject().Where(property => property.Name != "tokens"))
            problems.Add($"'{property.Name}' is not known; {Form}");

        var names = new HashSet<string>(StringComparer.Ordinal);
        var index = 0;
        foreach (var element in list.EnumerateArray())
        {
            index++;
            if (ParseEntry(element, index, problems) is not { } token)
                continue;
            if (!names.Add(token.Name))
                problems.Add($"entry {index} ('{token.Name}'): this name is given twice; give each token a name of its own");
            tokens.Add(token);
        }

        return tokens;
    }

    private static AccessToken? ParseEntry(JsonElement element, int index, List<string> problems)
    {
        var before = problems.Count;
        var where = $"entry {index}";
        if (element.ValueKind != JsonValueKind.Object)
        {
            problems.Add($"{where}: not an object; write {{ \"name\": …, \"sha256\": …, \"ports\": [ … ] }}");
            return null;
        }

        if (element.TryGetProperty("name", out var nameElement)
            && nameElement.ValueKind == JsonValueKind.String
            && nameElement.GetString() is { } name
            && !string.IsNullOrWhiteSpace(name))
        {
            where = $"{where} ('{name}')";
        }
        else
        {
            name = "";
            problems.Add($"{where}: 'name' is missing or not a text that says whose token it is");
        }

        foreach (var property in element.EnumerateObject().Where(property => property.Name is not ("name" or "sha256" or "ports")))
        {
            // Whoever wrote the token itself into the file gets told so, and the token is not repeated.
            problems.Add($"{where}: '{property.Name}' is not known; an entry has name, sha256 and ports");
        }

        byte[] hash = [];
        if (element.TryGetProperty("sha256", out var hashElement)
            && hashElement.ValueKind == JsonValueKind.String
            && hashElement.GetString() is { Length: HashHexDigits } hex
            && hex.All(char.IsAsciiHexDigit))
            hash = Convert.FromHexString(hex);
        else
            problems.Add($"{where}: 'sha256' is missing or not {HashHexDigits} hexadecimal digits");

        var ports = ParsePorts(element, where, problems);
        return problems.Count == before ? new AccessToken(name, hash, ports) : null;
    }

    private static List<PortRange> ParsePorts(JsonElement element, string where, List<string> problems)
    {
        var ports = new List<PortRange>();
        if (!element.TryGetProperty("ports", out var list))
            return ports;
        if (list.ValueKind != JsonValueKind.Array || list.GetArrayLength() == 0)
        {
            // An empty list could be meant as "none" as well as "all": guessing would open ports.
            problems.Add($"{where}: 'ports' is not a list with something in it; write [\"9000\", \"9100-9199\"], or leave it out for every port");
            return ports;
        }

        foreach (var item in list.EnumerateArray())
        {
            var text = item.ValueKind switch
            {
                JsonValueKind.String => item.GetString(),
                JsonValueKind.Number => item.GetRawText(),
                _ => null,
            };
            if (PortRanges.TryParse(text, out var ranges, out var problem))
                ports.AddRange(ranges);
            else
                problems.Add($"{where}: 'ports' has '{text ?? item.ValueKind.ToString()}': {problem}");
        }

        return ports;
    }
}
