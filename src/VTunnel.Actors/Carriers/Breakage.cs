namespace VTunnel.Carriers;

/// <summary>Why a connection broke, for people: the system's outermost message often says only that there is an inner one.</summary>
internal static class Breakage
{
    /// <summary>The innermost reason, without a full stop; our own words where the system speaks of its own objects.</summary>
    public static string Why(Exception e) => e.GetBaseException() switch
    {
        NotSupportedException or InvalidOperationException or OperationCanceledException => "it was broken off",
        EndOfStreamException => "the far end closed it",
        var cause => cause.Message.TrimEnd('.', '\n'),
    };
}
