using System.Diagnostics.CodeAnalysis;

namespace VTunnel.Protocol.Link;

/// <summary>
/// The server's first step on a new carrier, before it is known which link it is for. Then the owner of that link (or of
/// a new one) calls <see cref="LinkState.TryAttachCarrier"/>; for an id that nobody owns the answer is
/// <see cref="LinkRefusal.UnknownLink"/>.
/// </summary>
public static class LinkAcceptor
{
    /// <summary>Reads the first message of a carrier, whose reference stays with the caller.</summary>
    /// <param name="message">The whole message.</param>
    /// <param name="knownFeatures">See <see cref="LinkOptions.KnownFeatures"/>.</param>
    /// <param name="hello">What a client says.</param>
    /// <param name="refusal">What to send before closing the carrier: <see cref="LinkRefusal.ToMessage"/>.</param>
    public static bool TryRead(
        ReadOnlySpan<byte> message,
        IReadOnlyCollection<ushort> knownFeatures,
        [NotNullWhen(true)] out LinkHello? hello,
        [NotNullWhen(false)] out LinkRefusal? refusal)
    {
        if (!LinkHello.TryRead(message, out hello, out refusal))
            return false;

        refusal = hello.Role == LinkRole.Client
            ? hello.RefuseUnknownFeatures(knownFeatures)
            : new LinkRefusal(LinkRefusalCode.Malformed, "HELLO of a server where a client's was expected; both sides accept, none dials");
        if (refusal is null)
            return true;
        hello = null;
        return false;
    }
}
