using System.Diagnostics;
using System.Reflection;
using System.Runtime.InteropServices;

namespace VTunnel.Bench.Commands;

/// <summary>The program as users get it: published as machine code.</summary>
internal static class PublishedProgram
{
    /// <summary>
    /// Publishes it from the sources that this bench was built with and gives its file. Takes two minutes on two processors, and seconds where
    /// nothing has changed.
    /// </summary>
    /// <exception cref="BenchException">It cannot be published; says why.</exception>
    public static string Make()
    {
        var root = typeof(PublishedProgram).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().First(one => one.Key == "RepositoryRoot").Value!;
        var project = Path.Combine(root, "src", "VTunnel.Cli");
        if (!Directory.Exists(project))
            throw new BenchException($"the program's sources are not in {project}: say with --program which program to measure");

        // In a folder of its own: files of a program for a runtime beside it would make it look like one.
        var folder = Path.Combine(root, "bench", "obj", "native");
        var runtime = $"linux-{RuntimeInformation.OSArchitecture.ToString().ToLowerInvariant()}";
        var start = new ProcessStartInfo("dotnet", ["publish", project, "-c", "Release", "-r", runtime, "-o", folder, "-nologo", "-v", "quiet"])
        {
            RedirectStandardOutput = true,
        };

        // Whoever builds or tests sets these for itself.
        foreach (var name in (string[])["MSBUILD_EXE_PATH", "MSBuildSDKsPath", "MSBuildExtensionsPath"])
            start.Environment.Remove(name);
        using var publish = Process.Start(start) ?? throw new BenchException("dotnet cannot be started");
        var output = publish.StandardOutput.ReadToEnd();
        publish.WaitForExit();
        return publish.ExitCode == 0 ? Path.Combine(folder, "vtunnel") : throw new BenchException($"the program cannot be published:\n{output}");
    }
}
