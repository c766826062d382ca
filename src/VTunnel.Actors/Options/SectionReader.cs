using System.Globalization;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.Options;

namespace VTunnel.Options;

/// <summary>Reads a text; null where it is not one of the kind.</summary>
internal delegate T? ReadText<T>(string text, out string? problem);

/// <summary>
/// Reads the keys of a configuration section. .NET's own binder leaves out what it cannot read, and a list of tokens that is
/// left out opens a server: here every key and every value that is not understood is a fault.
/// </summary>
internal sealed class SectionReader
{
    private readonly IConfiguration _section;
    private readonly string _path;
    private readonly OptionFaults _faults;
    private readonly Dictionary<string, Action<IConfigurationSection>> _keys = new(StringComparer.OrdinalIgnoreCase);

    private SectionReader(IConfiguration section, string path, OptionFaults faults)
    {
        _section = section;
        _path = path;
        _faults = faults;
    }

    /// <summary>Reads <paramref name="section"/> into options; <paramref name="declare"/> says which keys there are.</summary>
    /// <exception cref="OptionsValidationException">Some of it is not understood; every fault is named.</exception>
    public static void Read<TOptions>(IConfiguration section, Action<SectionReader> declare)
        where TOptions : class
    {
        var faults = new OptionFaults();
        if (section is IConfigurationSection named && !named.Exists())
            faults.Add(named.Path, null, "the configuration has no such section");
        Read(section, (section as IConfigurationSection)?.Path ?? "", faults, declare);
        if (faults.Count > 0)
            throw new OptionsValidationException(typeof(TOptions).Name, typeof(TOptions), faults.Select(fault => fault.ToString()));
    }

    private static void Read(IConfiguration section, string path, OptionFaults faults, Action<SectionReader> declare)
    {
        var reader = new SectionReader(section, path, faults);
        declare(reader);
        foreach (var child in reader._section.GetChildren())
        {
            if (reader._keys.TryGetValue(child.Key, out var read))
                read(child);
            else
                faults.Add(child.Path, null, $"not known; there are {string.Join(", ", reader._keys.Keys)}");
        }
    }

    public void Number(string key, Action<int> set) => Value(key, set, Number, "must be a whole number");

    public void Flag(string key, Action<bool> set) => Value(key, set, static text => bool.TryParse(text, out var flag) ? flag : null, "must be true or false");

    public void Duration(string key, Action<TimeSpan> set) => Value(key, set, Duration, "must be a duration, such as 2s, 1m30s or 00:00:02");

    public void Name<TEnum>(string key, Action<TEnum> set)
        where TEnum : struct, Enum =>
        Value(key, set, Named<TEnum>, $"must be one of {string.Join(", ", Enum.GetNames<TEnum>())}");

    /// <summary>A text that <paramref name="read"/> understands.</summary>
    public void Text<T>(string key, ReadText<T> read, Action<T> set, bool isSecret = false)
        where T : class =>
        _keys.Add(key, child =>
        {
            if (TextOf(child, isSecret, read) is { } value)
                set(value);
        });

    /// <summary>A list of texts that <paramref name="read"/> understands.</summary>
    public void Texts<T>(string key, ReadText<T> read, Action<IReadOnlyList<T>> set, bool isSecret = false)
        where T : class =>
        Items(key, "a list is needed, with a text for each", item => TextOf(item, isSecret, read), set);

    /// <summary>A text that <paramref name="read"/> understands, or a list of such that is not empty.</summary>
    public void TextOrTexts<T>(string key, ReadText<T> read, Action<IReadOnlyList<T>> set)
        where T : class => _keys.Add(key, child =>
        {
            // An empty list could be meant as none as well as all, and so could an empty text.
            var found = (child.GetChildren().Any() ? child.GetChildren() : [child]).Select(item => TextOf(item, false, read)).ToList();
            if (found.TrueForAll(item => item is not null))
                set([.. found.OfType<T>()]);
        });

    /// <summary>A list of items with keys of their own.</summary>
    /// <param name="key">The key of the list.</param>
    /// <param name="set">Told what was read.</param>
    /// <param name="declare">Says which keys an item has; gives what makes it of them, which gives null and the reason where one is wrong or missing.</param>
    /// <param name="fromText">Reads an item that is a text; null where there is no such form.</param>
    public void Objects<T>(string key, Action<IReadOnlyList<T>> set, Func<SectionReader, Func<(T? Item, string? Problem)>> declare, ReadText<T>? fromText = null)
        where T : class =>
        Items(key, "a list is needed", item =>
        {
            if (!item.GetChildren().Any() && fromText is not null)
                return TextOf(item, false, fromText);

            var before = _faults.Count;
            Func<(T? Item, string? Problem)>? make = null;
            Read(item, item.Path, _faults, reader => make = declare(reader));
            if (_faults.Count > before)
                return null;
            var (made, problem) = make!();
            if (made is null)
                _faults.Add(item.Path, null, problem!);
            return made;
        }, set);

    /// <summary>Headers, by their names or as a list of <c>Name: value</c>.</summary>
    public void Headers(string key, Action<IReadOnlyList<KeyValuePair<string, string>>> set) => Items(key, "headers are needed, by their names or as a list of 'Name: value'", item =>
    {
        if (!int.TryParse(item.Key, NumberStyles.None, CultureInfo.InvariantCulture, out _))
            return TextOf(item, true, static (string text, out string? problem) => Right(text, out problem)) is { } value ? new Header(item.Key, value) : null;
        return TextOf<Header>(item, true, static (string text, out string? problem) =>
        {
            var colon = text.IndexOf(':', StringComparison.Ordinal);
            problem = colon > 0 ? null : "write 'Name: value'";
            return colon > 0 ? new Header(text[..colon].Trim(), text[(colon + 1)..].Trim()) : null;
        });
    }, headers => set([.. headers.Select(header => KeyValuePair.Create(header.Name, header.Value))]));

    /// <summary>Options inside of options.</summary>
    public void Section(string key, Action<SectionReader> declare) => _keys.Add(key, child =>
    {
        if (child.GetChildren().Any())
            Read(child, child.Path, _faults, declare);
        else
            _faults.Add(child.Path, null, "a section with keys is needed; leave it out for none");
    });

    /// <summary>A property that no text can stand for.</summary>
    public void OnlyInCode(string key) => _keys.Add(key, child => _faults.Add(child.Path, null, "this cannot be read from configuration; set it in code"));

    /// <summary>For texts that are right as they are.</summary>
    public static string Right(string text, out string? problem)
    {
        problem = null;
        return text;
    }

    private void Value<T>(string key, Action<T> set, Func<string, T?> read, string form)
        where T : struct => _keys.Add(key, child =>
        {
            if (child.Value is { } text && read(text.Trim()) is { } value)
                set(value);
            else
                _faults.Add(child.Path, child.Value, form);
        });

    private void Items<T>(string key, string form, Func<IConfigurationSection, T?> read, Action<IReadOnlyList<T>> set)
        where T : class => _keys.Add(key, child =>
        {
            // An empty list is kept as an empty text; null is no list, and a text may be meant as an item.
            var items = child.GetChildren().ToList();
            if (items.Count == 0 && child.Value is not "")
            {
                _faults.Add(child.Path, null, form);
                return;
            }

            var found = items.Select(read).ToList();
            if (found.TrueForAll(item => item is not null))
                set([.. found.OfType<T>()]);
        });

    private T? TextOf<T>(IConfigurationSection child, bool isSecret, ReadText<T> read)
        where T : class
    {
        string? problem = "a text is needed";
        var value = child.Value is { } text ? read(text, out problem) : null;
        if (value is null)
            _faults.Add(child.Path, isSecret ? null : child.Value, problem!);
        return value;
    }

    private static int? Number(string text) => int.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var number) ? number : null;

    /// <summary>A number alone is none: .NET means days by it, and who writes it hardly ever does.</summary>
    private static TimeSpan? Duration(string text)
    {
        if (text.Equals("infinite", StringComparison.OrdinalIgnoreCase))
            return Timeout.InfiniteTimeSpan;
        if (DurationText.TryParse(text, out var duration))
            return duration;
        return text.Contains(':', StringComparison.Ordinal) && TimeSpan.TryParse(text, CultureInfo.InvariantCulture, out duration) ? duration : null;
    }

    private static TEnum? Named<TEnum>(string text)
        where TEnum : struct, Enum
    {
        foreach (var value in Enum.GetValues<TEnum>())
        {
            if (text.Equals(value.ToString(), StringComparison.OrdinalIgnoreCase))
                return value;
        }

        return null;
    }

    private sealed record Header(string Name, string Value);
}
