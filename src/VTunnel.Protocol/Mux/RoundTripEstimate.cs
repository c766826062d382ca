namespace VTunnel.Protocol.Mux;

/// <summary>The round trip of a session from its pings.</summary>
internal sealed class RoundTripEstimate
{
    private const int SampleCount = 8;
    private readonly TimeSpan[] _samples = new TimeSpan[SampleCount];
    private int _count;

    /// <summary>Smoothed, for display; zero while unknown.</summary>
    public TimeSpan Smoothed { get; private set; }

    /// <summary>
    /// The least of the last eight; zero while unknown. Windows are sized by it: a sample that waited in queues, or for
    /// a lost carrier to come back, says nothing about the path.
    /// </summary>
    public TimeSpan Least { get; private set; }

    public void Add(TimeSpan sample)
    {
        // A clock that did not move between ping and answer still measured a round trip.
        if (sample < TimeSpan.FromTicks(1))
            sample = TimeSpan.FromTicks(1);

        _samples[_count++ % SampleCount] = sample;
        Smoothed = _count == 1 ? sample : (Smoothed * 7 + sample) / 8;

        var least = sample;
        for (var i = 0; i < Math.Min(_count, SampleCount); i++)
        {
            if (_samples[i] < least)
                least = _samples[i];
        }

        Least = least;
    }
}
