using VTunnel.Cli.Settings;

namespace VTunnel.Cli.Syntax;

/// <summary>A command as help shows it and as it is run; one with commands below it is not run itself.</summary>
internal sealed record CommandSpec(string Name, string Summary)
{
    /// <summary>What help says below the summary; may be empty.</summary>
    public string Details { get; init; } = "";

    public IReadOnlyList<OptionSpec> Options { get; init; } = [];

    public IReadOnlyList<Example> Examples { get; init; } = [];

    public IReadOnlyList<CommandSpec> Commands { get; init; } = [];

    /// <summary>Does the work; gets settings without faults of syntax, may find further ones, and returns the exit code.</summary>
    public Func<SettingsReader, Task<int>>? Run { get; init; }
}

/// <summary>A command line that works as it stands.</summary>
internal sealed record Example(string Text, string Command);
