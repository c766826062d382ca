using System.Diagnostics.CodeAnalysis;
using VTunnel.Cli.Syntax;
using VTunnel.Options;

namespace VTunnel.Cli.Settings;

/// <summary>The kinds of places that a value comes from; a later one wins over an earlier one.</summary>
internal enum SettingSource
{
    ConfigFile,
    Environment,
    CommandLine,
}

/// <summary>What one source says about one option.</summary>
/// <param name="Values">At least one, unless the source gives an empty list.</param>
/// <param name="Source">Which kind of source.</param>
/// <param name="Label">What the value is called there, for messages.</param>
internal sealed record Setting(IReadOnlyList<string> Values, SettingSource Source, string Label)
{
    /// <summary>Where on the command line the values stand; empty elsewhere.</summary>
    public IReadOnlyList<int> Places { get; init; } = [];
}

/// <summary>
/// The values of a command's options from all sources, each option's from the highest that gives it (a list is never mixed
/// from two), and everything found wrong with them so far.
/// </summary>
internal sealed class SettingsReader
{
    private readonly IReadOnlyDictionary<OptionSpec, Setting> _settings;
    private readonly List<(int Order, string Line)> _faults;
    private readonly HashSet<OptionSpec> _faulty = [];
    private readonly IReadOnlyList<OptionSpec> _options;

    public SettingsReader(
        IReadOnlyList<OptionSpec> options, IReadOnlyDictionary<OptionSpec, Setting> settings, IEnumerable<string> faults, IReadOnlyList<string>? arguments = null)
    {
        Arguments = arguments ?? [];
        _options = options;
        _settings = settings;
        _faults = [.. faults.Select(fault => (-1, fault))];
    }

    /// <summary>What is wrong, a line for each, in the order in which help lists the options.</summary>
    public IReadOnlyList<string> Faults => [.. _faults.OrderBy(fault => fault.Order).Select(fault => fault.Line)];

    /// <summary>What stands on the command line without a name.</summary>
    public IReadOnlyList<string> Arguments { get; }

    /// <summary>Adds a fault of an argument.</summary>
    public void Fault(ArgumentSpec argument, string value, string problem) =>
        _faults.Add((-1, OneLine.Of(argument.Secret ? $"{argument.Name}: {problem}" : $"{argument.Name} '{value}': {problem}")));

    /// <summary>Which source gives the option; null if none does.</summary>
    public SettingSource? SourceOf(OptionSpec option) => _settings.TryGetValue(option, out var setting) ? setting.Source : null;

    /// <summary>Whether a source gives the option, and no value for it: an empty list.</summary>
    public bool IsEmpty(OptionSpec option) => _settings.TryGetValue(option, out var setting) && setting.Values.Count == 0;

    /// <summary>The option's only value, or <paramref name="fallback"/> if there is none or it is wrong.</summary>
    public T One<T>(OptionSpec option, ValueParser<T> parse, T fallback)
    {
        if (!_settings.TryGetValue(option, out var setting) || setting.Values.Count == 0)
            return fallback;
        if (setting.Values.Count > 1)
        {
            Add(option, $"{setting.Label}: given {setting.Values.Count} times; give it once");
            return fallback;
        }

        return TryRead(option, setting, setting.Values[0], 0, parse, out var value) ? value : fallback;
    }

    /// <summary>The option's values that are right.</summary>
    public IReadOnlyList<T> Many<T>(OptionSpec option, ValueParser<T> parse)
    {
        var values = new List<T>();
        if (!_settings.TryGetValue(option, out var setting))
            return values;
        for (var i = 0; i < setting.Values.Count; i++)
        {
            if (TryRead(option, setting, setting.Values[i], i, parse, out var value))
                values.Add(value);
        }

        return values;
    }

    /// <summary>The option's values as they are, in order, with their places; from elsewhere than the command line all stand at the end.</summary>
    public IReadOnlyList<(string Text, int Place)> Placed(OptionSpec option) =>
        _settings.TryGetValue(option, out var setting)
            ? [.. setting.Values.Select((text, index) => (text, index < setting.Places.Count ? setting.Places[index] : int.MaxValue))]
            : [];

    /// <summary>Reads a text of an option; what is wrong is a fault.</summary>
    public bool TryParse<T>(OptionSpec option, string text, ValueParser<T> parse, [MaybeNullWhen(false)] out T value) =>
        TryRead(option, _settings[option], text, index: null, parse, out value);

    /// <summary>What the option is called where its value comes from.</summary>
    public string LabelOf(OptionSpec option) => _settings.TryGetValue(option, out var setting) ? setting.Label : option.LongName;

    /// <summary>The option's only value, or null if there is none or it is wrong.</summary>
    public T? OneOrNull<T>(OptionSpec option, ValueParser<T> parse)
        where T : class => One(option, parse!, null);

    /// <summary>The option's only value as it is, or null if there is none.</summary>
    public string? Text(OptionSpec option) => OneOrNull<string>(option, ValueParsers.Text);

    public bool Switch(OptionSpec option) => One(option, ValueParsers.Switch, fallback: false);

    /// <summary>Adds a fault of an option, under the name that its source gives it.</summary>
    public void Fault(OptionSpec option, string? value, string problem)
    {
        var label = LabelOf(option);
        Add(option, value is null || option.Secret ? $"{label}: {problem}" : $"{label} '{value}': {problem}");
    }

    /// <summary>Adds a fault of a value that must not be seen.</summary>
    /// <param name="option">The option.</param>
    /// <param name="place">Which value it is, with a blank before it; empty where there is one only.</param>
    /// <param name="problem">What is wrong with it.</param>
    public void FaultAt(OptionSpec option, string place, string problem) => Add(option, $"{LabelOf(option)}{place}: {problem}");

    /// <summary>Adds what an option validator found, under the names of the options; what was faulty before is not told twice.</summary>
    public void Fault(IEnumerable<OptionFault> faults)
    {
        var faultyBefore = _faulty.ToHashSet();
        foreach (var fault in faults)
        {
            var option = _options.FirstOrDefault(option => option.Property == fault.Key);
            if (option is null)
                _faults.Add((_options.Count, OneLine.Of(fault.ToString())));
            else if (!faultyBefore.Contains(option))
                Fault(option, ValueAsGiven(option) ?? fault.Value, fault.Problem);
        }
    }

    private string? ValueAsGiven(OptionSpec option) =>
        option is { Repeatable: false, FaultsNameTheirValue: false } && _settings.TryGetValue(option, out var setting) && setting.Values.Count == 1
            ? setting.Values[0]
            : null;

    private bool TryRead<T>(OptionSpec option, Setting setting, string text, int? index, ValueParser<T> parse, out T value)
    {
        if (parse(text, out value!, out var problem))
            return true;
        var isHidden = option.Secret || (option.MayHoldSecret && text.AsSpan().IndexOfAny("@?#") >= 0);
        Add(option, isHidden ? $"{setting.Label}{Number(index, setting.Values.Count)}: {problem}" : $"{setting.Label} '{text}': {problem}");
        return false;
    }

    /// <summary>Which one of several values is meant where a value must not be seen.</summary>
    public static string Number(int? index, int count) => index is { } i && count > 1 ? $" ({i + 1} of {count})" : "";

    private void Add(OptionSpec option, string line)
    {
        _faulty.Add(option);
        _faults.Add((_options.TakeWhile(known => known != option).Count(), OneLine.Of(line)));
    }
}
