using VTunnel.Options;

namespace VTunnel.Actors.Tests.Options;

public sealed class PortRangesTests
{
    [Fact]
    public void Ports_and_ranges_are_read_in_order()
    {
        Assert.True(PortRanges.TryParse(" 9000, 9100 - 9199,1-65535", out var ranges, out _));
        Assert.Equal([new PortRange(9000, 9000), new PortRange(9100, 9199), new PortRange(1, 65535)], ranges);
    }

    [Theory]
    [InlineData(null, "such as 9000,9100-9199")]
    [InlineData("", "such as 9000,9100-9199")]
    [InlineData("9000,", "such as 9000,9100-9199")]
    [InlineData("0", "from 1 to 65535")]
    [InlineData("65536", "from 1 to 65535")]
    [InlineData("-1", "from 1 to 65535")]
    [InlineData("9000-", "from 1 to 65535")]
    [InlineData("1-2-3", "from 1 to 65535")]
    [InlineData("http", "from 1 to 65535")]
    [InlineData("9199-9100", "the range 9199-9100 runs backwards; write 9100-9199")]
    public void What_is_not_a_list_of_ports_is_refused(string? text, string expected)
    {
        Assert.False(PortRanges.TryParse(text, out _, out var problem));
        Assert.Contains(expected, problem, StringComparison.Ordinal);
    }
}
