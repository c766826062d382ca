using System.Text.Json;
using VTunnel.Protocol.Errors;

namespace VTunnel.Protocol.Control;

/// <summary>The fields of one JSON line, whatever its type and the order of its keys. Unknown keys are skipped.</summary>
internal readonly ref struct ControlLine
{
    private readonly string? _malformed;

    /// <exception cref="SessionProtocolException">The line is not a JSON object.</exception>
    public ControlLine(ReadOnlySpan<byte> line)
    {
        try
        {
            var json = new Utf8JsonReader(line);
            if (!json.Read() || json.TokenType != JsonTokenType.StartObject)
                throw Violation("A control line is not a JSON object.");

            while (json.Read() && json.TokenType == JsonTokenType.PropertyName)
            {
                if (json.ValueTextEquals("type"u8))
                    Type = Text(ref json, "type", ref _malformed);
                else if (json.ValueTextEquals("port"u8))
                    Port = Number(ref json, ref _malformed);
                else if (json.ValueTextEquals("local_addr"u8))
                    LocalAddr = Text(ref json, "local_addr", ref _malformed);
                else if (json.ValueTextEquals("domain"u8))
                    Domain = Text(ref json, "domain", ref _malformed);
                else if (json.ValueTextEquals("host"u8))
                    Host = Text(ref json, "host", ref _malformed);
                else if (json.ValueTextEquals("speaks"u8))
                    Speaks = Text(ref json, "speaks", ref _malformed);
                else if (json.ValueTextEquals("error"u8))
                    Error = Text(ref json, "error", ref _malformed);
                else if (json.ValueTextEquals("remote"u8))
                    Remote = Text(ref json, "remote", ref _malformed);
                else if (json.ValueTextEquals("target"u8))
                    Target = Text(ref json, "target", ref _malformed);
                else if (json.ValueTextEquals("agent"u8))
                    Agent = Text(ref json, "agent", ref _malformed);
                else if (json.ValueTextEquals("version"u8))
                    Version = Text(ref json, "version", ref _malformed);
                else if (json.ValueTextEquals("capabilities"u8))
                    Capabilities = Names(ref json, ref _malformed);
                else
                    json.Skip();
            }

            // Reads to the end, so that anything after the object is found.
            while (json.Read())
            {
            }
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            // InvalidOperationException: text that is not UTF-8, or half of a surrogate pair.
            throw new SessionProtocolException(SessionError.ProtocolViolation, $"A control line is not valid JSON: {PeerText.Printable(e.Message)}", e);
        }

        if (Type is null && _malformed is null)
            _malformed = "has no type";
    }

    public string? Type { get; }

    /// <summary>The type for messages and logs.</summary>
    public string ShownType => PeerText.Printable(Type ?? "(none)");

    public int? Port { get; }

    public string? LocalAddr { get; }

    public string? Domain { get; }

    public string? Host { get; }

    public string? Speaks { get; }

    public string? Error { get; }

    public string? Remote { get; }

    public string? Target { get; }

    public string? Agent { get; }

    public string? Version { get; }

    public IReadOnlyList<string>? Capabilities { get; }

    /// <summary>Call once the type is known to be one of ours: fields of types that we do not know may be anything.</summary>
    /// <exception cref="SessionProtocolException">A field has the wrong shape.</exception>
    public void ThrowIfMalformed()
    {
        if (_malformed is not null)
            throw Violation($"A control line of type {ShownType} {_malformed}.");
    }

    /// <exception cref="SessionProtocolException">There is no port.</exception>
    public int RequirePort() => Port ?? throw Violation($"A control line of type {ShownType} has no port.");

    private static string? Text(ref Utf8JsonReader json, string name, ref string? malformed)
    {
        json.Read();
        if (json.TokenType == JsonTokenType.String)
            return json.GetString();
        if (json.TokenType != JsonTokenType.Null)
            malformed ??= $"has a {name} that is not a string";
        json.Skip();
        return null;
    }

    private static int? Number(ref Utf8JsonReader json, ref string? malformed)
    {
        json.Read();
        if (json.TokenType == JsonTokenType.Number && json.TryGetInt32(out var number))
            return number;
        if (json.TokenType != JsonTokenType.Null)
            malformed ??= "has a port that is not a whole number of 32 bits";
        json.Skip();
        return null;
    }

    private static List<string>? Names(ref Utf8JsonReader json, ref string? malformed)
    {
        json.Read();
        if (json.TokenType == JsonTokenType.Null)
            return null;
        if (json.TokenType != JsonTokenType.StartArray)
        {
            malformed ??= "has capabilities that are not a list";
            json.Skip();
            return null;
        }

        var names = new List<string>();
        while (json.Read() && json.TokenType != JsonTokenType.EndArray)
        {
            if (json.TokenType == JsonTokenType.String)
                names.Add(json.GetString()!);
            else
                malformed ??= "has a capability that is not a string";
            json.Skip();
        }

        return names;
    }

    private static SessionProtocolException Violation(string message) => new(SessionError.ProtocolViolation, PeerText.Printable(message));
}
