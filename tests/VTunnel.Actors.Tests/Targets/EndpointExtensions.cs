using System.Net.Sockets;
using System.Text;
using VTunnel.Endpoints;

namespace VTunnel.Actors.Tests.Targets;

internal static class EndpointExtensions
{
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    /// <summary>The operation fails as one on a broken connection does; that it hangs is another failure.</summary>
    public static async Task AssertBrokenAsync(Func<Task> operation)
    {
        var e = await Record.ExceptionAsync(operation);
        Assert.True(e is IOException or SocketException or ObjectDisposedException, $"Expected a broken connection, got {e?.ToString() ?? "success"}.");
    }

    public static async Task SendTextAsync(this StreamEndpoint endpoint, string text) =>
        await endpoint.SendAsync(Encoding.Latin1.GetBytes(text)).AsTask().WaitAsync(Patience);

    /// <summary>Receives until <paramref name="end"/> or the end of the stream.</summary>
    public static async Task<string> ReceiveUntilAsync(this StreamEndpoint endpoint, string end)
    {
        var text = new StringBuilder();
        var buffer = new byte[1];
        while (text.Length < end.Length || text.ToString(text.Length - end.Length, end.Length) != end)
        {
            if (await endpoint.ReceiveAsync(buffer).AsTask().WaitAsync(Patience) == 0)
                break;
            text.Append((char)buffer[0]);
        }

        return text.ToString();
    }

    public static async Task<byte[]> ReceiveExactlyAsync(this StreamEndpoint endpoint, int count)
    {
        var bytes = new byte[count];
        for (var got = 0; got < count;)
        {
            var read = await endpoint.ReceiveAsync(bytes.AsMemory(got)).AsTask().WaitAsync(Patience);
            if (read == 0)
                throw new EndOfStreamException($"The stream ended after {got} of {count} bytes.");
            got += read;
        }

        return bytes;
    }

    public static async Task<string> ReceiveToEndAsync(this StreamEndpoint endpoint)
    {
        var text = new StringBuilder();
        var buffer = new byte[4096];
        while (await endpoint.ReceiveAsync(buffer).AsTask().WaitAsync(Patience) is var read and > 0)
            text.Append(Encoding.Latin1.GetString(buffer, 0, read));
        return text.ToString();
    }

    /// <summary>One HTTP response: the head as it came and the body as Content-Length has it.</summary>
    public static async Task<(string Head, string Body)> ReceiveResponseAsync(this StreamEndpoint endpoint)
    {
        var head = await endpoint.ReceiveUntilAsync("\r\n\r\n");
        var length = head.Split("\r\n")
            .Where(line => line.StartsWith("Content-Length:", StringComparison.OrdinalIgnoreCase))
            .Select(line => int.Parse(line["Content-Length:".Length..], System.Globalization.CultureInfo.InvariantCulture))
            .FirstOrDefault();
        return (head, Encoding.Latin1.GetString(await endpoint.ReceiveExactlyAsync(length)));
    }
}
