using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Text;
using Microsoft.Extensions.Primitives;
using VTunnel.Options;

namespace VTunnel.Proxy;

/// <summary>Checks <c>Proxy-Authorization: Basic</c>, in a time that says nothing about what is right.</summary>
internal sealed class ProxyCredentials(IReadOnlyList<ProxyCredential> credentials)
{
    private readonly byte[][] _hashes = [.. credentials.Select(each => SHA256.HashData(Encoding.UTF8.GetBytes($"{each.User}:{each.Password.Value}")))];

    /// <summary>Whether anyone has to say who he is.</summary>
    public bool AreNeeded => _hashes.Length > 0;

    public bool Accept(StringValues header)
    {
        if (!AreNeeded)
            return true;
        if (header.Count != 1 || !AuthenticationHeaderValue.TryParse(header, out var value)
            || !value.Scheme.Equals("Basic", StringComparison.OrdinalIgnoreCase) || value.Parameter is not { Length: > 0 and < 4096 } parameter)
            return false;

        var presented = new byte[parameter.Length];
        if (!Convert.TryFromBase64String(parameter, presented, out var length))
            return false;
        var hash = SHA256.HashData(presented.AsSpan(0, length));
        var accepted = false;
        foreach (var known in _hashes)
            accepted |= CryptographicOperations.FixedTimeEquals(known, hash);
        return accepted;
    }
}
