namespace VTunnel.Cli.Syntax;

/// <summary>Says what is wrong with the parts of a command line that belong to nothing, without repeating what may be secret.</summary>
internal static class UnmatchedFaults
{
    /// <summary>Whether a word was meant as the name of an option: it begins with a dash, and is no negative number.</summary>
    public static bool IsOption(string word) => word.Length > 1 && word[0] == '-' && !char.IsAsciiDigit(word[1]);

    public static IEnumerable<string> Describe(string[] arguments, IReadOnlyList<string> unmatched, CommandSpec command)
    {
        var next = 0;
        string? option = null;
        foreach (var argument in arguments)
        {
            var isUnmatched = next < unmatched.Count && argument == unmatched[next];
            if (isUnmatched)
                next++;

            if (IsOption(argument))
            {
                var end = argument.AsSpan().IndexOfAny('=', ':');
                option = end < 0 ? argument : argument[..end];
                if (isUnmatched)
                    yield return UnknownOption(option, command);
            }
            else if (isUnmatched && Owner(option, command) is { Secret: true } secret)
            {
                yield return $"{secret.LongName}: more than one value follows; put a value with blanks in quotes";
                option = "-";
            }
            else if (isUnmatched && (option is null || Owner(option, command) is not null))
            {
                yield return UnexpectedArgument(argument, command);
            }

            // What follows an option that is not known is most likely its value, and may be a token: it is left out.
        }
    }

    private static OptionSpec? Owner(string? typed, CommandSpec command) =>
        typed is null ? null : command.Options.FirstOrDefault(option => option.Name == typed.TrimStart('-'));

    private static string UnknownOption(string typed, CommandSpec command)
    {
        var nearest = NearestName.Of(typed.TrimStart('-'), command.Options.Select(option => option.Name).Append("help"));
        return $"{typed}: there is no such option; " + (nearest is null ? "--help lists those that there are" : $"did you mean --{nearest}?");
    }

    private static string UnexpectedArgument(string typed, CommandSpec command)
    {
        if (command.Commands.Count == 0)
            return $"'{typed}': nothing is expected here; --help lists the options";
        var nearest = NearestName.Of(typed, command.Commands.Select(child => child.Name));
        return $"'{typed}': there is no such command; "
            + (nearest is null ? $"the commands are {string.Join(", ", command.Commands.Select(child => child.Name))}" : $"did you mean {nearest}?");
    }
}
