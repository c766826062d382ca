using System.Buffers;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using VTunnel.Bench.Load;

namespace VTunnel.Bench.Children;

/// <summary>
/// A line with a round trip: everything arrives half of it later, at whatever rate it was sent. What is under way is
/// bounded only by <see cref="MaxUnderWayBytes"/>, which is far above what any window here allows.
/// </summary>
internal static class DelayLineHelper
{
    private const int BufferBytes = 128 * 1024;
    private const long MaxUnderWayBytes = 512 * 1024 * 1024;

    public static int Run(int targetPort, TimeSpan roundTrip)
    {
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen(64);
        Console.WriteLine($"listening on {((IPEndPoint)listener.LocalEndPoint!).Port}");
        while (true)
        {
            var near = listener.Accept();
            try
            {
                var far = LoadTarget.Connect(targetPort);
                near.NoDelay = true;
                near.ReceiveTimeout = near.SendTimeout = far.ReceiveTimeout = far.SendTimeout = 0;
                new Way(near, far, roundTrip / 2).Start();
                new Way(far, near, roundTrip / 2).Start();
            }
            catch (SocketException)
            {
                near.Dispose();
            }
        }
    }

    private sealed class Way(Socket from, Socket to, TimeSpan delay)
    {
        private readonly Queue<(long Arrived, byte[] Buffer, int Count)> _underWay = new();
        private readonly object _lock = new();
        private long _bytes;

        public void Start()
        {
            LoadTarget.Start("delay-in", Receive);
            LoadTarget.Start("delay-out", Send);
        }

        private void Receive()
        {
            while (true)
            {
                var buffer = ArrayPool<byte>.Shared.Rent(BufferBytes);
                int count;
                try
                {
                    count = from.Receive(buffer);
                }
                catch (Exception e) when (e is SocketException or ObjectDisposedException)
                {
                    count = 0;
                }

                lock (_lock)
                {
                    while (_bytes > MaxUnderWayBytes)
                        Monitor.Wait(_lock);
                    _bytes += count;
                    _underWay.Enqueue((Stopwatch.GetTimestamp(), buffer, count));
                    Monitor.PulseAll(_lock);
                }

                if (count == 0)
                    return;
            }
        }

        private void Send()
        {
            while (true)
            {
                long arrived;
                byte[] buffer;
                int count;
                lock (_lock)
                {
                    while (_underWay.Count == 0)
                        Monitor.Wait(_lock);
                    (arrived, buffer, count) = _underWay.Dequeue();
                    _bytes -= count;
                    Monitor.PulseAll(_lock);
                }

                if (delay - Stopwatch.GetElapsedTime(arrived) is var left && left > TimeSpan.Zero)
                    Thread.Sleep(left + TimeSpan.FromMilliseconds(0.5));
                try
                {
                    if (count == 0)
                    {
                        to.Shutdown(SocketShutdown.Send);
                        return;
                    }

                    for (var sent = 0; sent < count;)
                        sent += to.Send(buffer.AsSpan(sent, count - sent));
                }
                catch (Exception e) when (e is SocketException or ObjectDisposedException)
                {
                    // The receiver is gone: so is the line.
                    from.Dispose();
                    to.Dispose();
                    return;
                }

                ArrayPool<byte>.Shared.Return(buffer);
            }
        }
    }
}
