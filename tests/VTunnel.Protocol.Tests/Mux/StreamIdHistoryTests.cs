using VTunnel.Protocol.Mux;

namespace VTunnel.Protocol.Tests.Mux;

public class StreamIdHistoryTests
{
    [Fact]
    public void No_id_can_be_used_twice_in_whatever_order_they_come()
    {
        var random = new Random(7);
        var history = new StreamIdHistory();
        var used = new HashSet<uint>();
        var highest = 1u;
        for (var i = 0; i < 20_000; i++)
        {
            var id = (uint)Math.Max(1, (highest & ~1u) + 1 + 2 * (random.Next(100) == 0 ? random.Next(5000) : random.Next(-1100, 3)));
            var tooOld = (id >> 1) + 1024 <= highest >> 1;
            Assert.Equal(used.Contains(id) || (tooOld && used.Count > 0), history.WasUsed(id));
            Assert.Equal(!tooOld && used.Add(id), history.TryAdd(id));
            highest = Math.Max(highest, id);
        }

        Assert.True(used.Count > 2_000);
    }

    [Fact]
    public void The_last_id_there_is_can_be_used()
    {
        var history = new StreamIdHistory();
        Assert.True(history.TryAdd(2));
        Assert.True(history.TryAdd(uint.MaxValue - 1));
        Assert.False(history.TryAdd(uint.MaxValue - 1));
        Assert.True(history.TryAdd(uint.MaxValue - 3));
        Assert.True(history.WasUsed(2));
        Assert.False(history.WasUsed(uint.MaxValue - 5));
    }
}
