using System.Buffers.Text;
using System.Security.Cryptography;
using System.Text;
using VTunnel.Options;

namespace VTunnel.Access;

/// <summary>Makes tokens and their entries.</summary>
public static class AccessTokens
{
    private const string Prefix = "vtn_";
    private const int RandomBytes = 32;

    /// <summary>A fresh token: <c>vtn_</c> and 256 random bits in base64url. Whoever knows it may open sessions; it cannot be recovered from its entry.</summary>
    public static Secret Generate() => new(Prefix + Base64Url.EncodeToString(RandomNumberGenerator.GetBytes(RandomBytes)));

    /// <summary>The entry that recognises <paramref name="token"/>.</summary>
    /// <param name="name">For logs; never secret.</param>
    /// <param name="token">The token itself; only its hash is kept.</param>
    /// <param name="ports">The ports it may listen on; null or empty means every port.</param>
    public static AccessToken EntryFor(string name, Secret token, IReadOnlyList<PortRange>? ports = null)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(name);
        ArgumentNullException.ThrowIfNull(token);
        return new AccessToken(name, SHA256.HashData(Encoding.UTF8.GetBytes(token.Value)), ports ?? []);
    }
}
