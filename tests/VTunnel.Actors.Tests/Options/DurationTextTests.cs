using VTunnel.Options;

namespace VTunnel.Actors.Tests.Options;

public sealed class DurationTextTests
{
    [Theory]
    [InlineData("0", 0)]
    [InlineData("-0", 0)]
    [InlineData("300ms", 300)]
    [InlineData("1.5s", 1500)]
    [InlineData(".5s", 500)]
    [InlineData("2m", 120_000)]
    [InlineData("1h30m", 5_400_000)]
    [InlineData("1h2m3s4ms", 3_723_004)]
    [InlineData("-1s", -1000)]
    [InlineData("+1s", 1000)]
    [InlineData("1000us", 1)]
    [InlineData("1000\u00b5s", 1)]
    [InlineData("1000000ns", 1)]
    public void A_duration_is_read_as_Go_reads_it(string text, int milliseconds)
    {
        Assert.True(DurationText.TryParse(text, out var duration));
        Assert.Equal(TimeSpan.FromMilliseconds(milliseconds), duration);
    }

    [Theory]
    [InlineData(null)]
    [InlineData("")]
    [InlineData("-")]
    [InlineData("30")]
    [InlineData("1.2.3s")]
    [InlineData(".s")]
    [InlineData("s")]
    [InlineData("1d")]
    [InlineData("1 s")]
    [InlineData("1s ")]
    [InlineData("--1s")]
    [InlineData("1S")]
    [InlineData("00:00:30")]
    [InlineData("99999999999999h")]
    [InlineData("256204778h256204778h")]
    [InlineData("99999999999999999999999999999999999999s")]
    public void What_is_not_a_duration_is_refused(string? text) => Assert.False(DurationText.TryParse(text, out _));

    [Theory]
    [InlineData("0s")]
    [InlineData("300ms")]
    [InlineData("1.5s")]
    [InlineData("30s")]
    [InlineData("1m30s")]
    [InlineData("24h")]
    [InlineData("1h0.5s")]
    [InlineData("-2m")]
    [InlineData("0.0001ms")]
    public void A_duration_prints_as_it_is_written(string text)
    {
        Assert.True(DurationText.TryParse(text, out var duration));
        Assert.Equal(text, DurationText.Format(duration));
    }
}
