using System.Net.Sockets;
using System.Security.Cryptography;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Bridge;

/// <summary>A transfer to an echo and back that goes on at full speed until the test has done what it wanted to do meanwhile.</summary>
internal sealed class OpenTransfer : IDisposable
{
    private const int ChunkBytes = 128 * 1024;

    private readonly TcpClient _client;
    private readonly NetworkStream _stream;
    private readonly CancellationTokenSource _enough = new();
    private readonly Task<Digest> _sending;
    private readonly Task<Digest> _receiving;
    private readonly SemaphoreSlim _moved = new(0);
    private long _received;

    private OpenTransfer(TcpClient client)
    {
        (_client, _stream) = (client, client.GetStream());
        _sending = SendAsync();
        _receiving = ReceiveAsync();
    }

    /// <summary>Begins one over a local port, and waits until it is in full flow.</summary>
    public static async Task<OpenTransfer> StartAsync(int port)
    {
        var transfer = new OpenTransfer(await Payload.ConnectAsync(port));
        await transfer.WaitForProgressAsync();
        return transfer;
    }

    /// <summary>Waits until some more has come back.</summary>
    /// <exception cref="EndOfStreamException">The connection broke, or ended.</exception>
    public async Task WaitForProgressAsync()
    {
        using var deadline = new CancellationTokenSource(TestTimeouts.Step);
        for (var goal = Interlocked.Read(ref _received) + 3_000_000; Interlocked.Read(ref _received) < goal;)
        {
            var moved = _moved.WaitAsync(deadline.Token);
            if (await Task.WhenAny(moved, _receiving) == _receiving)
                throw new EndOfStreamException($"The transfer ended after {Interlocked.Read(ref _received)} bytes.", _receiving.Exception);
            await moved;
        }
    }

    /// <summary>It is enough: everything that was sent has to come back, as it was.</summary>
    public async Task FinishAsync()
    {
        await _enough.CancelAsync();
        var sent = await _sending.WaitAsync(TestTimeouts.Step);
        Assert.Equal(sent, await _receiving.WaitAsync(TestTimeouts.Long));
    }

    /// <summary>Waits until the connection breaks, as it must. Of the two that use it one is told, and the other finds it at its end.</summary>
    public async Task BreaksAsync() => await Assert.ThrowsAnyAsync<IOException>(() => Task.WhenAll(_sending, _receiving).WaitAsync(TestTimeouts.Step));

    private async Task<Digest> SendAsync()
    {
        await Task.Yield();
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var buffer = new byte[ChunkBytes];
        long sent = 0;
        for (; !_enough.IsCancellationRequested; sent += buffer.Length)
        {
            Random.Shared.NextBytes(buffer);
            hash.AppendData(buffer);
            await _stream.WriteAsync(buffer);
        }

        _client.Client.Shutdown(SocketShutdown.Send);
        return new Digest(sent, Convert.ToHexString(hash.GetHashAndReset()));
    }

    private async Task<Digest> ReceiveAsync()
    {
        await Task.Yield();
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var buffer = new byte[ChunkBytes];
        while (await _stream.ReadAsync(buffer) is > 0 and var count)
        {
            hash.AppendData(buffer, 0, count);
            Interlocked.Add(ref _received, count);
            if (_moved.CurrentCount == 0)
                _moved.Release();
        }

        return new Digest(_received, Convert.ToHexString(hash.GetHashAndReset()));
    }

    public void Dispose()
    {
        _enough.Cancel();
        _enough.Dispose();
        _client.Dispose();
    }
}
