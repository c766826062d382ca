namespace VTunnel.Targets;

/// <summary>A target could not be reached. Ends the one stream that wanted it, and nothing else.</summary>
public sealed class TargetException : Exception
{
    /// <summary>Makes one.</summary>
    public TargetException(TargetError code, string message)
        : base(message) => Code = code;

    /// <summary>Makes one with its cause.</summary>
    public TargetException(TargetError code, string message, Exception? inner)
        : base(message, inner) => Code = code;

    /// <summary>What went wrong; branch on this, never on the text.</summary>
    public TargetError Code { get; }
}

/// <summary>Numbered reasons why a target cannot be reached. A number is never used for anything else later.</summary>
public enum TargetError
{
    /// <summary>Not an error.</summary>
    None = 0,

    /// <summary>The name does not resolve to an address.</summary>
    NameNotFound = 1,

    /// <summary>Nobody listens on the port.</summary>
    ConnectionRefused = 2,

    /// <summary>No route to the host or its network.</summary>
    Unreachable = 3,

    /// <summary>Connecting, the TLS handshake included, took longer than the timeout.</summary>
    TimedOut = 4,

    /// <summary>Connecting failed in another way; the message carries the system's reason.</summary>
    ConnectFailed = 5,

    /// <summary>The TLS handshake failed for another reason than the certificate.</summary>
    TlsHandshakeFailed = 6,

    /// <summary>The target's certificate is not acceptable.</summary>
    CertificateRejected = 7,

    /// <summary>The file of trusted certificates cannot be used.</summary>
    CertificateAuthorityFileInvalid = 8,
}
