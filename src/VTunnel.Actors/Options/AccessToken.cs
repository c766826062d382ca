namespace VTunnel.Options;

/// <summary>A token that opens sessions, known by its hash alone.</summary>
/// <param name="Name">For logs; never secret.</param>
/// <param name="Sha256">SHA-256 of the UTF-8 token, 32 bytes.</param>
/// <param name="Ports">The ports it may listen on; empty means every port.</param>
public sealed record AccessToken(string Name, ReadOnlyMemory<byte> Sha256, IReadOnlyList<PortRange> Ports)
{
    /// <summary>Whether a session opened with this token may listen on <paramref name="port"/>.</summary>
    public bool Allows(int port) => Ports.Count == 0 || Ports.Any(range => range.Contains(port));

    /// <inheritdoc />
    public override string ToString() => $"token '{Name}'";
}

/// <summary>Ports from <paramref name="First"/> to <paramref name="Last"/>, both included.</summary>
public readonly record struct PortRange(int First, int Last)
{
    /// <summary>Whether <paramref name="port"/> is one of them.</summary>
    public bool Contains(int port) => port >= First && port <= Last;

    /// <inheritdoc />
    public override string ToString() => First == Last ? $"{First}" : $"{First}-{Last}";
}
