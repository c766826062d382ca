using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using VTunnel.Routing;

namespace VTunnel.Options;

/// <summary>What several options have to obey.</summary>
internal static class OptionRules
{
    public const string TokenForm = "a token consists of letters, digits and -._~+/= only";

    /// <summary>The characters of a bearer token (RFC 6750, section 2.1): nothing that a header or a list could trip over.</summary>
    public static bool IsToken(string token) =>
        token.Length > 0 && token.All(c => char.IsAsciiLetterOrDigit(c) || c is '-' or '.' or '_' or '~' or '+' or '/' or '=');

    /// <summary>What is wrong with a browser origin, or null.</summary>
    public static string? OriginProblem(string? origin)
    {
        const string form = "an origin is SCHEME://HOST[:PORT] and nothing after it, such as https://app.example.com";
        if (origin is null || !Uri.TryCreate(origin, UriKind.Absolute, out var uri) || !origin.Contains("://", StringComparison.Ordinal) || uri.Host.Length == 0)
            return form;
        return uri.UserInfo.Length > 0 || uri.Query.Length > 0 || uri.Fragment.Length > 0 || uri.AbsolutePath is not ("/" or "")
            || origin.EndsWith('/')
            ? form
            : null;
    }

    /// <summary>What is wrong with a header, or null. A value may be secret and is never part of the answer.</summary>
    public static string? HeaderProblem(string? name, string? value)
    {
        if (string.IsNullOrEmpty(name) || !name.All(IsTokenCharacter))
            return "the name of a header consists of letters, digits and hyphens; write 'Name: value'";
        if (name.StartsWith("Sec-WebSocket-", StringComparison.OrdinalIgnoreCase)
            || name.Equals("Connection", StringComparison.OrdinalIgnoreCase)
            || name.Equals("Upgrade", StringComparison.OrdinalIgnoreCase))
            return "the WebSocket handshake sets this header itself; leave it out";
        return value is null || value.Any(c => c is not '\t' and (< ' ' or > '~'))
            ? "the value of a header consists of visible ASCII characters and blanks"
            : null;
    }

    /// <summary>What is wrong with a header for requests of visitors, or null.</summary>
    public static string? InjectedHeaderProblem(string? name, string? value)
    {
        if (string.IsNullOrEmpty(name) || !name.All(IsTokenCharacter))
            return "the name of a header consists of letters, digits and hyphens; write 'Name: value'";
        if (name.ToUpperInvariant() is "CONNECTION" or "CONTENT-LENGTH" or "EXPECT" or "HOST" or "KEEP-ALIVE" or "TE" or "TRAILER" or "TRANSFER-ENCODING" or "UPGRADE")
            return "this header belongs to the connection or the body and cannot be replaced; leave it out";
        return value is null || value.Any(c => c is not '\t' and (< ' ' or > '~'))
            ? "the value of a header consists of visible ASCII characters and blanks"
            : null;
    }

    /// <summary>What is wrong with a pattern for hosts, or null: hosts are compared with it as they are once normalised.</summary>
    public static string? PatternProblem(HostPattern pattern)
    {
        if (!Enum.IsDefined(pattern.Kind))
            return $"{pattern.Kind} is no kind of a pattern; use {nameof(HostPattern)}.{nameof(HostPattern.TryParse)}";
        return pattern.Port is < 1 or > 65535
            ? $"the port is {pattern.Port}; it must be from 1 to 65535"
            : NameProblem(pattern.Name, pattern.Kind == HostPatternKind.Exact);
    }

    /// <summary>What is wrong with a host that has to be normalised already, or null.</summary>
    public static string? NameProblem(string? name, bool mayBeAddress)
    {
        if (!HostName.TryNormalize(name, out var normal))
            return $"'{name}' is neither a host name nor an address";
        if (!mayBeAddress && HostName.AddressOf(normal) is not null)
            return $"'{name}' is an address; a name is needed";
        return normal == name ? null : $"'{name}' is not in the form in which hosts are compared; write '{normal}'";
    }

    /// <summary>What is wrong with a file that should hold PEM certificates, or null.</summary>
    public static string? CertificateFileProblem(string path)
    {
        var certificates = new X509Certificate2Collection();
        try
        {
            certificates.ImportFromPemFile(path);
            return certificates.Count > 0 ? null : "no certificate in this file; it must be PEM, with '-----BEGIN CERTIFICATE-----'";
        }
        catch (CryptographicException)
        {
            return "not a certificate that can be read; the file must be PEM, with '-----BEGIN CERTIFICATE-----'";
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            return FileProblem(path, e);
        }
        finally
        {
            foreach (var certificate in certificates)
                certificate.Dispose();
        }
    }

    /// <summary>Why a file cannot be read, in a few words.</summary>
    public static string FileProblem(string path, Exception error) => error switch
    {
        // The system answers the same for a folder as for a file of somebody else.
        _ when Directory.Exists(path) => "this is a folder; a file is needed",
        FileNotFoundException or DirectoryNotFoundException => "there is no such file",
        UnauthorizedAccessException => "the file cannot be read: permission denied",
        _ => $"the file cannot be read: {error.Message}",
    };

    private static bool IsTokenCharacter(char c) => char.IsAsciiLetterOrDigit(c) || "!#$%&'*+-.^_`|~".Contains(c, StringComparison.Ordinal);
}
