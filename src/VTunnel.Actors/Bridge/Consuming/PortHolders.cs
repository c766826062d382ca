using System.Globalization;

namespace VTunnel.Bridge.Consuming;

/// <summary>Who listens on a port, where the system lets anybody know.</summary>
internal static class PortHolders
{
    private const string Listening = "0A";
    private static readonly string[] Tables = ["/proc/net/tcp", "/proc/net/tcp6"];

    /// <summary>The process in words, e.g. <c>postgres (process 812)</c>; null if it cannot be told.</summary>
    public static string? Find(int port)
    {
        if (!OperatingSystem.IsLinux())
            return null;
        try
        {
            var inodes = Tables.Where(File.Exists).SelectMany(File.ReadLines).Skip(1)
                .Select(line => line.Split(' ', StringSplitOptions.RemoveEmptyEntries))
                .Where(fields => fields.Length > 9 && fields[3] == Listening && Port(fields[1]) == port)
                .Select(fields => $"socket:[{fields[9]}]")
                .ToHashSet();
            return inodes.Count == 0 ? null : Directory.EnumerateDirectories("/proc").Select(folder => Holder(folder, inodes)).FirstOrDefault(found => found is not null);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // It is a courtesy; the error is told without it.
            return null;
        }
    }

    private static int Port(string address)
    {
        var colon = address.LastIndexOf(':');
        return colon >= 0 && int.TryParse(address.AsSpan(colon + 1), NumberStyles.HexNumber, CultureInfo.InvariantCulture, out var port) ? port : -1;
    }

    private static string? Holder(string folder, HashSet<string> inodes)
    {
        if (!int.TryParse(Path.GetFileName(folder), NumberStyles.None, CultureInfo.InvariantCulture, out var process))
            return null;
        try
        {
            return Directory.EnumerateFileSystemEntries(Path.Combine(folder, "fd")).Any(file => new FileInfo(file).LinkTarget is { } link && inodes.Contains(link))
                ? $"{File.ReadAllText(Path.Combine(folder, "comm")).Trim()} (process {process})"
                : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Somebody else's process, or one that has ended meanwhile.
            return null;
        }
    }
}
