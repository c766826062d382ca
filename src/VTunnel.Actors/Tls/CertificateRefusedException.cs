using System.Security.Authentication;

namespace VTunnel.Tls;

/// <summary>A far end's certificate was refused; the message says why.</summary>
internal sealed class CertificateRefusedException(string message) : AuthenticationException(message);
