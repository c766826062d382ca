using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Net;
using Microsoft.Extensions.Logging;
using VTunnel.Options;
using VTunnel.Routing;

namespace VTunnel.Cli.Settings;

/// <summary>Reads the text of a value.</summary>
/// <param name="text">As given, whatever the source.</param>
/// <param name="value">The value, if it is one.</param>
/// <param name="problem">Else what would be right.</param>
internal delegate bool ValueParser<T>(string text, [MaybeNullWhen(false)] out T value, [NotNullWhen(false)] out string? problem);

/// <summary>The readers of values. Whether a value makes sense to the engine is said by the engine's validators.</summary>
internal static class ValueParsers
{
    /// <summary>A port to listen on; 0 is any free one.</summary>
    public static bool ListenPort(string text, out int value, [NotNullWhen(false)] out string? problem)
    {
        problem = int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out value) && value <= 65535
            ? null
            : "a port is a number from 1 to 65535, or 0 for any free one";
        return problem is null;
    }

    public static bool Count(string text, out int value, [NotNullWhen(false)] out string? problem)
    {
        problem = int.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out value)
            ? null
            : "a whole number is needed, such as 1000";
        return problem is null;
    }

    public static bool Duration(string text, out TimeSpan value, [NotNullWhen(false)] out string? problem)
    {
        problem = DurationText.TryParse(text, out value) ? null : "a duration is a number with a unit, such as 300ms, 1.5s, 2m or 1h30m";
        return problem is null;
    }

    public static bool Switch(string text, out bool value, [NotNullWhen(false)] out string? problem)
    {
        problem = bool.TryParse(text, out value) ? null : "a switch is true or false";
        return problem is null;
    }

    /// <summary>An address of this machine; <c>*</c> is all of them (told apart from a given 0.0.0.0 by null).</summary>
    public static bool ListenHost(string text, out IPAddress? value, [NotNullWhen(false)] out string? problem)
    {
        value = null;
        problem = null;
        return text == "*" || Address(text, out value, out problem);
    }

    public static bool Address(string text, [NotNullWhen(true)] out IPAddress? value, [NotNullWhen(false)] out string? problem)
    {
        problem = null;
        value = null;
        if (text.Equals("localhost", StringComparison.OrdinalIgnoreCase))
            value = IPAddress.Loopback;

        // IPAddress.Parse takes "80" and "10.1" for addresses; nobody who types them means that.
        else if (!IPAddress.TryParse(text.Trim('[', ']'), out value) || (!text.Contains(':', StringComparison.Ordinal) && text.Count(c => c == '.') != 3))
            problem = "an address of this machine is needed, such as 127.0.0.1, ::1 or 0.0.0.0";
        return problem is null;
    }

    public static bool ServerUrl(string text, [NotNullWhen(true)] out Uri? value, [NotNullWhen(false)] out string? problem)
    {
        value = null;
        problem = null;
        if (!text.Contains("://", StringComparison.Ordinal))
            problem = $"a URL begins with ws:// or wss://; write ws://{(text.AsSpan().IndexOfAny("@?#") < 0 ? text.TrimStart('/') : "HOST[:PORT]/")}";
        else if (!Uri.TryCreate(text, UriKind.Absolute, out value))
            problem = "not a URL; write ws://HOST[:PORT]/ or wss://HOST[:PORT]/, such as wss://tunnel.example.com/";
        return problem is null;
    }

    public static bool Forward(string text, [NotNullWhen(true)] out ForwardRule? value, [NotNullWhen(false)] out string? problem) =>
        ForwardRule.TryParse(text, out value, out problem);

    public static bool Header(string text, out KeyValuePair<string, string> value, [NotNullWhen(false)] out string? problem)
    {
        var colon = text.IndexOf(':', StringComparison.Ordinal);
        value = colon > 0 ? new(text[..colon].Trim(), text[(colon + 1)..].Trim()) : default;
        problem = colon > 0 ? null : "a header is 'Name: value', in quotes";
        return problem is null;
    }

    /// <summary>A header for the server, which the engine would refuse without saying which one of several it is.</summary>
    public static bool ServerHeader(string text, out KeyValuePair<string, string> value, [NotNullWhen(false)] out string? problem)
    {
        if (Header(text, out value, out problem))
            problem = OptionRules.HeaderProblem(value.Key, value.Value);
        return problem is null;
    }

    /// <summary>A header for the requests of visitors.</summary>
    public static bool InjectedHeader(string text, [NotNullWhen(true)] out InjectedHeader? value, [NotNullWhen(false)] out string? problem)
    {
        value = null;
        if (Header(text, out var header, out problem))
            problem = OptionRules.InjectedHeaderProblem(header.Key, header.Value);
        if (problem is null)
            value = new InjectedHeader(header.Key, header.Value);
        return value is not null;
    }

    public static bool Credential(string text, [NotNullWhen(true)] out ProxyCredential? value, [NotNullWhen(false)] out string? problem)
    {
        var colon = text.IndexOf(':', StringComparison.Ordinal);
        value = colon > 0 && colon < text.Length - 1 ? new ProxyCredential(text[..colon], new Secret(text[(colon + 1)..])) : null;
        problem = value is null ? "a user of the proxy is USER:PASSWORD" : null;
        return value is not null;
    }

    public static bool AllowOrDeny(string text, out bool value, [NotNullWhen(false)] out string? problem) =>
        Choice(text, [("allow", true), ("deny", false)], out value, out problem);

    public static bool HostAddress(string text, [NotNullWhen(true)] out HostAddress? value, [NotNullWhen(false)] out string? problem)
    {
        var equals = text.IndexOf('=', StringComparison.Ordinal);
        value = equals > 0 && HostName.TryNormalize(text[..equals].Trim(), out var host) && HostName.AddressOf(host) is null
            && IPAddress.TryParse(text[(equals + 1)..].Trim().Trim('[', ']'), out var address)
            ? new HostAddress(host, address)
            : null;
        problem = value is null ? "a name and its address are NAME=ADDR, such as registry.test=10.0.0.5" : null;
        return value is not null;
    }

    public static bool Token(string text, [NotNullWhen(true)] out Secret? value, [NotNullWhen(false)] out string? problem)
    {
        value = OptionRules.IsToken(text) ? new Secret(text) : null;
        problem = value is null ? OptionRules.TokenForm : null;
        return value is not null;
    }

    public static bool Text(string text, [NotNullWhen(true)] out string? value, [NotNullWhen(false)] out string? problem)
    {
        value = text;
        problem = text.Length > 0 ? null : "the value is empty";
        return problem is null;
    }

    /// <summary>A state directory, which need not exist. An empty name is not the default, but perhaps a variable that a script forgot.</summary>
    public static bool Folder(string text, [NotNullWhen(true)] out string? value, [NotNullWhen(false)] out string? problem)
    {
        value = text;
        problem = text.Length == 0 ? "the name of the directory is empty; without the option it is ~/.local/state/vtunnel"
            : text.Contains('\0', StringComparison.Ordinal) ? "a name has no NUL in it"
            : null;
        return problem is null;
    }

    public static bool Protocol(string text, out ProtocolPreference value, [NotNullWhen(false)] out string? problem) =>
        Choice(text, Protocols, out value, out problem);

    public static bool Level(string text, out LogLevel value, [NotNullWhen(false)] out string? problem) =>
        Choice(text, Levels, out value, out problem);

    public static bool Format(string text, out LogFormat value, [NotNullWhen(false)] out string? problem) =>
        Choice(text, Formats, out value, out problem);

    public static readonly IReadOnlyList<(string Name, ProtocolPreference Value)> Protocols =
        [("auto", ProtocolPreference.Auto), ("v1", ProtocolPreference.V1), ("v2", ProtocolPreference.V2)];

    public static readonly IReadOnlyList<(string Name, LogLevel Value)> Levels =
    [
        ("trace", LogLevel.Trace), ("debug", LogLevel.Debug), ("information", LogLevel.Information), ("info", LogLevel.Information),
        ("warning", LogLevel.Warning), ("warn", LogLevel.Warning), ("error", LogLevel.Error), ("critical", LogLevel.Critical), ("none", LogLevel.None),
    ];

    public static readonly IReadOnlyList<(string Name, LogFormat Value)> Formats = [("text", LogFormat.Text), ("json", LogFormat.Json)];

    private static bool Choice<T>(string text, IReadOnlyList<(string Name, T Value)> choices, out T value, [NotNullWhen(false)] out string? problem)
        where T : struct
    {
        foreach (var choice in choices)
        {
            if (!choice.Name.Equals(text, StringComparison.OrdinalIgnoreCase))
                continue;
            (value, problem) = (choice.Value, null);
            return true;
        }

        (value, problem) = (default, $"write one of {string.Join(", ", choices.Select(choice => choice.Name))}");
        return false;
    }
}

/// <summary>How the log looks.</summary>
internal enum LogFormat
{
    /// <summary>A line for people.</summary>
    Text,

    /// <summary>A JSON object per line.</summary>
    Json,
}
