using System.Diagnostics.CodeAnalysis;
using VTunnel.Access;
using VTunnel.Cli.Hosting;
using VTunnel.Cli.Settings;
using VTunnel.Cli.Syntax;
using VTunnel.Options;

namespace VTunnel.Cli.Commands;

/// <summary><c>vtunnel token create</c>.</summary>
internal static class TokenCommand
{
    private static readonly OptionSpec Name = new("name", "NAME", "Whose token it is; stands in the log. Required.") { CommandLineOnly = true };
    private static readonly OptionSpec Ports = new("ports", "PORTS", "The ports that it may open, such as 9000,9100-9199.") { CommandLineOnly = true, Default = "every port" };
    private static readonly OptionSpec Tokens = new("tokens", "FILE", "The file to add the token to; made if need be, readable by its owner only. Without it the entry is printed.") { InConfigFile = false };

    private static readonly CommandSpec Create = new("create", "Make a token and print it, once.")
    {
        Details = "The token goes to the client (VTUNNEL_TOKEN or --token-file); the server keeps its hash only. Nobody can read it again later.",
        Options = [Name, Ports, Tokens],
        Examples =
        [
            new("Add a token to the server's file and keep it in a file for the client:", "vtunnel token create --name alice --tokens tokens.json > alice.token"),
            new("One that may open a few ports only:", "vtunnel token create --name ci --ports 9000,9100-9199 --tokens tokens.json"),
        ],
        Run = static settings => Task.FromResult(Run(settings)),
    };

    public static readonly CommandSpec Spec = new("token", "Make tokens for clients.")
    {
        Commands = [Create],
        Examples = [new("Add a token to the server's file:", "vtunnel token create --name alice --tokens tokens.json")],
    };

    private static int Run(SettingsReader settings)
    {
        var name = settings.OneOrNull<string>(Name, ParseName);
        if (name is null && settings.SourceOf(Name) is null)
            settings.Fault(Name, null, "say whose token it is, such as --name alice");
        var ports = settings.One<IReadOnlyList<PortRange>>(Ports, PortRanges.TryParse, []);
        var file = settings.Text(Tokens);
        if (settings.Faults.Count > 0)
            return Terminal.Refuse(settings.Faults);

        var token = AccessTokens.Generate();
        var entry = AccessTokens.EntryFor(name!, token, ports);
        if (file is null)
        {
            Print(token);
            Console.Out.WriteLine(TokenFile.Format(entry));
        }
        else
        {
            try
            {
                // An entry whose token nobody has seen would be of no use, and its name taken.
                TokenFile.Add(file, entry, () => Print(token));
            }
            catch (TokenFileException e)
            {
                foreach (var problem in e.Problems)
                    settings.Fault(Tokens, file, problem);
                return Terminal.Refuse(settings.Faults);
            }
            catch (OutputException e)
            {
                return Terminal.Fail(ExitCodes.InternalError, $"{e.Message}; nothing was added to {file}");
            }
        }

        Console.Error.WriteLine(file is null
            ? "vtunnel: this is the only time that the token is shown; add the entry to the \"tokens\" of the server's file"
            : $"vtunnel: this is the only time that the token is shown; '{OneLine.Of(name!)}' is in {OneLine.Of(file)}, which the server reads at its next start");
        return ExitCodes.Success;
    }

    /// <summary>The token stands alone on its line of standard output, so that a shell can take it from there.</summary>
    private static void Print(Secret token) => Console.Out.WriteLine(token.Value);

    private static bool ParseName(string text, [NotNullWhen(true)] out string? value, [NotNullWhen(false)] out string? problem)
    {
        value = text.Trim();
        problem = value.Length is > 0 and <= 100 && !value.Any(char.IsControl) ? null : "a name is 1 to 100 visible characters, such as alice";
        return problem is null;
    }
}
