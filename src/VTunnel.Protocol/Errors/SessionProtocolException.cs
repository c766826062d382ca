namespace VTunnel.Protocol.Errors;

/// <summary>The peer broke the protocol in a way that ends the session, and nothing but the session.</summary>
public sealed class SessionProtocolException : Exception
{
    /// <summary>Makes one.</summary>
    public SessionProtocolException(SessionError code, string message)
        : base(message) => Code = code;

    /// <summary>Makes one with its cause.</summary>
    public SessionProtocolException(SessionError code, string message, Exception inner)
        : base(message, inner) => Code = code;

    /// <summary>What went wrong; branch on this, never on the text.</summary>
    public SessionError Code { get; }
}

/// <summary>Numbered reasons for the end of a session. A number is never used for anything else later.</summary>
public enum SessionError
{
    /// <summary>Not an error: an orderly end.</summary>
    None = 0,

    /// <summary>A message was longer than the limit (WebSocket status 1009).</summary>
    MessageTooLarge = 1,

    /// <summary>A kind of WebSocket message that the protocol does not use (status 1003).</summary>
    UnexpectedMessageKind = 2,

    /// <summary>A frame that breaks the rules of the protocol (status 1002).</summary>
    ProtocolViolation = 3,

    /// <summary>Nothing was heard from the peer for longer than the keepalive allows.</summary>
    KeepAliveTimeout = 4,

    /// <summary>The connection under the session was lost.</summary>
    ConnectionLost = 5,

    /// <summary>This side is shutting down (WebSocket status 1001).</summary>
    ShuttingDown = 6,

    /// <summary>The peer did not answer a probe and another session wanted its port.</summary>
    Superseded = 7,

    /// <summary>A fault of this program.</summary>
    InternalError = 8,

    /// <summary>The bridge: the user may not use the session, or not any more (revoked, expired, removed, replaced). Dialling again is of no use.</summary>
    NotAdmitted = 9,
}
