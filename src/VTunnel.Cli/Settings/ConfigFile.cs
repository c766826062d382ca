using System.Text.Json;
using Microsoft.Extensions.Configuration;
using VTunnel.Cli.Commands;
using VTunnel.Cli.Syntax;
using VTunnel.Options;
using YamlDotNet.Core;

namespace VTunnel.Cli.Settings;

/// <summary>Reads a config file: an object whose keys are long option names.</summary>
internal static class ConfigFile
{
    /// <summary>What the file says; what is wrong with it goes to <paramref name="faults"/>.</summary>
    public static IEnumerable<(OptionSpec Option, Setting Setting)> Read(string path, string label, CommandSpec command, List<string> faults)
    {
        if (Load(path, label, faults) is not { } configuration)
            return [];

        var file = Path.GetFileName(path);
        var settings = new List<(OptionSpec, Setting)>();
        foreach (var section in configuration.GetChildren())
        {
            var name = $"{section.Key} in {file}";
            var option = command.Options.FirstOrDefault(option => option.Name.Equals(section.Key, StringComparison.OrdinalIgnoreCase));
            if (option is { CommandLineOnly: true } or { InConfigFile: false })
                faults.Add(OneLine.Of($"{name}: a file cannot give this option; give {option.LongName} on the command line{(option.Variable is { } variable ? $", or {variable}" : "")}"));
            else if (option is null)
                faults.Add(OneLine.Of($"{name}: {UnknownKey(section.Key, command)}"));
            else if (Values(section, option) is { } values)
                settings.Add((option, new Setting(values, SettingSource.ConfigFile, $"{option.Name} in {file}")));
            else
                faults.Add(OneLine.Of($"{name}: {(option.Repeatable ? "write a value or a list of values" : "write one value; it is missing, or a list or an object")}"));
        }

        return settings;
    }

    private static IConfigurationRoot? Load(string path, string label, List<string> faults)
    {
        string problem;
        try
        {
            var builder = new ConfigurationBuilder();
            var content = new MemoryStream(File.ReadAllBytes(path), writable: false);
            switch (Path.GetExtension(path).ToUpperInvariant())
            {
                case ".JSON":
                    builder.AddJsonStream(content);
                    break;
                case ".YAML" or ".YML":
                    builder.Add(new YamlConfigurationSource { Stream = content });
                    break;
                default:
                    faults.Add(OneLine.Of($"{label} '{path}': the ending of the file must be .json, .yaml or .yml"));
                    return null;
            }

            return builder.Build();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException or NotSupportedException)
        {
            problem = OptionRules.FileProblem(path, e);
        }
        catch (JsonException e)
        {
            problem = NotJson(e);
        }
        catch (FormatException e)
        {
            problem = e.InnerException is JsonException json ? NotJson(json) : e.Message;
        }
        catch (YamlException e)
        {
            problem = $"not valid YAML (line {e.Start.Line}): {e.Message}";
        }

        faults.Add(OneLine.Of($"{label} '{path}': {problem}"));
        return null;
    }

    private static string NotJson(JsonException e) => $"not valid JSON (line {(e.LineNumber ?? 0) + 1})";

    /// <summary>The values under a key, or null if they are not in the right form.</summary>
    private static IReadOnlyList<string>? Values(IConfigurationSection section, OptionSpec option)
    {
        var children = section.GetChildren().ToList();
        if (children.Count == 0)
        {
            // An empty list arrives as an empty text or as nothing.
            return section.Value is { Length: > 0 } value ? [value] : option.Repeatable ? [] : null;
        }

        var isList = children.Select((child, index) => child.Key == $"{index}" && child.Value is not null && !child.GetChildren().Any()).All(fits => fits);
        return isList && option.Repeatable ? [.. children.Select(child => child.Value!)] : null;
    }

    private static string UnknownKey(string key, CommandSpec command)
    {
        var names = command.Options.Where(option => option is { InConfigFile: true, CommandLineOnly: false }).Select(option => option.Name).ToList();
        var other = CommandSpecs.Root.Commands.FirstOrDefault(other => other != command
            && other.Options.Any(option => option.Name.Equals(key, StringComparison.OrdinalIgnoreCase) && option.InConfigFile && !option.CommandLineOnly));
        if (other is not null)
            return $"this is an option of 'vtunnel {other.Name}', not of 'vtunnel {command.Name}'";
        return NearestName.Of(key, names) is { } nearest
            ? $"there is no such option; did you mean {nearest}?"
            : $"there is no such option; the options are {string.Join(", ", names)}";
    }
}
