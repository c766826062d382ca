using System.Security.Cryptography;
using System.Text;
using VTunnel.Options;

namespace VTunnel.Access;

/// <summary>Finds the entry that a presented bearer token belongs to.</summary>
/// <remarks>
/// Hashing makes every comparison one of 32 bytes, and every entry is compared every time: the time taken tells nothing
/// about which entry matched or how much of a token was right. Safe for use by several threads.
/// </remarks>
public sealed class TokenVerifier
{
    private readonly AccessToken[] _tokens;

    /// <summary>Makes one for the given entries.</summary>
    public TokenVerifier(IEnumerable<AccessToken> tokens)
    {
        ArgumentNullException.ThrowIfNull(tokens);
        _tokens = [.. tokens];
    }

    /// <summary>Whether there is any entry; without one, access is open to everyone.</summary>
    public bool IsRequired => _tokens.Length > 0;

    /// <summary>The entry of the token <paramref name="presented"/>, or null if there is none.</summary>
    public AccessToken? Verify(string? presented)
    {
        var utf8 = Encoding.UTF8.GetBytes(presented ?? "");
        Span<byte> hash = stackalloc byte[SHA256.HashSizeInBytes];
        SHA256.HashData(utf8, hash);
        CryptographicOperations.ZeroMemory(utf8);

        AccessToken? match = null;
        foreach (var token in _tokens)
        {
            if (CryptographicOperations.FixedTimeEquals(hash, token.Sha256.Span))
                match ??= token;
        }

        return match;
    }
}
