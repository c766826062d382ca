using System.Net.Sockets;
using System.Text.Json;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using VTunnel.Bridge;
using VTunnel.Cli.Commands.Bridge;

namespace VTunnel.Cli.Hosting;

/// <summary>
/// Where a running process of the bridge answers <c>vtunnel status</c>: HTTP over a Unix socket that only its owner can open.
/// It is also what keeps a second process off the same state.
/// </summary>
internal sealed class ControlSocket : IAsyncDisposable
{
    /// <summary>What the system's addresses of Unix sockets can hold.</summary>
    private const int MaxPathBytes = 107;

    private static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(2);

    private readonly WebApplication _app;
    private readonly string _path;

    private ControlSocket(WebApplication app, string path) => (_app, _path) = (app, path);

    /// <summary>Starts to answer; null where the path is too long for a socket (then there is no status, and nothing else is lost).</summary>
    /// <param name="path">The socket.</param>
    /// <param name="answer">The answer to <c>GET /NAME?VALUE</c>; null is 404.</param>
    /// <exception cref="BridgeException">Another process answers there, or the folder cannot be written.</exception>
    public static async Task<ControlSocket?> StartAsync(string path, Func<string, string, Task<object?>> answer)
    {
        if (System.Text.Encoding.UTF8.GetByteCount(path) > MaxPathBytes)
            return null;
        if (await CanConnectAsync(path))
            throw new BridgeException(BridgeError.Invalid, $"it runs already: another process answers at {path}; 'vtunnel status' asks it");
        try
        {
            var folder = Path.GetDirectoryName(path)!;
            if (OperatingSystem.IsWindows())
                Directory.CreateDirectory(folder);
            else
                Directory.CreateDirectory(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
            File.Delete(path);
            var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions { ApplicationName = "vtunnel" });
            builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel => kestrel.ListenUnixSocket(path));
            builder.Logging.ClearProviders();
            var app = builder.Build();
            app.Run(context => AnswerAsync(context, answer));
            await app.StartAsync();
            if (!OperatingSystem.IsWindows())
                File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
            return new ControlSocket(app, path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or SocketException)
        {
            throw new BridgeException(BridgeError.Storage, $"{path} cannot be made: {e.Message.TrimEnd('.')}; see to the permissions of its folder", e);
        }
    }

    /// <summary>Asks a running process; null if there is none.</summary>
    public static async Task<T?> AskAsync<T>(string path, string question)
        where T : class
    {
        if (!File.Exists(path))
            return null;
        using var client = new HttpClient(new SocketsHttpHandler
        {
            ConnectCallback = async (_, cancellationToken) => new NetworkStream(await ConnectAsync(path, cancellationToken), ownsSocket: true),
            UseProxy = false,
        });
        client.Timeout = TimeSpan.FromSeconds(40);
        try
        {
            using var response = await client.GetAsync(new Uri($"http://local/{question}"));
            if (!response.IsSuccessStatusCode)
                throw new BridgeException(BridgeError.Storage, $"the running process answered {(int)response.StatusCode}: {await response.Content.ReadAsStringAsync()}");
            return JsonSerializer.Deserialize<T>(await response.Content.ReadAsStringAsync(), BridgeCli.JsonOutput);
        }
        catch (HttpRequestException)
        {
            // A socket without a process: it ended without cleaning up.
            return null;
        }
        catch (TaskCanceledException e)
        {
            throw new BridgeException(BridgeError.Storage, "the running process does not answer", e);
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _app.DisposeAsync();
        try
        {
            File.Delete(_path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The next process removes it.
        }
    }

    private static async Task AnswerAsync(HttpContext context, Func<string, string, Task<object?>> answer)
    {
        object? content;
        try
        {
            content = await answer(context.Request.Path.Value!.TrimStart('/'), context.Request.QueryString.Value!.TrimStart('?'));
        }
        catch (Exception e) when (e is BridgeException or TimeoutException)
        {
            context.Response.StatusCode = StatusCodes.Status503ServiceUnavailable;
            await context.Response.WriteAsync(e.Message);
            return;
        }

        if (content is null)
        {
            context.Response.StatusCode = StatusCodes.Status404NotFound;
            return;
        }

        context.Response.ContentType = "application/json";
        await context.Response.WriteAsync(JsonSerializer.Serialize(content, content.GetType(), BridgeCli.JsonOutput));
    }

    private static async Task<bool> CanConnectAsync(string path)
    {
        if (!File.Exists(path))
            return false;
        try
        {
            using var deadline = new CancellationTokenSource(ConnectTimeout);
            using var socket = await ConnectAsync(path, deadline.Token);
            return true;
        }
        catch (Exception e) when (e is SocketException or OperationCanceledException)
        {
            return false;
        }
    }

    private static async Task<Socket> ConnectAsync(string path, CancellationToken cancellationToken)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(path), cancellationToken);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }
}
