using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Text;
using CliWrap.Buffered;
using Microsoft.AspNetCore.Builder;
using VTunnel.Hosting;
using VTunnel.Options;
using VTunnel.Routing;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Support;

/// <summary>A server with a proxy and a client that forwards, in the test's own process.</summary>
internal sealed class ProxyPair : IAsyncDisposable
{
    private ProxyPair(TunnelHost host, TunnelClient client)
    {
        Host = host;
        Client = client;
    }

    public TunnelHost Host { get; }

    public TunnelClient Client { get; }

    public int Port => Host.ProxyAddress.Port;

    public string Url => $"http://127.0.0.1:{Port}";

    /// <param name="forwards">As a user writes them.</param>
    /// <param name="proxy">Changes the proxy's options; <c>direct.test</c> is 127.0.0.1 for it.</param>
    /// <param name="client">Changes the client's options.</param>
    /// <param name="protocol">What the client offers.</param>
    /// <param name="server">Changes the server's options.</param>
    /// <param name="extend">Adds to the server's host.</param>
    public static async Task<ProxyPair> StartAsync(
        string[] forwards,
        Action<ProxyOptions>? proxy = null,
        Action<TunnelClientOptions>? client = null,
        ProtocolPreference protocol = ProtocolPreference.V2,
        Action<TunnelServerOptions>? server = null,
        Action<WebApplicationBuilder>? extend = null)
    {
        var options = new ProxyOptions { Addresses = [new HostAddress("direct.test", IPAddress.Loopback)] };
        proxy?.Invoke(options);
        var host = await TunnelHost.StartAsync(all =>
        {
            all.Proxy = options;
            server?.Invoke(all);
        }, extend: extend);
        var pair = new ProxyPair(host, await host.ConnectAsync(all =>
        {
            all.Protocol = protocol;
            client?.Invoke(all);
        }));
        foreach (var forward in forwards)
            await pair.Client.ListenAsync(ForwardRule.Parse(forward)).WaitAsync(TestTimeouts.Step);

        // Over v1 a domain is several ports, of which the first one answers.
        foreach (var forward in forwards)
            await pair.WaitForRouteAsync(forward.Split('=')[0]);
        return pair;
    }

    /// <summary>Forwards a domain, too, and waits until it is routed.</summary>
    public async Task ListenAsync(ForwardRule rule)
    {
        await Client.ListenAsync(rule).WaitAsync(TestTimeouts.Step);
        await WaitForRouteAsync(rule.Source);
    }

    /// <summary>Runs curl through the proxy; a failure of curl itself fails the test.</summary>
    public async Task<string> CurlAsync(params string[] arguments) => (await Tools.RunAsync("curl", ["-sS", "-x", Url, .. arguments])).StandardOutput;

    public Task<BufferedCommandResult> TryCurlAsync(params string[] arguments) => Tools.TryRunAsync("curl", ["-sS", "-x", Url, .. arguments]);

    /// <summary>Connects to the proxy.</summary>
    public async Task<RawConnection> ConnectAsync() => new(await Payload.ConnectAsync(Port));

    private async Task WaitForRouteAsync(string source)
    {
        if (!HostPattern.TryParse(source, out var pattern, out _))
            return;
        foreach (var port in pattern.Port is { } only ? [only] : new[] { 80, 443 })
        {
            await Host.Log.Lines.WaitForAsync(
                line => line.Contains($"the proxy routes {pattern} ", StringComparison.Ordinal) || line.EndsWith($" for {pattern with { Port = port }}", StringComparison.Ordinal),
                $"the route of {pattern}");
        }
    }

    public async ValueTask DisposeAsync()
    {
        await Client.DisposeAsync();
        await Host.DisposeAsync();
    }
}

/// <summary>A connection on which a test writes what it likes.</summary>
internal sealed class RawConnection : IDisposable
{
    private readonly TcpClient _client;
    private readonly Stream _stream;
    private readonly MemoryStream _rest = new();

    // GetStream throws once the sending direction is shut down.
    public RawConnection(TcpClient client)
        : this(client, client.GetStream())
    {
    }

    private RawConnection(TcpClient client, Stream stream)
    {
        _client = client;
        _stream = stream;
    }

    public Stream Stream => _stream;

    /// <summary>Asks a proxy for a host and begins TLS inside, whoever shows which certificate; dispose what comes back instead of this one.</summary>
    public async Task<RawConnection> ConnectTlsAsync(string host, int port = 443, string protocol = "http/1.1")
    {
        await WriteAsync($"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
        var answer = await ReadUntilAsync("\r\n\r\n");
        Assert.StartsWith("HTTP/1.1 200", answer, StringComparison.Ordinal);
        var tls = new SslStream(_stream);
        await tls.AuthenticateAsClientAsync(new SslClientAuthenticationOptions
        {
            TargetHost = host,
            ApplicationProtocols = [new SslApplicationProtocol(protocol)],
#pragma warning disable CA5359 // What is tested is what passes inside, not whose certificate it is.
            RemoteCertificateValidationCallback = static (_, _, _, _) => true,
#pragma warning restore CA5359
        }).WaitAsync(TestTimeouts.Step);
        Assert.Equal(protocol, tls.NegotiatedApplicationProtocol.ToString());
        return new RawConnection(_client, tls);
    }

    public Task WriteAsync(string text) => _stream.WriteAsync(Encoding.Latin1.GetBytes(text)).AsTask();

    public void FinishSending() => _client.Client.Shutdown(SocketShutdown.Send);

    /// <summary>Reads until the text has come, and gives all that came until then, that text included.</summary>
    public async Task<string> ReadUntilAsync(string end)
    {
        using var deadline = new CancellationTokenSource(TestTimeouts.Step);
        var buffer = new byte[16 * 1024];
        while (true)
        {
            var all = Encoding.Latin1.GetString(_rest.ToArray());
            var at = all.IndexOf(end, StringComparison.Ordinal);
            if (at >= 0)
            {
                var taken = all[..(at + end.Length)];
                _rest.SetLength(0);
                _rest.Write(Encoding.Latin1.GetBytes(all[taken.Length..]));
                return taken;
            }

            var count = await _stream.ReadAsync(buffer, deadline.Token);
            if (count == 0)
                throw new EndOfStreamException($"The connection ended before '{end}' came: {all}");
            _rest.Write(buffer.AsSpan(0, count));
        }
    }

    /// <summary>Reads to the end.</summary>
    public async Task<string> ReadToEndAsync()
    {
        using var deadline = new CancellationTokenSource(TestTimeouts.Step);
        try
        {
            await _stream.CopyToAsync(_rest, deadline.Token);
        }
        catch (IOException)
        {
            // A reset is an end, too, for whoever asks what came before it.
        }

        return Encoding.Latin1.GetString(_rest.ToArray());
    }

    public void Dispose()
    {
        _client.Dispose();
        _rest.Dispose();
    }
}
