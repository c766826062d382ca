using System.Net.Sockets;
using System.Security.Cryptography;

namespace VTunnel.Testing.Network;

/// <summary>Bytes that passed, known by their number and SHA-256.</summary>
/// <param name="Length">How many.</param>
/// <param name="Sha256">Their hash in hex.</param>
public sealed record Digest(long Length, string Sha256);

/// <summary>Moves random bytes over streams without holding them, and tells what they were.</summary>
public static class Payload
{
    private const int ChunkBytes = 128 * 1024;

    /// <summary>Sends random bytes.</summary>
    public static async Task<Digest> SendRandomAsync(Stream stream, long length, CancellationToken cancellationToken = default)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var buffer = new byte[ChunkBytes];
        for (var left = length; left > 0;)
        {
            // Pieces of uneven length, so that no boundary here falls together with one of the tunnel.
            var piece = buffer.AsMemory(0, (int)Math.Min(left, Random.Shared.Next(1, ChunkBytes + 1)));
            Random.Shared.NextBytes(piece.Span);
            hash.AppendData(piece.Span);
            await stream.WriteAsync(piece, cancellationToken).ConfigureAwait(false);
            left -= piece.Length;
        }

        return new Digest(length, Convert.ToHexString(hash.GetHashAndReset()));
    }

    /// <summary>Receives until the end, or until <paramref name="length"/> bytes are there.</summary>
    public static async Task<Digest> ReceiveAsync(Stream stream, long length = long.MaxValue, CancellationToken cancellationToken = default)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var buffer = new byte[ChunkBytes];
        long received = 0;
        while (received < length)
        {
            var count = await stream.ReadAsync(buffer.AsMemory(0, (int)Math.Min(buffer.Length, length - received)), cancellationToken)
                .ConfigureAwait(false);
            if (count == 0)
                break;
            hash.AppendData(buffer, 0, count);
            received += count;
        }

        return new Digest(received, Convert.ToHexString(hash.GetHashAndReset()));
    }

    /// <summary>Sends and receives <paramref name="length"/> bytes at the same time over one connection.</summary>
    public static async Task<(Digest Sent, Digest Received)> ExchangeAsync(Stream stream, long length, CancellationToken cancellationToken = default)
    {
        var sending = SendRandomAsync(stream, length, cancellationToken);
        var receiving = ReceiveAsync(stream, length, cancellationToken);
        await Task.WhenAll(sending, receiving).ConfigureAwait(false);
        return (await sending.ConfigureAwait(false), await receiving.ConfigureAwait(false));
    }

    /// <summary>Sends random bytes over a connection that echoes and compares what comes back.</summary>
    /// <exception cref="EndOfStreamException">The connection ended early.</exception>
    /// <exception cref="InvalidDataException">Something else came back.</exception>
    public static async Task EchoAsync(Stream stream, long length, CancellationToken cancellationToken = default)
    {
        var (sent, received) = await ExchangeAsync(stream, length, cancellationToken).ConfigureAwait(false);
        if (received.Length < length)
            throw new EndOfStreamException($"{received.Length} of {length} bytes came back");
        if (sent != received)
            throw new InvalidDataException($"sent {sent}, received {received}");
    }

    /// <summary>Connects to a loopback port.</summary>
    public static async Task<TcpClient> ConnectAsync(int port, CancellationToken cancellationToken = default)
    {
        var client = new TcpClient(AddressFamily.InterNetwork) { NoDelay = true };
        try
        {
            await client.ConnectAsync(System.Net.IPAddress.Loopback, port, cancellationToken).ConfigureAwait(false);
            return client;
        }
        catch
        {
            client.Dispose();
            throw;
        }
    }

    /// <summary>Connects, has <paramref name="length"/> bytes echoed and ends the connection.</summary>
    public static async Task EchoOnceAsync(int port, long length = 1000, CancellationToken cancellationToken = default)
    {
        using var client = await ConnectAsync(port, cancellationToken).ConfigureAwait(false);
        await EchoAsync(client.GetStream(), length, cancellationToken).ConfigureAwait(false);
    }
}
