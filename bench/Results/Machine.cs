using System.Diagnostics;
using System.Runtime.InteropServices;

namespace VTunnel.Bench.Results;

/// <summary>Finds out what a run ran on.</summary>
internal static class Machine
{
    /// <summary>What paces, or does not, what sockets send that choose nothing themselves.</summary>
    private const string CongestionControl = "/proc/sys/net/ipv4/tcp_congestion_control";

    public static MachineInfo Describe() => new(
        Field("/proc/cpuinfo", "model name") ?? RuntimeInformation.ProcessArchitecture.ToString(),
        Environment.ProcessorCount,
        GC.GetGCMemoryInfo().TotalAvailableMemoryBytes,
        Field("/etc/os-release", "PRETTY_NAME")?.Trim('"') ?? RuntimeInformation.OSDescription,
        RuntimeInformation.OSDescription,
        RuntimeInformation.FrameworkDescription,
        File.Exists(CongestionControl) ? File.ReadAllText(CongestionControl).Trim() : "");

    public static ProgramInfo Describe(string program)
    {
        using var process = Process.Start(new ProcessStartInfo(program, ["version"]) { RedirectStandardOutput = true })
            ?? throw new BenchException($"{program} cannot be started");
        var version = process.StandardOutput.ReadLine() ?? "";
        process.WaitForExit();
        return new ProgramInfo(program, version, CompilationOf(Path.ChangeExtension(program, ".dll")));
    }

    /// <summary>Where there is no assembly, the program is all machine code. One that holds some says where in its managed header.</summary>
    private static string CompilationOf(string assembly)
    {
        if (!File.Exists(assembly))
            return ProgramInfo.Native;
        using var file = File.OpenRead(assembly);
        using var image = new System.Reflection.PortableExecutable.PEReader(file);
        return image.PEHeaders.CorHeader is { ManagedNativeHeaderDirectory.Size: > 0 } ? ProgramInfo.ReadyToRun : ProgramInfo.AtRunTime;
    }

    private static string? Field(string file, string name) => File.Exists(file)
        ? File.ReadLines(file).FirstOrDefault(line => line.StartsWith(name, StringComparison.Ordinal))?.Split([':', '='], 2)[1].Trim()
        : null;
}
