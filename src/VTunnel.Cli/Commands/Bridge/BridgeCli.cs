using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text.Json;
using Microsoft.Extensions.Logging;
using VTunnel.Bridge;
using VTunnel.Bridge.State;
using VTunnel.Carriers;
using VTunnel.Cli.Hosting;
using VTunnel.Cli.Settings;
using VTunnel.Cli.Syntax;
using VTunnel.Options;
using VTunnel.Protocol.Bridge;

namespace VTunnel.Cli.Commands.Bridge;

/// <summary>What the commands of the bridge have in common.</summary>
internal static class BridgeCli
{
    private const int MaxDays = 36_500;

    /// <summary>Half of what a relay lets pass without a byte: beyond, it would cut sessions that only have nothing to say.</summary>
    private static readonly TimeSpan MaxPingInterval = TimeSpan.FromSeconds(60);

    public static readonly OptionSpec StateDir = new("state-dir", "DIR", "Where identities, users and keys are kept; XDG_STATE_HOME moves the default.") { Default = "~/.local/state/vtunnel" };
    public static readonly OptionSpec Quiet = new("quiet", null, "Print the value alone, for scripts.") { CommandLineOnly = true };
    public static readonly OptionSpec Json = new("json", null, "Print JSON, for scripts.") { CommandLineOnly = true };
    public static readonly OptionSpec Context = new("context", "NAME", "Which identity of this machine; without it the current one, or the only one that fits.");
    public static readonly OptionSpec ReconnectMin = new("reconnect-min", "DURATION", "The first wait before connecting again; it doubles with every failure, and up to half of it is added at random.") { Default = "2s" };
    public static readonly OptionSpec ReconnectMax = new("reconnect-max", "DURATION", "The longest wait before connecting again.") { Default = "30s" };

    public static readonly OptionSpec PingInterval = new("ping-interval", "DURATION", "Silence after which the far end is asked for a sign of life; after twice as long the connection is given up. 100ms to 1m.") { Default = "10s" };

    /// <exception cref="BridgeException">The directory is there and cannot be looked into.</exception>
    public static StateDirectory State(SettingsReader settings)
    {
        var state = new StateDirectory(settings.OneOrNull<string>(StateDir, ValueParsers.Folder) ?? StateDirectory.DefaultPath(Environment.GetEnvironmentVariable));
        state.RequireReadable();
        WarnOfLooseFiles(state);
        return state;
    }

    /// <summary>Whoever else can read a key can be whose it is. The command goes on: to stop a tunnel that runs would be worse.</summary>
    private static void WarnOfLooseFiles(StateDirectory state)
    {
        var loose = state.LooseFiles();
        var (which, mend) = loose switch
        {
            [] => ("", ""),
            [var only] => (only, $"chmod 600 {Quoted(only)}"),
            [var first, ..] => ($"{first} and {loose.Count - 1} more files of the state", $"chmod -R go= {Quoted(state.Path)}"),
        };
        if (which.Length > 0)
            Console.Error.WriteLine($"vtunnel: warning: {OneLine.Of(which)} can be read or changed by others than the owner; mend it: {OneLine.Of(mend)}");
    }

    /// <summary>A path as a shell takes it.</summary>
    private static string Quoted(string path) =>
        path.All(c => char.IsAsciiLetterOrDigit(c) || "/._-~+@".Contains(c, StringComparison.Ordinal)) ? path : $"'{path.Replace("'", "'\\''", StringComparison.Ordinal)}'";

    /// <summary>Runs a command unless its line was wrong already, and tells its faults in the program's way.</summary>
    public static async Task<int> RunAsync(SettingsReader settings, Func<Task<int>> command)
    {
        // Which identity is meant is read before anything is done: an empty text is not the default, but perhaps a variable that a script forgot.
        settings.OneOrNull<string>(StateDir, ValueParsers.Folder);
        settings.Text(Context);
        if (settings.Faults.Count > 0)
            return Terminal.Refuse(settings.Faults);
        try
        {
            return await command();
        }
        catch (BridgeException e)
        {
            return Terminal.Fail(e.Code == BridgeError.Invalid ? ExitCodes.Usage : ExitCodes.StateUnusable, e.Message);
        }
        catch (TunnelConnectException e)
        {
            return Terminal.Fail(e.Code is ConnectError.Unauthorized or ConnectError.Forbidden ? ExitCodes.AccessRefused : ExitCodes.CannotConnect, e.Message);
        }
    }

    public static Task<int> Run(SettingsReader settings, Func<int> command) => RunAsync(settings, () => Task.FromResult(command()));

    /// <summary>A command to propose for this machine, as it has to be written there: what this command line says of context and state directory belongs to the next one, too.</summary>
    public static string Command(SettingsReader settings, string command)
    {
        if (settings.SourceOf(Context) == SettingSource.CommandLine && settings.Text(Context) is { } context)
            command += $" --context {context}";
        return settings.SourceOf(StateDir) == SettingSource.CommandLine && settings.Text(StateDir) is { } directory
            ? $"vtunnel {command} --state-dir {Quoted(directory)}"
            : $"vtunnel {command}";
    }

    /// <summary>Prints what was done and what comes next, or the value alone.</summary>
    public static int Tell(SettingsReader settings, string value, params string[] lines)
    {
        if (settings.Switch(Quiet))
        {
            Console.Out.WriteLine(value);
            return ExitCodes.Success;
        }

        foreach (var line in lines)
            Console.Out.WriteLine(line);
        return ExitCodes.Success;
    }

    public static void PrintJson<T>(T value) => Console.Out.WriteLine(JsonSerializer.Serialize(value, CliJson.Of<T>()));

    /// <summary>A table for people.</summary>
    public static void PrintTable(IReadOnlyList<string> heads, IEnumerable<IReadOnlyList<string>> rows)
    {
        var all = rows.Prepend(heads).Select(row => row.Select(OneLine.Of).ToArray()).ToList();
        var widths = heads.Select((_, column) => all.Max(row => row[column].Length)).ToArray();
        foreach (var row in all)
            Console.Out.WriteLine(string.Join("  ", row.Select((cell, column) => cell.PadRight(widths[column]))).TrimEnd());
    }

    /// <summary>What a list command prints: JSON for <c>--json</c>, names alone for <c>--quiet</c>, else a table, or what to do where there is nothing.</summary>
    public static int PrintList<T>(
        SettingsReader settings, IReadOnlyList<T> items, Func<T, string> name, string whenEmpty, IReadOnlyList<string> heads, Func<T, string[]> row)
    {
        if (settings.Switch(Json))
        {
            PrintJson(items);
        }
        else if (settings.Switch(Quiet))
        {
            foreach (var item in items)
                Console.Out.WriteLine(name(item));
        }
        else if (items.Count == 0)
        {
            Console.Out.WriteLine(whenEmpty);
        }
        else
        {
            PrintTable(heads, items.Select(row));
        }

        return ExitCodes.Success;
    }

    public static string Name(SettingsReader settings, int index, ArgumentSpec spec)
    {
        // One that is missing is told of already; one that is empty is given, and is no name.
        var name = settings.Arguments.ElementAtOrDefault(index);
        if (name is not null && StateDirectory.NameProblem(name) is { } problem)
            settings.Fault(spec, name, problem);
        return name ?? "";
    }

    public static bool NameValue(string text, [NotNullWhen(true)] out string? value, [NotNullWhen(false)] out string? problem)
    {
        value = text;
        problem = StateDirectory.NameProblem(text);
        return problem is null;
    }

    /// <summary>LOCAL:PORT, LOCAL:HOST:PORT or LOCAL:[IPV6]:PORT.</summary>
    public static bool Mapping(string text, [NotNullWhen(true)] out BridgeGrant? value, [NotNullWhen(false)] out string? problem)
    {
        value = null;
        problem = "write LOCAL:PORT for a port of the publisher's own machine, or LOCAL:HOST:PORT, such as 5432:5432 or 8080:10.0.0.7:80 (IPv6 in brackets)";
        var first = text.IndexOf(':', StringComparison.Ordinal);
        var last = text.LastIndexOf(':');
        if (first <= 0 || !TryPort(text[..first], out var local) || !TryPort(text[(last + 1)..], out var port))
            return false;
        var host = first == last ? "127.0.0.1" : text[(first + 1)..last];
        if (host.StartsWith('[') && host.EndsWith(']'))
            host = host[1..^1];
        else if (host.Contains(':', StringComparison.Ordinal))
            return false;
        if (Uri.CheckHostName(host) == UriHostNameType.Unknown)
        {
            problem = $"'{host}' is neither a host name nor an address";
            return false;
        }

        value = new BridgeGrant(local, host, port);
        problem = value.IsValid ? null : problem;
        return value.IsValid;
    }

    public static bool PortNumber(string text, out int value, [NotNullWhen(false)] out string? problem)
    {
        problem = TryPort(text, out value) ? null : "a port is a number from 1 to 65535";
        return problem is null;
    }

    /// <summary>NEW:ORIGINAL.</summary>
    public static bool PortMove(string text, out KeyValuePair<int, int> value, [NotNullWhen(false)] out string? problem)
    {
        value = default;
        problem = "write NEW:ORIGINAL, such as 15432:5432 to open 15432 in place of 5432";
        if (text.Split(':') is not [var to, var from] || !TryPort(to, out var newPort) || !TryPort(from, out var original))
            return false;
        value = new(original, newPort);
        problem = null;
        return true;
    }

    /// <summary>A duration from now (30d, 12h, 90m) or a date; <c>never</c> is none.</summary>
    public static bool Expiry(string text, [NotNullWhen(true)] out ExpiryValue? value, [NotNullWhen(false)] out string? problem)
    {
        problem = null;
        value = null;
        var now = TimeProvider.System.GetUtcNow();
        if (text.Equals("never", StringComparison.OrdinalIgnoreCase))
            value = new ExpiryValue(null);
        else if (LongDuration(text, out var duration, out _))
            value = new ExpiryValue(now + duration);
        else if (DateTimeOffset.TryParse(text, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal | DateTimeStyles.AdjustToUniversal, out var date))
            value = new ExpiryValue(date);
        else
            problem = "write a duration such as 30d or 12h, a date such as 2027-01-31 or 2027-01-31T18:00Z, or never";
        return value is not null;
    }

    /// <summary>As other durations, and days: 30d.</summary>
    public static bool LongDuration(string text, out TimeSpan value, [NotNullWhen(false)] out string? problem)
    {
        problem = null;
        if (text.EndsWith('d') && double.TryParse(text.AsSpan(0, text.Length - 1), NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var days) && days is > 0 and < MaxDays)
        {
            value = TimeSpan.FromDays(days);
            return true;
        }

        if (DurationText.TryParse(text, out value) && value > TimeSpan.Zero && value.TotalDays < MaxDays)
            return true;
        problem = $"a duration is a number above 0 with a unit, such as 300ms, 90m, 12h or 30d, and less than {MaxDays}d";
        return false;
    }

    public static BridgeSessionOptions SessionOptions(SettingsReader settings)
    {
        var defaults = new BridgeSessionOptions();
        var minimum = settings.One(ReconnectMin, ValueParsers.Duration, defaults.ReconnectMin);
        var maximum = settings.One(ReconnectMax, ValueParsers.Duration, defaults.ReconnectMax);
        if (minimum <= TimeSpan.Zero || minimum > TimeSpan.FromDays(1))
            settings.Fault(ReconnectMin, DurationText.Format(minimum), "a wait between connections is more than 0 and at most 24h");
        else if (maximum < minimum || maximum > TimeSpan.FromDays(1))
            settings.Fault(ReconnectMax, DurationText.Format(maximum), $"the longest wait is at least the first one ({DurationText.Format(minimum)}) and at most 24h");
        var ping = settings.One(PingInterval, ValueParsers.Duration, defaults.KeepAliveInterval);
        if (ping < TimeSpan.FromMilliseconds(100) || ping > MaxPingInterval)
            settings.Fault(PingInterval, DurationText.Format(ping), $"at least 100ms and at most {DurationText.Format(MaxPingInterval)}: a relay cuts what says nothing for two minutes");
        return new BridgeSessionOptions { ReconnectMin = minimum, ReconnectMax = maximum, KeepAliveInterval = ping };
    }

    public static (LogLevel Level, LogFormat Format) Log(SettingsReader settings) => (
        settings.One(CommonOptions.LogLevel, ValueParsers.Level, LogLevel.Information),
        settings.One(CommonOptions.LogFormat, ValueParsers.Format, LogFormat.Text));

    /// <summary>Bytes for people.</summary>
    public static string Bytes(long count) => count switch
    {
        < 10_000 => string.Create(CultureInfo.InvariantCulture, $"{count} B"),
        < 10_000_000 => string.Create(CultureInfo.InvariantCulture, $"{count / 1e3:0.#} kB"),
        < 10_000_000_000 => string.Create(CultureInfo.InvariantCulture, $"{count / 1e6:0.#} MB"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{count / 1e9:0.#} GB"),
    };

    public static string Time(DateTimeOffset time) => time.UtcDateTime.ToString("yyyy-MM-dd HH:mm:ss'Z'", CultureInfo.InvariantCulture);

    public static string Grants(IEnumerable<BridgeGrant> grants) => string.Join(", ", grants) is { Length: > 0 } text ? text : "nothing";

    private static bool TryPort(string text, out int port) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out port) && port is >= 1 and <= 65535;
}

/// <summary>A time, or never.</summary>
internal sealed record ExpiryValue(DateTimeOffset? Time);
