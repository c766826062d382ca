using System.Text;
using VTunnel.Targets.Http;

namespace VTunnel.Actors.Tests.Targets;

public sealed class UpgradeWatchTests
{
    [Theory]
    [InlineData("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nraw", true)]
    [InlineData("HTTP/1.1 101\r\n\r\n", true)]
    [InlineData("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching\r\n\r\n", true)]
    [InlineData("HTTP/1.1 103 Hints\nLink: x\n\nHTTP/1.1 100 Go\r\n\r\nHTTP/1.1 101 Switching\r\n\r\n", true)]
    [InlineData("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nHTTP/1.1 101", false)]
    [InlineData("HTTP/1.1 100 Continue\r\nX: HTTP/1.1 101\r\n\r\nHTTP/1.1 426 No\r\n\r\n", false)]
    [InlineData("HTTP/2.0 101 no such thing", false)]
    [InlineData("nothing of the kind", false)]
    [InlineData("HTTP/1.1 10", false)]
    public async Task Only_a_101_switches_however_it_is_split(string answer, bool switches)
    {
        var bytes = Encoding.Latin1.GetBytes(answer);
        for (var split = 0; split <= bytes.Length; split++)
        {
            var watch = new UpgradeWatch();
            if (split == 0 || !watch.Inspect(bytes.AsSpan(0, split)))
            {
                if (split == bytes.Length || !watch.Inspect(bytes.AsSpan(split)))
                    watch.Inspect([]);
            }

            Assert.Equal(switches, await watch.Switched.WaitAsync(EndpointExtensions.Patience));
        }
    }

    [Fact]
    public void Nothing_is_settled_before_the_status_is_there()
    {
        var watch = new UpgradeWatch();
        foreach (var b in "HTTP/1.1 100 x\r\n\r\nHTTP/1.1 10"u8.ToArray())
            Assert.False(watch.Inspect([b]));
        Assert.False(watch.Switched.IsCompleted);
        Assert.True(watch.Inspect("1"u8));
    }
}
