using System.Globalization;
using System.Text;

namespace VTunnel.Options;

/// <summary>
/// Durations as Go writes them: numbers with units, such as <c>300ms</c>, <c>1.5s</c>, <c>2m</c> or <c>1h30m</c>, with a
/// sign in front if need be. Zero needs no unit. Anything finer than 100 ns is cut off.
/// </summary>
internal static class DurationText
{
    private static readonly (string Name, decimal Ticks)[] Units =
    [
        ("ns", 0.01m),
        ("us", TimeSpan.TicksPerMicrosecond),
        ("\u00b5s", TimeSpan.TicksPerMicrosecond),
        ("\u03bcs", TimeSpan.TicksPerMicrosecond),
        ("ms", TimeSpan.TicksPerMillisecond),
        ("s", TimeSpan.TicksPerSecond),
        ("m", TimeSpan.TicksPerMinute),
        ("h", TimeSpan.TicksPerHour),
    ];

    public static bool TryParse(string? text, out TimeSpan duration)
    {
        duration = default;
        var rest = text.AsSpan();
        var negative = rest.StartsWith("-");
        if (negative || rest.StartsWith("+"))
            rest = rest[1..];
        if (rest is "0")
            return true;
        if (rest.IsEmpty)
            return false;

        var ticks = 0m;
        while (!rest.IsEmpty)
        {
            var numberLength = LengthWhile(rest, static c => char.IsAsciiDigit(c) || c == '.');
            var unitLength = LengthWhile(rest[numberLength..], static c => !char.IsAsciiDigit(c) && c != '.');
            if (!decimal.TryParse(rest[..numberLength], NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var number)
                || UnitTicks(rest.Slice(numberLength, unitLength)) is not { } unit
                || number > long.MaxValue / unit)
                return false;
            ticks += number * unit;
            if (ticks > long.MaxValue)
                return false;
            rest = rest[(numberLength + unitLength)..];
        }

        duration = TimeSpan.FromTicks((long)(negative ? -ticks : ticks));
        return true;
    }

    public static string Format(TimeSpan duration)
    {
        if (duration == Timeout.InfiniteTimeSpan)
            return "infinite";
        if (duration == TimeSpan.Zero)
            return "0s";

        var text = new StringBuilder(duration < TimeSpan.Zero ? "-" : "");
        var left = Math.Abs((decimal)duration.Ticks);
        if (left < TimeSpan.TicksPerSecond)
            return text.Append(Number(left / TimeSpan.TicksPerMillisecond)).Append("ms").ToString();
        foreach (var (name, unit) in new[] { ("h", TimeSpan.TicksPerHour), ("m", TimeSpan.TicksPerMinute) })
        {
            if (left < unit)
                continue;
            text.Append(Number(decimal.Floor(left / unit))).Append(name);
            left %= unit;
        }

        if (left > 0)
            text.Append(Number(left / TimeSpan.TicksPerSecond)).Append('s');
        return text.ToString();
    }

    private static string Number(decimal value) => value.ToString("0.#######", CultureInfo.InvariantCulture);

    private static decimal? UnitTicks(ReadOnlySpan<char> name)
    {
        foreach (var (unit, ticks) in Units)
        {
            if (name.SequenceEqual(unit))
                return ticks;
        }

        return null;
    }

    private static int LengthWhile(ReadOnlySpan<char> text, Func<char, bool> matches)
    {
        var length = 0;
        while (length < text.Length && matches(text[length]))
            length++;
        return length;
    }
}
