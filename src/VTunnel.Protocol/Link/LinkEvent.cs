using VTunnel.Protocol.Errors;

namespace VTunnel.Protocol.Link;

/// <summary>What a <see cref="LinkEvent"/> says.</summary>
public enum LinkEventKind
{
    /// <summary>The first carrier is up.</summary>
    Established,

    /// <summary>A later carrier is up; <see cref="LinkEvent.Gap"/> says how long there was none.</summary>
    Resumed,

    /// <summary>
    /// <see cref="LinkEvent.Carrier"/> is no longer used: close it. <see cref="LinkEvent.Loss"/> and
    /// <see cref="LinkEvent.Text"/> say why. The link waits for another.
    /// </summary>
    CarrierLost,

    /// <summary>
    /// A HELLO was refused, by the peer or by this side: <see cref="LinkEvent.Refusal"/> and <see cref="LinkEvent.Text"/>.
    /// <see cref="CarrierLost"/> or <see cref="Ended"/> follows, depending on whether another carrier may succeed.
    /// </summary>
    Refused,

    /// <summary>
    /// The link is over, for <see cref="LinkEvent.End"/>. Send what <see cref="LinkState.TryTakeMessage"/> still gives,
    /// then close the carrier. Nothing comes after this event.
    /// </summary>
    Ended,
}

/// <summary>Why a carrier is no longer used.</summary>
public enum CarrierLoss
{
    /// <summary>None was lost.</summary>
    None = 0,

    /// <summary>Its owner said so: it closed or broke.</summary>
    Closed = 1,

    /// <summary>Nothing was heard on it for twice the keepalive interval.</summary>
    KeepAliveTimeout = 2,

    /// <summary>The server's HELLO did not come in time.</summary>
    HandshakeTimeout = 3,

    /// <summary>The server's first record was no HELLO for this link.</summary>
    HandshakeFailed = 4,

    /// <summary>A newer carrier took its place.</summary>
    Replaced = 5,

    /// <summary>The peer refused it, though it may accept another.</summary>
    Refused = 6,
}

/// <summary>Why a link is over. A number is never used for anything else later.</summary>
public enum LinkEnd
{
    /// <summary>It is not.</summary>
    None = 0,

    /// <summary>Both directions ended and everything was delivered.</summary>
    Completed = 1,

    /// <summary>There was no carrier for longer than the resume window.</summary>
    ResumeWindowExpired = 2,

    /// <summary>The carrier was lost and the resume window is zero.</summary>
    CarrierLost = 3,

    /// <summary>A HELLO was refused for good.</summary>
    Refused = 4,

    /// <summary>The peer broke the rules of the link.</summary>
    ProtocolViolation = 5,

    /// <summary>The peer said BYE before everything was delivered; <see cref="LinkEvent.Code"/> is its code.</summary>
    EndedByPeer = 6,

    /// <summary><see cref="LinkState.Abort"/> was called.</summary>
    Aborted = 7,
}

/// <summary>One thing that happened on a link.</summary>
/// <param name="Kind">What.</param>
/// <param name="Carrier">The carrier concerned; 0 where there is none.</param>
/// <param name="Gap">How long the link had no carrier, for <see cref="LinkEventKind.Resumed"/>.</param>
/// <param name="Loss">For <see cref="LinkEventKind.CarrierLost"/>.</param>
/// <param name="Refusal">For <see cref="LinkEventKind.Refused"/>; may be a number that this version does not know.</param>
/// <param name="End">For <see cref="LinkEventKind.Ended"/>.</param>
/// <param name="Code">For <see cref="LinkEventKind.Ended"/>: the reason as the session sees it.</param>
/// <param name="Text">For people.</param>
public readonly record struct LinkEvent(
    LinkEventKind Kind,
    int Carrier = 0,
    TimeSpan Gap = default,
    CarrierLoss Loss = CarrierLoss.None,
    LinkRefusalCode Refusal = default,
    LinkEnd End = LinkEnd.None,
    SessionError Code = SessionError.None,
    string Text = "");
