using VTunnel.Diagnostics;

namespace VTunnel.Actors.Tests.Diagnostics;

public sealed class LogDurationTests
{
    [Theory]
    [InlineData(0, "0s")]
    [InlineData(0.0004, "0s")]
    [InlineData(0.38049, "380ms")]
    [InlineData(1.2345678, "1.235s")]
    [InlineData(-2.5, "-2.5s")]
    [InlineData(12.3456, "12.3s")]
    [InlineData(59.96, "1m")]
    [InlineData(5400.04, "1h30m")]
    public void Is_written_as_on_the_command_line_and_no_finer_than_anybody_reads(double seconds, string text) =>
        Assert.Equal(text, new LogDuration(TimeSpan.FromSeconds(seconds)).ToString());
}
