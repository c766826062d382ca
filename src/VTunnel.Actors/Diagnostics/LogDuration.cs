using VTunnel.Options;

namespace VTunnel.Diagnostics;

/// <summary>A duration in a log line, written as on the command line, such as <c>380ms</c> or <c>1m30s</c>; from ten seconds on to the tenth.</summary>
internal readonly record struct LogDuration(TimeSpan Value)
{
    public static implicit operator LogDuration(TimeSpan value) => new(value);

    public override string ToString()
    {
        var unit = Value.Duration() < TimeSpan.FromSeconds(10) ? TimeSpan.TicksPerMillisecond : TimeSpan.TicksPerSecond / 10;
        return DurationText.Format(TimeSpan.FromTicks((long)Math.Round(Value.Ticks / (double)unit) * unit));
    }
}
