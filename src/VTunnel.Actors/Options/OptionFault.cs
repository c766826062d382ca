namespace VTunnel.Options;

/// <summary>One thing that is wrong with options.</summary>
/// <param name="Key">The property, e.g. <c>MaxSessions</c> or <c>ServerTls.CertificateAuthorityFile</c>.</param>
/// <param name="Value">Its value as text; null where there is none or where it is secret.</param>
/// <param name="Problem">What is wrong and what would be right.</param>
public sealed record OptionFault(string Key, string? Value, string Problem)
{
    /// <inheritdoc />
    public override string ToString() => Value is null ? $"{Key}: {Problem}" : $"{Key} '{Value}': {Problem}";
}

/// <summary>Collects faults, so that all of them are told at once.</summary>
internal sealed class OptionFaults : List<OptionFault>
{
    /// <summary>Timers take at most 49 days; nothing here needs as much as one.</summary>
    public static readonly TimeSpan LongestTime = TimeSpan.FromHours(24);

    public void Add(string key, string? value, string problem) => Add(new OptionFault(key, value, problem));

    public void Range(string key, long value, long min, long max, string unit = "")
    {
        if (value < min || value > max)
            Add(key, $"{value}", $"must be from {min} to {max}{unit}");
    }

    public void Positive(string key, TimeSpan value, string orElse = "")
    {
        if (value <= TimeSpan.Zero || value > LongestTime)
            Add(key, DurationText.Format(value), $"must be longer than 0s and at most {DurationText.Format(LongestTime)}{orElse}");
    }

    public void NotNegative(string key, TimeSpan value)
    {
        if (value < TimeSpan.Zero || value > LongestTime)
            Add(key, DurationText.Format(value), $"must be from 0s to {DurationText.Format(LongestTime)}");
    }

    public void Defined<TEnum>(string key, TEnum value)
        where TEnum : struct, Enum
    {
        if (!Enum.IsDefined(value))
            Add(key, value.ToString(), $"must be one of {string.Join(", ", Enum.GetNames<TEnum>())}");
    }
}
