using System.CommandLine;
using System.CommandLine.Completions;
using System.CommandLine.Help;
using System.CommandLine.Parsing;

namespace VTunnel.Cli.Syntax;

/// <summary>
/// The specification as System.CommandLine sees it. Options take any text here, and any number of it: values are read later,
/// together with those from the other sources, so that everything that is wrong is told at once and in one way.
/// </summary>
internal sealed class CommandTree
{
    /// <summary>By command, since commands share specifications of options but not the options themselves.</summary>
    private readonly Dictionary<Command, (CommandSpec Spec, List<(OptionSpec Spec, Option<string[]> Option)> Options)> _specs = [];
    private readonly Func<ParsedCommand, Task<int>> _run;
    private readonly RootCommand _root;

    /// <param name="root">The program; its name is that of the executable.</param>
    /// <param name="run">Gets what was typed, whether it is right or not, unless help or completion was asked for.</param>
    public CommandTree(CommandSpec root, Func<ParsedCommand, Task<int>> run)
    {
        _run = run;
        _root = new RootCommand(root.Summary);
        foreach (var option in _root.Options.Where(option => option is HelpOption or VersionOption).ToList())
            _root.Options.Remove(option);
        _root.Options.Add(new Option<bool>("--version", "-version") { Description = "Show the version.", Action = new VersionWriter() });
        var suggest = _root.Directives.OfType<SuggestDirective>().Single();
        suggest.Action = new CompletionWriter(root, suggest);
        Fill(_root, root, root.Name);
    }

    public async Task<int> InvokeAsync(string[] arguments)
    {
        // No response files: a value may begin with '@'. No bundling: -port is not -p -o -r -t.
        var parsed = _root.Parse(arguments, new ParserConfiguration { EnablePosixBundling = false, ResponseFileTokenReplacer = null });

        // Signals are the host's business.
        var configuration = new InvocationConfiguration { EnableDefaultExceptionHandler = false, ProcessTerminationTimeout = null };
        return parsed.Errors.Count > 0
            ? await _run(Interpret(parsed, arguments)).ConfigureAwait(false)
            : await parsed.InvokeAsync(configuration).ConfigureAwait(false);
    }

    private void Fill(Command command, CommandSpec spec, string path)
    {
        var options = spec.Options.Select(option => (option, CreateOption(option))).ToList();
        _specs.Add(command, (spec, options));
        command.Options.Add(new HelpOption("--help", "-help", "-h", "-?") { Action = new HelpWriter(spec, path) });
        foreach (var (_, option) in options)
            command.Options.Add(option);
        if (spec.Arguments.Count > 0)
            command.Arguments.Add(new Argument<string[]>("arguments") { Arity = ArgumentArity.ZeroOrMore });
        foreach (var child in spec.Commands)
        {
            var childCommand = new Command(child.Name, child.Summary);
            Fill(childCommand, child, $"{path} {child.Name}");
            command.Subcommands.Add(childCommand);
        }

        if (spec.Run is not null)
            command.SetAction((parsed, _) => _run(Interpret(parsed, arguments: [])));
    }

    private static Option<string[]> CreateOption(OptionSpec spec)
    {
        string[] aliases = spec.Letter is { } letter ? ["-" + spec.Name, "-" + letter] : ["-" + spec.Name];
        var option = new Option<string[]>(spec.LongName, aliases)
        {
            Description = spec.Description,
            HelpName = spec.ValueName,
            Arity = ArgumentArity.ZeroOrMore,
            AllowMultipleArgumentsPerToken = false,
        };
        if (spec.Choices.Count > 0)
            option.CompletionSources.Add([.. spec.Choices]);
        return option;
    }

    private ParsedCommand Interpret(ParseResult parsed, string[] arguments)
    {
        var (spec, options) = _specs[parsed.CommandResult.Command];
        var values = new Dictionary<OptionSpec, IReadOnlyList<string>>();
        var faults = new List<string>();
        foreach (var (option, symbol) in options)
        {
            if (parsed.GetResult(symbol) is not { Implicit: false } result)
                continue;
            var given = result.Tokens.Select(token => token.Value).ToList();
            if (option.IsSwitch)
            {
                // The parser takes any word for the switch's value; true and false begin with no dash, but a misspelled option does.
                var strays = given.Where(UnmatchedFaults.IsOption).ToArray();
                faults.AddRange(UnmatchedFaults.Describe(strays, strays, spec));
                given.RemoveAll(UnmatchedFaults.IsOption);
                if (given.Count == 0)
                    given.Add("true");
            }
            else if (given.Count < result.IdentifierTokenCount)
            {
                faults.Add($"{option.LongName}: a value is missing; write {option.LongName} {option.ValueName}");
            }

            values[option] = given;
        }

        var places = Places(parsed, options);

        if (spec.Run is null)
        {
            var commands = string.Join(", ", spec.Commands.Select(command => command.Name));
            if (!parsed.UnmatchedTokens.Any(token => !token.StartsWith('-')))
                faults.Add($"a command is missing; write one of {commands}");
        }

        faults.AddRange(UnmatchedFaults.Describe(arguments, parsed.UnmatchedTokens, spec));
        return new ParsedCommand(spec, values, places, ReadArguments(parsed, spec, faults), faults);
    }

    /// <summary>Where on the command line the values of each option stand.</summary>
    private static Dictionary<OptionSpec, List<int>> Places(ParseResult parsed, List<(OptionSpec Spec, Option<string[]> Symbol)> options)
    {
        var places = new Dictionary<OptionSpec, List<int>>();
        OptionSpec? last = null;
        for (var i = 0; i < parsed.Tokens.Count; i++)
        {
            var token = parsed.Tokens[i];
            if (token.Type == TokenType.Option)
                last = options.FirstOrDefault(option => option.Symbol.Name == token.Value || option.Symbol.Aliases.Contains(token.Value)).Spec;
            else if (token.Type == TokenType.Argument && last is not null)
                (places.TryGetValue(last, out var known) ? known : places[last] = []).Add(i);
        }

        return places;
    }

    /// <summary>What stands without a name; an option that is not known would otherwise be taken for it.</summary>
    private static string[] ReadArguments(ParseResult parsed, CommandSpec spec, List<string> faults)
    {
        if (spec.Arguments.Count == 0)
            return [];
        var tokens = parsed.CommandResult.Command.Arguments.Select(parsed.GetResult).SelectMany(result => result?.Tokens ?? []).Select(token => token.Value).ToArray();
        var options = tokens.Where(UnmatchedFaults.IsOption).ToArray();
        faults.AddRange(UnmatchedFaults.Describe(options, options, spec));
        var values = tokens.Except(options).ToArray();
        if (options.Length > 0)
            return values;

        foreach (var missing in spec.Arguments.Skip(values.Length).Where(argument => !argument.Optional))
            faults.Add($"{missing.Name} is missing: {missing.Description}");
        if (values.Length > spec.Arguments.Count && !spec.Arguments[^1].Repeatable)
            faults.Add($"'{values[spec.Arguments.Count]}': nothing more is expected here; write {string.Join(' ', spec.Arguments.Select(argument => argument.Usage))}");
        return values;
    }
}

/// <summary>What was typed: a command, the values of its options by option and where they stand, those without a name, and what cannot be understood.</summary>
internal sealed record ParsedCommand(
    CommandSpec Command,
    IReadOnlyDictionary<OptionSpec, IReadOnlyList<string>> Values,
    IReadOnlyDictionary<OptionSpec, List<int>> Places,
    IReadOnlyList<string> Arguments,
    IReadOnlyList<string> Faults);
