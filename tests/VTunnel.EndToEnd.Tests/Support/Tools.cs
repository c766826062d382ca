using System.Diagnostics;
using CliWrap;
using CliWrap.Buffered;
using VTunnel.Testing;

namespace VTunnel.EndToEnd.Tests.Support;

/// <summary>Other people's programs, run to their end.</summary>
internal static class Tools
{
    private static readonly Lazy<bool> Installed = new(Install);

    /// <summary>Where programs are: Debian keeps nginx where only root looks, and PostgreSQL where nobody does.</summary>
    public static string SearchPath => string.Join(':', [Environment.GetEnvironmentVariable("PATH"), "/usr/sbin", "/sbin", .. PostgresFolders()]);

    /// <summary>Sees to it that the programs which the script lists are there.</summary>
    public static void EnsureInstalled() => _ = Installed.Value;

    /// <inheritdoc cref="EnsureInstalled"/>
    public static Task EnsureInstalledAsync() => Task.Run(EnsureInstalled);

    /// <summary>The full path of a program.</summary>
    public static string Find(string program) =>
        SearchPath.Split(':').Select(folder => Path.Combine(folder, program)).FirstOrDefault(File.Exists)
        ?? throw new FileNotFoundException($"{program} is not installed; build/install-test-dependencies.sh installs it");

    /// <summary>Runs a program and requires exit code 0.</summary>
    public static async Task<BufferedCommandResult> RunAsync(
        string program, IReadOnlyList<string> arguments, string? folder = null, TimeSpan? timeout = null)
    {
        var result = await TryRunAsync(program, arguments, folder, timeout);
        if (result.ExitCode != 0)
        {
            throw new InvalidOperationException(
                $"{program} {string.Join(' ', arguments)}: exit code {result.ExitCode}\n{result.StandardOutput}\n{result.StandardError}");
        }

        return result;
    }

    /// <summary>Runs a program.</summary>
    public static async Task<BufferedCommandResult> TryRunAsync(
        string program, IReadOnlyList<string> arguments, string? folder = null, TimeSpan? timeout = null)
    {
        await EnsureInstalledAsync();
        using var deadline = new CancellationTokenSource(timeout ?? TestTimeouts.Step);
        return await CliWrap.Cli.Wrap(Find(program))
            .WithArguments(arguments)
            .WithWorkingDirectory(folder ?? Directory.GetCurrentDirectory())
            .WithEnvironmentVariables(Direct)
            .WithValidation(CommandResultValidation.None)
            .ExecuteBufferedAsync(deadline.Token);
    }

    /// <summary>An environment in which nothing goes through a proxy of whoever runs the tests, and git asks nobody for anything.</summary>
    public static IReadOnlyDictionary<string, string?> Direct { get; } = new Dictionary<string, string?>
    {
        ["http_proxy"] = null,
        ["HTTP_PROXY"] = null,
        ["https_proxy"] = null,
        ["HTTPS_PROXY"] = null,
        ["all_proxy"] = null,
        ["ALL_PROXY"] = null,
        ["GIT_TERMINAL_PROMPT"] = "0",
        ["GIT_CONFIG_NOSYSTEM"] = "1",
        ["GIT_CONFIG_GLOBAL"] = "/dev/null",
        ["GIT_AUTHOR_NAME"] = "A. Tester",
        ["GIT_AUTHOR_EMAIL"] = "tester@example.com",
        ["GIT_COMMITTER_NAME"] = "A. Tester",
        ["GIT_COMMITTER_EMAIL"] = "tester@example.com",
    };

    private static IEnumerable<string> PostgresFolders() => Directory.Exists("/usr/lib/postgresql")
        ? Directory.GetDirectories("/usr/lib/postgresql").Select(version => Path.Combine(version, "bin"))
        : [];

    private static bool Install()
    {
        var script = Path.Combine(AppContext.BaseDirectory, "install-test-dependencies.sh");
        using var process = Process.Start(new ProcessStartInfo("bash", [script]) { RedirectStandardError = true })!;
        var errors = process.StandardError.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0 ? true : throw new InvalidOperationException(errors);
    }
}
