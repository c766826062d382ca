using System.Collections.Concurrent;
using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Cryptography.X509Certificates;
using VTunnel.Routing;

namespace VTunnel.Actors.Tests.Targets;

/// <summary>A TLS server on a free port of 127.0.0.1 that hands each connection to the test.</summary>
internal sealed class TlsServer : IAsyncDisposable
{
    private readonly Socket _listener = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
    private readonly CancellationTokenSource _stop = new();
    private readonly ConcurrentBag<Task> _connections = [];
    private readonly Task _accepting;
    private int _accepted;

    public TlsServer(
        X509Certificate2 certificate, Func<SslStream, Socket, Task> serve, params SslApplicationProtocol[] protocols)
    {
        _listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        _listener.Listen();
        _accepting = AcceptAsync(new SslServerAuthenticationOptions
        {
            ServerCertificate = certificate,
            ApplicationProtocols = protocols.Length == 0 ? null : [.. protocols],
        }, serve);
    }

    public int Port => ((IPEndPoint)_listener.LocalEndPoint!).Port;

    public ForwardTarget Target => new(TargetScheme.Tls, "localhost", Port);

    /// <summary>Connections that were accepted, failed handshakes included.</summary>
    public int Accepted => Volatile.Read(ref _accepted);

    /// <summary>Completes when every connection that was accepted so far is over.</summary>
    public Task WhenEndedAsync() => Task.WhenAll(_connections);

    /// <summary>Serves every connection by answering each chunk with itself, until the end.</summary>
    public static async Task EchoAsync(SslStream stream, Socket socket)
    {
        var buffer = new byte[16 * 1024];
        while (await stream.ReadAsync(buffer) is var read and > 0)
            await stream.WriteAsync(buffer.AsMemory(0, read));
        await stream.ShutdownAsync();
    }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        _listener.Dispose();
        await _accepting.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        try
        {
            // What a test asserts while it serves is not lost.
            await Task.WhenAll(_connections).WaitAsync(EndpointExtensions.Patience);
        }
        catch (TimeoutException)
        {
            // One waits for what the test was to do: the test has failed before that, and says why.
        }
        finally
        {
            _stop.Dispose();
        }
    }

    private async Task AcceptAsync(SslServerAuthenticationOptions options, Func<SslStream, Socket, Task> serve)
    {
        while (true)
        {
            var socket = await _listener.AcceptAsync(_stop.Token);
            Interlocked.Increment(ref _accepted);
            _connections.Add(ServeAsync(socket, options, serve));
        }
    }

    private async Task ServeAsync(Socket socket, SslServerAuthenticationOptions options, Func<SslStream, Socket, Task> serve)
    {
        using var _ = socket;
        // What a test's server cannot finish when the test is over is no failure; the test asserts on what it saw.
        await using var stopping = _stop.Token.UnsafeRegister(static s => ((Socket)s!).Dispose(), socket);
        try
        {
            await using var tls = new SslStream(new NetworkStream(socket));
            await tls.AuthenticateAsServerAsync(options, _stop.Token);
            await serve(tls, socket);
        }
        catch (Exception e) when (e is IOException or ObjectDisposedException or OperationCanceledException or SocketException
            or System.Security.Authentication.AuthenticationException)
        {
            // The client left.
        }
    }
}
