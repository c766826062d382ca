using VTunnel.Cli.Hosting;
using VTunnel.Cli.Syntax;

namespace VTunnel.Cli.Commands;

/// <summary><c>vtunnel version</c>.</summary>
internal static class VersionCommand
{
    public static readonly CommandSpec Spec = new("version", "Show which build this is.")
    {
        Examples = [new("", "vtunnel version")],
        Run = static settings =>
        {
            if (settings.Faults.Count > 0)
                return Task.FromResult(Terminal.Refuse(settings.Faults));
            Console.Out.WriteLine(VersionWriter.Text);
            return Task.FromResult(ExitCodes.Success);
        },
    };
}
