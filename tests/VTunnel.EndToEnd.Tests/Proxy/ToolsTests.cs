using System.Formats.Tar;
using System.IO.Compression;
using System.Net.WebSockets;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Json;
using CliWrap;
using CliWrap.Buffered;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.FileProviders;
using VTunnel.EndToEnd.Tests.Support;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.Proxy;

/// <summary>Other people's programs with the proxy in their environment, as in a container.</summary>
public sealed class ToolsTests : IDisposable
{
    private readonly TempDirectory _folder = new();
    private readonly TaskCompletionSource _isShown = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TestCertificates _certificates = new("git.test", "registry.test", "page.test");

    public void Dispose()
    {
        _folder.Dispose();
        _certificates.Dispose();
    }

    /// <summary>Runs a program whose only way out is the proxy.</summary>
    private async Task<BufferedCommandResult> RunAsync(ProxyPair pair, string program, string[] arguments, string? folder = null)
    {
        await Tools.EnsureInstalledAsync();
        using var deadline = new CancellationTokenSource(TestTimeouts.Long);
        var environment = new Dictionary<string, string?>(Tools.Direct)
        {
            ["http_proxy"] = pair.Url,
            ["HTTP_PROXY"] = pair.Url,
            ["https_proxy"] = pair.Url,
            ["HTTPS_PROXY"] = pair.Url,
            ["no_proxy"] = null,
            ["NO_PROXY"] = null,
            ["GIT_SSL_CAINFO"] = _certificates.AuthorityFile,
            ["NODE_EXTRA_CA_CERTS"] = _certificates.AuthorityFile,
            ["REQUESTS_CA_BUNDLE"] = _certificates.AuthorityFile,
            ["npm_config_cache"] = _folder.File("npm-cache"),
            ["npm_config_update_notifier"] = "false",
            ["npm_config_registry"] = null,
            ["npm_config_proxy"] = null,
            ["npm_config_https_proxy"] = null,
            ["npm_config_userconfig"] = _folder.File("npmrc"),
        };
        var result = await CliWrap.Cli.Wrap(Tools.Find(program))
            .WithArguments(arguments)
            .WithWorkingDirectory(folder ?? _folder.Path)
            .WithEnvironmentVariables(environment)
            .WithValidation(CommandResultValidation.None)
            .ExecuteBufferedAsync(deadline.Token);
        Assert.True(result.ExitCode == 0, $"{program} {string.Join(' ', arguments)}: {result.ExitCode}\n{result.StandardOutput}\n{result.StandardError}\n{pair.Host.Log.Lines.Text()}");
        return result;
    }

    [Fact]
    public async Task Git_clones_and_pushes_over_HTTPS()
    {
        var repositories = _folder.MakeDirectory("repositories");
        await Tools.RunAsync("git", ["init", "--quiet", "--bare", "--initial-branch=main", "project.git"], repositories);
        using var certificate = _certificates.Load();
        await using var git = await GitServer.StartAsync(repositories, certificate);
        await using var pair = await ProxyPair.StartAsync([$"git.test=127.0.0.1:{git.Port}"]);

        await RunAsync(pair, "git", ["clone", "--quiet", "https://git.test/project.git", "one"]);
        await File.WriteAllBytesAsync(_folder.File("one", "large.bin"), RandomNumberGenerator.GetBytes(3_000_000));
        await Tools.RunAsync("git", ["add", "."], _folder.File("one"));
        await Tools.RunAsync("git", ["commit", "--quiet", "-m", "First"], _folder.File("one"));
        await RunAsync(pair, "git", ["push", "--quiet", "origin", "HEAD:main"], _folder.File("one"));
        await RunAsync(pair, "git", ["clone", "--quiet", "https://git.test/project.git", "two"]);
        Assert.Equal(await File.ReadAllBytesAsync(_folder.File("one", "large.bin")), await File.ReadAllBytesAsync(_folder.File("two", "large.bin")));
        await pair.Host.Log.Lines.WaitForAsync("CONNECT git.test:443, tunnel session-1: 200");
    }

    [Fact]
    public async Task Npm_installs_a_scoped_package_from_a_registry_behind_the_tunnel()
    {
        var archive = await MakeArchiveAsync(("package/package.json", """{"name":"@corp/greeting","version":"1.0.0","main":"index.js"}"""), ("package/index.js", "module.exports='hello';\n"));
        var hash = "sha512-" + Convert.ToBase64String(SHA512.HashData(archive));
        await using var registry = await WebServer.StartAsync(app => app.Run(async context =>
        {
            var raw = context.Features.Get<Microsoft.AspNetCore.Http.Features.IHttpRequestFeature>()!.RawTarget;
            if (raw.EndsWith(".tgz", StringComparison.Ordinal))
            {
                await context.Response.Body.WriteAsync(archive);
                return;
            }

            // The slash of a scope is escaped, and must stay so.
            context.Response.StatusCode = raw == "/@corp%2fgreeting" ? 200 : 404;
            context.Response.ContentType = "application/json";
            await context.Response.WriteAsync(JsonSerializer.Serialize(new Dictionary<string, object>
            {
                ["name"] = "@corp/greeting",
                ["dist-tags"] = new { latest = "1.0.0" },
                ["versions"] = new Dictionary<string, object>
                {
                    ["1.0.0"] = new { name = "@corp/greeting", version = "1.0.0", dist = new { tarball = "http://registry.test/greeting-1.0.0.tgz", integrity = hash } },
                },
            }));
        }));
        await using var pair = await ProxyPair.StartAsync([$"registry.test=127.0.0.1:{registry.Port}"]);
        var project = _folder.MakeDirectory("project");
        await File.WriteAllTextAsync(Path.Combine(project, "package.json"), """{"name":"project","version":"1.0.0"}""");
        await RunAsync(pair, "npm", ["install", "--no-audit", "--no-fund", "--registry=http://registry.test/", "@corp/greeting"], project);
        Assert.Equal("hello\n", (await RunAsync(pair, "node", ["-e", "console.log(require('@corp/greeting'))"], project)).StandardOutput);
    }

    [Fact]
    public async Task Pip_downloads_a_package_from_an_index_behind_the_tunnel()
    {
        using var wheel = new MemoryStream();
        using (var zip = new ZipArchive(wheel, ZipArchiveMode.Create, leaveOpen: true))
        {
            foreach (var (name, text) in new[]
            {
                ("greeting.py", "TEXT = 'hello'\n"),
                ("greeting-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n"),
                ("greeting-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
                ("greeting-1.0.dist-info/RECORD", "greeting.py,,\ngreeting-1.0.dist-info/METADATA,,\ngreeting-1.0.dist-info/WHEEL,,\ngreeting-1.0.dist-info/RECORD,,\n"),
            })
            {
                await using var entry = new StreamWriter(zip.CreateEntry(name).Open());
                await entry.WriteAsync(text);
            }
        }

        var bytes = wheel.ToArray();
        using var certificate = _certificates.Load();
        await using var index = await WebServer.StartAsync(
            app => app.Run(async context =>
            {
                if (context.Request.Path.Value!.EndsWith(".whl", StringComparison.Ordinal))
                {
                    await context.Response.Body.WriteAsync(bytes);
                    return;
                }

                context.Response.ContentType = "text/html";
                await context.Response.WriteAsync($"<a href=\"/greeting-1.0-py3-none-any.whl#sha256={Convert.ToHexStringLower(SHA256.HashData(bytes))}\">greeting-1.0-py3-none-any.whl</a>");
            }),
            certificate);
        await using var pair = await ProxyPair.StartAsync([$"registry.test=127.0.0.1:{index.Port}"]);
        await RunAsync(pair, "python3",
        [
            "-m", "pip", "--isolated", "--disable-pip-version-check", "--no-cache-dir", "download", "--quiet", "--no-deps", "--proxy", pair.Url, "--cert", _certificates.AuthorityFile,
            "--index-url", "https://registry.test/simple", "--dest", _folder.File("wheels"), "greeting",
        ]);
        Assert.Equal(bytes, await File.ReadAllBytesAsync(_folder.File("wheels", "greeting-1.0-py3-none-any.whl")));
    }

    [Fact]
    public async Task Apt_reads_a_repository_and_downloads_a_package_behind_the_tunnel()
    {
        var repository = _folder.MakeDirectory("repository");
        _folder.MakeDirectory("greeting");
        Directory.CreateDirectory(_folder.File("greeting", "DEBIAN"));
        await File.WriteAllTextAsync(_folder.File("greeting", "DEBIAN", "control"), "Package: greeting\nVersion: 1.0\nArchitecture: all\nMaintainer: A. Tester <tester@example.com>\nDescription: A test\n");
        await Tools.RunAsync("dpkg-deb", ["--build", "--root-owner-group", _folder.File("greeting"), Path.Combine(repository, "greeting_1.0_all.deb")]);
        var package = await File.ReadAllBytesAsync(Path.Combine(repository, "greeting_1.0_all.deb"));
        await File.WriteAllTextAsync(Path.Combine(repository, "Packages"),
            $"Package: greeting\nVersion: 1.0\nArchitecture: all\nMaintainer: A. Tester <tester@example.com>\nFilename: ./greeting_1.0_all.deb\nSize: {package.Length}\nSHA256: {Convert.ToHexStringLower(SHA256.HashData(package))}\nDescription: A test\n\n");
        await using var site = await WebServer.StartAsync(app => app.UseStaticFiles(new StaticFileOptions
        {
            FileProvider = new PhysicalFileProvider(repository),
            ServeUnknownFileTypes = true,
        }));
        await using var pair = await ProxyPair.StartAsync([$"deb.test=127.0.0.1:{site.Port}"]);

        foreach (var name in new[] { "state/lists/partial", "cache/archives/partial", "etc/preferences.d", "etc/apt.conf.d", "etc/trusted.gpg.d", "download" })
            Directory.CreateDirectory(_folder.File(name.Split('/')));
        var sources = _folder.Write("sources.list", "deb [trusted=yes] http://deb.test/ ./\n");
        string[] own =
        [
            "-o", $"Dir::State={_folder.File("state")}", "-o", $"Dir::Cache={_folder.File("cache")}", "-o", $"Dir::Etc={_folder.File("etc")}",
            "-o", $"Dir::Etc::sourcelist={sources}", "-o", "Dir::Etc::sourceparts=-", "-o", "Dir::State::status=/dev/null", "-o", "APT::Sandbox::User=",
            "-o", "Acquire::Languages=none",
        ];
        await RunAsync(pair, "apt-get", [.. own, "update"]);
        await RunAsync(pair, "apt-get", [.. own, "download", "greeting"], _folder.File("download"));
        Assert.Equal(package, await File.ReadAllBytesAsync(_folder.File("download", "greeting_1.0_all.deb")));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Chromium_shows_a_page_with_parts_and_a_web_socket(bool intercepted)
    {
        using var certificate = _certificates.Load();
        var authority = _folder.File("ca.pem");
        await Tools.RunAsync(BuiltProgram.File, ["ca", "create", "--out", authority]);
        await using var site = await WebServer.StartAsync(
            app =>
            {
                app.UseWebSockets();
                app.Run(ServePageAsync);
            },
            intercepted ? null : certificate);
        await using var pair = await ProxyPair.StartAsync([$"page.test=127.0.0.1:{site.Port}"], proxy =>
        {
            if (intercepted)
                proxy.InterceptionAuthority = X509Certificate2.CreateFromPemFile(authority, authority);
        });

        // The page is printed when it has loaded, and it has not before its image is there, which the site gives when the page has its message.
        // The browser has a certificate store of its own, which a test cannot easily fill; git, npm, pip and curl do check here.
        var page = await RunAsync(pair, "chromium",
        [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--ignore-certificate-errors", "--disable-background-networking",
            $"--user-data-dir={_folder.File("chromium")}", $"--proxy-server={pair.Url}", "--dump-dom", "https://page.test/",
        ]);
        Assert.Contains("<p id=\"parts\">40</p>", page.StandardOutput, StringComparison.Ordinal);
        Assert.Contains("<p id=\"socket\">hello</p>", page.StandardOutput, StringComparison.Ordinal);
    }

    private async Task ServePageAsync(HttpContext context)
    {
        if (context.WebSockets.IsWebSocketRequest)
        {
            using var socket = await context.WebSockets.AcceptWebSocketAsync();
            await socket.SendAsync("hello"u8.ToArray(), WebSocketMessageType.Text, true, CancellationToken.None);
            await socket.ReceiveAsync(new byte[1], CancellationToken.None);
            _isShown.TrySetResult();
            return;
        }

        if (context.Request.Path == "/shown")
        {
            await _isShown.Task.WaitAsync(TestTimeouts.Step, context.RequestAborted);
            return;
        }

        if (context.Request.Path.StartsWithSegments("/part"))
        {
            context.Response.ContentType = "text/javascript";
            await context.Response.WriteAsync("parts++;");
            return;
        }

        var scripts = string.Concat(Enumerable.Range(0, 40).Select(i => $"<script src=\"/part/{i}.js\"></script>"));
        context.Response.ContentType = "text/html";
        await context.Response.WriteAsync($$"""
            <!doctype html><p id="parts"></p><p id="socket"></p><script>let parts = 0;</script>{{scripts}}
            <script>
              document.getElementById('parts').textContent = parts;
              const socket = new WebSocket('wss://page.test/socket');
              socket.onmessage = e => { document.getElementById('socket').textContent = e.data; socket.close(); };
            </script>
            <img src="/shown">
            """);
    }

    private static async Task<byte[]> MakeArchiveAsync(params (string Name, string Text)[] files)
    {
        using var archive = new MemoryStream();
        await using (var gzip = new GZipStream(archive, CompressionLevel.Fastest, leaveOpen: true))
        await using (var tar = new TarWriter(gzip))
        {
            foreach (var (name, text) in files)
                await tar.WriteEntryAsync(new PaxTarEntry(TarEntryType.RegularFile, name) { DataStream = new MemoryStream(Encoding.UTF8.GetBytes(text)) });
        }

        return archive.ToArray();
    }
}
