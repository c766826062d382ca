using VTunnel.Cli.Syntax;

namespace VTunnel.Cli.Settings;

/// <summary>Brings the sources together: command line over environment over config file.</summary>
internal static class SettingSources
{
    public static SettingsReader Read(ParsedCommand parsed, Func<string, string?> environment)
    {
        var faults = new List<string>(parsed.Faults);
        var settings = new Dictionary<OptionSpec, Setting>();
        foreach (var option in parsed.Command.Options)
        {
            if (parsed.Values.TryGetValue(option, out var typed))
                settings[option] = new Setting(typed, SettingSource.CommandLine, option.LongName) { Places = parsed.Places.GetValueOrDefault(option, []) };
            else if (FromEnvironment(option, environment) is { } setting)
                settings[option] = setting;
        }

        if (settings.TryGetValue(CommonOptions.Config, out var config) && config.Values.Count > 1)
        {
            faults.Add($"{config.Label}: given {config.Values.Count} times; give it once");
        }
        else if (config is { Values: [var path] })
        {
            foreach (var (option, setting) in ConfigFile.Read(path, config.Label, parsed.Command, faults))
                settings.TryAdd(option, setting);
        }

        return new SettingsReader(parsed.Command.Options, settings, faults, parsed.Arguments);
    }

    /// <summary>An empty variable is as good as none: that is how container tools pass on what was not set.</summary>
    private static Setting? FromEnvironment(OptionSpec option, Func<string, string?> environment)
    {
        if (option.Variable is not { } name || environment(name) is not { Length: > 0 } text)
            return null;
        string[] values = option.Repeatable
            ? text.Split(option.Separators.ToCharArray(), StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries)
            : [text];
        return new Setting(values, SettingSource.Environment, name);
    }
}
