using VTunnel.Protocol.Buffers;

namespace VTunnel.Protocol.Link;

/// <summary>Why a HELLO was not accepted. A number is never used for anything else later; unknown numbers end the link.</summary>
public enum LinkRefusalCode
{
    /// <summary>There is no such link, it has ended, or the proof is wrong: one answer for all three. Ends the link.</summary>
    UnknownLink = 1,

    /// <summary>The link version is not spoken here. Ends the link.</summary>
    UnsupportedVersion = 2,

    /// <summary>A feature that the HELLO declares mandatory is not known here. Ends the link.</summary>
    UnsupportedFeature = 3,

    /// <summary>The first record is no HELLO by the rules. Ends the link.</summary>
    Malformed = 4,

    /// <summary>A carrier with a higher attempt number has been accepted since. Ends this carrier; the link goes on.</summary>
    Stale = 5,

    /// <summary>No new link now (a limit, a shutdown). Ends this carrier; trying again later may succeed.</summary>
    Unavailable = 6,

    /// <summary>The bytes from the requested offset on are not held, so nothing can be resumed. Ends the link.</summary>
    OffsetUnavailable = 7,

    /// <summary>The bridge: whoever dials is known and not admitted (revoked, expired, removed, replaced). Ends the link.</summary>
    NotAdmitted = 8,
}

/// <summary>The content of a REFUSE record.</summary>
/// <param name="Code">Branch on this.</param>
/// <param name="Text">For people: what is wrong and what would be right.</param>
public sealed record LinkRefusal(LinkRefusalCode Code, string Text)
{
    /// <summary>The one answer to an unknown id, an ended link and a wrong proof.</summary>
    public static LinkRefusal UnknownLink { get; } = new(LinkRefusalCode.UnknownLink, "no such session here (any more), or the proof for it is wrong");

    /// <summary>Whether another carrier may succeed; otherwise the link is over for whoever is refused.</summary>
    public bool IsTemporary => Code is LinkRefusalCode.Stale or LinkRefusalCode.Unavailable;

    /// <summary>The record to send before closing the carrier; the caller owns the reference.</summary>
    public ByteSlice ToMessage() => LinkRecordWriter.Refuse(Code, Text);
}
