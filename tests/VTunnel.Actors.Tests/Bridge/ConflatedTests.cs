using VTunnel.Bridge.Consuming;

namespace VTunnel.Actors.Tests.Bridge;

public sealed class ConflatedTests
{
    [Fact]
    public void One_at_a_time_and_of_those_that_come_meanwhile_the_newest()
    {
        var begun = new List<string>();
        var values = new Conflated<string>(begun.Add);
        values.Offer("first");
        values.Offer("second");
        values.Offer("third");
        Assert.Equal(["first"], begun);

        values.Done();
        Assert.Equal(["first", "third"], begun);
        values.Offer("fourth");
        Assert.Equal(["first", "third"], begun);

        values.Done();
        values.Done();
        Assert.Equal(["first", "third", "fourth"], begun);
        values.Offer("fifth");
        Assert.Equal(["first", "third", "fourth", "fifth"], begun);
    }
}
