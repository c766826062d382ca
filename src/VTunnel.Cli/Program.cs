using System.Globalization;
using VTunnel.Cli.Commands;
using VTunnel.Cli.Hosting;
using VTunnel.Cli.Settings;
using VTunnel.Cli.Syntax;

namespace VTunnel.Cli;

internal static class Program
{
    /// <summary>.NET's own switch: what a socket's data wakes runs on the thread that polls the sockets.</summary>
    private const string InlineCompletions = "DOTNET_SYSTEM_NET_SOCKETS_INLINE_COMPLETIONS";

    /// <summary>.NET's own switch: how many threads poll sockets. With inline completions it would be one for each processor.</summary>
    private const string PollingThreads = "DOTNET_SYSTEM_NET_SOCKETS_THREAD_COUNT";

    private static async Task<int> Main(string[] arguments)
    {
        // Read when the first socket is used. A third less processor time on bulk, and safe here because nothing in this
        // program waits on such a thread; whoever doubts it sets the variable to 0. An application that embeds the engine has
        // other code on these threads and decides for itself.
        SetUnlessSet(InlineCompletions, "1");

        // A session runs on one thread at a time, wherever its sockets are polled: more threads than that mostly wake each other.
        SetUnlessSet(PollingThreads, Math.Max(1, Environment.ProcessorCount / 2).ToString(CultureInfo.InvariantCulture));
        StandardStreams.Install();
        NoConfigurationFile.Install();
        using var memory = new IdleMemory();
        try
        {
            return await new CommandTree(CommandSpecs.Root, RunAsync).InvokeAsync(arguments);
        }
        catch (OutputException e)
        {
            return Terminal.Fail(ExitCodes.InternalError, e.Message);
        }
        catch (Exception e)
        {
            // The last resort: whatever gets here is a fault of this program, and a crash dump would say no more.
            Console.Error.WriteLine(OneLine.Of($"vtunnel: internal error: {e}"));
            return ExitCodes.InternalError;
        }
    }

    private static void SetUnlessSet(string variable, string value)
    {
        if (Environment.GetEnvironmentVariable(variable) is null)
            Environment.SetEnvironmentVariable(variable, value);
    }

    private static Task<int> RunAsync(ParsedCommand parsed)
    {
        var settings = SettingSources.Read(parsed, Environment.GetEnvironmentVariable);
        return parsed.Command.Run is { } run ? run(settings) : Task.FromResult(Terminal.Refuse(settings.Faults));
    }
}
