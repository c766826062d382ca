using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace VTunnel.Routing;

/// <summary>
/// Reads forwards as users write them. The part before <c>=</c> says which connections are meant, the part after it where
/// they go; each part has its own reader, so that another kind of either is one more reader.
/// </summary>
internal static class ForwardParser
{
    /// <summary>The right form, for messages.</summary>
    public const string Form = "PORT=HOST:PORT, such as 9000=localhost:3000";

    private const int TlsDefaultPort = 443;
    private const int MaxHostLength = 253;
    private const int MaxLabelLength = 63;

    public static bool TryParseRule(string? text, [NotNullWhen(true)] out ForwardRule? rule, [NotNullWhen(false)] out string? problem)
    {
        rule = null;
        text = text?.Trim() ?? "";
        var equals = text.IndexOf('=', StringComparison.Ordinal);
        if (equals < 0)
        {
            problem = $"a forward is {Form}";
            return false;
        }

        if (!TryParseSource(text[..equals].Trim(), out var port, out var domain, out problem))
            return false;
        if (!TryParseTarget(text[(equals + 1)..].Trim(), out var target, out problem))
            return false;

        rule = new ForwardRule(port, target) { Domain = domain };
        return true;
    }

    /// <summary>A port of the server, or a domain of its proxy.</summary>
    private static bool TryParseSource(string text, out int port, out HostPattern? domain, [NotNullWhen(false)] out string? problem)
    {
        port = 0;
        domain = null;
        if (text.Length == 0 || IsInteger(text))
            return TryParseRemotePort(text, out port, out problem);
        if (HostPattern.TryParse(text, out domain, out var reason))
        {
            problem = null;
            return true;
        }

        problem = $"'{text}' is neither a port nor a domain: {reason}; write {Form} or gitlab.corp=localhost:8080";
        return false;
    }

    private static bool TryParseRemotePort(string text, out int port, [NotNullWhen(false)] out string? problem)
    {
        port = 0;
        if (text.Length == 0)
            problem = $"the server's port is missing before '='; write {Form}";
        else
            problem = TryParsePort(text, out port) ? null : $"the server's port is {text}; it must be from 1 to 65535";
        return problem is null;
    }

    public static bool TryParseTarget(string? text, [NotNullWhen(true)] out ForwardTarget? target, [NotNullWhen(false)] out string? problem)
    {
        target = null;
        text ??= "";
        if (text.Length == 0)
        {
            problem = $"the target is missing after '='; write {Form}";
            return false;
        }

        var scheme = TargetScheme.Tcp;
        var authority = text;
        var separator = text.IndexOf("://", StringComparison.Ordinal);
        if (separator >= 0)
        {
            authority = text[(separator + 3)..];
            switch (text[..separator].ToUpperInvariant())
            {
                case "TCP":
                    break;
                case "TLS":
                    scheme = TargetScheme.Tls;
                    break;
                default:
                    problem = $"'{text[..separator]}' is not a scheme of a target; use tcp://, tls:// or none, "
                        + "such as 9000=localhost:3000 or 9000=tls://www.example.com:443";
                    return false;
            }
        }

        if (authority.Contains('@', StringComparison.Ordinal))
        {
            // What stands before the @ may be a password: it is not repeated.
            problem = "the target has a user name; a target is HOST:PORT and nothing before it";
            return false;
        }

        if (authority.AsSpan().IndexOfAny("/?#") >= 0)
        {
            problem = $"the target '{text}' has a path; a target is HOST:PORT and nothing after it";
            return false;
        }

        if (!TrySplit(authority, out var host, out var portText, out problem) || !IsHost(host, out problem))
            return false;

        var port = TlsDefaultPort;
        if (portText is null && scheme == TargetScheme.Tcp)
        {
            problem = IsInteger(host)
                ? $"the target '{host}' names no host; write HOST:PORT, such as localhost:{host}"
                : $"the target '{authority}' has no port; write HOST:PORT, such as {Bracketed(host)}:3000";
            return false;
        }

        if (portText is not null && !TryParsePort(portText, out port))
        {
            problem = $"the target's port is '{portText}'; it must be from 1 to 65535";
            return false;
        }

        target = new ForwardTarget(scheme, host, port);
        return true;
    }

    private static bool TrySplit(string authority, out string host, out string? port, [NotNullWhen(false)] out string? problem)
    {
        host = authority;
        port = null;
        problem = null;
        if (authority.StartsWith('['))
        {
            var end = authority.IndexOf(']', StringComparison.Ordinal);
            if (end < 0)
            {
                problem = $"the target '{authority}' lacks the closing bracket; write [ADDRESS]:PORT, such as [::1]:3000";
                return false;
            }

            host = authority[1..end];
            var rest = authority[(end + 1)..];
            if (!IPAddress.TryParse(host, out var address) || address.AddressFamily != AddressFamily.InterNetworkV6)
                problem = $"'{host}' in brackets is not an IPv6 address; write [ADDRESS]:PORT, such as [::1]:3000";
            else if (rest.StartsWith(':'))
                port = rest[1..];
            else if (rest.Length > 0)
                problem = $"the target '{authority}' goes on after the bracket; write [ADDRESS]:PORT, such as [::1]:3000";
            return problem is null;
        }

        var colon = authority.IndexOf(':', StringComparison.Ordinal);
        if (colon < 0)
            return true;
        if (colon != authority.LastIndexOf(':'))
        {
            problem = Unbracketed(authority);
            return false;
        }

        host = authority[..colon];
        port = authority[(colon + 1)..];
        return true;
    }

    /// <summary>What is wrong with a text of several colons outside brackets. Its last group can be a port, a part of the address, or either.</summary>
    private static string Unbracketed(string authority)
    {
        const string brackets = "an IPv6 address needs brackets; write ";
        var last = authority.LastIndexOf(':');
        var (host, port) = (authority[..last], authority[(last + 1)..]);
        var withPort = IPAddress.TryParse(host, out _) && host.Contains(':', StringComparison.Ordinal) && TryParsePort(port, out _);
        if (!IPAddress.TryParse(authority, out _))
            return withPort ? $"{brackets}[{host}]:{port}" : $"the target '{authority}' has too many colons; write HOST:PORT, and an IPv6 address in brackets";
        return withPort ? $"{brackets}[{host}]:{port}, or [{authority}]:PORT if {port} is a part of the address" : $"{brackets}[{authority}]:PORT";
    }

    /// <summary>Whether a name or an address can be dialled at all; what it leads to is found out when dialling.</summary>
    internal static bool IsHost(string host, [NotNullWhen(false)] out string? problem)
    {
        problem = null;
        if (host.Contains(':', StringComparison.Ordinal))
        {
            if (!IPAddress.TryParse(host, out _))
                problem = $"'{host}' is not an IPv6 address";
            return problem is null;
        }

        if (host.Length == 0)
            problem = "the target names no host; write HOST:PORT, such as localhost:3000";
        else if (!IsInteger(host) && host.All(c => char.IsAsciiDigit(c) || c == '.'))
            // IPAddress.Parse also takes 10.1 and 010.0.0.1, which mean something else to most people.
            problem = IsDottedQuad(host) ? null : $"'{host}' is not an IPv4 address; write four numbers from 0 to 255, such as 127.0.0.1";
        else if (host.Any(c => c > 127))
            problem = $"the host '{host}' has letters outside ASCII; write the name in its xn-- form";
        else if (host.Length > MaxHostLength || host.TrimEnd('.').Split('.').Any(label => !IsLabel(label)) || host.EndsWith("..", StringComparison.Ordinal))
            problem = $"'{host}' is not a host name; use letters, digits, hyphens and dots, such as app.internal";
        return problem is null;
    }

    private static bool IsLabel(string label) =>
        label.Length is > 0 and <= MaxLabelLength
        && label[0] != '-' && label[^1] != '-'
        && label.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_');

    private static bool IsDottedQuad(string host)
    {
        var parts = host.Split('.');
        return parts.Length == 4 && parts.All(part =>
            part.Length is > 0 and <= 3
            && (part.Length == 1 || part[0] != '0')
            && byte.TryParse(part, NumberStyles.None, CultureInfo.InvariantCulture, out _));
    }

    private static bool IsInteger(string text) => text.TrimStart('-', '+') is { Length: > 0 } digits && digits.All(char.IsAsciiDigit);

    private static bool TryParsePort(string text, out int port) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out port) && port is >= 1 and <= 65535;

    private static string Bracketed(string host) => host.Contains(':', StringComparison.Ordinal) ? $"[{host}]" : host;
}
