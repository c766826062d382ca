using System.CommandLine;
using System.CommandLine.Invocation;

namespace VTunnel.Cli.Syntax;

/// <summary>
/// What can stand where the cursor is, a line each, and nothing at all where the shell knows better, as for the names of files.
/// System.CommandLine's own answer has both spellings of an option, names that merely contain what was typed, and an empty line
/// in place of nothing, which shells take for a match.
/// </summary>
/// <param name="root">All commands.</param>
/// <param name="directive">Has the place of the cursor.</param>
internal sealed class CompletionWriter(CommandSpec root, Directive directive) : SynchronousCommandLineAction
{
    public override bool ClearsParseErrors => true;

    public override int Invoke(ParseResult parseResult)
    {
        var line = parseResult.Tokens.LastOrDefault(token => token.Type != System.CommandLine.Parsing.TokenType.Directive)?.Value ?? "";
        var cursor = parseResult.GetResult(directive)?.Values is [var text] && int.TryParse(text, out var place) ? Math.Clamp(place, 0, line.Length) : line.Length;
        foreach (var answer in Complete(line[..cursor]))
            parseResult.InvocationConfiguration.Output.WriteLine(answer);
        return ExitCodes.Success;
    }

    /// <summary>The answers to a line up to the cursor, in order.</summary>
    internal IEnumerable<string> Complete(string line)
    {
        var words = line.Split([' ', '\t'], StringSplitOptions.RemoveEmptyEntries).ToList();
        var word = line.Length > 0 && line[^1] is not (' ' or '\t') ? words[^1] : "";
        if (word.Length > 0)
            words.RemoveAt(words.Count - 1);

        // The name of the program comes first, unless who asks leaves it out.
        var command = root;
        if (words.Count > 0 && !UnmatchedFaults.IsOption(words[0]) && root.Commands.All(child => child.Name != words[0]))
            words.RemoveAt(0);
        foreach (var known in words)
            command = command.Commands.FirstOrDefault(child => child.Name == known) ?? command;

        if (words.Count > 0 && Option(command, words[^1]) is { IsSwitch: false } asked)
            return Matching(asked.Choices, word);
        if (UnmatchedFaults.IsOption(word) && word.Split('=', 2) is [var name, var value])
            return Matching(Option(command, name)?.Choices ?? [], value);

        var options = command.Options.Select(option => option.LongName).Append("--help").Concat(command == root ? ["--version"] : []);
        if (word.StartsWith('-'))
            return Matching(options, word.StartsWith("--", StringComparison.Ordinal) ? word : "-" + word);
        var commands = command.Commands.Select(child => child.Name);

        // An argument is most often a file, which the shell completes.
        return Matching(word.Length > 0 || command.Arguments.Count > 0 ? commands : commands.Concat(options), word);
    }

    private static OptionSpec? Option(CommandSpec command, string typed) =>
        UnmatchedFaults.IsOption(typed) ? command.Options.FirstOrDefault(option => typed == option.LongName || typed == "-" + option.Name || typed == $"-{option.Letter}") : null;

    private static IEnumerable<string> Matching(IEnumerable<string> names, string word) =>
        names.Where(name => name.StartsWith(word, StringComparison.Ordinal)).Order(StringComparer.Ordinal);
}
