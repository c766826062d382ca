using VTunnel.Cli.Settings;

namespace VTunnel.Cli.Hosting;

/// <summary>What the program says outside its log, and how it ends.</summary>
internal static class Terminal
{
    /// <summary>What stopping may take on top of draining.</summary>
    public static readonly TimeSpan ShutdownGrace = TimeSpan.FromSeconds(5);

    /// <summary>Tells all that is wrong, a line for each.</summary>
    public static int Refuse(IEnumerable<string> faults)
    {
        foreach (var fault in faults)
            Console.Error.WriteLine($"vtunnel: {fault}");
        return ExitCodes.Usage;
    }

    /// <summary>Tells why the program ends.</summary>
    public static int Fail(int exitCode, string reason)
    {
        Console.Error.WriteLine($"vtunnel: {OneLine.Of(reason)}");
        return exitCode;
    }
}
