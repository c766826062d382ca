namespace VTunnel.Protocol.Control;

/// <summary>What a stream is opened for.</summary>
/// <param name="Port">The listened port that the visitor came to, 1 to 65535.</param>
/// <param name="Remote">The visitor's address, for the far side's logs; v1 does not carry it.</param>
/// <param name="Host">The bridge: the host of the target that is asked for, whose port is <paramref name="Port"/>; null elsewhere. v1 does not carry it.</param>
public readonly record struct StreamRequest(int Port, string? Remote = null, string? Host = null);
