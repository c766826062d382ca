using System.Net.Sockets;
using System.Security.Cryptography;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Support;

/// <summary>Sends random bytes over a connection until it is told to stop, and tells when backpressure has stopped it.</summary>
public sealed class StallingWriter
{
    /// <summary>
    /// A writer that got no further for so long counts as stopped. One that is taken for stopped too early has only sent less.
    /// </summary>
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(0.5);

    /// <summary>
    /// What may be under way between a writer and a reader that does not read: four sockets with buffers of several MiB each,
    /// and a little more than a MiB in each of the two tunnel ends.
    /// </summary>
    public const long BoundedBytes = 64L * 1024 * 1024;

    private readonly Task<Digest> _writing;
    private long _sent;
    private volatile bool _stopped;

    private StallingWriter(TcpClient client) => _writing = WriteAsync(client.GetStream());

    public static StallingWriter Start(TcpClient client) => new(client);

    /// <summary>Waits until nothing more can be sent, and gives how much was.</summary>
    public async Task<long> WaitForStallAsync()
    {
        using var clock = new PeriodicTimer(Patience);
        for (long before = -1; Interlocked.Read(ref _sent) is var sent && sent != before && sent <= BoundedBytes; before = sent)
        {
            await clock.WaitForNextTickAsync();
            if (_writing.IsCompleted)
                await _writing;
        }

        return Interlocked.Read(ref _sent);
    }

    /// <summary>Ends after the send under way, for which somebody has to read, and tells what was sent.</summary>
    public Task<Digest> StopAsync()
    {
        _stopped = true;
        return _writing.WaitAsync(TestTimeouts.Step);
    }

    private async Task<Digest> WriteAsync(NetworkStream stream)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var chunk = new byte[64 * 1024];
        while (!_stopped && _sent <= BoundedBytes)
        {
            Random.Shared.NextBytes(chunk);
            await stream.WriteAsync(chunk);
            hash.AppendData(chunk);
            Interlocked.Add(ref _sent, chunk.Length);
        }

        return new Digest(_sent, Convert.ToHexString(hash.GetHashAndReset()));
    }
}
