namespace VTunnel.Cli.Syntax;

/// <summary>One option of a command, wherever its value comes from: what help, the parser, the sources and the messages need to know.</summary>
/// <param name="Name">The long name without dashes; also the key in a config file.</param>
/// <param name="ValueName">What stands for the value in help; null for a switch.</param>
/// <param name="Description">One or two sentences.</param>
internal sealed record OptionSpec(string Name, string? ValueName, string Description)
{
    /// <summary>The default as help shows it; null where there is none.</summary>
    public string? Default { get; init; }

    /// <summary>A letter that does as well, with one dash; null for none.</summary>
    public char? Letter { get; init; }

    /// <summary>Whether it may be given several times.</summary>
    public bool Repeatable { get; init; }

    /// <summary>The characters between the values of a repeatable option in an environment variable.</summary>
    public string Separators { get; init; } = ",\n";

    /// <summary>Whether the value must not be seen in messages.</summary>
    public bool Secret { get; init; }

    /// <summary>Whether a value may have a password in it although it should not, before an @ or behind a ?: such a one is not shown either.</summary>
    public bool MayHoldSecret { get; init; }

    /// <summary>Whether environment and config file can give it, too.</summary>
    public bool CommandLineOnly { get; init; }

    /// <summary>Whether a config file can give it (the config file's own path cannot stand in it).</summary>
    public bool InConfigFile { get; init; } = true;

    /// <summary>The values that there are, if they can be listed; for completion.</summary>
    public IReadOnlyList<string> Choices { get; init; } = [];

    /// <summary>The property of the engine's options whose faults are told under this option's name.</summary>
    public string? Property { get; init; }

    /// <summary>Whether messages show the value that the engine's validator names (a part of it, or one without its secrets) rather than the text as given.</summary>
    public bool FaultsNameTheirValue { get; init; }

    public bool IsSwitch => ValueName is null;

    public string LongName => "--" + Name;

    /// <summary>The environment variable, or null if there is none.</summary>
    public string? Variable => CommandLineOnly ? null : "VTUNNEL_" + Name.ToUpperInvariant().Replace('-', '_');
}
