using VTunnel.Cli.Settings;

namespace VTunnel.Cli.Syntax;

/// <summary>A command as help shows it and as it is run; one with commands below it may be run itself, too.</summary>
internal sealed record CommandSpec(string Name, string Summary)
{
    /// <summary>What help says below the summary; may be empty.</summary>
    public string Details { get; init; } = "";

    /// <summary>What follows the command without a name, in this order.</summary>
    public IReadOnlyList<ArgumentSpec> Arguments { get; init; } = [];

    public IReadOnlyList<OptionSpec> Options { get; init; } = [];

    public IReadOnlyList<Example> Examples { get; init; } = [];

    public IReadOnlyList<CommandSpec> Commands { get; init; } = [];

    /// <summary>Does the work; gets settings without faults of syntax, may find further ones, and returns the exit code.</summary>
    public Func<SettingsReader, Task<int>>? Run { get; init; }
}

/// <summary>A command line that works as it stands.</summary>
internal sealed record Example(string Text, string Command);

/// <summary>A value without a name.</summary>
/// <param name="Name">As help shows it: <c>RELAY-URL</c>.</param>
/// <param name="Description">One sentence.</param>
internal sealed record ArgumentSpec(string Name, string Description)
{
    /// <summary>Whether it may be left out.</summary>
    public bool Optional { get; init; }

    /// <summary>Whether there may be several; only the last one of a command.</summary>
    public bool Repeatable { get; init; }

    /// <summary>Whether the value must not be seen in messages.</summary>
    public bool Secret { get; init; }

    /// <summary>As usage shows it.</summary>
    public string Usage => (Optional ? $"[{Name}]" : Name) + (Repeatable ? "..." : "");
}
