using System.Net.Sockets;

namespace VTunnel.Diagnostics;

/// <summary>Each connection is an open file at either end, and the system allows a process so many.</summary>
internal static class OpenFiles
{
    /// <summary>What to say of a failed accept or connect: the system's words, or what to do where it has run out of files.</summary>
    public static string Explain(Exception cause) => cause is SocketException { SocketErrorCode: SocketError.TooManyOpenSockets }
        ? "too many open files; each connection takes one, so raise the hard limit (LimitNOFILE= of a systemd unit, ulimit -Hn of a shell) or lower --max-streams"
        : cause.Message;
}
