using System.Net;
using System.Net.Sockets;

namespace VTunnel.Bench.Load;

/// <summary>A line between client and server that can be cut: both ends get a reset, and the next connection goes through.</summary>
internal sealed class CutLine : IDisposable
{
    private const int BufferBytes = 256 * 1024;

    private readonly Socket _listener = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
    private readonly Lock _lock = new();
    private readonly List<Socket> _sockets = [];
    private readonly int _targetPort;

    public CutLine(int targetPort)
    {
        _targetPort = targetPort;
        _listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        _listener.Listen(16);
        Port = ((IPEndPoint)_listener.LocalEndPoint!).Port;
        LoadTarget.Start("line", Accept);
    }

    public int Port { get; }

    /// <summary>Cuts every connection that there is.</summary>
    public void Cut()
    {
        lock (_lock)
        {
            foreach (var socket in _sockets)
            {
                socket.LingerState = new LingerOption(true, 0);
                socket.Close();
            }

            _sockets.Clear();
        }
    }

    public void Dispose()
    {
        _listener.Dispose();
        Cut();
    }

    private void Accept()
    {
        while (true)
        {
            Socket near;
            Socket far;
            try
            {
                near = _listener.Accept();
                far = LoadTarget.Connect(_targetPort);
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                return; // Either end is gone for good.
            }

            near.NoDelay = true;
            near.ReceiveTimeout = near.SendTimeout = far.ReceiveTimeout = far.SendTimeout = 0;
            lock (_lock)
                _sockets.AddRange([near, far]);
            LoadTarget.Start("line-there", () => Copy(near, far));
            LoadTarget.Start("line-back", () => Copy(far, near));
        }
    }

    private static void Copy(Socket from, Socket to)
    {
        var buffer = new byte[BufferBytes];
        try
        {
            while (from.Receive(buffer) is > 0 and var count)
            {
                for (var sent = 0; sent < count;)
                    sent += to.Send(buffer.AsSpan(sent, count - sent));
            }

            to.Shutdown(SocketShutdown.Send);
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // Cut, or one of the ends is gone.
        }
    }
}
