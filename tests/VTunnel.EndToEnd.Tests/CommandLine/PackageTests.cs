using System.Reflection;
using CliWrap;
using CliWrap.Buffered;
using VTunnel.Testing;

namespace VTunnel.EndToEnd.Tests.CommandLine;

public sealed class PackageTests
{
    private static readonly string Configuration =
        typeof(PackageTests).Assembly.GetCustomAttribute<AssemblyConfigurationAttribute>()!.Configuration;

    private static async Task<string> DotnetAsync(string folder, params string[] arguments)
    {
        using var deadline = new CancellationTokenSource(TimeSpan.FromMinutes(5));

        // The test runner's own MSBuild settings are not for other builds.
        var variables = new Dictionary<string, string?>
        {
            ["MSBUILD_EXE_PATH"] = null, ["MSBuildSDKsPath"] = null, ["MSBuildExtensionsPath"] = null, ["DOTNET_CLI_TELEMETRY_OPTOUT"] = "1",
        };
        var result = await CliWrap.Cli.Wrap("dotnet").WithArguments(arguments).WithWorkingDirectory(folder).WithEnvironmentVariables(variables)
            .WithValidation(CommandResultValidation.None).ExecuteBufferedAsync(deadline.Token);
        Assert.True(result.ExitCode == 0, $"dotnet {string.Join(' ', arguments)}: {result.StandardOutput}{result.StandardError}");
        return result.StandardOutput;
    }

    [Fact]
    public async Task The_tool_package_installs_from_a_folder_and_runs()
    {
        using var folder = new TempDirectory();
        var project = Path.Combine(DocumentationTests.FindRoot(), "src", "VTunnel.Cli");
        await DotnetAsync(project, "pack", "--no-build", "-c", Configuration, "-o", folder.File("packages"));
        folder.Write("nuget.config", """<configuration><packageSources><clear /><add key="here" value="packages" /></packageSources></configuration>""");
        await DotnetAsync(folder.Path, "tool", "install", "vtunnel", "--tool-path", "tools", "--configfile", folder.File("nuget.config"));

        using var deadline = new CancellationTokenSource(VTunnelProgram.Deadline);
        var result = await CliWrap.Cli.Wrap(folder.File("tools", "vtunnel")).WithArguments(["demo", "--once"])
            .WithValidation(CommandResultValidation.None).ExecuteBufferedAsync(deadline.Token);

        Assert.True(result.ExitCode == 0, result.StandardOutput + result.StandardError);
        Assert.Contains("the same as the original", result.StandardOutput, StringComparison.Ordinal);
    }
}
