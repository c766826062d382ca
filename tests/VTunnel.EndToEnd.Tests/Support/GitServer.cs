using System.Globalization;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using CliWrap;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using VTunnel.Testing;

namespace VTunnel.EndToEnd.Tests.Support;

/// <summary>Serves the git repositories of a folder over HTTP, by git's own CGI program.</summary>
internal sealed class GitServer : IAsyncDisposable
{
    private readonly WebServer _web;

    private GitServer(WebServer web) => _web = web;

    public int Port => _web.Port;

    public static async Task<GitServer> StartAsync(string folder, X509Certificate2? certificate = null)
    {
        var programs = (await Tools.RunAsync("git", ["--exec-path"])).StandardOutput.Trim();
        var backend = Path.Combine(programs, "git-http-backend");
        return new GitServer(await WebServer.StartAsync(app => app.Run(context => ServeAsync(context, backend, folder)), certificate));
    }

    private static async Task ServeAsync(HttpContext context, string backend, string folder)
    {
        var request = context.Request;
        var variables = new Dictionary<string, string?>(Tools.Direct)
        {
            ["GIT_PROJECT_ROOT"] = folder,
            ["GIT_HTTP_EXPORT_ALL"] = "1",
            ["REQUEST_METHOD"] = request.Method,
            ["PATH_INFO"] = request.Path,
            ["QUERY_STRING"] = request.QueryString.Value?.TrimStart('?'),
            ["CONTENT_TYPE"] = request.ContentType,
            ["CONTENT_LENGTH"] = request.ContentLength?.ToString(CultureInfo.InvariantCulture),
            ["HTTP_CONTENT_ENCODING"] = request.Headers.ContentEncoding,
            ["HTTP_GIT_PROTOCOL"] = request.Headers["Git-Protocol"],
            ["REMOTE_USER"] = "tester",
            ["REMOTE_ADDR"] = "127.0.0.1",
        };

        var output = new MemoryStream();
        using var deadline = new CancellationTokenSource(TestTimeouts.Step);
        await CliWrap.Cli.Wrap(backend)
            .WithEnvironmentVariables(variables)
            .WithStandardInputPipe(PipeSource.FromStream(request.Body))
            .WithStandardOutputPipe(PipeTarget.ToStream(output))
            .ExecuteAsync(deadline.Token);
        await RespondAsync(context.Response, output.ToArray());
    }

    /// <summary>A CGI program answers with headers, an empty line and the body; the status is a header, too.</summary>
    private static async Task RespondAsync(HttpResponse response, byte[] answer)
    {
        var end = answer.AsSpan().IndexOf("\r\n\r\n"u8);
        foreach (var line in Encoding.ASCII.GetString(answer, 0, end).Split("\r\n"))
        {
            var colon = line.IndexOf(':', StringComparison.Ordinal);
            var (name, value) = (line[..colon], line[(colon + 1)..].Trim());
            if (name.Equals("Status", StringComparison.OrdinalIgnoreCase))
                response.StatusCode = int.Parse(value.AsSpan(0, 3), CultureInfo.InvariantCulture);
            else
                response.Headers[name] = value;
        }

        await response.Body.WriteAsync(answer.AsMemory(end + 4));
    }

    public ValueTask DisposeAsync() => _web.DisposeAsync();
}
