using VTunnel.Cli.Syntax;

namespace VTunnel.Cli.Commands;

/// <summary><c>vtunnel version</c>.</summary>
internal static class VersionCommand
{
    public static readonly CommandSpec Spec = new("version", "Show which build this is.")
    {
        Examples = [new("", "vtunnel version")],
        Run = static _ =>
        {
            Console.Out.WriteLine(VersionWriter.Text);
            return Task.FromResult(ExitCodes.Success);
        },
    };
}
