using System.Globalization;
using System.Runtime.InteropServices;

namespace VTunnel.Bench.Processes;

/// <summary>What processes use, as the Linux kernel counts it.</summary>
internal static class ProcessUsage
{
    /// <summary>User plus system time of a process since its start, threads that have ended included, to the nanosecond.</summary>
    public static TimeSpan CpuTime(int process)
    {
        // The clock of another process: its number, complemented, above three bits that say which clock (CPUCLOCK_SCHED).
        var clock = (~process << 3) | 2;
        if (clock_gettime(clock, out var time) != 0)
            throw new BenchException($"process {process} has ended, or its processor time cannot be read");
        return TimeSpan.FromTicks((time.Seconds * TimeSpan.TicksPerSecond) + (time.Nanoseconds / 100));
    }

    /// <summary>Resident memory, in bytes.</summary>
    public static long ResidentBytes(int process)
    {
        foreach (var line in File.ReadLines($"/proc/{process}/status"))
        {
            if (line.StartsWith("VmRSS:", StringComparison.Ordinal))
                return long.Parse(line.AsSpan(6, line.Length - 8).Trim(), CultureInfo.InvariantCulture) * 1024;
        }

        throw new BenchException($"process {process} has ended");
    }

    /// <summary>How many files a process may have open at most, and those that it starts, too.</summary>
    public static long MaxOpenFiles()
    {
        var line = File.ReadLines("/proc/self/limits").First(line => line.StartsWith("Max open files", StringComparison.Ordinal));
        var hard = line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[4];
        return long.TryParse(hard, CultureInfo.InvariantCulture, out var limit) ? limit : long.MaxValue;
    }

    /// <summary>A process and all that descend from it, as they are now.</summary>
    public static List<int> Family(int process)
    {
        var parents = new List<(int Child, int Parent)>();
        foreach (var folder in Directory.EnumerateDirectories("/proc"))
        {
            if (!int.TryParse(Path.GetFileName(folder), CultureInfo.InvariantCulture, out var id))
                continue;
            try
            {
                // The name, in brackets, may hold anything: what follows is behind the last one.
                var stat = File.ReadAllText($"{folder}/stat");
                parents.Add((id, int.Parse(stat[(stat.LastIndexOf(')') + 2)..].Split(' ')[1], CultureInfo.InvariantCulture)));
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                // Ended while the list was read.
            }
        }

        var family = new List<int> { process };
        for (var i = 0; i < family.Count; i++)
            family.AddRange(parents.Where(pair => pair.Parent == family[i]).Select(pair => pair.Child));
        return family;
    }

#pragma warning disable SYSLIB1054, CA5392 // A source-generated import needs unsafe code in this project; libc is the system's.
    [DllImport("libc", SetLastError = true)]
    private static extern int clock_gettime(int clock, out TimeSpec time);
#pragma warning restore SYSLIB1054, CA5392

    [StructLayout(LayoutKind.Sequential)]
    private struct TimeSpec
    {
        public long Seconds;
        public long Nanoseconds;
    }
}
