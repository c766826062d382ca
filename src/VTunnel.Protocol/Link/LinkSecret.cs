using System.Security.Cryptography;

namespace VTunnel.Protocol.Link;

/// <summary>
/// The 32 random bytes that let a client resume a link. The server issues them once, in its HELLO for the new link;
/// after that only proofs made with them cross the wire.
/// </summary>
/// <remarks>
/// <para>
/// A resuming HELLO ends in HMAC-SHA256 over a label and everything before it, and the server's answer in one over
/// another label, the client's proof and its own fields. The attempt number in the client's HELLO rises with every
/// carrier and the server accepts each at most once, which does what a nonce from the server would do without
/// costing the round trip that fetches it. Compared with sending the secret itself, for two hashes per carrier: whoever
/// sees a resumption (a proxy's frame log, a plain <c>ws://</c> hop) can neither repeat it nor take the link over nor
/// change the offsets in it; a late HELLO of a carrier that was given up cannot push a newer one aside; and the client
/// knows that it resumes with the server that it left.
/// </para>
/// <para>
/// What it does not do: whoever reads the first carrier's HELLO has the secret, and nothing here protects the payload.
/// Both are what <c>wss://</c> is for.
/// </para>
/// </remarks>
public sealed class LinkSecret
{
    /// <summary>The length of a secret and of a proof: 32 bytes.</summary>
    public const int Length = 32;

    private readonly byte[] _bytes;

    /// <summary>Copies the bytes, which the caller drew from a cryptographic source.</summary>
    /// <exception cref="ArgumentException">Not 32 bytes.</exception>
    public LinkSecret(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length != Length)
            throw new ArgumentException($"A link secret has {Length} bytes, not {bytes.Length}.", nameof(bytes));
        _bytes = bytes.ToArray();
    }

    internal void CopyTo(Span<byte> destination) => _bytes.CopyTo(destination);

    /// <summary>The proof in a client's HELLO, over everything before it.</summary>
    internal void ProveClient(ReadOnlySpan<byte> hello, Span<byte> proof) => Prove("VTLK client"u8, default, hello, proof);

    /// <summary>The proof in a server's HELLO, over everything before it and bound to the client's HELLO by that one's proof.</summary>
    internal void ProveServer(ReadOnlySpan<byte> clientProof, ReadOnlySpan<byte> hello, Span<byte> proof) =>
        Prove("VTLK server"u8, clientProof, hello, proof);

    /// <summary>Compares in time that does not depend on where the two differ.</summary>
    internal static bool Equal(ReadOnlySpan<byte> one, ReadOnlySpan<byte> other) => CryptographicOperations.FixedTimeEquals(one, other);

    private void Prove(ReadOnlySpan<byte> label, ReadOnlySpan<byte> context, ReadOnlySpan<byte> hello, Span<byte> proof)
    {
        using var hash = IncrementalHash.CreateHMAC(HashAlgorithmName.SHA256, _bytes);
        hash.AppendData(label);
        hash.AppendData(context);
        hash.AppendData(hello);
        hash.GetHashAndReset(proof);
    }

    /// <inheritdoc />
    public override string ToString() => "***";
}
