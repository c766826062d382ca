using VTunnel.Cli.Commands;
using VTunnel.Cli.Hosting;
using VTunnel.Cli.Settings;
using VTunnel.Cli.Syntax;

namespace VTunnel.Cli;

internal static class Program
{
    private static async Task<int> Main(string[] arguments)
    {
        try
        {
            return await new CommandTree(CommandSpecs.Root, RunAsync).InvokeAsync(arguments);
        }
        catch (Exception e)
        {
            // The last resort: whatever gets here is a fault of this program, and a crash dump would say no more.
            Console.Error.WriteLine(OneLine.Of($"vtunnel: internal error: {e}"));
            return ExitCodes.InternalError;
        }
    }

    private static Task<int> RunAsync(ParsedCommand parsed)
    {
        var settings = SettingSources.Read(parsed, Environment.GetEnvironmentVariable);
        return parsed.Command.Run is { } run ? run(settings) : Task.FromResult(Terminal.Refuse(settings.Faults));
    }
}
