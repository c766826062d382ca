
namespace VTunnel.Protocol.Control;

/// <summary>What the two ends of a session say about listeners; the same vocabulary in v1 and v2.</summary>
public abstract record ControlMessage;

/// <summary>Client to server: listen on <paramref name="Port"/> for me.</summary>
/// <param name="Port">1 to 65535 to be granted; a peer may ask for anything, and is answered <see cref="ListenErr"/>.</param>
/// <param name="LocalAddr">The client's target as its user wrote it, e.g. <c>gitlab.example.com:443</c>; for routing and logs.</param>
/// <param name="Domain">v2 only: a host pattern, with a port or without, that a proxy on the server is to route here. No TCP port is opened then, and
/// <paramref name="Port"/> is a number above <see cref="StreamRequest.MaxTcpPort"/> that the client has chosen.</param>
public sealed record Listen(int Port, string? LocalAddr = null, string? Domain = null) : ControlMessage;

/// <summary>Server to client: the port is open.</summary>
public sealed record ListenOk(int Port) : ControlMessage;

/// <summary>Server to client: the port is not open, and why.</summary>
public sealed record ListenErr(int Port, string Error) : ControlMessage;

/// <summary>Both ways, v2 only, the first message of each side: who it is and what it can do beyond the base protocol.</summary>
/// <param name="Agent">The program, e.g. <c>vtunnel</c>.</param>
/// <param name="Version">Its version, for logs; never branch on it.</param>
/// <param name="Capabilities">Names of optional features; unknown ones are ignored.</param>
public sealed record Hello(string Agent, string Version, IReadOnlyList<string> Capabilities) : ControlMessage;

/// <summary>
/// Both ways, in sessions of the bridge: a message whose type begins with <see cref="TypePrefix"/>, as it stands on its line.
/// Only the bridge reads it; everyone else ignores it, like any type that is not known.
/// </summary>
/// <param name="Json">One JSON object without a newline.</param>
public sealed record BridgeLine(ReadOnlyMemory<byte> Json) : ControlMessage
{
    /// <summary>How the types of the bridge begin: <c>bridge_</c>.</summary>
    public const string TypePrefix = "bridge_";
}
