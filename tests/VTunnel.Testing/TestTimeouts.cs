namespace VTunnel.Testing;

/// <summary>How long tests wait. Nothing waits for these when it works; a test that needs them has failed.</summary>
public static class TestTimeouts
{
    /// <summary>For one step: long enough for a loaded machine.</summary>
    public static readonly TimeSpan Step = TimeSpan.FromSeconds(60);

    /// <summary>For a test that moves much data or starts many programs.</summary>
    public static readonly TimeSpan Long = TimeSpan.FromSeconds(180);
}
