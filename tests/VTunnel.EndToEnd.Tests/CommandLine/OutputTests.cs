using VTunnel.Cli;
using VTunnel.EndToEnd.Tests.Support;

namespace VTunnel.EndToEnd.Tests.CommandLine;

/// <summary>What becomes of a program that cannot say what it has to say.</summary>
public sealed class OutputTests
{
    [Theory]
    [InlineData("version > /dev/full", "no space left on device")]
    [InlineData("--version > /dev/full", "no space left on device")]
    [InlineData("server --help > /dev/full", "no space left on device")]
    [InlineData("token create --name alice > /dev/full", "no space left on device")]
    [InlineData("'[suggest:10]' 'vtunnel se' > /dev/full", "no space left on device")]
    [InlineData("version >&-", "bad file descriptor")]
    public async Task Output_that_cannot_be_written_is_told_and_is_no_success(string command, string reason)
    {
        var result = await Tools.TryRunAsync("bash", ["-c", $"'{VTunnelProgram.Path}' {command}"]);
        Assert.Equal([$"vtunnel: standard output cannot be written: {reason}"], VTunnelProgram.Lines(result.StandardError));
        Assert.Equal(ExitCodes.InternalError, result.ExitCode);
    }

    [Theory]
    [InlineData("server --bogus 2> /dev/full", ExitCodes.Usage)]
    [InlineData("client 2>&-", ExitCodes.Usage)]
    [InlineData("server --host 192.0.2.1 2> /dev/full", ExitCodes.CannotListen)]
    [InlineData("version > /dev/full 2>&1", ExitCodes.InternalError)]
    public async Task Errors_that_cannot_be_written_leave_the_exit_code_as_it_is(string command, int expected)
    {
        var result = await Tools.TryRunAsync("bash", ["-c", $"'{VTunnelProgram.Path}' {command}"]);
        Assert.Equal(expected, result.ExitCode);
        Assert.Equal("", result.StandardOutput);
    }

    [Fact]
    public async Task A_reader_who_has_seen_enough_is_no_fault()
    {
        var result = await Tools.TryRunAsync("bash", ["-c", $"set -o pipefail; '{VTunnelProgram.Path}' server --help | head -n 1"]);
        Assert.Equal(ExitCodes.Success, result.ExitCode);
        Assert.Equal("", result.StandardError);
    }
}
