using System.CommandLine;
using System.CommandLine.Invocation;
using VTunnel.Cli.Commands;
using VTunnel.Cli.Settings;

namespace VTunnel.Cli.Syntax;

/// <summary>
/// Help from the same specification as everything else: System.CommandLine's own has no place for variables and examples,
/// and shows only one of the two spellings of an option.
/// </summary>
internal sealed class HelpWriter(CommandSpec command, string path) : SynchronousCommandLineAction
{
    private const int Width = 100;
    private const int NameColumn = 28;

    public override bool ClearsParseErrors => true;

    public override int Invoke(ParseResult parseResult)
    {
        Write(parseResult.InvocationConfiguration.Output);
        return ExitCodes.Success;
    }

    public void Write(TextWriter output)
    {
        WriteWrapped(output, command.Summary, 0);
        if (command.Details.Length > 0)
        {
            output.WriteLine();
            WriteWrapped(output, command.Details, 0);
        }

        output.WriteLine();
        output.WriteLine("Usage:");
        var arguments = string.Concat(command.Arguments.Select(argument => " " + argument.Usage));
        if (command.Commands.Count == 0 || command.Run is not null)
            output.WriteLine($"  {path}{arguments}{(command.Options.Count > 0 ? " [options]" : "")}");
        if (command.Commands.Count > 0)
            output.WriteLine($"  {path} COMMAND [options]");
        if (command.Arguments.Count > 0)
        {
            output.WriteLine();
            output.WriteLine("Arguments:");
            foreach (var argument in command.Arguments)
                WriteRow(output, argument.Name, argument.Description);
        }

        if (command.Commands.Count > 0)
        {
            output.WriteLine();
            output.WriteLine("Commands:");
            foreach (var child in command.Commands)
                WriteRow(output, child.Name, child.Summary);
        }

        output.WriteLine();
        output.WriteLine("Options:");
        foreach (var option in command.Options)
            WriteRow(output, option.IsSwitch ? option.LongName : $"{option.LongName} {option.ValueName}", Describe(option));
        if (command == CommandSpecs.Root)
            WriteRow(output, "--version", "Show which build this is.");
        WriteRow(output, "--help, -h, -?", "Show this help.");
        if (command.Options.Any(option => option.Variable is not null))
        {
            var configFile = command.Options.Contains(CommonOptions.Config) ? ", and the variable over the config file" : "";
            output.WriteLine();
            WriteWrapped(output, $"The command line wins over the environment variable in brackets{configFile}. One dash will do as well as two.", 0);
        }

        if (command.Examples.Count > 0)
        {
            output.WriteLine();
            output.WriteLine("Examples:");
            foreach (var example in command.Examples)
            {
                if (example.Text.Length > 0)
                    WriteWrapped(output, example.Text, 2);
                foreach (var line in example.Command.Split('\n'))
                    output.WriteLine("    " + line);
            }
        }
    }

    private static string Describe(OptionSpec option)
    {
        var text = option.Description;
        if (option.Letter is { } letter)
            text += $" Also -{letter}.";
        if (option.Repeatable)
            text += " Repeatable.";
        if (option.Default is { } value)
            text += $" Default: {value}.";
        if (option.Variable is { } variable)
            text += $" [{variable}]";
        return text;
    }

    private static void WriteRow(TextWriter output, string name, string text)
    {
        if (name.Length + 4 > NameColumn)
        {
            output.WriteLine("  " + name);
            output.Write(new string(' ', NameColumn));
        }
        else
        {
            output.Write(("  " + name).PadRight(NameColumn));
        }

        WriteWrapped(output, text, NameColumn, indentFirst: false);
    }

    private static void WriteWrapped(TextWriter output, string text, int indent, bool indentFirst = true)
    {
        var line = indentFirst ? new string(' ', indent) : "";
        var column = indent;
        var empty = true;
        foreach (var word in text.Split(' ', StringSplitOptions.RemoveEmptyEntries))
        {
            if (!empty && column + 1 + word.Length > Width)
            {
                output.WriteLine(line);
                line = new string(' ', indent);
                column = indent;
                empty = true;
            }

            line += empty ? word : " " + word;
            column += empty ? word.Length : word.Length + 1;
            empty = false;
        }

        output.WriteLine(line);
    }
}
