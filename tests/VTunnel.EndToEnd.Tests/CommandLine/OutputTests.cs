using VTunnel.Cli;
using VTunnel.EndToEnd.Tests.Support;

namespace VTunnel.EndToEnd.Tests.CommandLine;

/// <summary>What becomes of a program that cannot say what it has to say.</summary>
public sealed class OutputTests
{
    [Theory]
    [InlineData("version")]
    [InlineData("server --help")]
    public async Task Output_that_cannot_be_written_is_told_and_is_no_success(string command)
    {
        var result = await Tools.TryRunAsync("bash", ["-c", $"'{VTunnelProgram.Path}' {command} > /dev/full"]);
        Assert.Equal(ExitCodes.InternalError, result.ExitCode);
        var line = Assert.Single(VTunnelProgram.Lines(result.StandardError));
        Assert.StartsWith("vtunnel: internal error: System.IO.IOException: No space left on device", line, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_reader_who_has_seen_enough_is_no_fault()
    {
        var result = await Tools.TryRunAsync("bash", ["-c", $"set -o pipefail; '{VTunnelProgram.Path}' server --help | head -n 1"]);
        Assert.Equal(ExitCodes.Success, result.ExitCode);
        Assert.Equal("", result.StandardError);
    }
}
