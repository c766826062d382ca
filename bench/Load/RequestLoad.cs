using System.Diagnostics;
using System.Net.Security;
using System.Net.Sockets;
using System.Text;
using VTunnel.Bench.Candidates;

namespace VTunnel.Bench.Load;

/// <summary>A way for requests to the load target.</summary>
/// <param name="Port">Whom the visitor connects to, on 127.0.0.1.</param>
/// <param name="Url">What the request line names: a whole URL for a proxy, a path for anyone else.</param>
/// <param name="Host">The host that it is for.</param>
/// <param name="IsTls">Whether the visitor speaks TLS.</param>
internal sealed record RequestRoute(int Port, string Url, string Host, bool IsTls = false);

/// <summary>Visitors who send one request after the other over connections that stay open, as many at once as there are connections.</summary>
internal static class RequestLoad
{
    private const int Connections = 16;
    private const int BodyBytes = 1024;
    private static readonly TimeSpan Ramp = TimeSpan.FromSeconds(0.5);

    private static readonly byte[] Body = MakeBody();

    /// <summary>What the target sends for each request: a kilobyte, and a head as short as they come.</summary>
    public static readonly byte[] Answer = [.. Encoding.ASCII.GetBytes($"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {BodyBytes}\r\n\r\n"), .. Body];

    /// <summary>Measures a window of it.</summary>
    /// <returns>Requests per second, and processor time of the candidate in ms for each.</returns>
    public static (double PerSecond, double CpuMilliseconds) Run(Candidate candidate, string what, RequestRoute route, TimeSpan window)
    {
        Exception? failure = null;
        var isOver = false;
        var counts = new long[Connections];
        var threads = Enumerable.Range(0, Connections).Select(i => LoadTarget.Start("requests", () =>
        {
            try
            {
                using var socket = LoadTarget.Connect(route.Port);
                using var stream = Open(socket, route);
                var request = Encoding.ASCII.GetBytes($"GET {route.Url} HTTP/1.1\r\nHost: {route.Host}\r\nAccept: */*\r\n\r\n");
                var buffer = new byte[8192];
                while (!Volatile.Read(ref isOver))
                {
                    stream.Write(request);
                    ReadAnswer(stream, buffer);
                    Volatile.Write(ref counts[i], counts[i] + 1);
                }
            }
            catch (Exception e)
            {
                Interlocked.CompareExchange(ref failure, e, null);
            }
        })).ToArray();
        Thread.Sleep(Ramp);
        var (before, cpuBefore, started) = (counts.Sum(), candidate.CpuTime(), Stopwatch.GetTimestamp());
        Thread.Sleep(window);
        var (after, cpuAfter, elapsed) = (counts.Sum(), candidate.CpuTime(), Stopwatch.GetElapsedTime(started).TotalSeconds);
        Volatile.Write(ref isOver, true);
        foreach (var thread in threads)
            thread.Join();
        if (failure is not null)
            throw new BenchException($"{candidate.Name}, {what}: {failure.Message}", failure);
        return after > before
            ? ((after - before) / elapsed, (cpuAfter - cpuBefore).TotalMilliseconds / (after - before))
            : throw new BenchException($"{candidate.Name}, {what}: no request was answered within {elapsed:0.0} s");
    }

    private static Stream Open(Socket socket, RequestRoute route)
    {
        var stream = new NetworkStream(socket, ownsSocket: false);
        if (!route.IsTls)
            return stream;

        // What is measured is not whose certificate it is.
#pragma warning disable CA5359
        var tls = new SslStream(stream, leaveInnerStreamOpen: false, static (_, _, _, _) => true);
#pragma warning restore CA5359
        tls.AuthenticateAsClient(new SslClientAuthenticationOptions { TargetHost = route.Host.Split(':')[0], ApplicationProtocols = [SslApplicationProtocol.Http11] });
        return tls;
    }

    private static void ReadAnswer(Stream stream, byte[] buffer)
    {
        var length = 0;
        var end = -1;
        while (end < 0 || length < end + BodyBytes)
        {
            var count = stream.Read(buffer, length, buffer.Length - length);
            if (count == 0)
                throw new BenchException($"an answer broke off: {Encoding.ASCII.GetString(buffer, 0, length)}");
            length += count;
            if (end < 0 && buffer.AsSpan(0, length).IndexOf("\r\n\r\n"u8) is >= 0 and var found)
                end = found + 4;
        }

        if (!buffer.AsSpan().StartsWith("HTTP/1.1 200"u8) || length != end + BodyBytes || !buffer.AsSpan(end, BodyBytes).SequenceEqual(Body))
            throw new BenchException($"an answer is not the target's: {Encoding.ASCII.GetString(buffer, 0, Math.Min(length, 300))}");
    }

    private static byte[] MakeBody()
    {
        var body = new byte[BodyBytes];
        for (var i = 0; i < body.Length; i++)
            body[i] = (byte)('a' + (i % 26));
        return body;
    }
}
