using System.Diagnostics.CodeAnalysis;
using System.Globalization;

namespace VTunnel.Routing;

/// <summary>Which hosts a pattern means.</summary>
public enum HostPatternKind
{
    /// <summary>One name or address.</summary>
    Exact,

    /// <summary><c>*.example.test</c>: one or more labels before the rest, not the rest alone.</summary>
    Leading,

    /// <summary><c>mail.*</c>: one or more labels after the rest.</summary>
    Trailing,
}

/// <summary>A host or a wildcard for hosts, with a port or without. Wildcards mean names only, never addresses.</summary>
/// <param name="Kind">What it means.</param>
/// <param name="Name">The normalised name or address without the wildcard.</param>
/// <param name="Port">1 to 65535, or null where none is given.</param>
public sealed record HostPattern(HostPatternKind Kind, string Name, int? Port)
{
    /// <summary>The right form, for messages.</summary>
    internal const string Form = "a host, *.DOMAIN or NAME.*, and :PORT if only one is meant";

    /// <summary>Reads <c>gitlab.corp</c>, <c>*.example.test</c>, <c>mail.*</c>, <c>[::1]:8080</c> and the like.</summary>
    /// <param name="text">As the user wrote it.</param>
    /// <param name="pattern">The pattern, or null.</param>
    /// <param name="problem">What is wrong and what would be right, or null.</param>
    public static bool TryParse(string? text, [NotNullWhen(true)] out HostPattern? pattern, [NotNullWhen(false)] out string? problem)
    {
        pattern = null;
        var host = text?.Trim() ?? "";
        int? port = null;
        var colon = host.LastIndexOf(':');
        if (colon >= 0 && (host.StartsWith('[') ? host[colon - 1] == ']' : host.IndexOf(':', StringComparison.Ordinal) == colon))
        {
            if (!int.TryParse(host.AsSpan(colon + 1), NumberStyles.None, CultureInfo.InvariantCulture, out var number) || number is < 1 or > 65535)
            {
                problem = $"the port '{host[(colon + 1)..]}' must be from 1 to 65535";
                return false;
            }

            port = number;
            host = host[..colon];
        }

        var (kind, name) = host switch
        {
            _ when host.StartsWith("*.", StringComparison.Ordinal) => (HostPatternKind.Leading, host[2..]),
            _ when host.EndsWith(".*", StringComparison.Ordinal) => (HostPatternKind.Trailing, host[..^2]),
            _ => (HostPatternKind.Exact, host),
        };
        if (name.Contains('*', StringComparison.Ordinal))
            problem = "a wildcard stands for whole labels at one end of a name: *.example.test or mail.*";
        else if (!HostName.TryNormalize(name, out var normalized))
            problem = $"'{name}' is neither a host name nor an address";
        else if (kind != HostPatternKind.Exact && HostName.AddressOf(normalized) is not null)
            problem = "a wildcard stands for labels of a name, not for parts of an address";
        else
        {
            pattern = new HostPattern(kind, normalized, port);
            problem = null;
        }

        return problem is null;
    }

    /// <summary>Whether it means a normalised host on a port; a pattern without a port means every port here.</summary>
    public bool Matches(string host, int port)
    {
        if (Port is { } only && only != port)
            return false;
        return Kind switch
        {
            HostPatternKind.Exact => host == Name,
            HostPatternKind.Leading => host.Length > Name.Length + 1 && host.EndsWith(Name, StringComparison.Ordinal) && host[^(Name.Length + 1)] == '.'
                && HostName.AddressOf(host) is null,
            _ => host.Length > Name.Length + 1 && host.StartsWith(Name, StringComparison.Ordinal) && host[Name.Length] == '.'
                && HostName.AddressOf(host) is null,
        };
    }

    /// <inheritdoc />
    public override string ToString()
    {
        var host = Kind switch
        {
            HostPatternKind.Leading => "*." + Name,
            HostPatternKind.Trailing => Name + ".*",
            _ => HostName.Bracketed(Name),
        };
        return Port is { } port ? $"{host}:{port}" : host;
    }
}
