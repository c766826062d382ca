using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using VTunnel.Cli.Hosting;

namespace VTunnel.EndToEnd.Tests.CommandLine;

public sealed class LineFormatterTests
{
    private static readonly DateTimeOffset Now = new(2026, 11, 22, 19, 13, 24, 123, TimeSpan.Zero);

    private static string Format(LogLevel level, string message, Exception? exception = null, bool stackTraces = false)
    {
        var formatter = new LineFormatter(Microsoft.Extensions.Options.Options.Create(new LineFormatterOptions { StackTraces = stackTraces }), new FixedTime());
        using var output = new StringWriter();
        formatter.Write(new LogEntry<string>(level, "category", default, message, exception, (state, _) => state), null, output);
        return output.ToString();
    }

    [Theory]
    [InlineData(LogLevel.Trace, "trace")]
    [InlineData(LogLevel.Debug, "debug")]
    [InlineData(LogLevel.Information, "info ")]
    [InlineData(LogLevel.Warning, "warn ")]
    [InlineData(LogLevel.Error, "error")]
    [InlineData(LogLevel.Critical, "fatal")]
    public void An_entry_is_time_level_and_message(LogLevel level, string word) =>
        Assert.Equal($"2026-11-22T19:13:24.123Z {word} message\n", Format(level, "message"));

    [Fact]
    public void Text_from_outside_cannot_start_a_new_line_or_send_escape_codes() =>
        Assert.Equal(
            "2026-11-22T19:13:24.123Z info  a\\nb\\u001b[2J\\u2028c\n",
            Format(LogLevel.Information, "a\r\nb\u001b[2J\u2028c"));

    [Fact]
    public void An_exception_is_its_messages_or_all_of_it_on_the_same_line()
    {
        var exception = new InvalidOperationException("outer\nsecond", new IOException("inner"));
        Assert.Equal(
            "2026-11-22T19:13:24.123Z error failed: InvalidOperationException: outer\\nsecond <- IOException: inner\n",
            Format(LogLevel.Error, "failed", exception));
        var whole = Format(LogLevel.Error, "failed", exception, stackTraces: true);
        Assert.Contains("System.IO.IOException: inner", whole, StringComparison.Ordinal);
        Assert.Equal(whole.Length - 1, whole.IndexOf('\n', StringComparison.Ordinal));
    }

    private sealed class FixedTime : TimeProvider
    {
        public override DateTimeOffset GetUtcNow() => Now;
    }
}
