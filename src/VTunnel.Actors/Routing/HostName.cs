using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace VTunnel.Routing;

/// <summary>Host names in the one form in which they are compared.</summary>
public static class HostName
{
    private const int MaxLength = 253;
    private const int MaxLabelLength = 63;
    private static readonly IdnMapping Idn = new() { AllowUnassigned = false, UseStd3AsciiRules = false };

    /// <summary>
    /// Lower case, without the dot that ends an absolute name, in the <c>xn--</c> form; an address as .NET writes it, IPv6
    /// without brackets, IPv4 in IPv6 as IPv4.
    /// </summary>
    /// <param name="text">A name or an address, IPv6 with brackets or without.</param>
    /// <param name="host">The form to compare.</param>
    /// <returns>False if the text is neither.</returns>
    public static bool TryNormalize(string? text, [NotNullWhen(true)] out string? host)
    {
        host = null;
        if (string.IsNullOrEmpty(text))
            return false;
        if (text.StartsWith('[') && text.EndsWith(']'))
            text = text[1..^1];
        if (text.Contains(':', StringComparison.Ordinal))
        {
            if (!IPAddress.TryParse(text, out var address) || address.AddressFamily != AddressFamily.InterNetworkV6)
                return false;
            host = (address.IsIPv4MappedToIPv6 ? address.MapToIPv4() : address).ToString();
            return true;
        }

        var name = text.EndsWith('.') ? text[..^1] : text;
        try
        {
            name = name.All(char.IsAscii) ? name.ToLowerInvariant() : Idn.GetAscii(name.ToLowerInvariant());
        }
        catch (ArgumentException)
        {
            return false;
        }

        if (name.Length is 0 or > MaxLength || !name.Split('.').All(IsLabel))
            return false;
        host = name;
        return true;
    }

    /// <summary>
    /// The address that a normalised host is, also in the short and the hexadecimal forms that the system's resolver takes
    /// (<c>127.1</c>, <c>0x7f000001</c>); null for a name.
    /// </summary>
    public static IPAddress? AddressOf(string host) => IPAddress.TryParse(host, out var address) ? address : null;

    /// <summary>As it stands in a URL: IPv6 in brackets.</summary>
    public static string Bracketed(string host) => host.Contains(':', StringComparison.Ordinal) ? $"[{host}]" : host;

    /// <summary>Whether it can only mean the machine itself.</summary>
    public static bool IsLoopback(string host) =>
        host == "localhost" || host.EndsWith(".localhost", StringComparison.Ordinal)
        || (AddressOf(host) is { } address && (IPAddress.IsLoopback(address) || address.Equals(IPAddress.Any) || address.Equals(IPAddress.IPv6Any)));

    /// <summary>Reads <c>host:port</c>; the host is normalised.</summary>
    public static bool TryParseAuthority(string? text, [NotNullWhen(true)] out string? host, out int port)
    {
        host = null;
        port = 0;
        var colon = text?.LastIndexOf(':') ?? -1;
        return colon > 0
            && int.TryParse(text.AsSpan(colon + 1), NumberStyles.None, CultureInfo.InvariantCulture, out port)
            && port is >= 1 and <= 65535
            && (text![0] == '[' || !text.AsSpan(0, colon).Contains(':'))
            && TryNormalize(text[..colon], out host);
    }

    internal static bool IsLabel(string label) =>
        label.Length is > 0 and <= MaxLabelLength
        && label[0] != '-' && label[^1] != '-'
        && label.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '_');
}
