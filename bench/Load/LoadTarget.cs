using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace VTunnel.Bench.Load;

/// <summary>What a visitor asks the target for, in its first byte.</summary>
internal enum LoadKind : byte
{
    /// <summary>Two bytes of stream number follow; bytes flow as the stream says.</summary>
    Bulk = (byte)'b',

    /// <summary>Everything comes back.</summary>
    Echo = (byte)'e',

    /// <summary>This byte comes back, and that was it.</summary>
    OneByte = (byte)'1',

    /// <summary>This byte comes back, and the connection stays open.</summary>
    Idle = (byte)'i',

    /// <summary>The first letter of GET: each request is answered as <see cref="RequestLoad"/> expects it.</summary>
    Requests = (byte)'G',
}

/// <summary>
/// The target of every tunnel: source, sink and echo on one port of the bench's own process. Blocking sockets and a thread
/// for each busy connection: of all ways to move bytes in .NET the one that costs least, and it shares the processors with
/// what is measured.
/// </summary>
internal sealed class LoadTarget : IDisposable
{
    private const int AcceptorCount = 4;

    private readonly Socket _listener = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
    private readonly ConcurrentDictionary<int, BulkStream> _streams = new();
    private readonly ConcurrentBag<Socket> _idle = [];

    public LoadTarget()
    {
        _listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        _listener.Listen(4096);
        Port = ((IPEndPoint)_listener.LocalEndPoint!).Port;
        for (var i = 0; i < AcceptorCount; i++)
            Start($"target-{i}", Accept);
    }

    /// <summary>The port, on 127.0.0.1.</summary>
    public int Port { get; }

    /// <summary>Starts a thread that ends with the process at the latest.</summary>
    public static Thread Start(string name, Action work)
    {
        var thread = new Thread(() => work(), 256 * 1024) { IsBackground = true, Name = name };
        thread.Start();
        return thread;
    }

    /// <summary>Ports of this machine that are HTTP proxies, and the host and port that visitors ask them for.</summary>
    public static ConcurrentDictionary<int, string> Proxies { get; } = new();

    /// <summary>Opens a connection to a port of this machine, and through it where it is a proxy.</summary>
    public static Socket Connect(int port)
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true, ReceiveTimeout = 30_000, SendTimeout = 30_000 };
        try
        {
            socket.Connect(new IPEndPoint(IPAddress.Loopback, port));
            if (Proxies.TryGetValue(port, out var host))
                AskProxy(socket, host);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    private static void AskProxy(Socket socket, string host)
    {
        socket.Send(Encoding.ASCII.GetBytes($"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n"));

        // Byte by byte: what follows the head is not the proxy's.
        var head = new byte[1024];
        for (var length = 0; ; length++)
        {
            if (length == head.Length || socket.Receive(head.AsSpan(length, 1)) == 0)
                throw new BenchException($"the proxy gave no answer to CONNECT {host}");
            if (!head.AsSpan(0, length + 1).EndsWith("\r\n\r\n"u8))
                continue;
            if (!head.AsSpan().StartsWith("HTTP/1.1 200"u8))
                throw new BenchException($"the proxy refuses CONNECT {host}: {Encoding.ASCII.GetString(head, 0, length)}");
            return;
        }
    }

    /// <summary>Serves this stream when a connection with its number arrives.</summary>
    public void Expect(BulkStream stream) => _streams[stream.Number] = stream;

    /// <summary>Closes what idle visitors left.</summary>
    public void CloseIdle()
    {
        while (_idle.TryTake(out var socket))
            socket.Dispose();
    }

    public void Dispose()
    {
        _listener.Dispose();
        CloseIdle();
    }

    private void Accept()
    {
        Span<byte> head = stackalloc byte[3];
        while (true)
        {
            Socket socket;
            try
            {
                socket = _listener.Accept();
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                return; // The target was closed.
            }

            try
            {
                socket.NoDelay = true;
                socket.ReceiveTimeout = socket.SendTimeout = 30_000;
                Serve(socket, head);
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                // The visitor is the one that notices and says so.
                socket.Dispose();
            }
        }
    }

    private void Serve(Socket socket, Span<byte> head)
    {
        if (socket.Receive(head[..1]) == 0)
        {
            socket.Dispose();
            return;
        }

        switch ((LoadKind)head[0])
        {
            case LoadKind.OneByte:
                socket.Send(head[..1]);
                socket.Dispose();
                break;
            case LoadKind.Idle:
                socket.Send(head[..1]);
                _idle.Add(socket);
                break;
            case LoadKind.Echo:
                Start("echo", () => Echo(socket));
                break;
            case LoadKind.Requests:
                Start("requests", () => AnswerRequests(socket));
                break;
            case LoadKind.Bulk:
                var got = 0;
                while (got < 2 && socket.Receive(head.Slice(1 + got, 2 - got)) is > 0 and var count)
                    got += count;
                var number = (head[1] << 8) | head[2];
                if (got == 2 && _streams.TryRemove(number, out var stream))
                    stream.StartTarget(socket);
                else
                    socket.Dispose();
                break;
            default:
                socket.Dispose();
                break;
        }
    }

    /// <summary>Nobody sends a request before the last one was answered, so a head ends where the bytes do.</summary>
    private static void AnswerRequests(Socket socket)
    {
        var buffer = new byte[8192];
        var length = 0;
        try
        {
            while (socket.Receive(buffer.AsSpan(length)) is > 0 and var count)
            {
                length += count;
                if (!buffer.AsSpan(0, length).EndsWith("\r\n\r\n"u8))
                    continue;
                socket.Send(RequestLoad.Answer);
                length = 0;
            }
        }
        catch (SocketException)
        {
            // Whoever asked is done, or has asked nothing for long.
        }

        socket.Dispose();
    }

    private static void Echo(Socket socket)
    {
        var buffer = new byte[4096];
        try
        {
            while (socket.Receive(buffer) is > 0 and var count)
                socket.Send(buffer.AsSpan(0, count));
        }
        catch (SocketException)
        {
            // The visitor is done; not every tunnel tells that gently.
        }

        socket.Dispose();
    }
}
