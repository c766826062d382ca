using System.Diagnostics;
using System.Net.Sockets;
using HdrHistogram;
using VTunnel.Bench.Candidates;
using VTunnel.Bench.Processes;

namespace VTunnel.Bench.Load;

/// <summary>What bulk transfers did in a window of time.</summary>
/// <param name="Bytes">Delivered in it, all streams together.</param>
/// <param name="Seconds">Its length.</param>
/// <param name="CpuSeconds">User plus system time of the candidate's processes.</param>
/// <param name="PerStream">Bytes of each stream.</param>
internal sealed record BulkSample(long Bytes, double Seconds, double CpuSeconds, long[] PerStream)
{
    public double MegabytesPerSecond => Bytes / 1e6 / Seconds;

    public double CpuSecondsPerGigabyte => CpuSeconds / (Bytes / 1e9);
}

/// <summary>The loads that scenarios are made of.</summary>
internal static class Loads
{
    /// <summary>What goes before every window, for windows of all layers to open.</summary>
    public static readonly TimeSpan Ramp = TimeSpan.FromMilliseconds(120);

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(1);

    /// <summary>Moves bytes over some streams at once and measures a window of it, while <paramref name="meanwhile"/> runs if it is given; it can ask how many bytes have arrived so far.</summary>
    public static BulkSample Bulk(
        Candidate candidate, LoadTarget target, Direction direction, int streams, TimeSpan window, TimeSpan? ramp = null, Action<Func<long>>? meanwhile = null)
    {
        var what = $"{candidate.Name}, {direction.ToString().ToLowerInvariant()}, {streams} streams";
        var begin = new ManualResetEventSlim();
        var bulk = Enumerable.Range(0, streams).Select(_ => new BulkStream(direction, begin)).ToArray();
        try
        {
            foreach (var stream in bulk)
                Attempt(what, () => stream.Start(target, candidate.VisitorPort));
            begin.Set();
            Pause(ramp ?? Ramp, bulk, what);

            var bytesBefore = Array.ConvertAll(bulk, stream => stream.Received);
            var cpuBefore = candidate.CpuTime();
            var started = Stopwatch.GetTimestamp();
            if (meanwhile is not null)
            {
                meanwhile(() => bulk.Sum(stream => stream.Received));
            }
            else
            {
                // A window that a busy machine leaves empty is made longer, rather than taken for a tunnel that moves nothing.
                var before = bytesBefore.Sum();
                do
                    Pause(window, bulk, what);
                while (bulk.Sum(stream => stream.Received) == before && Stopwatch.GetElapsedTime(started) < Patience);
            }

            var elapsed = Stopwatch.GetElapsedTime(started).TotalSeconds;
            var cpu = (candidate.CpuTime() - cpuBefore).TotalSeconds;
            var perStream = bulk.Select((stream, i) => stream.Received - bytesBefore[i]).ToArray();

            foreach (var stream in bulk)
                stream.Stop();
            foreach (var stream in bulk)
                stream.Finish(what);
            var bytes = perStream.Sum();
            return bytes > 0
                ? new BulkSample(bytes, elapsed, cpu, perStream)
                : throw new BenchException($"{what}: nothing arrived within {elapsed:0.0} s");
        }
        finally
        {
            begin.Set();
            foreach (var stream in bulk)
                stream.Dispose();
        }
    }

    /// <summary>Ping-pong of 64 bytes over one connection for a time; times in nanoseconds.</summary>
    public static LongHistogram Echo(Candidate candidate, TimeSpan window)
    {
        var what = $"{candidate.Name}, echo";
        var times = new LongHistogram(TimeSpan.FromSeconds(60).Ticks * 100, 3);
        Attempt(what, () =>
        {
            using var socket = LoadTarget.Connect(candidate.VisitorPort);
            Span<byte> sent = stackalloc byte[64];
            Span<byte> received = stackalloc byte[64];
            sent.Fill((byte)LoadKind.Echo);
            socket.Send(sent[..1]); // The kind; the target does not send it back.

            // The first few find caches cold and threads asleep.
            var started = Stopwatch.GetTimestamp();
            var isWarm = false;
            for (var i = 0L; !isWarm || Stopwatch.GetElapsedTime(started) < window; i++)
            {
                BitConverter.TryWriteBytes(sent, i);
                var before = Stopwatch.GetTimestamp();
                socket.Send(sent);
                for (var got = 0; got < sent.Length;)
                {
                    var count = socket.Receive(received[got..]);
                    if (count == 0)
                        throw new BenchException($"{what}: the connection ended");
                    got += count;
                }

                var time = Stopwatch.GetElapsedTime(before);
                if (!received.SequenceEqual(sent))
                    throw new BenchException($"{what}: what came back is not what was sent");
                if (isWarm)
                    times.RecordValue(Math.Max(1, time.Ticks * 100));
                else if (i == 32 || Stopwatch.GetElapsedTime(started) > window / 4)
                    (isWarm, started) = (true, Stopwatch.GetTimestamp());
            }
        });
        return times;
    }

    /// <summary>Connect, one byte each way, close, from as many threads as connect at once, for a time.</summary>
    /// <returns>Connections per second, and CPU seconds of the candidate for a thousand.</returns>
    public static (double PerSecond, double CpuSecondsPerThousand) Connects(Candidate candidate, int atOnce, TimeSpan window)
    {
        Exception? failure = null;
        var counts = new long[atOnce];
        var cpuBefore = candidate.CpuTime();
        var started = Stopwatch.GetTimestamp();
        var threads = Enumerable.Range(0, atOnce).Select(i => LoadTarget.Start("connect", () =>
        {
            try
            {
                Span<byte> one = stackalloc byte[1];
                while (Stopwatch.GetElapsedTime(started) < window)
                {
                    using var socket = LoadTarget.Connect(candidate.VisitorPort);
                    one[0] = (byte)LoadKind.OneByte;
                    socket.Send(one);
                    if (socket.Receive(one) != 1 || one[0] != (byte)LoadKind.OneByte)
                        throw new BenchException("a connection ended without its byte");
                    counts[i]++;
                }
            }
            catch (Exception e)
            {
                Interlocked.CompareExchange(ref failure, e, null);
            }
        })).ToArray();
        foreach (var thread in threads)
            thread.Join();
        var elapsed = Stopwatch.GetElapsedTime(started).TotalSeconds;
        var cpu = (candidate.CpuTime() - cpuBefore).TotalSeconds;
        if (failure is not null)
            throw new BenchException($"{candidate.Name}, connects: {failure.Message}", failure);
        return (counts.Sum() / elapsed, cpu / (counts.Sum() / 1e3));
    }

    /// <summary>Opens connections that have carried one byte each way and then stay open.</summary>
    public static Socket[] OpenIdle(Candidate candidate, int count)
    {
        var sockets = new Socket[count];
        Attempt($"{candidate.Name}, {count} idle streams", () =>
        {
            Span<byte> one = stackalloc byte[1];
            for (var i = 0; i < count; i++)
            {
                sockets[i] = LoadTarget.Connect(candidate.VisitorPort);
                one[0] = (byte)LoadKind.Idle;
                sockets[i].Send(one);
                if (sockets[i].Receive(one) != 1)
                    throw new BenchException($"stream {i + 1} was closed");
            }
        });
        return sockets;
    }

    /// <summary>Connects to every port and gets a byte through.</summary>
    public static void EachCarriesAByte(string what, IEnumerable<int> ports) => Attempt(what, () =>
    {
        Span<byte> one = stackalloc byte[1];
        foreach (var port in ports)
        {
            using var socket = LoadTarget.Connect(port);
            one[0] = (byte)LoadKind.OneByte;
            socket.Send(one);
            if (socket.Receive(one) != 1)
                throw new BenchException($"{what}: port {port} let nothing through");
        }
    });

    /// <summary>Names what failed.</summary>
    public static void Attempt(string what, Action work)
    {
        try
        {
            work();
        }
        catch (SocketException e)
        {
            throw new BenchException($"{what}: {e.Message}", e);
        }
    }

    /// <summary>Waits, and no longer than until something fails.</summary>
    private static void Pause(TimeSpan time, BulkStream[] bulk, string what)
    {
        var until = Stopwatch.GetTimestamp();
        while (time - Stopwatch.GetElapsedTime(until) is var left && left > TimeSpan.Zero)
        {
            Thread.Sleep(left < TimeSpan.FromMilliseconds(100) ? left : TimeSpan.FromMilliseconds(100));
            if (Array.Find(bulk, stream => stream.Failure is not null) is { } failed)
                throw new BenchException($"{what}: {failed.Failure!.Message}", failed.Failure);
        }
    }
}
